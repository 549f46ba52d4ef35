"""The interface of video LLMs, and the facts about a checkpoint that need no weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from sfllava.aggregators.base import Aggregator
from sfllava.display.objects import card, checkpoint_name
from sfllava.models.engines.options import PACKED, EngineInfo
from sfllava.models.family import VideoText
from sfllava.models.kv_cache import Prefix
from sfllava.models.language_model import LanguageModel
from sfllava.models.operations import Shape
from sfllava.models.tokenizer import Tokenizer
from sfllava.models.visual_tokens import VisualTokens
from sfllava.prompts import Prompt, pack_prompt
from sfllava.settings import Setting
from sfllava.types import Answer, Question, SfllavaError


def check_generation(answer_mode: str, max_new_tokens: int, questions: Iterable[Question]) -> None:
    """Check the options of an answer against the questions.

    Args:
        answer_mode: "generate" or "logits".
        max_new_tokens: The largest number of new tokens of an answer.
        questions: The questions to answer.

    Raises:
        SfllavaError: An option is out of range, or "logits" was asked for questions without options.
    """
    if answer_mode not in ("generate", "logits"):
        raise SfllavaError(f"answer_mode must be generate or logits, got {answer_mode!r}")
    if max_new_tokens < 1:
        raise SfllavaError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if answer_mode == "logits" and any(not q.options or q.task == "caption_matching" for q in questions):
        raise SfllavaError("reading letters from logits needs questions with options that have letters")


class ContextError(SfllavaError):
    """A prompt does not fit the context of the model; raised before any compute."""


@dataclass(eq=False)
class ModelInfo:
    """The tokenizer, sizes and names of a loaded checkpoint, without weights, so that processes can exchange it.

    Attributes:
        path: The checkpoint folder.
        layout: "transformers" or "original".
        model_type: The family of the checkpoint, a name in sfllava/models/families.
        family: The prompt templates that suit the language model.
        tokenizer: The tokenizer of the checkpoint.
        context: Number of positions of the longest prompt with its answer.
        image_size: Height and width of a frame in pixels.
        grid: Number of patches (h, w) of a frame.
        shape: The sizes that the cost of a run depends on.
        native: The aggregator that `native` stands for.
        video_text: How much text the family writes between visual tokens.
        options: The options of the family with which it was loaded, where they are not the default.
        rope: Parameters of the rotary positions.
        device: Where tokens enter the language model.
        dtype: Of the weights that are not quantised.
        fingerprint: A hash of the loaded weights, config and tokenizer (`checkpoint.fingerprint`).
        tower_outputs: What the vision tower gives besides the features, names of `aggregators.tower.TOWER_OUTPUTS`.
        quantize: How the linear layers of the language model are quantised, "nf4" or "int8"; None for not at all.
        engine: What runs the language model.
        known_visual_tokens: The most visual tokens with which the checkpoint is known to answer, as its folder says
            (`checkpoint.known_visual_tokens`); None if it does not say.
    """

    path: Path
    layout: str
    model_type: str
    family: str
    tokenizer: Tokenizer
    context: int
    image_size: int
    grid: tuple[int, int]
    shape: Shape
    native: Aggregator
    video_text: VideoText
    options: dict[str, Any]
    rope: dict[str, Any] | None
    device: torch.device
    dtype: torch.dtype
    fingerprint: str
    tower_outputs: tuple[str, ...] = ()
    quantize: str | None = None
    engine: EngineInfo = PACKED
    known_visual_tokens: int | None = None

    def __repr__(self) -> str:
        return f"ModelInfo({checkpoint_name(self.path)!r}, {self.model_type!r}, device={str(self.device)!r})"

    def _repr_html_(self) -> str:
        h, w = self.grid
        facts = [self.model_type, f"{self.context:,} positions", f"{h} × {w} patches a frame"]
        facts += [f"{self.shape.language.count} layers of width {self.shape.language.width:,}"]
        facts += [str(self.device), self.quantize or str(self.dtype).removeprefix("torch.")]
        facts += [f"{name}: {value}" for name, value in self.options.items()]
        facts += [str(self.engine)] if self.engine != PACKED else []
        return card("Model", checkpoint_name(self.path), facts=facts)

    def prompt_ids(self, question: Question, prompt: Prompt | None = None) -> tuple[list[int], list[int]]:
        """Tokenize the prompt of a question.

        Args:
            question: The question.
            prompt: Replaces the prompt of the question's task.

        Returns:
            Token ids before the video, which begin with BOS where the checkpoint has one, and after it.
        """
        before, after = (prompt or pack_prompt(self.family, question.task)).pieces(question)
        bos = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        first = self.tokenizer.encode(before)
        # a prompt file may write BOS itself: it is not added twice
        return (first if bos and first[:1] == bos else bos + first), self.tokenizer.encode(after)

    def prompt_rows(self, setting: Setting, frames: int | None = None) -> int:
        """Count the visual tokens of a setting and, as an upper bound, the text that the family writes between them.

        Args:
            setting: Frames and aggregation.
            frames: Frames of the video; None for a video that has enough.
        """
        setting = setting.for_model(self)
        sampled = setting.frames_of(frames)
        text = self.video_text.rows(setting.aggregation, sampled)
        return setting.token_count(*self.grid, sampled) + text

    def check_context(self, visual_tokens: int, text_tokens: int, what: str = "the prompt") -> None:
        """Check that a prompt and one new token fit the context.

        Args:
            visual_tokens: Number of visual tokens.
            text_tokens: Number of text tokens.
            what: The text to name in the error.

        Raises:
            ContextError: They do not fit.
        """
        if visual_tokens + text_tokens >= self.context:
            larger = (self.engine.packed_context or 0) > self.context
            raise ContextError(
                f"{visual_tokens} visual and {text_tokens} text tokens do not fit the context of {self.context} "
                f"({what[:60]!r}): use fewer frames or a coarser aggregation"
                + (f", or the packed engine, which takes {self.engine.packed_context}" if larger else "")
            )

    def describe_unknown_range(self, visual_tokens: Mapping[str, int]) -> str:
        """Say which settings have more visual tokens than the checkpoint is known to answer with.

        Args:
            visual_tokens: The tokens of each setting, by its name.

        Returns:
            One sentence; empty if there are none, or if the checkpoint does not say what it knows.
        """
        known = self.known_visual_tokens
        beyond = [f"{name} ({n:,})" for name, n in visual_tokens.items() if known is not None and n > known]
        if not beyond:
            return ""
        return (
            f"more visual tokens than the {known:,} that this model is known to answer with: {', '.join(beyond)}; "
            "expect empty or wrong answers there"
        )


class VideoLM(Protocol):
    """A model that answers questions about videos: the interface that runs, planning and attribution use.

    `TransformersVideoLM` documents the arguments of the methods.

    Attributes:
        info: The facts about the checkpoint.
        language_model: Its language model.
    """

    info: ModelInfo
    language_model: LanguageModel

    def encode(self, frames: Any, batch: int | None = None) -> Any:
        """Encode uint8 frames (T H W 3) as a grid of patches (T h w D), or `TowerFrames` as a `PatchGrid`."""
        ...

    def tokens(self, setting: Setting, grid: Any, seconds: Any = None) -> VisualTokens:
        """Make the visual part of a prompt from a grid of patches (T h w D) and the times of the T frames."""
        ...

    def answer(
        self,
        tokens: Tensor | VisualTokens,
        questions: Iterable[Question | str],
        *,
        max_new_tokens: int = 128,
        prompt: Prompt | None = None,
        answer_mode: str = "generate",
        share_prefix: bool = True,
        prefix: Prefix | None = None,
    ) -> list[Answer]:
        """Answer questions about one video, given its visual tokens (N D)."""
        ...

    def answer_batch(
        self,
        videos: Sequence[tuple[Tensor | VisualTokens, Iterable[Question | str]]],
        *,
        max_new_tokens: int = 128,
        prompt: Prompt | None = None,
        answer_mode: str = "generate",
        share_prefix: bool = True,
        prefixes: Sequence[Prefix] | None = None,
    ) -> list[list[Answer]]:
        """Answer questions about several videos together."""
        ...

    def stream(
        self,
        tokens: Tensor | VisualTokens,
        question: Question | str,
        *,
        max_new_tokens: int = 256,
        prompt: Prompt | None = None,
        prefix: Prefix | None = None,
    ) -> Iterator[int]:
        """Yield the token ids of one answer as they are generated."""
        ...

    def new_prefixes(self, n: int) -> list[Prefix]:
        """Make empty prefixes for `n` videos."""
        ...

    def prefill(
        self, before: Sequence[int], tokens: Tensor | VisualTokens, room: int = 0, prefix: Prefix | None = None
    ) -> Prefix:
        """Compute the keys and values of text ids and visual tokens (N D) once."""
        ...
