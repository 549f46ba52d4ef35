"""The speed of a device, measured within seconds: matrix products, attention, memory, and the overhead of a layer."""

from __future__ import annotations

import json
import math
import os
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import date
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from sfllava.models.host import host_memory, processor_name
from sfllava.planning.probes import LAYERS, Probes, Table
from sfllava.types import SfllavaError

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_ROUNDS = 3
_BUSY = 2.0  # median over best repeat above which something else was running


@dataclass(frozen=True)
class Roofline:
    """The measurements of a device in one dtype: operations, bytes and seconds."""

    device: str
    kind: str
    """cpu or cuda"""
    dtype: str
    memory_bytes: int
    """Memory of one device"""
    free_bytes: int
    """Bytes that were free"""
    read: float
    """Bytes per second of weights that are read once, by a product with one row"""
    move: Table
    """(1, bytes of the result, bytes per second read and written) of elementwise products of two tensors"""
    linear: Table
    """Operations per second of (rows, width) by (width, width), with weights read from memory as in a model"""
    masked: Table
    """Operations per second of attention under a mask to 4,096 keys, by query rows and head width"""
    causal: Table
    """Operations per second of causal attention, as many queries as keys; only visible keys count"""
    vision: float
    """Operations per second of attention among the 577 positions of an image, head width 64"""
    layer_seconds: float
    """Overhead of a layer that has nothing to compute: kernel launches and Python"""
    forward_seconds: float
    """Overhead of a forward pass in addition to its layers"""
    measured: str = ""
    torch: str = ""
    cores: int = 0
    spread: float = 1.0
    """The largest ratio of a median repeat to the best; 1 where it was not recorded"""
    source: str = ""
    """Where the figures are from, and what is assumed, if they were not measured"""

    @property
    def itemsize(self) -> int:
        return _DTYPES[self.dtype].itemsize

    def save(self, path: str | Path) -> Path:
        """Write the roofline as JSON, and return the path."""
        path = Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")
        return path

    def __str__(self) -> str:
        if self.source:
            return f"{self.device}, {self.dtype}: {self.source}".replace("; assumed: ", "\nassumed: ")
        top = max(rate for _, _, rate in self.linear)
        return (
            f"{self.device}, {self.dtype}: products {top / 1e12:,.3g} TFLOP/s, weights read at {self.read / 1e9:,.3g} "
            f"GB/s, {self.layer_seconds * 1e6:,.0f} us a layer at least, {self.free_bytes / 2**30:,.1f} of "
            f"{self.memory_bytes / 2**30:,.1f} GiB free; measured {self.measured}"
            + (f", the repeats differed by up to {self.spread:,.2f} times" if self.spread > 1 else "")
        )

    @property
    def warning(self) -> str:
        """One line if the device was not measured, or was busy with something else meanwhile; else empty"""
        if self.source:
            return (
                "seconds are estimates from published peak figures; on the device, `sfllava plan --measure FILE` "
                "measures it, and --roofline FILE plans with that"
            )
        if self.spread < _BUSY:
            return ""
        return (
            f"the device was busy while it was measured (the repeats differed by up to {self.spread:,.1f} times), so "
            "seconds may be too many: measure it again when nothing else runs"
        )


def load_roofline(path: str | Path) -> Roofline:
    """Read a roofline that `save` wrote.

    Raises:
        SfllavaError: The file is not a roofline; the message names the file and the field.
    """
    path = Path(path)
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise SfllavaError(f"{path}: no such roofline; `sfllava plan --measure {path}` makes one") from None
    except (OSError, ValueError) as error:
        raise SfllavaError(f"{path}: not readable as JSON: {error}") from error
    wanted = {field.name: field for field in fields(Roofline)}
    keys = set(found) if isinstance(found, dict) else set()
    # files of version 0.1.0 have no spread, and those before 0.5.0 no source
    missing, other = sorted(set(wanted) - keys - {"spread", "source"}), sorted(keys - set(wanted))
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


@lru_cache(maxsize=65536)
def rate(table: Table, rows: float, width: float) -> float:
    """Return operations per second at a size: interpolated in logarithms, and constant beyond the measured sizes."""
    known = {(a, b): value for a, b, value in table}
    (i, j, u), (k, m, v) = _between(sorted({a for a, _ in known}), rows), _between(sorted({b for _, b in known}), width)
    pairs = ((i, k, (1 - u) * (1 - v)), (i, m, (1 - u) * v), (j, k, u * (1 - v)), (j, m, u * v))
    return math.exp(sum(weight * math.log(known[a, b]) for a, b, weight in pairs if weight))


def _between(sizes: list[int], size: float) -> tuple[int, int, float]:
    if size <= sizes[0] or size >= sizes[-1]:
        end = sizes[0] if size <= sizes[0] else sizes[-1]
        return end, end, 0.0
    index = bisect_right(sizes, size)
    low, high = sizes[index - 1], sizes[index]
    return low, high, math.log(size / low) / math.log(high / low)


def measure(device: str = "auto", dtype: str = "auto", clock: Callable[[], float] = time.perf_counter) -> Roofline:
    """Measure a device, which takes seconds. The best repeats of several rounds count.

    Args:
        device: auto (a GPU if there is one), cpu, cuda or cuda:1.
        dtype: auto (float32 on a CPU, float16 elsewhere), float32, float16 or bfloat16.
        clock: Returns seconds. `time.process_time` suits a CPU that does other work too, with one thread of torch.

    Returns:
        The measurements.

    Raises:
        SfllavaError: The device or the dtype is unknown.
    """
    from sfllava.models.placement import device_of

    place = torch.device(device_of(device))
    name = ("float32" if place.type == "cpu" else "float16") if dtype == "auto" else dtype
    if name not in _DTYPES:
        raise SfllavaError(f"dtype must be auto, {', '.join(_DTYPES)}, got {dtype!r}")
    if place.type == "cuda":
        torch.cuda.synchronize(place)  # creates the context, whose memory is not available
        free_bytes, memory_bytes = torch.cuda.mem_get_info(place)
        label = torch.cuda.get_device_name(place)
    else:
        free_bytes, memory_bytes, label = *host_memory(), f"{processor_name()}, {torch.get_num_threads()} threads"
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
