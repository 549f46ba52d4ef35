"""Arithmetic of the cost of a setting: operations of vision tower and language model, bytes of keys and values.

An operation is a multiplication or an addition: a matrix product of (m k) and (k n) has 2 m k n. Norms,
activations and position embeddings are left out: they are below 1 % of a 7B's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


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
        gated: Whether the feed-forward part has three matrices (Llama) or two (CLIP).
    """

    count: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head_width: int
    gated: bool

    @property
    def weights(self) -> int:
        """Number of weights that each token is multiplied by."""
        attention = self.width * self.head_width * 2 * (self.heads + self.kv_heads)
        return self.count * (attention + (3 if self.gated else 2) * self.width * self.inner)

    @property
    def parameters(self) -> int:
        """Number of all parameters: weights and norms, and biases where the layers are not gated (CLIP)."""
        if self.gated:
            return self.weights + self.count * 2 * self.width
        inside = self.head_width * (self.heads + 2 * self.kv_heads)
        return self.weights + self.count * (inside + self.width + self.inner + self.width + 4 * self.width)

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
    """The sizes of a LLaVA-NeXT model that its cost depends on.

    Attributes:
        language: The decoder layers.
        vision: The layers of the vision tower that are used.
        vocabulary: Number of token ids.
        grid: Number of patches (h, w) of a frame.
        patch: Height and width of a patch in pixels.
    """

    language: Layers
    vision: Layers
    vocabulary: int
    grid: tuple[int, int]
    patch: int

    @property
    def parameters(self) -> int:
        """Number of parameters of a loaded model, whose vision tower ends at the last layer that is used."""
        width, tower = self.language.width, self.vision.width
        embeddings = 2 * self.vocabulary * width + width  # of the input, of the output, and the last norm
        patches = tower * (1 + 3 * self.patch**2 + self.grid[0] * self.grid[1] + 1) + 4 * tower
        projector = (tower + 1) * width + (width + 1) * width
        newline = width
        return self.language.parameters + embeddings + self.vision.parameters + patches + projector + newline

    def encode_flops(self, images: int) -> int:
        """Count the operations of the vision tower and the projector for a number of images."""
        patches = self.grid[0] * self.grid[1]
        convolution = 2 * patches * 3 * self.patch * self.patch * self.vision.width
        projector = 2 * patches * self.language.width * (self.vision.width + self.language.width)
        return images * (convolution + self.vision.flops(patches + 1, causal=False) + projector)

    def prefill_flops(self, tokens: int, earlier: int = 0) -> int:
        """Count the operations of a prefill of `tokens` after `earlier` cached ones, and of the logits of one token."""
        return self.language.flops(tokens, earlier) + 2 * self.language.width * self.vocabulary

    def kv_bytes(self, tokens: int, width: int = 2) -> int:
        """Count the bytes of the keys and values of a number of tokens, with `width` bytes per number."""
        return 2 * self.language.count * self.language.kv_heads * self.language.head_width * tokens * width


def shape_of(config: Any, vision_layers: int) -> Shape:
    """Return the shape of a model.

    Args:
        config: A LlavaNextConfig.
        vision_layers: Number of layers of the vision tower that are used.
    """
    text, vision = config.text_config, config.vision_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    patches = vision.image_size // vision.patch_size
    language = Layers(
        text.num_hidden_layers, text.hidden_size, text.intermediate_size,
        text.num_attention_heads, text.num_key_value_heads, head, True,
    )  # fmt: skip
    heads = vision.num_attention_heads
    tower = Layers(
        vision_layers, vision.hidden_size, vision.intermediate_size, heads, heads, vision.hidden_size // heads, False
    )
    return Shape(language, tower, text.vocab_size, (patches, patches), vision.patch_size)


def shape_from(facts: dict[str, Any]) -> Shape:
    """Return a shape from the JSON of `dataclasses.asdict`."""
    layers = {name: Layers(**facts[name]) for name in ("language", "vision")}
    return Shape(**layers, **{name: facts[name] for name in ("vocabulary", "patch")}, grid=tuple(facts["grid"]))
