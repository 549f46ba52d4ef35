"""Where the model looked while it answered, mapped back on the frames, and what leaving a part out really changes."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from sfllava.methods import Keyframes, Merged, keyframes
from sfllava.models.replay import attention, score
from sfllava.prompts import Prompt
from sfllava.sampler import Video
from sfllava.slowfast import Pool, SlowFast
from sfllava.types import Question, Setting, SfllavaError, name_of

if TYPE_CHECKING:
    from sfllava.models.llava_next import LlavaNext, Prefix

HELP = (
    "Attention here is the mean over all heads and layers of the weight that the position from which a word was said "
    "gave to each visual token, spread evenly over the frames and patches that the token was pooled from. It shows "
    "which tokens were read, not which ones made the answer: a token can be read and not matter, later layers mix what "
    "earlier ones read, and some tokens gather attention without content. What a part did for this answer is measured "
    "by leaving it out: the change of the same answer's log-likelihood when those tokens are not in the prompt. That "
    "is exact for one part at a time; parts that show the same thing can stand in for each other."
)


@dataclass(frozen=True)
class Pathway:
    """A run of visual tokens and where they are from: each token's shares of frames (N T) and of patches (N h*w)."""

    name: str
    first: int
    frames: Tensor
    patches: Tensor

    @property
    def tokens(self) -> slice:
        return slice(self.first, self.first + len(self.frames))

    def heat(self, weights: Tensor) -> Tensor:
        """(N) weights of this pathway's tokens -> (T h*w), of the same sum."""
        return (self.frames * weights[:, None]).T @ self.patches


def pathways(aggregation: Any, grid: Tensor) -> list[Pathway]:
    """Where each visual token of a patch grid (T h w D) is from: the inverse of the pools.

    A pool is run over marks in place of features, one channel a frame and one a patch: what it pools together it
    then tells by itself, a pool of your own too, as long as it averages or takes maxima over some patches of some
    frames. Raises SfllavaError for an aggregation that tiles frames or merges by likeness.
    """
    t, h, w, _ = grid.shape
    marks = torch.cat(
        [
            torch.eye(t)[:, None, None].expand(t, h, w, t),
            torch.eye(h * w).reshape(1, h, w, h * w).expand(t, h, w, h * w),
        ],
        dim=-1,
    )
    runs: list[tuple[str, Tensor]]
    if isinstance(aggregation, SlowFast):
        runs = [("slow", aggregation.slow_tokens(marks)), ("fast", aggregation.fast_tokens(marks))]
    elif isinstance(aggregation, Keyframes):
        chosen = keyframes(grid.flatten(1, 2).mean(1), aggregation.keyframes)
        runs = [("key frames", Pool(aggregation.pool)(marks[chosen]))]
    elif callable(aggregation) and not (isinstance(aggregation, Merged) or hasattr(aggregation, "compose")):
        marked: Any = aggregation(marks)
        runs = [("all frames", marked)]
    else:
        raise SfllavaError(
            f"{name_of(aggregation)}: its tokens cannot be mapped back on the frames; SlowFast, plain pools and key "
            "frames can"
        )
    found, first = [], 0
    for name, marked in runs:
        frames, patches = (part / part.sum(1, keepdim=True) for part in (marked[:, :t], marked[:, t:]))
        if len(marked):
            found.append(Pathway(name, first, frames, patches))
        first += len(marked)
    return found


@dataclass(frozen=True)
class Look:
    """An answer and where the model looked: for each word the attention (W N) over the visual tokens.

    `left_out` has what was measured so far: "frame 3" (of the sample, from 0) or "slow" -> the change of the
    answer's log-likelihood without it, in nats; below zero, the answer needed it.
    """

    video: Video
    setting: Setting
    question: Question
    text: str
    token_ids: tuple[int, ...]
    words: tuple[str, ...]
    attention: Tensor
    pathways: list[Pathway]
    grid: tuple[int, int]
    log_likelihood: float
    left_out: dict[str, float] = field(default_factory=dict)

    def heat(self, pathway: str, word: int | None = None) -> np.ndarray:
        """(T h w) attention of a word, or its mean over all words, on the frames' patches, through one pathway."""
        found = next((p for p in self.pathways if p.name == pathway), None)
        if found is None:
            raise SfllavaError(
                f"no pathway is called {pathway!r}; there are {', '.join(p.name for p in self.pathways)}"
            )
        weights = self.attention.mean(0) if word is None else self.attention[word]
        return found.heat(weights[found.tokens]).reshape(-1, *self.grid).numpy()

    def totals(self, word: int | None = None) -> dict[str, np.ndarray]:
        """(T) attention by frame through each pathway; together they sum to the visual tokens' share."""
        return {pathway.name: self.heat(pathway.name, word).sum((1, 2)) for pathway in self.pathways}


def look(
    model: LlavaNext,
    video: Video,
    setting: Setting,
    question: Question | str,
    said: Sequence[int] | None = None,
    *,
    grid: Tensor | None = None,
    prompt: Prompt | None = None,
    max_new_tokens: int = 256,
    prefix: Prefix | None = None,
) -> Look:
    """Where the model looks while it answers (or says the token ids `said`), in a second pass over the answer.

    `grid` is the patch grid (T h w D) of the frames where it is at hand.
    """
    question = Question(question) if isinstance(question, str) else question
    prompt = prompt or (Prompt(setting.prompt, setting.name) if setting.prompt else None)
    grid = model.encode(setting.images(video.frames)) if grid is None else grid
    parts = pathways(setting.aggregation, grid)
    tokens, prefix = setting.tokens(grid), prefix or model.new_prefixes(1)[0]
    if said is None:
        said = list(model.stream(tokens, question, max_new_tokens=max_new_tokens, prompt=prompt, prefix=prefix))
    rows = attention(model, tokens, question, said, prompt, prefix).cpu()
    likely = float(score(model, tokens, question, said, prompt, prefix).sum())
    words, owner = words_of(model, said)
    mean = torch.zeros(len(words), len(said))
    mean[owner, range(len(said))] = 1
    seen = (mean / mean.sum(1, keepdim=True)) @ rows
    text = model.tokenizer.decode(list(said))
    return Look(video, setting, question, text, tuple(said), words, seen, parts, model.grid, likely)


def words_of(model: LlavaNext, said: Sequence[int]) -> tuple[tuple[str, ...], list[int]]:
    """The words of an answer, and for each of its tokens the word that it is in."""
    words: list[str] = []
    owner: list[int] = []
    before = ""
    for i in range(len(said)):
        text = model.tokenizer.decode(list(said[: i + 1]))
        new = text[len(before) :] if text.startswith(before) else text
        if not words or new[:1].isspace():
            words.append(new.strip())
        else:  # part of a word, or bytes of a character that is not whole yet
            words[-1] = words[-1] + new if text.startswith(before) else " ".join(text.split()[-1:])
        owner.append(len(words) - 1)
        before = text
    return tuple(words), owner


def parts_of(seen: Look) -> dict[str, Tensor]:
    """What can be left out: each pathway where there are two, each frame; which visual tokens (N) stay without it.

    A frame takes the tokens along that it alone is in. Where tokens mix frames, no frame can be left out.
    """
    n = seen.attention.shape[1]
    keep = {}
    if len(seen.pathways) > 1:
        for pathway in seen.pathways:
            keep[pathway.name] = torch.ones(n, dtype=torch.bool)
            keep[pathway.name][pathway.tokens] = False
    shares = torch.cat([pathway.frames for pathway in seen.pathways])
    if (shares.max(1).values == 1).all():
        # the last frame first: what stands before the first token left out is not computed again
        for frame in reversed(range(shares.shape[1])):
            without = shares[:, frame] == 0
            if without.any() and not without.all():
                keep[f"frame {frame}"] = without
    return keep


def leave_out(
    model: LlavaNext,
    seen: Look,
    grid: Tensor,
    parts: Sequence[str] | None = None,
    *,
    prompt: Prompt | None = None,
    prefix: Prefix | None = None,
    going: Callable[[], bool] = lambda: True,
) -> Iterator[tuple[str, float]]:
    """Parts ("slow", "fast", "frame 3"; all) and the exact change of the answer's log-likelihood without them.

    The tokens behind those left out move up, as in a prompt that never had them. Each is kept in `seen.left_out`.
    """
    prompt = prompt or (Prompt(seen.setting.prompt, seen.setting.name) if seen.setting.prompt else None)
    possible, tokens = parts_of(seen), seen.setting.tokens(grid)
    for part in possible if parts is None else parts:
        if part not in possible:
            raise SfllavaError(f"{part!r} cannot be left out; what can: {', '.join(possible) or 'nothing here'}")
        if not going():
            return
        rest = tokens[possible[part].to(tokens.device)]
        without = float(score(model, rest, seen.question, seen.token_ids, prompt, prefix).sum())
        seen.left_out[part] = without - seen.log_likelihood
        yield part, seen.left_out[part]
