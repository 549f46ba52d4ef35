"""What this device can do, measured in seconds: speed of products and attention, of memory, and a layer's overhead."""

from __future__ import annotations

import json
import math
import os
import platform
import statistics
import time
from bisect import bisect_right
from collections.abc import Callable
from dataclasses import asdict, dataclass, fields
from datetime import date
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import LlamaConfig, LlamaModel

from sfllava.types import SfllavaError

Table = tuple[tuple[int, int, float], ...]
"""(rows, width, operations a second) at every pair of some rows and some widths"""

_DTYPES = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
_HEADS = 16
_KEYS = 4096
_PATCHES = 577


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
    if not isinstance(found, dict) or set(found) != set(wanted):
        keys = set(found) if isinstance(found, dict) else set()
        missing, other = sorted(set(wanted) - keys), sorted(keys - set(wanted))
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
    """Measure a device, in seconds: medians of runs that follow a warm-up.

    device: auto (a GPU where there is one), cpu, cuda, cuda:1. dtype: auto (float32 on CPU, float16 elsewhere).
    clock: `time.process_time` for a CPU that does other work besides, with one thread of torch.
    """
    from sfllava.models.load import device_of

    place = torch.device(device_of(device))
    name = ("float32" if place.type == "cpu" else "float16") if dtype == "auto" else dtype
    if name not in _DTYPES:
        raise SfllavaError(f"dtype must be auto, {', '.join(_DTYPES)}, got {dtype!r}")
    kind, large = _DTYPES[name], place.type == "cuda"
    if large:
        torch.cuda.synchronize(place)  # makes the context, whose memory is nobody's to use
        free_bytes, memory_bytes = torch.cuda.mem_get_info(place)
        label = torch.cuda.get_device_name(place)
    else:
        free_bytes, memory_bytes, label = *_host_memory(), _processor()

    def new(*shape: int) -> Tensor:
        return torch.randn(shape, device=place, dtype=kind)

    def seconds(run: Callable[[], Any]) -> float:
        return _seconds(run, place, clock)

    with torch.inference_mode():
        width = 16384 if large else 4096
        weight, row = new(width, 16384), new(1, 16384)
        read = weight.nbytes / seconds(lambda x=row, w=weight: linear(x, w))
        del weight, row
        move = []
        for size in (2**16, 2**22, 2**25, 2**28) if large else (2**14, 2**20, 2**24, 2**26):
            one, two = new(size // kind.itemsize), new(size // kind.itemsize)
            move.append((1, size, 3 * size / seconds(lambda x=one, y=two: x * y)))
        del one, two
        products = []
        for width in (1024, 4096, 8192) if large else (256, 1024, 4096):
            # a model's weights come from memory, each once in a forward; one matrix again and again would from a cache
            count = max(2, (512 if large else 128) * 2**20 // (width**2 * kind.itemsize))
            weights = cycle([new(width, width) for _ in range(count)])
            for rows in (1, 4, 16, 64, 512, 4096) if large else (1, 4, 16, 64, 512):
                x = new(rows, width)
                products.append((rows, width, 2 * rows * width**2 / seconds(lambda x=x, w=weights: linear(x, next(w)))))
            del weights
        masked, causal = [], []
        for width in (64, 128):
            for rows in (1, 16, 256):
                q, k = new(1, _HEADS, rows, width), new(1, _HEADS, _KEYS, width)
                mask = torch.ones(1, 1, rows, _KEYS, dtype=torch.bool, device=place)
                spent = seconds(lambda q=q, k=k, m=mask: scaled_dot_product_attention(q, k, k, attn_mask=m))
                masked.append((rows, width, 4 * _HEADS * width * rows * _KEYS / spent))
            for rows in (512, 4096) if large else (512, 2048):
                q = new(1, _HEADS, rows, width)
                spent = seconds(lambda q=q: scaled_dot_product_attention(q, q, q, is_causal=True))
                causal.append((rows, width, 4 * _HEADS * width * (rows * (rows + 1) // 2) / spent))
        q = new(16 if large else 2, 16, _PATCHES, 64)
        vision = 4 * q.shape[0] * 16 * 64 * _PATCHES**2 / seconds(lambda: scaled_dot_product_attention(q, q, q))
        layer, forward = _overheads(place, kind, seconds)
    return Roofline(
        label, place.type, name, memory_bytes, free_bytes, read,
        tuple(move), tuple(products), tuple(masked), tuple(causal), vision, layer, forward,
        date.today().isoformat(), torch.__version__, os.cpu_count() or 0,
    )  # fmt: skip


def _overheads(
    place: torch.device, dtype: torch.dtype, seconds: Callable[[Callable[[], Any]], float]
) -> tuple[float, float]:
    """Seconds of a layer, and of a forward beside its layers, of a model too small to have anything to compute."""
    given = {
        "inputs_embeds": torch.zeros(1, 1, 8, device=place, dtype=dtype),
        "position_ids": torch.zeros(1, 1, dtype=torch.long, device=place),
        "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=place),
    }

    def spent(layers: int) -> float:
        config = LlamaConfig(
            vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=layers, num_attention_heads=1
        )
        config._attn_implementation = "sdpa"
        network: Any = LlamaModel(config).to(device=place, dtype=dtype).eval()  # type: ignore[arg-type]
        return seconds(lambda: network(**given))

    few, many = spent(2), spent(10)
    layer = max((many - few) / 8, 1e-7)
    return layer, max(few - 2 * layer, 1e-7)


def _seconds(run: Callable[[], Any], place: torch.device, clock: Callable[[], float], enough: float = 0.1) -> float:
    """The median of some runs, after a warm-up.

    On a GPU the clock stops when the work is done: a run of short ones is timed as a whole, so that what is measured
    is the longer of launching them and doing them, as in a model.
    """

    def timed(times: int) -> float:
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        start = clock()
        for _ in range(times):
            run()
        if place.type == "cuda":
            torch.cuda.synchronize(place)
        return (clock() - start) / times

    timed(2)
    first = timed(1)
    times = max(1, min(50, int(enough / 5 / max(first, 1e-9))))
    return statistics.median(timed(times) for _ in range(5 if first < enough else 3))


def _processor() -> str:
    name = platform.processor() or platform.machine()
    if platform.system() == "Linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), name)
    return f"{name}, {torch.get_num_threads()} threads"


def _host_memory() -> tuple[int, int]:
    """(free, all) bytes of the memory that this machine's processes share."""
    known: dict[str, int] = {}
    if platform.system() == "Linux":
        for line in Path("/proc/meminfo").read_text().splitlines():
            name, _, rest = line.partition(":")
            known[name] = int(rest.split()[0]) * 1024
    total = known.get("MemTotal") or os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return known.get("MemAvailable", total), total
