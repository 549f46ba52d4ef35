"""The sizes of the language models: Llama, Mistral, Qwen2, Qwen2.5 and Qwen3."""

from __future__ import annotations

from typing import Any

from sfllava.models.operations import Layers


def text_layers(text: Any) -> Layers:
    """Return the sizes of the decoder layers, by the config of a language model."""
    head = getattr(text, "head_dim", None) or text.hidden_size // text.num_attention_heads
    heads, kv_heads = text.num_attention_heads, text.num_key_value_heads
    vectors = 2 * text.hidden_size  # two norms
    kind = text.model_type
    if kind.startswith(("qwen2", "qwen2_5")) or getattr(text, "attention_bias", False):
        vectors += head * (heads + 2 * kv_heads)
    if getattr(text, "attention_bias", False):
        vectors += text.hidden_size
    if kind.startswith("qwen3"):
        vectors += 2 * head  # norms of queries and keys
    return Layers(
        text.num_hidden_layers, text.hidden_size, text.intermediate_size, heads, kv_heads, head, True, vectors
    )


def embedding_parameters(config: Any) -> int:
    """Count the parameters of the input and output embeddings, which may be tied, and of the last norm."""
    text = config.get_text_config()
    tied = getattr(config, "tie_word_embeddings", False) or getattr(text, "tie_word_embeddings", False)
    return (1 if tied else 2) * text.vocab_size * text.hidden_size + text.hidden_size
