"""The attention of an answer, mapped back to the frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfllava.aggregators.sources import TokenSource, token_sources
from sfllava.aggregators.tower import first_channels
from sfllava.display.html import table
from sfllava.display.objects import card, evenly_spaced, more, shares, strip, text, time_of
from sfllava.models.base import VideoLM
from sfllava.models.packed_decoding import Prefix
from sfllava.models.replay import attention_weights, log_likelihoods
from sfllava.prompts import Prompt
from sfllava.sampler.video import Video
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

EXPLANATION = (
    "Attention here is the weight that each visual token gets from the position that generated a word, averaged over "
    "all heads and layers. It is spread evenly over the frames and patches that the token was pooled from. It shows "
    "which tokens the model read, not which ones made the answer: the model can read a token that does not matter, "
    "later layers mix what earlier layers read, and some tokens attract attention without content. To measure what a "
    "part did for this answer, leave it out: the number is the change in the log-likelihood of the same answer when "
    "those tokens are not in the prompt. It is exact for one part at a time. Parts that show the same thing can "
    "replace each other."
)


@dataclass(frozen=True)
class Attribution:
    """An answer, and for each of its words the attention to the visual tokens.

    Attributes:
        video: the sampled frames (T).
        setting: the setting of the answer.
        question: what was asked.
        text: the answer.
        token_ids: the tokens of the answer.
        words: its words (W).
        attention: (W N) attention of each word to each visual token.
        sources: where the visual tokens come from, by part.
        grid: rows and columns of patches in a frame.
        log_likelihood: of the answer, in nats.
        left_out: part, such as "frame 3" (of the sample, from 0) or "slow" -> change of the log-likelihood without it,
            in nats, as far as measured. Below zero, the answer needed that part.
    """

    video: Video
    setting: Setting
    question: Question
    text: str
    token_ids: tuple[int, ...]
    words: tuple[str, ...]
    attention: Tensor
    sources: list[TokenSource]
    grid: tuple[int, int]
    log_likelihood: float
    left_out: dict[str, float] = field(default_factory=dict)

    def heat(self, part: str, word: int | None = None) -> np.ndarray:
        """Return the attention on the patches of the frames through one part.

        Args:
            part: the name of a source, such as "slow".
            word: index of the word; None for the mean over all words.

        Returns:
            (T h w) attention.

        Raises:
            SfllavaError: there is no such part.
        """
        found = next((source for source in self.sources if source.name == part), None)
        if found is None:
            known = ", ".join(source.name for source in self.sources)
            raise SfllavaError(f"no part of the visual tokens is called {part!r}; choose from {known}")
        weights = self.attention.mean(0) if word is None else self.attention[word]
        return found.heat(weights[found.tokens]).numpy()

    def totals(self, word: int | None = None) -> dict[str, np.ndarray]:
        """Return the attention on each frame (T) by part; all together sum to the visual tokens' share."""
        return {source.name: self.heat(source.name, word).sum((1, 2)) for source in self.sources}

    def __repr__(self) -> str:
        return f"Attribution({self.text!r}, {len(self.words)} words, {self.setting.name!r}, {self.video!r})"

    def _repr_html_(self) -> str:
        totals = self.totals()
        by_frame = np.sum(list(totals.values()), axis=0)
        everything = max(float(by_frame.sum()), 1e-12)
        shown, most = evenly_spaced(len(by_frame)), set(np.argsort(-by_frame)[:3].tolist())
        times = [time_of(float(self.video.pts_seconds[i]), int(self.video.indices[i])) for i in shown]
        captions = [f"{at}, {100 * by_frame[i] / everything:.0f} %" for i, at in zip(shown, times)]
        frames = strip(self.video.frames[shown], captions, [k for k, i in enumerate(shown) if i in most])
        note = text("attention to each frame, of that to all frames; the three with most are outlined", soft=True)
        parts = shares({name: float(total.sum()) / everything for name, total in totals.items()})
        changes = [{"without": part, "log-likelihood, nats": change} for part, change in self.left_out.items()]
        left_out = more("parts left out", table(changes)) if changes else ""
        facts = [self.setting.name, f"log-likelihood {round(self.log_likelihood, 2) + 0.0:.2f} nats"]
        return card("Attention of", self.text, text(self.question.text), frames, note, parts, left_out, facts=facts)


def attribute(
    model: VideoLM,
    video: Video,
    setting: Setting,
    question: Question | str,
    generated_ids: Sequence[int] | None = None,
    *,
    grid: Any = None,
    prompt: Prompt | None = None,
    max_new_tokens: int = 256,
    prefix: Prefix | None = None,
) -> Attribution:
    """Compute what the model attends to while it answers, in a second pass over the answer.

    Args:
        model: a loaded model.
        video: the sampled frames.
        setting: how they become visual tokens.
        question: what to ask.
        generated_ids: the tokens of an answer; None lets the model answer now.
        grid: (T h w D) the patch grid of the frames, where it has been computed already.
        prompt: in place of the setting's or the model family's own.
        max_new_tokens: longest answer, where `generated_ids` is None.
        prefix: keys and values of an earlier prompt; what agrees with it is not computed again.

    Returns:
        The answer with its attention.

    Raises:
        SfllavaError: the visual tokens cannot be mapped back to frames.
    """
    question = Question(question) if isinstance(question, str) else question
    if setting.question_aware and setting.chosen is None:
        raise SfllavaError(f"{setting.name}: needs frames chosen for the question: use the explorer, or uniform frames")
    setting, prompt = setting.for_model(model.info), prompt or setting.prompt_or(None)
    grid = model.encode(setting.images(video.frames)) if grid is None else grid
    prefix = prefix or model.new_prefixes(1)[0]
    if generated_ids is None:
        tokens = model.tokens(setting, grid, video.pts_seconds)
        stream = model.stream(tokens, question, max_new_tokens=max_new_tokens, prompt=prompt, prefix=prefix)
        generated_ids = list(stream)
    return attribute_all(model, video, setting, [(question, generated_ids)], grid, prompt=prompt, prefix=prefix)[0]


def attribute_all(
    model: VideoLM,
    video: Video,
    setting: Setting,
    answers: Sequence[tuple[Question, Sequence[int]]],
    grid: Any,
    *,
    prompt: Prompt | None = None,
    prefix: Prefix | None = None,
) -> list[Attribution]:
    """Compute the attention of several answers about one video.

    Args:
        model: a loaded model.
        video: the sampled frames.
        setting: how the frames become visual tokens, for this model (`setting.for_model`).
        answers: each question with the tokens of its answer.
        grid: (T h w D) the patch grid of the frames.
        prompt: in place of the setting's or the model family's own.
        prefix: keys and values of an earlier prompt; what agrees with it is not computed again.

    Returns:
        Each answer with its attention.

    Raises:
        SfllavaError: the visual tokens cannot be mapped back to frames.
    """
    prompt, prefix = prompt or setting.prompt_or(None), prefix or model.new_prefixes(1)[0]
    # a grid may have further feature sets behind the first
    sources = token_sources(setting.aggregation, first_channels(grid, model.language_model.width), len(video.frames))
    tokens, shape = model.tokens(setting, grid, video.pts_seconds), sources[0].patches.shape
    found = []
    for question, ids in answers:
        by_token = attention_weights(model, tokens, question, ids, prompt, prefix).cpu()
        log_likelihood = float(log_likelihoods(model, tokens, question, ids, prompt, prefix).sum())
        words, owner = words_of(model, ids)
        mean = torch.zeros(len(words), len(ids))
        mean[owner, range(len(ids))] = 1
        attention, text = (mean / mean.sum(1, keepdim=True)) @ by_token, model.info.tokenizer.decode(list(ids))
        facts = (video, setting, question, text, tuple(ids), words)
        found.append(Attribution(*facts, attention, sources, (shape[1], shape[2]), log_likelihood))
    return found


def words_of(model: VideoLM, generated_ids: Sequence[int]) -> tuple[tuple[str, ...], list[int]]:
    """Split an answer into words.

    Args:
        model: whose tokenizer decodes the answer.
        generated_ids: the tokens of the answer.

    Returns:
        The words, and for each token the index of its word.
    """
    words: list[str] = []
    owner: list[int] = []
    before = ""
    for i in range(len(generated_ids)):
        text = model.info.tokenizer.decode(list(generated_ids[: i + 1]))
        new = text[len(before) :] if text.startswith(before) else text
        if not words or new[:1].isspace():
            words.append(new.strip())
        else:  # a part of a word, or bytes of a character that is not complete yet
            words[-1] = words[-1] + new if text.startswith(before) else " ".join(text.split()[-1:])
        owner.append(len(words) - 1)
        before = text
    return tuple(words), owner
