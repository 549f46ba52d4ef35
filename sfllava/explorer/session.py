"""Questions asked one after another about a few videos: what the explorer does, without its widgets."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from sfllava.attribution.attribution import Attribution, attribute
from sfllava.attribution.leave_out import leave_out
from sfllava.explorer.feature_cache import FeatureCache
from sfllava.files import as_csv
from sfllava.models.load import TINY
from sfllava.prompts import Prompt
from sfllava.sampler.video import Video
from sfllava.settings import Setting
from sfllava.types import Question

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM


@dataclass(frozen=True, eq=False)
class Reply:
    """An answer, how it came about, and what of it was new: the rest was at hand from earlier ones."""

    video: str
    setting: Setting
    question: Question
    text: str
    token_ids: tuple[int, ...]
    stopped: bool
    max_new_tokens: int
    visual_tokens: int
    decoded_frames: int
    encoded_frames: int
    reused_tokens: int
    seconds: dict[str, float]
    """decode, encode, prefill (up to the first word) and generate"""

    def to_dict(self) -> dict[str, Any]:
        """A row of the history."""
        return {
            "video": self.video,
            "setting": self.setting.name,
            "frames": self.setting.frames,
            "prompt": self.setting.prompt,
            "question": self.question.text,
            "options": list(self.question.options),
            "answer": self.text,
            "stopped": self.stopped,
            "token_ids": list(self.token_ids),
            "max_new_tokens": self.max_new_tokens,
            "visual_tokens": self.visual_tokens,
            "decoded_frames": self.decoded_frames,
            "encoded_frames": self.encoded_frames,
            "reused_tokens": self.reused_tokens,
            **{f"{stage}_seconds": round(seconds, 4) for stage, seconds in self.seconds.items()},
        }


@dataclass
class Session:
    """A model, what it has seen of the last few videos, and what was asked."""

    model: VideoLM
    features: FeatureCache
    replies: list[Reply] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._prefix = self.model.new_prefixes(1)[0]

    def ask(
        self,
        path: str | Path,
        setting: Setting,
        question: Question,
        max_new_tokens: int = 256,
        going: Callable[[], bool] = lambda: True,
    ) -> Iterator[str]:
        """The answer so far, after each token; at the end, or stopped, it is the last of `replies`.

        `going` is asked before each token. Raises ContextError before a frame is encoded.
        """
        model, prompt = self.model, _prompt(setting)
        text_tokens = sum(map(len, model.info.prompt_ids(question, prompt)))

        def check(frames: int) -> None:
            model.info.check_context(setting.token_count(*model.info.grid, frames), text_tokens, question.text)

        seen = self.features.seen(path, setting, check)
        start = time.perf_counter()
        tokens = setting.tokens(seen.grid)
        said: list[int] = []
        first, stopped = start, not going()
        if not stopped:
            self._prefix.reused = 0
            for token in model.stream(
                tokens, question, max_new_tokens=max_new_tokens, prompt=prompt, prefix=self._prefix
            ):
                first = first if said else time.perf_counter()
                said.append(token)
                yield model.info.tokenizer.decode(said)
                if not going():
                    stopped = True
                    break
        seconds = {**seen.seconds, "prefill": first - start, "generate": time.perf_counter() - first}
        self.replies.append(
            Reply(
                str(path), setting, question, model.info.tokenizer.decode(said), tuple(said), stopped, max_new_tokens,
                len(tokens), seen.decoded, seen.encoded, self._prefix.reused, seconds,
            )
        )  # fmt: skip

    def answer(self, path: str | Path, setting: Setting, question: Question | str, max_new_tokens: int = 256) -> Reply:
        """The whole answer at once."""
        question = Question(question) if isinstance(question, str) else question
        for _ in self.ask(path, setting, question, max_new_tokens):
            pass
        return self.replies[-1]

    def video(self, path: str | Path, frames: int) -> Video:
        """A sample of a video's frames."""
        return self.features.video(path, frames)

    def attribute(self, reply: Reply) -> Attribution:
        """Where the model looked while it gave a reply; computed again only where it has been dropped since."""
        found = self.kept_attribution(reply)
        if found is None:
            seen = self.features.seen(reply.video, reply.setting)
            found = attribute(
                self.model, seen.video, reply.setting, reply.question, reply.token_ids,
                grid=seen.grid, prefix=self._prefix,
            )  # fmt: skip
        self.features.keep(reply, found, _size(found))
        return found

    def kept_attribution(self, reply: Reply) -> Attribution | None:
        """What `look` gave, where that is at hand."""
        return self.features.kept(reply)

    def leave_out(
        self, reply: Reply, parts: list[str] | None = None, going: Callable[[], bool] = lambda: True
    ) -> Iterator[tuple[str, float]]:
        """The exact change of the reply's log-likelihood without a pathway or a frame, one after the other."""
        seen = self.attribute(reply)
        grid = self.features.seen(reply.video, reply.setting).grid
        yield from leave_out(self.model, seen, grid, parts, prefix=self._prefix, going=going)

    @property
    def table(self) -> pd.DataFrame:
        """A row a reply, in the order of asking."""
        return pd.DataFrame([reply.to_dict() for reply in self.replies])

    def cell(self, reply: Reply) -> str:
        """Python for a notebook cell that asks the same again."""
        prompt = f", prompt={reply.setting.prompt!r}" if reply.setting.prompt else ""
        question = f"sfllava.Question({reply.question.text!r}"
        if reply.question.task != "open":
            question += f", options={reply.question.options!r}, task={reply.question.task!r}"
        return (
            "import sfllava\n\n"
            f"model = sfllava.load_model({_name(self.model)!r})\n"
            f"setting = sfllava.Setting({reply.setting.frames}, {str(reply.setting.aggregation)!r}{prompt})\n"
            f"question = {question})\n"
            f"asked = sfllava.ask(model, {reply.video!r}, [question], setting, max_new_tokens={reply.max_new_tokens})\n"
            "print(asked.answers[0].text)\n"
        )


def csv(table: pd.DataFrame) -> str:
    """A history as CSV; lists are JSON."""
    flat = table.map(lambda value: json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value)
    return as_csv(flat)


def _size(seen: Attribution) -> int:
    """Bytes of what is large in it."""
    tensors = [seen.attention, *(tensor for part in seen.pathways for tensor in (part.frames, part.patches))]
    return seen.video.frames.nbytes + sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _prompt(setting: Setting) -> Prompt | None:
    return Prompt(setting.prompt, setting.name) if setting.prompt else None


def _name(model: VideoLM) -> str:
    """What `load_model` takes: the small model has a name, others their folder."""
    return "tiny" if model.info.path == TINY else str(model.info.path)
