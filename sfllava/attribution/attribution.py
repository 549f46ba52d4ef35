"""Attention of an answer, mapped back to the frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from sfllava.attribution.sources import TokenSource, token_sources
from sfllava.models.replay import attention_weights, log_likelihoods
from sfllava.prompts import Prompt
from sfllava.sampler.video import Video
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM
    from sfllava.models.packed_decoding import Prefix


EXPLANATION = (
    "Attention here is the mean over all heads and layers of the weight that the position from which a word was said "
    "gave to each visual token, spread evenly over the frames and patches that the token was pooled from. It shows "
    "which tokens were read, not which ones made the answer: a token can be read and not matter, later layers mix what "
    "earlier ones read, and some tokens gather attention without content. What a part did for this answer is measured "
    "by leaving it out: the change of the same answer's log-likelihood when those tokens are not in the prompt. That "
    "is exact for one part at a time; parts that show the same thing can stand in for each other."
)


@dataclass(frozen=True)
class Attribution:
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
    pathways: list[TokenSource]
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


def attribute(
    model: VideoLM,
    video: Video,
    setting: Setting,
    question: Question | str,
    said: Sequence[int] | None = None,
    *,
    grid: Tensor | None = None,
    prompt: Prompt | None = None,
    max_new_tokens: int = 256,
    prefix: Prefix | None = None,
) -> Attribution:
    """Where the model looks while it answers (or says the token ids `said`), in a second pass over the answer.

    `grid` is the patch grid (T h w D) of the frames where it is at hand.
    """
    question = Question(question) if isinstance(question, str) else question
    prompt = prompt or (Prompt(setting.prompt, setting.name) if setting.prompt else None)
    grid = model.encode(setting.images(video.frames)) if grid is None else grid
    parts = token_sources(setting.aggregation, grid)
    tokens, prefix = setting.tokens(grid), prefix or model.new_prefixes(1)[0]
    if said is None:
        said = list(model.stream(tokens, question, max_new_tokens=max_new_tokens, prompt=prompt, prefix=prefix))
    rows = attention_weights(model, tokens, question, said, prompt, prefix).cpu()
    likely = float(log_likelihoods(model, tokens, question, said, prompt, prefix).sum())
    words, owner = words_of(model, said)
    mean = torch.zeros(len(words), len(said))
    mean[owner, range(len(said))] = 1
    seen = (mean / mean.sum(1, keepdim=True)) @ rows
    text = model.info.tokenizer.decode(list(said))
    return Attribution(video, setting, question, text, tuple(said), words, seen, parts, model.info.grid, likely)


def words_of(model: VideoLM, said: Sequence[int]) -> tuple[tuple[str, ...], list[int]]:
    """The words of an answer, and for each of its tokens the word that it is in."""
    words: list[str] = []
    owner: list[int] = []
    before = ""
    for i in range(len(said)):
        text = model.info.tokenizer.decode(list(said[: i + 1]))
        new = text[len(before) :] if text.startswith(before) else text
        if not words or new[:1].isspace():
            words.append(new.strip())
        else:  # part of a word, or bytes of a character that is not whole yet
            words[-1] = words[-1] + new if text.startswith(before) else " ".join(text.split()[-1:])
        owner.append(len(words) - 1)
        before = text
    return tuple(words), owner
