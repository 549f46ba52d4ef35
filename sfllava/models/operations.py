"""Arithmetic of the cost of a setting: operations of vision tower and language model, bytes of keys and values.

An operation is a multiplication or an addition: a matrix product of (m k) and (k n) has 2 m k n. Norms,
activations and position embeddings are left out: they are below 1 % of a 7B's.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

# Of bitsandbytes: numbers in 4 bits (NF4) with a scale for each block, or in 8 bits with a scale for each output
QUANTIZATIONS = ("nf4", "int8")
NF4_BLOCK = 64


def quantized_bytes(quantize: str, inputs: int, outputs: int) -> int:
    """Count the bytes of a quantised matrix with its scales.

    The scales of NF4 are quantised too: in 8 bits, with a float32 scale for each 256, an offset, and two tables of 16
    and 256 float32 numbers.

    Args:
        quantize: One of QUANTIZATIONS.
        inputs: Columns of the matrix.
        outputs: Rows of the matrix.
    """
    if quantize == "int8":
        return inputs * outputs + 4 * outputs
    blocks = -(-inputs * outputs // NF4_BLOCK)
    return -(-inputs * outputs // 2) + blocks + 4 * (-(-blocks // 256) + 1 + 16 + 256)


@dataclass(frozen=True)
class Layers:
    """A stack of transformer layers.

    Attributes:
        count: Number of layers.
        width: Width of the hidden states.
        inner: Width of the feed-forward part.
        heads: Number of query heads.
        kv_heads: Number of key and value heads.
        head_width: Width of a head.
        gated: Whether the feed-forward part has three matrices (SwiGLU) or two.
        vectors: Numbers in the biases and norms of a layer.
    """

    count: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head_width: int
    gated: bool
    vectors: int = 0

    @property
    def matrices(self) -> tuple[tuple[int, int], ...]:
        """Inputs and outputs of the matrices of one layer: queries, keys, values, output, feed-forward part."""
        inside, kept = self.heads * self.head_width, self.kv_heads * self.head_width
        attention = ((self.width, inside), (self.width, kept), (self.width, kept), (inside, self.width))
        return attention + ((self.width, self.inner),) * (1 + self.gated) + ((self.inner, self.width),)

    @property
    def weights(self) -> int:
        """Number of weights that each token is multiplied by."""
        return self.count * sum(inputs * outputs for inputs, outputs in self.matrices)

    @property
    def parameters(self) -> int:
        """Number of all parameters."""
        return self.weights + self.count * self.vectors

    def flops(self, tokens: int, earlier: int = 0, causal: bool = True) -> int:
        """Count the operations of a forward.

        Args:
            tokens: Number of new tokens.
            earlier: Number of tokens in the cache before them.
            causal: Whether a token attends to earlier tokens only.
        """
        seen = earlier * tokens + (tokens * (tokens + 1) // 2 if causal else tokens * tokens)
        return 2 * tokens * self.weights + 4 * self.count * self.heads * self.head_width * seen


@dataclass(frozen=True)
class Shape:
    """The sizes of a model that its cost depends on.

    Attributes:
        language: The decoder layers.
        vision: The layers of the vision tower that are used.
        vocabulary: Number of token ids.
        grid: Number of patches (h, w) of a frame that the language model can see.
        patch: Height and width in pixels of a patch of the vision tower.
        tower: Number of patches (h, w) of a frame inside the tower; (0, 0): as in `grid`.
        cls_tokens: Tokens of the tower in addition to its patches.
        temporal_patch: Frames in a patch of the tower; an image is repeated so many times.
        projector: Inputs and outputs of each matrix between tower and language model, for one patch of `grid`.
        window: Patches that attend to each other in most layers of the tower; 0: all.
        full_layers: Layers of the tower in which all patches attend to each other in spite of `window`.
        rest: Number of parameters outside the layers: embeddings, patches, projector, last norms.
        quantize: How the matrices of `language` are quantised, one of QUANTIZATIONS; None for not at all.
    """

    language: Layers
    vision: Layers
    vocabulary: int
    grid: tuple[int, int]
    patch: int
    tower: tuple[int, int] = (0, 0)
    cls_tokens: int = 1
    temporal_patch: int = 1
    projector: tuple[tuple[int, int], ...] = ()
    window: int = 0
    full_layers: int = 0
    rest: int = 0
    quantize: str | None = None

    @property
    def patches(self) -> int:
        """Number of patches of a frame inside the vision tower."""
        high, wide = self.tower if any(self.tower) else self.grid
        return high * wide

    @property
    def patch_inputs(self) -> int:
        """Numbers that one patch is computed from."""
        return 3 * self.temporal_patch * self.patch**2

    @property
    def attended(self) -> float:
        """Pairs of tokens of one frame that attend to each other in the tower, as a mean over its layers."""
        everything = (self.patches + self.cls_tokens) ** 2
        if not self.window:
            return everything
        full = self.full_layers / self.vision.count
        return full * everything + (1 - full) * self.patches * self.window

    @property
    def parameters(self) -> int:
        """Number of parameters of a loaded model, whose vision tower ends at the last layer that is used."""
        return self.language.parameters + self.vision.parameters + self.rest

    def weight_bytes(self, itemsize: int) -> int:
        """Count the bytes of the weights, with `itemsize` bytes for each number that is not quantised."""
        if self.quantize is None:
            return self.parameters * itemsize
        layers = self.language
        matrices = layers.count * sum(quantized_bytes(self.quantize, *matrix) for matrix in layers.matrices)
        return matrices + (self.parameters - layers.weights) * itemsize

    def dequantized_bytes(self, itemsize: int) -> int:
        """Count the bytes of the largest matrix while a forward computes with it: dequantised, with float32 scales."""
        if self.quantize is None:
            return 0
        numbers = max(inputs * outputs for inputs, outputs in self.language.matrices)
        scales = 4 * -(-numbers // NF4_BLOCK) if self.quantize == "nf4" else 0
        return numbers * itemsize + scales

    def encode_flops(self, images: int) -> int:
        """Count the operations of the vision tower and the projector for a number of images."""
        convolution = 2 * self.patches * self.patch_inputs * self.vision.width
        tower = 2 * (self.patches + self.cls_tokens) * self.vision.weights
        inside = self.vision.heads * self.vision.head_width
        attention = round(4 * self.vision.count * inside * self.attended)
        projector = 2 * self.grid[0] * self.grid[1] * sum(inputs * outputs for inputs, outputs in self.projector)
        return images * (convolution + tower + attention + projector)

    def prefill_flops(self, tokens: int, earlier: int = 0) -> int:
        """Count the operations of a prefill of `tokens` after `earlier` cached ones, and of the logits of one token."""
        return self.language.flops(tokens, earlier) + 2 * self.language.width * self.vocabulary

    def kv_bytes(self, tokens: int, width: int = 2) -> int:
        """Count the bytes of the keys and values of a number of tokens, with `width` bytes per number."""
        return 2 * self.language.count * self.language.kv_heads * self.language.head_width * tokens * width

    def to_dict(self) -> dict[str, Any]:
        """Return what run.json records: the sizes that the cost of the language model depends on, and the patches."""
        layers = {
            name: {key: value for key, value in asdict(part).items() if key != "vectors"}
            for name, part in (("language", self.language), ("vision", self.vision))
        }
        return {**layers, "vocabulary": self.vocabulary, "grid": self.grid, "patch": self.patch}


def shape_from(facts: dict[str, Any]) -> Shape:
    """Return a shape from the JSON of `Shape.to_dict`."""
    layers = {name: Layers(**facts[name]) for name in ("language", "vision")}
    return Shape(**layers, **{name: facts[name] for name in ("vocabulary", "patch")}, grid=tuple(facts["grid"]))
