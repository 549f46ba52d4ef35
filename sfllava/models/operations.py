"""What a setting costs, by arithmetic: floating-point operations of prefill and vision tower, bytes of keys and values.

An operation is a multiplication or an addition, so a matrix product of (m k) and (k n) has 2 m k n of them. Norms,
activations and position embeddings are left out: they are below 1 % of a 7B's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Layers:
    """A stack of transformer layers: how many, how wide, and the width of their feed-forward parts."""

    count: int
    width: int
    inner: int
    heads: int
    kv_heads: int
    head_width: int
    gated: bool
    """Whether the feed-forward part has three matrices (Llama) or two (CLIP)"""

    @property
    def weights(self) -> int:
        """Weights that each token is multiplied by."""
        attention = self.width * self.head_width * 2 * (self.heads + self.kv_heads)
        return self.count * (attention + (3 if self.gated else 2) * self.width * self.inner)

    @property
    def parameters(self) -> int:
        """All parameters: the weights, the norms', and where it is not gated (CLIP) the biases and the norms' too."""
        if self.gated:
            return self.weights + self.count * 2 * self.width
        inside = self.head_width * (self.heads + 2 * self.kv_heads)
        return self.weights + self.count * (inside + self.width + self.inner + self.width + 4 * self.width)

    def flops(self, tokens: int, earlier: int = 0, causal: bool = True) -> int:
        """Of a forward over `tokens` tokens that follow `earlier` ones in a cache."""
        seen = earlier * tokens + (tokens * (tokens + 1) // 2 if causal else tokens * tokens)
        return 2 * tokens * self.weights + 4 * self.count * self.heads * self.head_width * seen


@dataclass(frozen=True)
class Shape:
    """The sizes of a LLaVA-NeXT that its costs depend on."""

    language: Layers
    vision: Layers
    vocabulary: int
    grid: tuple[int, int]
    patch: int

    @property
    def parameters(self) -> int:
        """All parameters of a loaded model, whose vision tower ends at the last layer that is used."""
        width, tower = self.language.width, self.vision.width
        embeddings = 2 * self.vocabulary * width + width  # of the input, of the output, and the last norm
        patches = tower * (1 + 3 * self.patch**2 + self.grid[0] * self.grid[1] + 1) + 4 * tower
        projector = (tower + 1) * width + (width + 1) * width
        newline = width
        return self.language.parameters + embeddings + self.vision.parameters + patches + projector + newline

    def encode_flops(self, images: int) -> int:
        """Of the vision tower and the projector, for as many images."""
        patches = self.grid[0] * self.grid[1]
        convolution = 2 * patches * 3 * self.patch * self.patch * self.vision.width
        projector = 2 * patches * self.language.width * (self.vision.width + self.language.width)
        return images * (convolution + self.vision.flops(patches + 1, causal=False) + projector)

    def prefill_flops(self, tokens: int, earlier: int = 0) -> int:
        """Of the language model over `tokens` prompt tokens behind `earlier` cached ones, and of one token's logits."""
        return self.language.flops(tokens, earlier) + 2 * self.language.width * self.vocabulary

    def kv_bytes(self, tokens: int, width: int = 2) -> int:
        """Of the keys and values of as many tokens, in numbers of `width` bytes (2: half precision)."""
        return 2 * self.language.count * self.language.kv_heads * self.language.head_width * tokens * width


def shape_of(config: Any, vision_layers: int) -> Shape:
    """The shape of a LlavaNextConfig, of whose vision tower as many layers are used."""
    text, vision = config.text_config, config.vision_config
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    side = vision.image_size // vision.patch_size
    language = Layers(
        text.num_hidden_layers, text.hidden_size, text.intermediate_size,
        text.num_attention_heads, text.num_key_value_heads, head, True,
    )  # fmt: skip
    heads = vision.num_attention_heads
    tower = Layers(
        vision_layers, vision.hidden_size, vision.intermediate_size, heads, heads, vision.hidden_size // heads, False
    )
    return Shape(language, tower, text.vocab_size, (side, side), vision.patch_size)


def shape_from(facts: dict[str, Any]) -> Shape:
    """A shape out of the JSON that `dataclasses.asdict` gave."""
    layers = {name: Layers(**facts[name]) for name in ("language", "vision")}
    return Shape(**layers, **{name: facts[name] for name in ("vocabulary", "patch")}, grid=tuple(facts["grid"]))
