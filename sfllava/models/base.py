"""What is known of a loaded checkpoint beside its weights: enough to check and to record a run of it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from sfllava.models.kv_cache import Prefix
from sfllava.models.language_model import LanguageModel
from sfllava.models.operations import Shape
from sfllava.models.tokenizer import Tokenizer
from sfllava.prompts import Prompt, pack_prompt
from sfllava.types import Answer, Question, SfllavaError


def check_generation(answer_mode: str, max_new_tokens: int, questions: Iterable[Question]) -> None:
    """Raise SfllavaError for a way of reading answers that there is not, or that the questions do not allow."""
    if answer_mode not in ("generate", "logits"):
        raise SfllavaError(f"answer_mode must be generate or logits, got {answer_mode!r}")
    if max_new_tokens < 1:
        raise SfllavaError(f"max_new_tokens must be at least 1, got {max_new_tokens}")
    if answer_mode == "logits" and any(not question.options for question in questions):
        raise SfllavaError("reading letters from logits needs questions with options")


class ContextError(SfllavaError):
    """A prompt that the model's context does not hold; raised before any compute."""


@dataclass(eq=False)
class ModelInfo:
    """A checkpoint's tokenizer, sizes and names; without weights, so that it travels between processes."""

    path: Path
    layout: str
    family: str
    """The prompt pack that suits its language model"""
    tokenizer: Tokenizer
    context: int
    """Positions of the longest prompt with its answer"""
    image_size: int
    grid: tuple[int, int]
    """Patches (h, w) of a frame"""
    shape: Shape
    rope: dict[str, Any] | None
    device: torch.device
    """Where tokens enter the language model"""
    dtype: torch.dtype
    fingerprint: str
    """A hash that tells the loaded weights, config and tokenizer from others (`checkpoint.fingerprint`)"""

    def prompt_ids(self, question: Question, prompt: Prompt | None = None) -> tuple[list[int], list[int]]:
        """Token ids before (BOS first, where the checkpoint has one) and behind the video."""
        before, after = (prompt or pack_prompt(self.family, question.task)).pieces(question)
        bos = [] if self.tokenizer.bos_id is None else [self.tokenizer.bos_id]
        first = self.tokenizer.encode(before)
        # a prompt file that writes its own BOS has it once all the same
        return (first if bos and first[:1] == bos else bos + first), self.tokenizer.encode(after)

    def check_context(self, visual_tokens: int, text_tokens: int, what: str = "the prompt") -> None:
        """Raise ContextError unless a prompt and one new token fit the context."""
        if visual_tokens + text_tokens >= self.context:
            raise ContextError(
                f"{visual_tokens} visual and {text_tokens} text tokens do not fit the context of {self.context} "
                f"({what[:60]!r}): use fewer frames or a coarser aggregation"
            )


class VideoLM(Protocol):
    """A model that answers questions about videos; whoever asks, runs, plans or explains speaks to this."""

    info: ModelInfo
    language_model: LanguageModel

    def encode(self, frames: Any, batch: int | None = None) -> Tensor: ...

    def answer(
        self,
        tokens: Tensor,
        questions: Iterable[Question | str],
        *,
        max_new_tokens: int = 128,
        prompt: Prompt | None = None,
        answer_mode: str = "generate",
        share_prefix: bool = True,
        prefix: Prefix | None = None,
    ) -> list[Answer]: ...

    def answer_batch(
        self,
        videos: Sequence[tuple[Tensor, Iterable[Question | str]]],
        *,
        max_new_tokens: int = 128,
        prompt: Prompt | None = None,
        answer_mode: str = "generate",
        share_prefix: bool = True,
        prefixes: Sequence[Prefix] | None = None,
    ) -> list[list[Answer]]: ...

    def stream(
        self,
        tokens: Tensor,
        question: Question | str,
        *,
        max_new_tokens: int = 256,
        prompt: Prompt | None = None,
        prefix: Prefix | None = None,
    ) -> Iterator[int]: ...

    def new_prefixes(self, n: int) -> list[Prefix]: ...

    def prefill(self, before: Sequence[int], tokens: Tensor, room: int = 0, prefix: Prefix | None = None) -> Prefix: ...


class VisionEncoder(Protocol):
    """The vision tower and projector of a family."""

    @property
    def device(self) -> torch.device: ...

    def __call__(self, frames: Tensor) -> Tensor:
        """One batch of uint8 frames (T H W 3), of the model's size -> patch grid (T h w D)."""
        ...


@dataclass(frozen=True)
class Configuration:
    """A checked config: transformers' object, the shape it makes, and how long and how large its inputs are."""

    config: Any
    shape: Shape
    positions: int
    image_size: int


class Family(Protocol):
    """A family of backbones: one file of sfllava/models/families, named as `model_type` in its configs.

    The file exposes one object, `FAMILY`, with all that is special to the family.
    """

    network: Any
    """The transformers class that is loaded; it has `lm_head` and `model.language_model`"""
    unused_tensors: tuple[str, ...]
    """Ends of names of tensors that a checkpoint may lack"""

    def configure(self, config: dict[str, Any], folder: Path, rope_factor: float | None) -> Configuration:
        """Check the JSON of a config, before anything is built; CheckpointError where it cannot be used."""
        ...

    def prompt_family(self, config: Any, tokenizer: Tokenizer | None) -> str:
        """The prompt templates that suit the language model."""
        ...

    def encoder(self, network: Any, configuration: Configuration) -> VisionEncoder:
        """The vision encoder of a loaded network."""
        ...

    def unused_ids(self, config: Any) -> list[int]:
        """Token ids that are never generated, besides the tokenizer's placeholders."""
        ...
