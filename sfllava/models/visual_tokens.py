"""The visual part of a prompt, and the whole prompt: embeddings, positions, and DeepStack features."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from sfllava.aggregators.base import name_of
from sfllava.types import SfllavaError


@dataclass(frozen=True, eq=False)
class VisualTokens:
    """The visual part of a prompt: one row per visual token and, in some families, rows of text between them.

    Attributes:
        embeddings: (N D) Input embeddings for the language model.
        visual: (N) bool, False where a row is text, such as a timestamp. None: all rows are visual tokens.
        positions: (N 3) Position of each row in time, height and width, relative to the start of the visual part.
            None: the rows have consecutive positions.
        span: Number of positions that the visual part takes: the text after it starts at `span`. None: N.
        deepstack: (N S D) DeepStack features, added to the hidden states after each of the first S layers; zero for
            text. None: the model has none.
    """

    embeddings: Tensor
    visual: Tensor | None = None
    positions: Tensor | None = None
    span: int | None = None
    deepstack: Tensor | None = None

    @classmethod
    def of(cls, tokens: Tensor | VisualTokens) -> VisualTokens:
        """Wrap a tensor (N D) as visual tokens at consecutive positions; return VisualTokens unchanged."""
        return tokens if isinstance(tokens, VisualTokens) else cls(tokens)

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def count(self) -> int:
        """Number of visual tokens, without text."""
        return len(self) if self.visual is None else int(self.visual.sum())

    @property
    def end(self) -> int:
        """The position of the first token after the visual part, relative to its start."""
        return len(self) if self.span is None else self.span

    def to(self, device: torch.device, dtype: torch.dtype) -> VisualTokens:
        """Move all tensors to a device, and convert embeddings and DeepStack features to a dtype."""

        def move(name: str, tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype) if name in ("embeddings", "deepstack") else tensor.to(device)

        return replace(self, **{name: move(name, tensor) for name, tensor in self._tensors().items()})

    def rows(self, which: Tensor | slice) -> VisualTokens:
        """Select rows; rows with explicit positions keep them."""
        return replace(self, **{name: tensor[which] for name, tensor in self._tensors().items()})

    def empty(self) -> VisualTokens:
        """Return a visual part without rows, of the same width, dtype and device."""
        return VisualTokens(self.embeddings[:0])

    def without(self, removed: Tensor) -> VisualTokens:
        """Return a copy without some visual tokens.

        Rows at consecutive positions close the gaps, as in a prompt that never had the removed tokens. Rows with
        explicit positions keep them.

        Args:
            removed: (`count`) bool, True for each visual token to remove.
        """
        keep = torch.ones(len(self), dtype=torch.bool, device=self.embeddings.device)
        index = torch.arange(len(self), device=keep.device) if self.visual is None else self.visual.nonzero()[:, 0]
        keep[index[: len(removed)][removed.to(keep.device)]] = False
        return self.rows(keep)

    def count_equal_rows(self, other: VisualTokens) -> int:
        """Count the leading rows that are equal in both, element by element."""
        ours, theirs = self._tensors(), other._tensors()
        n = min(len(self), len(other))
        if not n or ours.keys() != theirs.keys():  # skip the comparison, which synchronizes the host
            return 0
        different = [(ours[name][:n] != theirs[name][:n]).reshape(n, -1).any(1) for name in ours]
        rows = torch.stack(different).any(0)
        return int(rows.int().argmax()) if rows.any() else n

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


@dataclass(frozen=True)
class ModelInputs:
    """The inputs of the decoder layers for one prompt.

    Attributes:
        embeds: (1 L D) Input embeddings.
        positions: (1 L), or (3 1 L) in time, height and width.
        end: Position of the next token.
        deepstack: (1 L S D) DeepStack features, added after each of the first S layers; None for none.
    """

    embeds: Tensor
    positions: Tensor
    end: int
    deepstack: Tensor | None = None

    def from_row(self, first: int) -> ModelInputs:
        """Return the inputs from row `first` to the end."""
        deepstack = None if self.deepstack is None else self.deepstack[:, first:]
        return ModelInputs(self.embeds[:, first:], self.positions[..., first:], self.end, deepstack)

    def next(self, embeds: Tensor) -> ModelInputs:
        """Return the inputs of text (L D) that follows this prompt."""
        end = self.end + len(embeds)
        return ModelInputs(embeds[None], torch.arange(self.end, end, device=embeds.device)[None], end)


@torch.inference_mode(False)
def aggregate(aggregator: Any, grid: Tensor, width: int) -> tuple[Tensor, Tensor | None]:
    """Aggregate a patch grid whose channels are one feature set, or several: the main one and S DeepStack sets.

    All sets are pooled in the same way. Where an aggregator makes a choice (the patch of a maximum, key frames, which
    patches to merge), it chooses on the main set, and the DeepStack sets follow. To do this for any aggregator, each
    pooled DeepStack set is computed as a Jacobian-vector product: the derivative of the aggregator at the main set, in
    the direction of the DeepStack set. This is exact for every aggregator that is linear once its choices are made. An
    aggregator with a method `with_choices(grid)` makes them once: it returns a function that pools with these choices.

    Args:
        aggregator: (T h w D) -> (N D).
        grid: (T h w (1+S)*D).
        width: D.

    Returns:
        Embeddings (N D), and the pooled DeepStack sets (N S D), or None where the grid has only one set.

    Raises:
        SfllavaError: A custom aggregator makes its choices with an operation that has no derivative.
    """
    first, *others = (part.clone() if grid.shape[-1] != width else part for part in grid.split(width, dim=-1))
    if not others:
        return aggregator(first), None
    pool = aggregator.with_choices(first) if hasattr(aggregator, "with_choices") else aggregator
    try:
        sets = [torch.func.jvp(pool, (first,), (other,))[1] for other in others]
    except (NotImplementedError, RuntimeError) as error:
        raise SfllavaError(
            f"{name_of(aggregator)} cannot pool this model's {len(others)} DeepStack feature sets: "
            f"{' '.join(str(error).split())[:120]}. Let the aggregator make its choices on `grid.detach()`"
        ) from error
    return pool(first), torch.stack(sets, dim=1)
