"""The language model of a checkpoint as a checkpoint of its own, which vLLM and transformers can load.

The folder is written under another name and renamed at the end, so that it is complete or not there. Weight files that
hold tensors of the language model only, under the names that it has on its own, are linked.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from sfllava.files import RunError, format_bytes, write_json
from sfllava.models.checkpoint import CheckpointError, drop_buffers, fingerprint, read_json, read_weights, weight_files
from sfllava.models.families import find_family
from sfllava.models.family import LoadOptions
from sfllava.models.layouts import read_checkpoint
from sfllava.types import SfllavaError

MANIFEST = "sfllava_export.json"
# prefixes of the language model's tensors in a checkpoint, and what they are in the language model's own
_PREFIXES = {
    "transformers": (
        ("language_model.model.", "model."),
        ("language_model.lm_head.", "lm_head."),
        ("model.language_model.", "model."),
        ("lm_head.", "lm_head."),
    ),
    "original": tuple((p, p) for p in ("model.layers.", "model.embed_tokens.", "model.norm.", "lm_head.")),
}
_TOKENIZER_FILES = (
    "tokenizer.model", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json",
    "vocab.json", "merges.txt", "chat_template.jinja", "generation_config.json",
)  # fmt: skip
_SHARD_BYTES = 4 << 30


@dataclass(frozen=True)
class Export:
    """A language model in a folder of its own.

    Attributes:
        folder: The folder.
        fingerprint: The hash of the checkpoint that it was taken from.
        reused: Whether it was there already.
        linked: Number of weight files that are links.
        bytes: Bytes of the weight files that are not.
    """

    folder: Path
    fingerprint: str
    reused: bool
    linked: int
    bytes: int

    def __str__(self) -> str:
        what = "was complete already" if self.reused else "written"
        links = f", {self.linked} files linked" if self.linked else ""
        return f"{self.folder}: {what}; {format_bytes(self.bytes)} of weights{links}"


def export_lm(folder: Path, out: str | Path, vision_tower: str | Path | None = None) -> Export:
    """Write the language model of a checkpoint as a checkpoint of its own.

    Args:
        folder: The checkpoint folder, in the transformers or the original layout.
        out: The folder to write. A complete export of the same checkpoint is left as it is.
        vision_tower: As in `load_model`.

    Returns:
        The export.

    Raises:
        CheckpointError: The checkpoint cannot be read, or its language model cannot be used on its own.
        RunError: The folder cannot be written, or it has something else in it.
    """
    config, weights, layout = read_checkpoint(folder, vision_tower)
    return export_weights(folder, out, config, fingerprint(folder, weights), layout)


def export_weights(folder: Path, out: str | Path, config: dict[str, Any], checkpoint_hash: str, layout: str) -> Export:
    """Write the language model of a checkpoint whose config and hash are known; see `export_lm`.

    Args:
        folder: The checkpoint folder.
        out: The folder to write.
        config: The JSON of the checkpoint's config in transformers.
        checkpoint_hash: The hash of the checkpoint (`checkpoint.fingerprint`).
        layout: "transformers" or "original".
    """
    out = Path(out).expanduser()
    text = own_text_config(config, folder)
    try:
        out.parent.mkdir(parents=True, exist_ok=True)
        # several workers of a machine need the same export: the first writes it, the others find it
        with FileLock(out.with_name(f".{out.name}.lock")):
            if (found := find_export(out, checkpoint_hash)) is not None:
                return found
            if out.exists() and (not out.is_dir() or any(out.iterdir())):
                raise RunError(f"{out}: needed a new folder or a complete export of {folder}, got something else")
            for killed in out.parent.glob(f".{out.name}.part-*"):
                shutil.rmtree(killed, ignore_errors=True)
            part = Path(tempfile.mkdtemp(prefix=f".{out.name}.part-", dir=out.parent))
            try:
                part.chmod(0o755)
                files = _write(folder, part, config, text, layout)
                manifest = {"checkpoint": str(folder), "sha256_sampled": checkpoint_hash, "files": files}
                write_json(part / MANIFEST, manifest)
                part.replace(out)
            finally:
                shutil.rmtree(part, ignore_errors=True)
    except OSError as error:
        raise RunError(f"{out}: cannot write: {error.strerror or error}") from error
    found = find_export(out, checkpoint_hash)
    assert found is not None
    return Export(out, checkpoint_hash, False, found.linked, found.bytes)


def find_export(out: Path, checkpoint_hash: str) -> Export | None:
    """Return the complete export of a checkpoint in a folder; None if there is none, or it is of another checkpoint."""
    try:
        manifest = read_json(out / MANIFEST)
    except SfllavaError:
        return None
    files = manifest.get("files")
    if manifest.get("sha256_sampled") != checkpoint_hash or not isinstance(files, dict) or not files:
        return None
    paths = {out / Path(name).name: size for name, size in files.items()}
    if any(not path.is_file() or path.stat().st_size != size for path, size in paths.items()):
        return None
    written = sum(size for path, size in paths.items() if not path.is_symlink() and path.suffix == ".safetensors")
    return Export(out, checkpoint_hash, True, sum(path.is_symlink() for path in paths), written)


def own_text_config(config: dict[str, Any], folder: Path) -> Any:
    """Return the config of a checkpoint's language model, with the RoPE that the checkpoint itself has.

    Raises:
        CheckpointError: The language model cannot be used without the rest of the model.
    """
    plain = {name: value for name, value in config.items() if name != "quantization_config"}
    text = find_family(config, folder).configure(plain, folder, LoadOptions(None)).config.get_text_config()
    rope = text.rope_parameters or {}
    if "mrope_section" in rope:
        raise CheckpointError(
            f"{folder}: its language model takes positions in time, height and width (M-RoPE), which vLLM cannot be "
            "given with embeddings; use the packed engine"
        )
    if (kind := rope.get("rope_type", "default")) != "default":
        raise CheckpointError(f"{folder}: needed plain RoPE for vLLM, got {kind!r}; use the packed engine")
    if text.model_type not in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES:
        raise CheckpointError(f"{folder}: there is no causal language model of type {text.model_type!r}")
    return text


def text_name(name: str, layout: str) -> str | None:
    """Return the name of a tensor in the language model's own checkpoint, None for one of another part.

    Args:
        name: The name in the checkpoint's files.
        layout: "transformers" or "original".
    """
    found = next((pair for pair in _PREFIXES[layout] if name.startswith(pair[0])), None)
    return None if found is None else found[1] + name[len(found[0]) :]


def _write(folder: Path, part: Path, config: dict[str, Any], text: Any, layout: str) -> dict[str, int]:
    """Write all files but the manifest; return the size of each."""
    # 1) files that hold nothing else are linked
    weights = drop_buffers(read_weights(folder))
    left = {name: own for name in weights if (own := text_name(name, layout))}
    dtype = str(weights[next(name for name, own in left.items() if "embed_tokens" in own)].dtype)
    shards: list[dict[str, str]] = []
    for path in weight_files(folder):
        names = _names(path)
        if names and all(left.get(name) == name for name in names):
            (part / f"shard-{len(shards) + 1:05}.safetensors").symlink_to(path.resolve())
            shards.append(dict.fromkeys(names, ""))
            for name in names:
                left.pop(name)
    # 2) all other tensors are written, a few gigabytes at a time
    for group in _groups({name: weights[name] for name in left}):
        tensors = {left[name]: weights[name].contiguous().clone() for name in group}
        save_file(tensors, part / f"shard-{len(shards) + 1:05}.safetensors", metadata={"format": "pt"})
        (part / f"shard-{len(shards) + 1:05}.safetensors").chmod(0o644)
        shards.append(dict.fromkeys(tensors, ""))
    # 3) the names that transformers and vLLM look for, and an index where there are several files
    _index(part, shards)
    facts = text.to_dict() | {"architectures": [MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[text.model_type]]}
    facts |= {"dtype": dtype.removeprefix("torch."), "rope_theta": (text.rope_parameters or {}).get("rope_theta")}
    facts["tie_word_embeddings"] = bool(config.get("tie_word_embeddings", False)) or bool(text.tie_word_embeddings)
    facts |= _quantization(config, layout)
    write_json(part / "config.json", facts)
    for name in _TOKENIZER_FILES:
        if (folder / name).is_file():
            shutil.copyfile(folder / name, part / name)
    return {path.name: path.stat().st_size for path in sorted(part.iterdir())}


def _names(path: Path) -> list[str]:
    """Return the names of the tensors in a .safetensors file, none for a file of another kind."""
    if path.suffix != ".safetensors":
        return []
    with safe_open(str(path), framework="pt") as file:
        return list(file.keys())


def _groups(weights: dict[str, Tensor]) -> list[list[str]]:
    groups: list[list[str]] = []
    used = _SHARD_BYTES
    for name, tensor in weights.items():
        size = tensor.numel() * tensor.element_size()
        if used + size > _SHARD_BYTES:
            groups.append([])
            used = 0
        groups[-1].append(name)
        used += size
    return groups


def _index(part: Path, shards: list[dict[str, str]]) -> None:
    if len(shards) == 1:
        os.rename(part / "shard-00001.safetensors", part / "model.safetensors")  # noqa: PTH104 (a link stays one)
        return
    where = {}
    for number, names in enumerate(shards, 1):
        name = f"model-{number:05}-of-{len(shards):05}.safetensors"
        os.rename(part / f"shard-{number:05}.safetensors", part / name)  # noqa: PTH104
        where |= dict.fromkeys(names, name)
    total = sum(path.stat().st_size for path in part.glob("*.safetensors"))
    write_json(part / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": where})


def _quantization(config: dict[str, Any], layout: str) -> dict[str, Any]:
    """Return the quantisation of the weights, which names modules of the language model as its own checkpoint does."""
    found = config.get("quantization_config")
    if not isinstance(found, dict):
        return {}
    renamed = dict(found)
    for field in ("modules_to_not_convert", "ignore"):
        with contextlib.suppress(TypeError):
            names = [(text_name(f"{name}.", layout) or f"{name}.")[:-1] for name in found.get(field) or ()]
            renamed |= {field: names} if names else {}
    return {"quantization_config": json.loads(json.dumps(renamed))}
