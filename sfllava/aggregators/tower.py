"""What some aggregators need of the vision tower besides the features: attention and keys of its last used layer."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from sfllava.types import SfllavaError

TOWER_OUTPUTS = ("attention", "keys")


@dataclass(frozen=True)
class TowerFrames:
    """Frames (T H W 3) to encode one by one, with outputs of the vision tower besides the features.

    Attributes:
        frames: uint8 (T H W 3).
        needs: names of `TOWER_OUTPUTS`.
    """

    frames: Any
    needs: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.frames)


@dataclass(frozen=True, eq=False)
class PatchGrid:
    """A patch grid together with outputs of the vision tower, frame by frame.

    Attributes:
        features: (T h w D) the patch grid.
        attention: (T h w) the attention that each patch gets in the last used layer of the tower, mean of the heads:
            from CLS where the tower has one, else the mean of all patches as queries. float32; None if not asked for.
        keys: (T h w K) the keys of that layer, mean of the heads. None if not asked for.
    """

    features: Tensor
    attention: Tensor | None = None
    keys: Tensor | None = None

    @property
    def outputs(self) -> dict[str, Tensor]:
        """The outputs of the tower by name, those that there are."""
        found = {name: getattr(self, name) for name in TOWER_OUTPUTS}
        return {name: value for name, value in found.items() if value is not None}

    def __len__(self) -> int:
        return len(self.features)

    def __getitem__(self, frames: Any) -> PatchGrid:
        """Select frames."""
        return PatchGrid(self.features[frames], **{name: value[frames] for name, value in self.outputs.items()})

    @classmethod
    def join(cls, parts: Sequence[PatchGrid]) -> PatchGrid:
        """Join grids along the frames."""
        outputs = {name: torch.cat([part.outputs[name] for part in parts]) for name in parts[0].outputs}
        return cls(torch.cat([part.features for part in parts]), **outputs)


def tower_needs(*aggregators: Any) -> tuple[str, ...]:
    """Return what any of some aggregators needs of the tower, in the order of `TOWER_OUTPUTS`; usually nothing."""
    wanted = {name for aggregator in aggregators for name in getattr(aggregator, "needs", ())}
    return tuple(name for name in TOWER_OUTPUTS if name in wanted)


def with_outputs(frames: Any, needs: Iterable[str]) -> Any:
    """Return what to encode: the frames alone where nothing else is needed."""
    needs = tuple(needs)
    return TowerFrames(frames, needs) if needs else frames


def join_grids(parts: Sequence[Any]) -> Any:
    """Join patch grids along the frames, with or without outputs of the tower."""
    return PatchGrid.join(parts) if isinstance(parts[0], PatchGrid) else torch.cat(list(parts))


def grid_for(aggregator: Any, grid: Any) -> Any:
    """Return the patch grid that an aggregator takes: the features alone, unless it needs more."""
    return grid.features if isinstance(grid, PatchGrid) and not tower_needs(aggregator) else grid


def features_of(grid: Any) -> Tensor:
    """Return the features (T h w D) of a patch grid."""
    return grid.features if isinstance(grid, PatchGrid) else grid


def first_channels(grid: Any, width: int) -> Any:
    """Return a patch grid with only its first `width` channels of features."""
    if isinstance(grid, PatchGrid):
        return replace(grid, features=grid.features[..., :width])
    return grid[..., :width]


def check_needs(aggregator: Any, info: Any) -> None:
    """Raise SfllavaError where an aggregator needs what a model's vision tower does not give."""
    given = getattr(info, "tower_outputs", None)
    missing = [] if given is None else [name for name in tower_needs(aggregator) if name not in given]
    if missing:
        raise SfllavaError(
            f"{aggregator} needs the {' and '.join(missing)} of a CLIP or SigLIP vision tower, which {info.model_type} "
            "models do not give"
        )


def output_of(aggregator: Any, grid: Any, name: str) -> Tensor:
    """Return an output of the tower; raise SfllavaError where the grid was encoded without it."""
    found = getattr(grid, name, None) if isinstance(grid, PatchGrid) else None
    if found is None:
        raise SfllavaError(
            f"{aggregator} needs the vision tower's {name}: needed a grid from model.encode(setting.images(frames)), "
            "got one of features alone"
        )
    return found
