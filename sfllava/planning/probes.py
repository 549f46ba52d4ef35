"""Computations of known size that measure a device; `roofline.measure` repeats them in rounds."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from itertools import cycle
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear, scaled_dot_product_attention
from transformers import LlamaConfig, LlamaModel

Table = tuple[tuple[int, int, float], ...]
"""(rows, width, operations per second) for every combination of some rows and some widths"""
_HEADS = 16
_KEYS = 4096
_PATCHES = 577
LAYERS = (2, 10)
_WINDOW = 0.005  # seconds of one repeat of a short computation; a shorter one is disturbed less often


class Probes:
    """Timed computations of known operations or bytes, by table, rows and width.

    Args:
        place: The device.
        dtype: The number format.
        clock: Returns seconds.
    """

    def __init__(self, place: torch.device, dtype: torch.dtype, clock: Callable[[], float]) -> None:
        self._place, self._dtype, self._clock, self._large = place, dtype, clock, place.type == "cuda"
        self._work: dict[tuple[str, int, int], float] = {}
        self._seconds: dict[tuple[str, int, int], list[float]] = {}

    def table(self, name: str) -> Table:
        """Return operations or bytes per second at each size, of the best repeat."""
        found = [key for key in self._work if key[0] == name]
        return tuple(
            (rows, width, self._work[name, rows, width] / self.best(name, rows, width)) for _, rows, width in found
        )

    def best(self, name: str, rows: int, width: int) -> float:
        """Return seconds of the best repeat: a disturbance makes one longer, and nothing makes one shorter."""
        return min(self._seconds[name, rows, width])

    @property
    def spread(self) -> float:
        """The ratio of the median repeat to the best, for the computation where it is largest"""
        return round(max(statistics.median(found) / min(found) for found in self._seconds.values()), 3)

    def memory(self) -> None:
        """Time weights that are read once, and elementwise products."""
        width = 16384 if self._large else 4096
        weight, row = self._new(width, 16384), self._new(1, 16384)
        self._time("read", 1, width, weight.nbytes, lambda: linear(row, weight))
        for size in (2**16, 2**22, 2**25, 2**28) if self._large else (2**14, 2**20, 2**24, 2**26):
            one, two = (self._new(size // self._dtype.itemsize) for _ in range(2))
            self._time("move", 1, size, 3 * size, lambda x=one, y=two: x * y)

    def products(self) -> None:
        """Time products of (rows, width) and (width, width)."""
        for width in (1024, 4096, 8192) if self._large else (256, 1024, 4096):
            # a forward pass reads each weight from memory once; one matrix used again and again would stay in a cache
            count = max(2, (512 if self._large else 128) * 2**20 // (width**2 * self._dtype.itemsize))
            weights = cycle([self._new(width, width) for _ in range(count)])
            for rows in (1, 4, 16, 64, 512, 4096) if self._large else (1, 4, 16, 64, 512):
                x = self._new(rows, width)
                self._time("linear", rows, width, 2 * rows * width**2, lambda x=x, w=weights: linear(x, next(w)))

    def attention(self) -> None:
        """Time attention to 4,096 keys under a mask, causal attention, and attention among the patches of images."""
        attend = scaled_dot_product_attention
        for width in (64, 128):
            for rows in (1, 16, 256):
                q, k = self._new(1, _HEADS, rows, width), self._new(1, _HEADS, _KEYS, width)
                mask = torch.ones(1, 1, rows, _KEYS, dtype=torch.bool, device=self._place)
                work = 4 * _HEADS * width * rows * _KEYS
                self._time("masked", rows, width, work, lambda q=q, k=k, m=mask: attend(q, k, k, attn_mask=m))
            for rows in (512, 4096) if self._large else (512, 2048):
                q = self._new(1, _HEADS, rows, width)
                work = 4 * _HEADS * width * (rows * (rows + 1) // 2)
                self._time("causal", rows, width, work, lambda q=q: attend(q, q, q, is_causal=True))
        q = self._new(16 if self._large else 2, 16, _PATCHES, 64)
        self._time("vision", _PATCHES, 64, 4 * q.shape[0] * 16 * 64 * _PATCHES**2, lambda: attend(q, q, q))

    def overheads(self) -> None:
        """Time models of few and of many layers that have almost nothing to compute."""
        given = {
            "inputs_embeds": torch.zeros(1, 1, 8, device=self._place, dtype=self._dtype),
            "position_ids": torch.zeros(1, 1, dtype=torch.long, device=self._place),
            "attention_mask": torch.ones(1, 1, 1, 1, dtype=torch.bool, device=self._place),
        }
        for layers in LAYERS:
            config = LlamaConfig(
                vocab_size=8, hidden_size=8, intermediate_size=8, num_hidden_layers=layers, num_attention_heads=1
            )
            config._attn_implementation = "sdpa"
            network: Any = LlamaModel(config).to(device=self._place, dtype=self._dtype).eval()  # type: ignore[arg-type]
            self._time("layers", layers, 0, 0, lambda n=network: n(**given))

    def _new(self, *shape: int) -> Tensor:
        return torch.randn(shape, device=self._place, dtype=self._dtype)

    def _time(self, name: str, rows: int, width: int, work: float, run: Callable[[], Any]) -> None:
        """Time some repeats, after a warm-up.

        On a GPU the clock stops when the work is done. Short computations are timed several at a time, so the result is
        the longer of launching and executing them, as in a model.
        """

        def timed(times: int) -> float:
            if self._large:
                torch.cuda.synchronize(self._place)
            start = self._clock()
            for _ in range(times):
                run()
            if self._large:
                torch.cuda.synchronize(self._place)
            return (self._clock() - start) / times

        timed(1)
        first = timed(1)
        times = max(1, min(50, int(_WINDOW / max(first, 1e-9))))
        repeats = 6 if times > 1 else 2
        self._work[name, rows, width] = work
        self._seconds.setdefault((name, rows, width), []).extend(timed(times) for _ in range(repeats))
