"""Keys that are set, never their values, and the variables that change what sfllava does."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from sfllava.catalogue import unknown_name
from sfllava.cli.diagnosis.finding import Finding, State

_KEYS = {
    "OPENAI_API_KEY": "the openai judge",
    "OPENAI_BASE_URL": "the openai judge, at another server",
    "OPENAI_ORG": "the openai judge",
    "WANDB_API_KEY": "--track wandb",
    "MLFLOW_TRACKING_URI": "--track mlflow, at another place than this folder",
}
_OWN = ("SFLLAVA_MODEL", "SFLLAVA_SCREENSHOTS", "SFLLAVA_FAULT", "SFLLAVA_FAULTS", "SFLLAVA_COLD", "SFLLAVA_TEST_VLLM")
# of others: those with values that tell nothing about anybody are shown
_SHOWN = (
    "HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE", "CUDA_VISIBLE_DEVICES", "PYTORCH_CUDA_ALLOC_CONF", "OMP_NUM_THREADS",
    "MKL_NUM_THREADS", "WANDB_MODE",
)  # fmt: skip
_HIDDEN = (
    "HF_HOME", "HF_HUB_CACHE", "HF_ENDPOINT", "XDG_CACHE_HOME", "TMPDIR", "LD_LIBRARY_PATH", "HTTP_PROXY", "HTTPS_PROXY"
)  # fmt: skip


def keys() -> Iterator[Finding]:
    """Yield which keys and addresses are set."""
    from huggingface_hub import get_token

    for name, purpose in _KEYS.items():
        is_set = bool(os.environ.get(name, "").strip())
        yield Finding(name, f"{'set' if is_set else 'not set'}; for {purpose}", "ok" if is_set else "info")
    there = bool(get_token())
    text = "set, by HF_TOKEN or `hf auth login`" if there else "not set"
    yield Finding("hub token", f"{text}; for gated checkpoints and files", "ok" if there else "info")


def variables() -> Iterator[Finding]:
    """Yield the variables of sfllava, and those of others that matter."""
    model = os.environ.get("SFLLAVA_MODEL")
    yield Finding("SFLLAVA_MODEL", *_about_model(model)) if model else Finding("SFLLAVA_MODEL", "not set", "info")
    for name in sorted(name for name in os.environ if name.startswith("SFLLAVA_") and name != "SFLLAVA_MODEL"):
        if name in _OWN:
            yield Finding(name, "set; for tests", "info")
        else:
            yield Finding(name, unknown_name("variable", name, ["SFLLAVA_MODEL"]), "warning")
    for name in _SHOWN:
        if (value := os.environ.get(name)) is not None:
            yield Finding(name, value or "set, and empty", "info")
    for name in _HIDDEN:
        if os.environ.get(name):
            yield Finding(name, "set", "info")


def _about_model(model: str) -> tuple[str, State]:
    """Return what SFLLAVA_MODEL is, without the path of a folder, and the state."""
    if Path(model).expanduser().is_dir():
        there = (Path(model).expanduser() / "config.json").is_file()
        return ("a folder with config.json", "ok") if there else ("a folder without config.json", "warning")
    if model == "tiny" or re.fullmatch(r"[\w.-]+/[\w.-]+", model):
        return model, "ok"
    return "neither a folder, nor a hub name such as OWNER/NAME, nor tiny", "warning"
