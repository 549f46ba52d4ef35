"""Which prompt templates suit a language model, told from its config, its chat template and its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sfllava.models.checkpoint import CheckpointError, read_json
from sfllava.models.tokenizer import Tokenizer
from sfllava.prompts import families

# A special token that only one format has
_TOKENS = (("<|start_header_id|>", "llama3"), ("<|im_start|>", "chatml"))
# A part of a chat template that only one format has
_MARKS = (
    ("<|start_header_id|>", "llama3"),
    ("[INST]", "mistral"),
    ("<|im_start|>", "chatml"),
    ("ASSISTANT:", "vicuna"),
)


def find_format(text: Any, folder: Path, tokenizer: Tokenizer | None) -> str | None:
    """Return the name of the prompt templates that suit a language model, None if it cannot be told.

    Args:
        text: The config of the language model.
        folder: The checkpoint folder.
        tokenizer: Its tokenizer, None where there is none.
    """
    if text.model_type == "mistral":
        return "mistral"
    if text.model_type in ("qwen2", "qwen3"):
        return "qwen"
    if template := chat_template(folder):
        return next((name for mark, name in _MARKS if mark in template), None)
    if tokenizer is None:
        return None
    for token, name in _TOKENS:
        if tokenizer.token_id(token) is not None:
            return name
    # Vicuna keeps Llama 2's tokenizer; no other LLaVA has it with a Llama
    llama2 = text.model_type == "llama" and None not in (tokenizer.token_id("<s>"), tokenizer.token_id("</s>"))
    return "vicuna" if llama2 else None


def chat_template(folder: Path) -> str:
    """Return the chat template of a checkpoint as text, empty where it has none. It is read and never executed."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8", errors="replace")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        if (folder / name).is_file() and isinstance(found := read_json(folder / name).get("chat_template"), str):
            return found
    return ""


def choose_format(asked: str | None, found: str | None, folder: Path) -> str:
    """Return the prompt templates to use: those that a user asked for, or else those that suit the model.

    Raises:
        CheckpointError: There are no such templates, or neither is known.
    """
    if asked is not None and asked not in families():
        raise CheckpointError(f"no prompt family is called {asked!r}; choose from {', '.join(families())}")
    if asked or found:
        return asked or str(found)
    raise CheckpointError(
        f"{folder}: neither its config, its chat template nor its tokenizer tells which prompt format it was trained "
        f"with; name it with family (--family): {', '.join(families())}"
    )
