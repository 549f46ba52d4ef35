"""Devices to plan for without having one.

presets.json has the peak figures that the vendor publishes, with the page of each, and what share of them is assumed to
be reached. No figure in it was measured.
"""

from __future__ import annotations

import difflib
import json
import re
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.planning.roofline import Roofline

_FILE = Path(__file__).with_name("presets.json")
_ROWS, _WIDTHS = (1, 4, 16, 64, 512, 4096), (1024, 4096, 8192)


@dataclass(frozen=True)
class Preset:
    """The published peak figures of a device."""

    name: str
    label: str
    memory_gb: float
    bandwidth_gb: float
    """GB per second"""
    tflops: dict[str, float]
    """Dense matrix products, by dtype"""
    source: str
    """The vendor's page"""


def preset_names() -> list[str]:
    """Return the names of all presets."""
    return list(_read()["devices"])


def find_preset(name: str) -> Preset | None:
    """Return the preset of a name such as h200, "NVIDIA H200", RTX4090 or h100; None if there is none.

    A name without the memory is that of the preset with the largest memory.
    """
    found = _names().get(_plain(name))
    return Preset(found, **_read()["devices"][found]) if found else None


@cache
def _names() -> dict[str, str]:
    """Return the names of presets by all names that they are known by."""
    presets = sorted((Preset(name, **values) for name, values in _read()["devices"].items()), key=lambda p: p.memory_gb)
    short: dict[str, str] = {}
    for preset in presets:  # h100 for h100-80g, and 4090 for rtx-4090
        family, _, number = preset.name.partition("-")
        short[_plain(number if family == "rtx" else family)] = preset.name
    exact = {_plain(alias): preset.name for preset in presets for alias in (preset.name, preset.label)}
    return short | exact


def is_preset(device: str) -> bool:
    """Return whether a device is meant that is not of this machine."""
    return re.fullmatch(r"auto|(cpu|cuda|mps)(:\d+)?", device) is None


def preset_roofline(name: str, dtype: str = "auto") -> Roofline:
    """Return the roofline that is assumed for a preset.

    Args:
        name: As in `find_preset`.
        dtype: auto (float16), float16, bfloat16 or float32.

    Raises:
        SfllavaError: There is no such preset, or it has no figure for the dtype.
    """
    from sfllava.planning.roofline import Roofline

    preset = find_preset(name)
    if preset is None:
        close = difflib.get_close_matches(_plain(name), _names(), n=1, cutoff=0.7)
        meant = f" (did you mean {_names()[close[0]]!r}?)" if close else ""
        raise SfllavaError(
            f"no device is called {name!r}{meant}; needed auto, cpu, cuda or cuda:N of this machine, or one of "
            f"{', '.join(preset_names())}"
        )
    dtype = "float16" if dtype == "auto" else dtype
    if dtype not in preset.tflops:
        raise SfllavaError(f"{preset.name}: no published figure for {dtype}, only for {', '.join(preset.tflops)}")
    assumed = _read()["assumed"]
    peak, size = preset.tflops[dtype] * 1e12, 4 if dtype == "float32" else 2
    read = assumed["bandwidth"] * preset.bandwidth_gb * 1e9
    # few rows take as long as their weights are read; each product of a row has two operations per weight
    linear = tuple(
        (rows, width, min(assumed["products"] * peak, 2 * rows * read / size)) for rows in _ROWS for width in _WIDTHS
    )
    masked, causal = assumed["masked_attention"] * peak, assumed["attention"] * peak
    memory = int(preset.memory_gb * 2**30)
    return Roofline(
        preset.label, "cuda", dtype, memory, int(assumed["memory"] * memory), read, ((1, 2**20, read),), linear,
        ((1, 64, masked),), ((1, 64, causal),), causal, assumed["layer_seconds"], assumed["forward_seconds"],
        source=_describe(preset, dtype, assumed),
    )  # fmt: skip


def _describe(preset: Preset, dtype: str, assumed: dict[str, float]) -> str:
    return (
        f"the vendor's published peak figures, not measured ({preset.tflops[dtype]:g} TFLOP/s, "
        f"{preset.bandwidth_gb:,g} GB/s, {preset.memory_gb:g} GB; {preset.source}); assumed: products reach "
        f"{assumed['products']:.0%} of the peak, attention {assumed['attention']:.0%}, attention under a mask "
        f"{assumed['masked_attention']:.0%}, memory {assumed['bandwidth']:.0%} of its bandwidth, a layer takes at "
        f"least {assumed['layer_seconds'] * 1e6:.0f} us, and {assumed['memory']:.0%} of the memory is free"
    )


def _plain(name: str) -> str:
    """Return a name without case, spaces and signs, and without the vendor."""
    kept = re.sub(r"nvidia|geforce|sxm\d?|hbm\d?e?|[^a-z0-9]", "", name.lower())
    return kept.removesuffix("b") if kept.endswith("gb") else kept


@cache
def _read() -> dict[str, Any]:
    return json.loads(_FILE.read_text(encoding="utf-8"))
