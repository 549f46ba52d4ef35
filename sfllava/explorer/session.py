"""What the explorer does, without its widgets: questions about a few videos, one after another."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import pandas as pd

from sfllava.attribution.attribution import Attribution, attribute
from sfllava.attribution.leave_out import leave_out
from sfllava.explorer.feature_cache import FeatureCache
from sfllava.files import Row, as_csv
from sfllava.models.base import VideoLM
from sfllava.models.placement import TINY
from sfllava.runs.frame_choice import FrameChooser
from sfllava.runs.selection_source import SelectionSource
from sfllava.runs.video_choice import ChosenFrames, choose_frames, prepare_source
from sfllava.sampler.sampling import PUBLISHED, AnySample
from sfllava.sampler.video import Video
from sfllava.settings import Setting
from sfllava.types import Question


@dataclass(frozen=True, eq=False)
class Reply:
    """An answer, and how it was computed.

    Attributes:
        video: its path.
        setting: the setting of the answer; where frames were chosen for the question, with these frames.
        question: what was asked.
        text: the answer, as far as it was generated.
        token_ids: its tokens.
        stopped: whether the user stopped it.
        max_new_tokens: longest answer.
        visual_tokens: visual tokens of the prompt.
        decoded_frames: frames that had to be decoded.
        encoded_frames: images that had to be encoded.
        reused_tokens: visual tokens whose keys and values were kept from the answer before.
        seconds: by stage: select if frames were chosen, decode, encode, prefill (up to the first token) and generate.
        selected: the frames that were chosen for the question, as a run records them; empty if none were.
        source: what they were chosen with.
    """

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
    selected: Row = field(default_factory=dict)
    source: SelectionSource | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return a row of the history."""
        return {
            "video": self.video,
            "setting": self.setting.name,
            "frames": self.setting.frames,
            "frame_rule": self.setting.frame_rule,
            "selection": str(self.setting.selection),
            "selected_frames": self.selected.get("frames", []),
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
    """A model, the features of the last few videos, and the replies so far."""

    model: VideoLM
    features: FeatureCache
    replies: list[Reply] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._prefix = self.model.new_prefixes(1)[0]
        self._chooser: tuple[SelectionSource, FrameChooser] | None = None

    def _check_context(self, setting: Setting, question: Question, frames: int) -> None:
        """Raise ContextError if a question does not fit the context with the visual tokens of so many frames."""
        info = self.model.info
        text_tokens = sum(map(len, info.prompt_ids(question, setting.prompt_or(None))))
        info.check_context(info.prompt_rows(setting, frames), text_tokens, question.text)

    def ask(
        self,
        path: str | Path,
        setting: Setting,
        question: Question,
        max_new_tokens: int = 256,
        going: Callable[[], bool] = lambda: True,
        source: SelectionSource | None = None,
    ) -> Iterator[str]:
        """Answer a question; at the end, or when stopped, the reply is the last of `replies`.

        Args:
            max_new_tokens: longest answer.
            going: asked before each token; False stops the answer.
            source: what frames are chosen with, where the setting chooses them for the question.

        Yields:
            The answer so far, after each token.

        Raises:
            ContextError: the prompt does not fit the context; no frame is encoded then.
            SfllavaError: no frames can be chosen for the question.
        """
        model, setting, prompt = self.model, setting.for_model(self.model.info), setting.prompt_or(None)
        start, selected, selecting = time.perf_counter(), {}, {}
        if setting.question_aware:
            chosen = self.choose(path, setting, question, source)
            setting, selected = chosen.setting, chosen.selected
            selecting = {"select": time.perf_counter() - start}
        sample = self.features.sample(path, setting, partial(self._check_context, setting, question))
        start = time.perf_counter()
        tokens = model.tokens(setting, sample.grid, sample.video.pts_seconds)
        generated_ids: list[int] = []
        first, stopped, options = start, not going(), {"max_new_tokens": max_new_tokens, "prompt": prompt}
        if not stopped:
            self._prefix.reused = 0
            for token in model.stream(tokens, question, prefix=self._prefix, **options):
                first = first if generated_ids else time.perf_counter()
                generated_ids.append(token)
                yield model.info.tokenizer.decode(generated_ids)
                if stopped := not going():
                    break
        seconds = {**selecting, **sample.seconds, "prefill": first - start, "generate": time.perf_counter() - first}
        text, ids = model.info.tokenizer.decode(generated_ids), tuple(generated_ids)
        self.replies.append(
            Reply(
                str(path), setting, question, text, ids, stopped, max_new_tokens, tokens.count, sample.decoded,
                sample.encoded, self._prefix.reused, seconds, selected, source if selected else None,
            )
        )  # fmt: skip

    def answer(
        self,
        path: str | Path,
        setting: Setting,
        question: Question | str,
        max_new_tokens: int = 256,
        source: SelectionSource | None = None,
    ) -> Reply:
        """Answer a question and return the reply."""
        question = Question(question) if isinstance(question, str) else question
        for _ in self.ask(path, setting, question, max_new_tokens, source=source):
            pass
        return self.replies[-1]

    def choose(
        self, path: str | Path, setting: Setting, question: Question, source: SelectionSource | None
    ) -> ChosenFrames:
        """Choose the frames of a question; the scorer stays loaded, and scores stay on disk.

        Raises:
            VideoError: the video cannot be read.
            SfllavaError: no frames can be chosen.
        """
        prepared = prepare_source(source or SelectionSource(), setting, [question], path)
        if self._chooser is None or self._chooser[0] != prepared:
            self._chooser = prepared, FrameChooser(prepared, str(self.model.info.device))
        read = partial(self.features.read, path)
        return choose_frames(self._chooser[1], path, setting.for_model(self.model.info), [question], read)[0]

    def video(self, path: str | Path, sample: AnySample) -> Video:
        """Sample frames of a video."""
        return self.features.video(path, sample)

    def attribute(self, reply: Reply) -> Attribution:
        """Compute the attention of a reply, unless it is still kept."""
        found = self.kept_attribution(reply)
        if found is None:
            sample = self.features.sample(reply.video, reply.setting)
            found = attribute(
                self.model, sample.video, reply.setting, reply.question, reply.token_ids,
                grid=sample.grid, prefix=self._prefix,
            )  # fmt: skip
        self.features.keep(reply, found, _size(found))
        return found

    def kept_attribution(self, reply: Reply) -> Attribution | None:
        """Return the attention of a reply if it is kept."""
        return self.features.kept(reply)

    def leave_out(
        self, reply: Reply, parts: list[str] | None = None, going: Callable[[], bool] = lambda: True
    ) -> Iterator[tuple[str, float]]:
        """Measure the change of the reply's log-likelihood without each part; see `attribution.leave_out`."""
        attribution = self.attribute(reply)
        grid = self.features.sample(reply.video, reply.setting).grid
        yield from leave_out(self.model, attribution, grid, parts, prefix=self._prefix, going=going)

    @property
    def table(self) -> pd.DataFrame:
        """One row per reply, in the order of asking."""
        return pd.DataFrame([reply.to_dict() for reply in self.replies])

    def cell(self, reply: Reply) -> str:
        """Return Python code for a notebook cell that asks the same question again."""
        prompt = f", prompt={reply.setting.prompt!r}" if reply.setting.prompt else ""
        rule = "" if reply.setting.frame_rule == PUBLISHED else f", frame_rule={reply.setting.frame_rule!r}"
        made, chosen = "", ""
        if reply.setting.question_aware:
            rule += f", selection={str(reply.setting.selection)!r}, selection_for={reply.setting.selection_for!r}"
            made, chosen = f"source = sfllava.{_code(reply.source)}\n", ", selection=source"
        question = f"sfllava.Question({reply.question.text!r}"
        if reply.question.task != "open":
            question += f", options={reply.question.options!r}, task={reply.question.task!r}"
        info = self.model.info
        known = {**info.options, "family": info.family} | ({"quantize": info.quantize} if info.quantize else {})
        options = "".join(f", {name}={value!r}" for name, value in known.items())
        return (
            "import sfllava\n\n"
            f"model = sfllava.load_model({_name(self.model)!r}, context={info.context}{options})\n"
            f"setting = sfllava.Setting({reply.setting.frames}, {str(reply.setting.aggregation)!r}{prompt}{rule})\n"
            f"question = {question})\n"
            f"{made}asked = sfllava.ask(\n"
            f"    model, {reply.video!r}, [question], setting, max_new_tokens={reply.max_new_tokens}{chosen}\n)\n"
            "print(asked.answers[0].text)\n"
        )


def csv(table: pd.DataFrame) -> str:
    """Write a history as CSV; lists become JSON."""
    flat = table.map(lambda value: json.dumps(value, ensure_ascii=False) if isinstance(value, list) else value)
    return as_csv(flat)


def _code(source: SelectionSource | None) -> str:
    """Return Python code for what frames are chosen with."""
    source = source or SelectionSource()
    names = {"scorer": source.scorer, "text": source.text, "cache": source.cache, "frame_list": source.frame_list}
    given = {name: value for name, value in names.items() if value != getattr(SelectionSource, name)}
    listed = (f"{name}={str(getattr(value, 'path', value))!r}" for name, value in given.items())
    return f"SelectionSource({', '.join(listed)})"


def _size(attribution: Attribution) -> int:
    """Return the bytes of the frames and tensors."""
    tensors = [attribution.attention]
    tensors += [tensor for source in attribution.sources for tensor in (source.frames, source.patches)]
    return attribution.video.frames.nbytes + sum(tensor.numel() * tensor.element_size() for tensor in tensors)


def _name(model: VideoLM) -> str:
    """Return what `load_model` takes: a name for the model in the package, else the folder."""
    return "tiny" if model.info.path == TINY else str(model.info.path)
