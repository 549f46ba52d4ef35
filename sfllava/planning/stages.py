"""The cost of each stage on a measured device: operations, bytes and seconds, one matrix product after another.

A product takes as long as its operations at the speed measured for its size, or as the bytes that it moves, whichever
is longer. Elementwise passes (norms, rotations, activations, residuals) move bytes only. The overhead of a layer is
added on a CPU; on a GPU longer computation hides it, so there the longer of the two counts. Operations are those that
the kernels execute, so a forward pass under a mask has more than `models.operations` counts.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from sfllava.models.operations import Layers, Shape, quantized_bytes
from sfllava.planning.roofline import Roofline, rate


@dataclass(frozen=True)
class Cost:
    """Operations, bytes moved, and seconds."""

    flops: float = 0.0
    bytes: float = 0.0
    seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return Cost(self.flops + other.flops, self.bytes + other.bytes, self.seconds + other.seconds)

    def __mul__(self, times: float) -> Cost:
        return Cost(times * self.flops, times * self.bytes, times * self.seconds)


# Rows up to which bitsandbytes computes with NF4 weights as they are, on every GPU
_FUSED_ROWS = 4


class _Meter:
    """Adds up the costs of a forward pass."""

    def __init__(self, device: Roofline) -> None:
        self.device, self.size, self.cost = device, device.itemsize, Cost()

    def _add(self, flops: float, size: float, seconds: float, times: float) -> None:
        self.cost += Cost(flops, size, seconds) * times

    def linear(self, rows: float, inputs: int, outputs: int, times: float = 1, quantize: str | None = None) -> None:
        """Add `times` products of (rows, inputs) and (inputs, outputs), with dequantised weights where they are not."""
        flops, weights = 2 * rows * inputs * outputs, inputs * outputs * self.size
        if quantize:
            stored, fused = quantized_bytes(quantize, inputs, outputs), quantize == "nf4" and rows <= _FUSED_ROWS
            # in a pass of its own, except in a kernel for few rows on a GPU
            if not (fused and self.device.kind == "cuda"):
                self._add(0, stored + weights, (stored + weights) / self.device.read, times)
            else:
                weights = stored
        out = rows * (inputs + outputs) * self.size
        products = flops / rate(self.device.linear, rows, (inputs * outputs) ** 0.5)
        moved = weights / self.device.read + out / rate(self.device.move, 1, rows * outputs * self.size)
        self._add(flops, weights + out, max(products, moved), times)

    def attend(self, flops: float, speed: float, keys: float, times: float) -> None:
        """Add `times` attentions of `flops` operations; `keys` is the count of numbers in all keys and values."""
        size = keys * self.size
        self._add(flops, size, max(flops / speed, size / self.device.read), times)

    def passes(self, numbers: float, result: float, times: float = 1) -> None:
        """Add `times` elementwise passes that read and write `numbers`, in steps with results of `result` numbers."""
        size = numbers * self.size
        self._add(0, size, size / rate(self.device.move, 1, result * self.size), times)

    def total(self, layers: int) -> Cost:
        """Return the cost, with the overhead of the layers."""
        least = layers * self.device.layer_seconds + self.device.forward_seconds
        seconds = max(self.cost.seconds, least) if self.device.kind == "cuda" else self.cost.seconds + least
        return Cost(self.cost.flops, self.cost.bytes, seconds)


def encode_cost(shape: Shape, device: Roofline, images: int, batch: int) -> Cost:
    """Return the cost of the vision tower and the projector for images, in batches."""
    whole, rest = divmod(images, batch)
    return _encode(shape, device, batch) * whole + (_encode(shape, device, rest) if rest else Cost())


@lru_cache(maxsize=1024)
def _encode(shape: Shape, device: Roofline, images: int) -> Cost:
    meter, tower = _Meter(device), shape.vision
    patches, kept = images * shape.patches, images * shape.grid[0] * shape.grid[1]
    tokens, pixels = images * (shape.patches + shape.cls_tokens), patches * shape.patch_inputs
    # float32: converted, divided, shifted and scaled
    meter.passes(pixels * 8 * 4 / device.itemsize, pixels)
    meter.linear(patches, shape.patch_inputs, tower.width)
    n, inside = tower.count, tower.heads * tower.head_width
    meter.linear(tokens, tower.width, inside, 4 * n)
    meter.attend(4 * inside * images * shape.attended, device.vision, 2 * tokens * inside, n)
    meter.linear(tokens, tower.width, tower.inner, (2 if tower.gated else 1) * n)
    meter.linear(tokens, tower.inner, tower.width, n)
    meter.passes(tokens * 12 * tower.width, tokens * tower.width, n)  # two norms, two residuals, heads concatenated
    meter.passes(tokens * 7 * tower.inner, tokens * tower.inner, n)  # x * sigmoid(1.702 x)
    for inputs, outputs in shape.projector:
        meter.linear(kept, inputs, outputs)
    meter.passes(kept * 4 * shape.language.width, kept * shape.language.width)  # GELU, all batches concatenated
    return meter.total(n)


@lru_cache(maxsize=4096)
def prefill_cost(shape: Shape, device: Roofline, tokens: int, reused: int = 0) -> Cost:
    """Return the cost of the language model for a prompt whose first `reused` tokens are cached; no logits."""
    meter, layers, rows = _Meter(device), shape.language, tokens - reused
    _language(meter, shape, rows)
    inside = layers.heads * layers.head_width
    if 2 * rows <= tokens:
        _masked(meter, layers, 1, rows, tokens)
    else:  # the causal kernel computes all positions
        speed = rate(device.causal, tokens, layers.head_width)
        meter.attend(2 * inside * tokens * (tokens + 1), speed, 2 * tokens * _key_width(layers), layers.count)
    return meter.total(layers.count)


@lru_cache(maxsize=65536)
def forward_cost(shape: Shape, device: Roofline, videos: int, rows: float, keys: float, logits: float) -> Cost:
    """Return the cost of `rows` positions after each of several prefixes, masked over `keys` positions."""
    meter, layers = _Meter(device), shape.language
    _language(meter, shape, videos * rows)
    _masked(meter, layers, videos, rows, keys)
    meter.linear(logits, layers.width, shape.vocabulary)
    return meter.total(layers.count)


@lru_cache(maxsize=4096)
def alone_cost(shape: Shape, device: Roofline, tokens: int, new: float) -> Cost:
    """Return the cost of one question with nothing shared: its prompt, then tokens that each copy the cache."""
    meter, layers = _Meter(device), shape.language
    meter.linear(1, layers.width, shape.vocabulary)
    keys = tokens + new / 2
    step = _Meter(device)
    _language(step, shape, 1)
    _masked(step, layers, 1, 1, keys)
    step.passes(2 * 2 * keys * _key_width(layers), keys * _key_width(layers), layers.count)
    step.linear(1, layers.width, shape.vocabulary)
    return prefill_cost(shape, device, tokens) + meter.cost + step.total(layers.count) * max(new - 1, 0)


def _key_width(layers: Layers) -> int:
    """Return how many numbers the keys of one position have in one layer."""
    return layers.kv_heads * layers.head_width


def _language(meter: _Meter, shape: Shape, rows: float) -> None:
    """Add all layers of the language model for `rows` positions, without attention."""
    layers = shape.language
    inside = layers.heads * layers.head_width
    n, kept = layers.count, _key_width(layers)
    for inputs, outputs in layers.matrices:
        meter.linear(rows, inputs, outputs, n, shape.quantize)
    # a norm reads and writes seven times its width, and converts to float32 and back in half precision
    norm = 7 if meter.size == 4 else 18
    meter.passes(rows * (2 * norm + 6) * layers.width, rows * layers.width, n)
    meter.passes(rows * (10 * (inside + kept) + 6 * kept), rows * inside, n)  # rotation, writing into the cache
    meter.passes(rows * 5 * layers.inner, rows * layers.inner, n)


def _masked(meter: _Meter, layers: Layers, videos: int, rows: float, keys: float) -> None:
    """Add attention under a mask. For few rows `models.attention` reads shared keys once; else it copies them."""
    groups, inside = layers.heads // layers.kv_heads, layers.heads * layers.head_width
    grouped = groups > 1 and rows * groups <= 256
    speed = rate(meter.device.masked, rows * groups if grouped else rows, layers.head_width)
    meter.attend(4 * inside * videos * rows * keys, speed, 2 * videos * keys * _key_width(layers), layers.count)
    if groups > 1 and not grouped:
        copied = videos * keys * inside
        meter.passes(2 * 2 * copied, copied, layers.count)


def encode_bytes(shape: Shape, itemsize: int, batch: int) -> int:
    """Return the peak bytes of activations for a batch of images, in the vision tower or the projector."""
    tower, tokens = shape.vision, shape.patches + shape.cls_tokens
    pixels = shape.patches * shape.patch_inputs * (1 + 4 + itemsize)
    layer = tokens * max(3 * tower.width + 3 * tower.inner, 7 * tower.width) * itemsize
    widest = max((inputs for inputs, _ in shape.projector), default=tower.width)
    projector = shape.grid[0] * shape.grid[1] * (widest + 3 * shape.language.width) * itemsize
    return batch * max(pixels, layer, projector)


def forward_bytes(shape: Shape, itemsize: int, rows: int, logits: int = 0) -> int:
    """Return the peak bytes of activations for a forward pass over `rows` positions, with `logits` rows of logits.

    They are the embeddings and the residual; the largest of the feed-forward part (the normed input and three tensors
    of the inner width), attention (the normed input, queries and keys before, during and after rotation, values) and a
    norm in float32; the logits, also in float32; and a dequantised matrix.
    """
    layers = shape.language
    inside, kept = layers.heads * layers.head_width, _key_width(layers)
    feed = (layers.width + 3 * layers.inner) * itemsize
    attention = (layers.width + 5 * inside + 3 * kept) * itemsize
    norm = layers.width * 2 * 4
    activations = rows * (2 * layers.width * itemsize + max(feed, attention, norm))
    return activations + logits * shape.vocabulary * (itemsize + 4) + shape.dequantized_bytes(itemsize)
