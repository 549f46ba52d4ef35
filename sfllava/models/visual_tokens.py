"""The visual part of a prompt, and a whole prompt: embeddings, and what some families of models add to them."""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from typing import Any

import torch
from torch import Tensor

from sfllava.aggregators.base import name_of
from sfllava.types import SfllavaError


@dataclass(frozen=True, eq=False)
class VisualTokens:
    """The rows of the visual part of a prompt, in order: visual tokens, and for some families text between them.

    Attributes:
        embeddings: (N D) What enters the language model.
        visual: (N) bool, False where a row is text, such as a timestamp. None: all rows are visual tokens.
        positions: (N 3) Position of each row in time, height and width, counted from the first row's. None: the rows
            have consecutive positions.
        span: Number of positions that the rows take, so that the text after them goes on at `span`. None: N.
        deepstack: (N S D) Features to add to the hidden states after each of the first S layers; zero for text.
    """

    embeddings: Tensor
    visual: Tensor | None = None
    positions: Tensor | None = None
    span: int | None = None
    deepstack: Tensor | None = None

    @classmethod
    def of(cls, tokens: Tensor | VisualTokens) -> VisualTokens:
        """Take a tensor (N D) as visual tokens at consecutive positions."""
        return tokens if isinstance(tokens, VisualTokens) else cls(tokens)

    def __len__(self) -> int:
        return len(self.embeddings)

    @property
    def count(self) -> int:
        """Number of visual tokens, without text."""
        return len(self) if self.visual is None else int(self.visual.sum())

    @property
    def end(self) -> int:
        """The position at which the text after the rows goes on."""
        return len(self) if self.span is None else self.span

    def to(self, device: torch.device, dtype: torch.dtype) -> VisualTokens:
        """Move all tensors to a device; embeddings and deepstack features get the dtype."""

        def move(name: str, tensor: Tensor) -> Tensor:
            return tensor.to(device, dtype) if name in ("embeddings", "deepstack") else tensor.to(device)

        return replace(self, **{name: move(name, tensor) for name, tensor in self._tensors().items()})

    def rows(self, which: Tensor | slice) -> VisualTokens:
        """Return some of the rows, at the positions that they have here."""
        return replace(self, **{name: tensor[which] for name, tensor in self._tensors().items()})

    def none(self) -> VisualTokens:
        """Return an empty visual part of the same kind; it takes no positions."""
        return VisualTokens(self.embeddings[:0])

    def without(self, removed: Tensor) -> VisualTokens:
        """Return a copy without some visual tokens.

        Rows at consecutive positions move up, as in a prompt that never had the others; rows with positions of their
        own keep them.

        Args:
            removed: (`count`) bool, True for the visual tokens to leave out.
        """
        keep = torch.ones(len(self), dtype=torch.bool, device=self.embeddings.device)
        index = torch.arange(len(self), device=keep.device) if self.visual is None else self.visual.nonzero()[:, 0]
        keep[index[: len(removed)][removed.to(keep.device)]] = False
        return self.rows(keep)

    def count_equal_rows(self, other: VisualTokens) -> int:
        """Count the leading rows that are equal in both, element by element."""
        mine, others = self._tensors(), other._tensors()
        n = min(len(self), len(other))
        if not n or mine.keys() != others.keys():  # a comparison would synchronize the host
            return 0
        different = [(mine[name][:n] != others[name][:n]).reshape(n, -1).any(1) for name in mine]
        rows = torch.stack(different).any(0)
        return int(rows.int().argmax()) if rows.any() else n

    def _tensors(self) -> dict[str, Tensor]:
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        return {name: value for name, value in values.items() if isinstance(value, Tensor)}


@dataclass(frozen=True)
class ModelInputs:
    """What enters the decoder layers for one prompt.

    Attributes:
        embeds: (1 L D).
        positions: (1 L), or (3 1 L) in time, height and width.
        end: The position of the token that follows.
        deepstack: (1 L S D) Features to add after each of the first S layers, None for none.
    """

    embeds: Tensor
    positions: Tensor
    end: int
    deepstack: Tensor | None = None

    def from_row(self, first: int) -> ModelInputs:
        """Return the part from one row on."""
        deepstack = None if self.deepstack is None else self.deepstack[:, first:]
        return ModelInputs(self.embeds[:, first:], self.positions[..., first:], self.end, deepstack)

    def next(self, embeds: Tensor) -> ModelInputs:
        """Return text (L D) that follows."""
        end = self.end + len(embeds)
        return ModelInputs(embeds[None], torch.arange(self.end, end, device=embeds.device)[None], end)


@torch.inference_mode(False)
def aggregate(aggregator: Any, grid: Tensor, width: int) -> tuple[Tensor, Tensor | None]:
    """Aggregate a patch grid that may have further feature sets behind the first, as channels.

    The further sets are pooled by the same operator with the same choices: where a maximum, key frames or merging
    choose by the first set, the others follow. They are the derivative of the aggregator at the first set in the
    direction of each other set, which is exactly that for every operator that is linear once its choices are made.

    Args:
        aggregator: (T h w D) -> (N D).
        grid: (T h w (1+S)*D).
        width: D.

    Returns:
        Embeddings (N D), and the further sets (N S D), or None where there are none.

    Raises:
        SfllavaError: An aggregator of your own chooses with an operation that has no derivative.
    """
    first, *others = (part.clone() if grid.shape[-1] != width else part for part in grid.split(width, dim=-1))
    if not others:
        return aggregator(first), None
    try:
        sets = [torch.func.jvp(aggregator, (first,), (other,))[1] for other in others]
    except (NotImplementedError, RuntimeError) as error:
        raise SfllavaError(
            f"{name_of(aggregator)} cannot pool the {len(others)} further feature sets of this model: "
            f"{' '.join(str(error).split())[:120]}. Make its choices on `grid.detach()`"
        ) from error
    return aggregator(first), torch.stack(sets, dim=1)
