"""What this device can do, measured in seconds: speed of products and attention, of memory, and a layer's overhead."""

from __future__ import annotations

import json
import math
import os
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import date
from pathlib import Path
from typing import Any

import torch

from sfllava.planning.probes import LAYERS, Probes, Table, host_memory, processor
from sfllava.types import SfllavaError

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_ROUNDS = 3
_BUSY = 2.0  # a median repeat that took so many times as long as the best: something else was running


@dataclass(frozen=True)
class Roofline:
    """What a device did when it was measured, in operations, bytes and seconds; in one dtype."""

    device: str
    kind: str
    """cpu or cuda"""
    dtype: str
    memory_bytes: int
    """Of one device"""
    free_bytes: int
    """Of them, what was free"""
    read: float
    """Bytes a second of weights that are read once, by a product with one row"""
    move: Table
    """(1, bytes of the result, bytes a second read and written) of a product of two tensors, element by element"""
    linear: Table
    """Operations a second of (rows, width) by (width, width), whose weights come from memory as in a model"""
    masked: Table
    """Of attention by so many query rows of so wide heads to 4,096 keys under a mask"""
    causal: Table
    """Of causal attention of as many queries as keys; only the keys that are seen count"""
    vision: float
    """Of attention among the 577 positions of an image, heads of 64"""
    layer_seconds: float
    """What a layer takes where there is nothing to compute: its kernels' launches, and Python"""
    forward_seconds: float
    """What a forward takes beside its layers, likewise"""
    measured: str = ""
    torch: str = ""
    cores: int = 0
    spread: float = 1.0
    """Median to best of the repeats, of what differed most in that; 1 where it was not recorded"""

    @property
    def itemsize(self) -> int:
        return _DTYPES[self.dtype].itemsize

    def save(self, path: str | Path) -> Path:
        """Write it as JSON."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return path

    def __str__(self) -> str:
        top = max(rate for _, _, rate in self.linear)
        return (
            f"{self.device}, {self.dtype}: products {top / 1e12:,.3g} TFLOP/s, weights read at {self.read / 1e9:,.3g} "
            f"GB/s, {self.layer_seconds * 1e6:,.0f} us a layer at least, {self.free_bytes / 2**30:,.1f} of "
            f"{self.memory_bytes / 2**30:,.1f} GiB free; measured {self.measured}"
            + (f", the repeats differed by up to {self.spread:,.2f} times" if self.spread > 1 else "")
        )

    @property
    def warning(self) -> str:
        """One line where the device was busy with something else while it was measured; or nothing."""
        if self.spread < _BUSY:
            return ""
        return (
            f"the device was busy while it was measured (the repeats differed by up to {self.spread:,.1f} times), so "
            "seconds may be too many: measure it again when nothing else runs"
        )


def load_roofline(path: str | Path) -> Roofline:
    """A roofline that `save` wrote. Raises SfllavaError, which names the file and the field."""
    path = Path(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SfllavaError(f"{path}: no such roofline; `sfllava plan --measure {path}` makes one") from None
    except (OSError, ValueError) as error:
        raise SfllavaError(f"{path}: not readable as JSON: {error}") from error
    wanted = {field.name: field for field in fields(Roofline)}
    keys = set(found) if isinstance(found, dict) else set()
    # files of version 0.1.0 have no spread
    missing, other = sorted(set(wanted) - keys - {"spread"}), sorted(keys - set(wanted))
    if missing or other:
        raise SfllavaError(
            f"{path}: not a roofline: " + (f"without {', '.join(missing)}" if missing else f"what is {other[0]}?")
        )
    values = {name: _checked(path, name, str(wanted[name].type), value) for name, value in found.items()}
    if values["dtype"] not in _DTYPES:
        raise SfllavaError(f"{path}: dtype must be one of {', '.join(_DTYPES)}, got {values['dtype']!r}")
    if values["kind"] not in ("cpu", "cuda"):
        raise SfllavaError(f"{path}: kind must be cpu or cuda, got {values['kind']!r}")
    return Roofline(**values)


def _checked(path: Path, name: str, kind: str, value: Any) -> Any:
    def number(x: Any) -> bool:
        return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) and x >= 0

    def line(row: Any) -> bool:
        return isinstance(row, list) and len(row) == 3 and all(number(x) and x > 0 for x in row)

    if kind == "Table":
        if not isinstance(value, list) or not value or not all(map(line, value)):
            raise SfllavaError(f"{path}: {name} must be a list of [rows, width, speed], got {str(value)[:60]}")
        sizes = {(a, b) for a, b, _ in value}
        if len(sizes) < len({a for a, _ in sizes}) * len({b for _, b in sizes}):
            raise SfllavaError(f"{path}: {name} must have every width at every number of rows")
        return tuple((int(a), int(b), float(speed)) for a, b, speed in value)
    if isinstance(value, str) if kind == "str" else number(value) and (value > 0 or kind == "int"):
        return value
    raise SfllavaError(f"{path}: {name} must be {'text' if kind == 'str' else 'a number above 0'}, got {value!r}")


def rate(table: Table, rows: float, width: float) -> float:
    """Operations a second at a size, between those measured (by logarithms), and at the ends beyond them."""
    known = {(a, b): value for a, b, value in table}
    (i, j, u), (k, m, v) = _between(sorted({a for a, _ in known}), rows), _between(sorted({b for _, b in known}), width)
    pairs = ((i, k, (1 - u) * (1 - v)), (i, m, (1 - u) * v), (j, k, u * (1 - v)), (j, m, u * v))
    return math.exp(sum(weight * math.log(known[a, b]) for a, b, weight in pairs if weight))


def _between(sizes: list[int], size: float) -> tuple[int, int, float]:
    if size <= sizes[0] or size >= sizes[-1]:
        end = sizes[0] if size <= sizes[0] else sizes[-1]
        return end, end, 0.0
    at = bisect_right(sizes, size)
    low, high = sizes[at - 1], sizes[at]
    return low, high, math.log(size / low) / math.log(high / low)


def measure(device: str = "auto", dtype: str = "auto", clock: Callable[[], float] = time.perf_counter) -> Roofline:
    """Measure a device, in seconds: the best of repeats, in rounds, so that a short disturbance does not hit them all.

    device: auto (a GPU where there is one), cpu, cuda, cuda:1. dtype: auto (float32 on CPU, float16 elsewhere).
    clock: `time.process_time` for a CPU that does other work besides, with one thread of torch.
    """
    from sfllava.models.load import device_of

    place = torch.device(device_of(device))
    name = ("float32" if place.type == "cpu" else "float16") if dtype == "auto" else dtype
    if name not in _DTYPES:
        raise SfllavaError(f"dtype must be auto, {', '.join(_DTYPES)}, got {dtype!r}")
    if place.type == "cuda":
        torch.cuda.synchronize(place)  # makes the context, whose memory is nobody's to use
        free_bytes, memory_bytes = torch.cuda.mem_get_info(place)
        label = torch.cuda.get_device_name(place)
    else:
        free_bytes, memory_bytes, label = *host_memory(), processor()
    probes = Probes(place, _DTYPES[name], clock)
    with torch.inference_mode():
        for _ in range(_ROUNDS):
            probes.memory()
            probes.products()
            probes.attention()
            probes.overheads()
    few, many = (probes.best("layers", count, 0) for count in LAYERS)
    layer = max((many - few) / (LAYERS[1] - LAYERS[0]), 1e-7)
    (_, _, read), (_, _, vision) = *probes.table("read"), *probes.table("vision")
    return Roofline(
        label, place.type, name, memory_bytes, free_bytes, read,
        probes.table("move"), probes.table("linear"), probes.table("masked"), probes.table("causal"), vision,
        layer, max(few - LAYERS[0] * layer, 1e-7),
        date.today().isoformat(), torch.__version__, os.cpu_count() or 0, probes.spread,
    )  # fmt: skip
