"""Choose the prompt templates for a language model, by its config, its chat template or its tokenizer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sfllava.catalogue import unknown_name
from sfllava.models.checkpoint import CheckpointError, read_json
from sfllava.models.tokenizer import Tokenizer
from sfllava.prompts import families

# Special tokens that only one format has
_TOKENS = (("<|start_header_id|>", "llama3"), ("<|im_start|>", "chatml"))
# Delimiters in a chat template, each with its format; the first one found decides
_DELIMITERS = (
    ("<|start_header_id|>", "llama3"),
    ("[INST]", "mistral"),
    ("<|im_start|>", "chatml"),
    ("ASSISTANT:", "vicuna"),
)


def find_format(text: Any, folder: Path, tokenizer: Tokenizer | None) -> str | None:
    """Return the name of the prompt templates that suit a language model, None if unknown.

    Args:
        text: The config of the language model.
        folder: The checkpoint folder.
        tokenizer: The tokenizer of the checkpoint; None if it has none.
    """
    qwen = text.model_type in ("qwen2", "qwen3")
    template = chat_template(folder)
    if found := next((name for delimiter, name in _DELIMITERS if delimiter in template), None):
        return "llava_qwen" if qwen and found == "chatml" else found
    if qwen or text.model_type == "mistral":
        return "llava_qwen" if qwen else "mistral"
    if tokenizer is None:
        return None
    for token, name in _TOKENS:
        if tokenizer.token_id(token) is not None:
            return name
    # Vicuna has the tokenizer of Llama 2; no other LLaVA with a Llama model has it
    llama2 = text.model_type == "llama" and None not in (tokenizer.token_id("<s>"), tokenizer.token_id("</s>"))
    return "vicuna" if llama2 else None


def chat_template(folder: Path) -> str:
    """Return the chat template of a checkpoint as text, empty if it has none. It is never executed."""
    if (folder / "chat_template.jinja").is_file():
        return (folder / "chat_template.jinja").read_text(encoding="utf-8", errors="replace")
    for name in ("chat_template.json", "processor_config.json", "tokenizer_config.json"):
        if (folder / name).is_file() and isinstance(found := read_json(folder / name).get("chat_template"), str):
            return found
    return ""


def choose_format(requested: str | None, detected: str | None, folder: Path) -> str:
    """Choose the prompt templates: the requested ones, or else the detected ones.

    Args:
        requested: Name of the templates that the user asked for; None if the user did not.
        detected: Name of the templates that suit the model; None if unknown.
        folder: The checkpoint folder, to name in the error.

    Raises:
        CheckpointError: There are no templates of the requested name, or both names are None.
    """
    if requested is not None and requested not in families():
        raise CheckpointError(unknown_name("prompt family", requested, families()))
    if requested or detected:
        return requested or str(detected)
    raise CheckpointError(
        f"{folder}: the prompt format is unknown: neither the config, the chat template nor the tokenizer shows it; "
        f"pass it as family (--family): {', '.join(families())}"
    )
