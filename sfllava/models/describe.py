"""Describe a checkpoint by its config, tokenizer and file names, without reading its weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sfllava.files import format_bytes
from sfllava.models.checkpoint import CheckpointError, weight_files
from sfllava.models.families import configure, family_names, find_family
from sfllava.models.family import LoadOptions
from sfllava.models.known import KNOWN, known_name
from sfllava.models.layouts import read_config
from sfllava.models.sizes import Sizes, sizes_of
from sfllava.settings import Setting
from sfllava.types import SfllavaError


@dataclass(frozen=True)
class Description:
    """The description of a checkpoint; its `str` is a readable list.

    Attributes:
        name: The name or folder as given.
        model_type: The model family.
        layout: "transformers" or "original"; "published" for a checkpoint that is not on this machine.
        sizes: The sizes that the cost of a run depends on, and the limits of the context.
        prompt_format: Name of the prompt templates.
        image_size: Height and width of a frame in pixels.
        text: The `model_type` of the language model.
        rope: Type of its RoPE.
        files: Size in bytes of each weight file, by name.
    """

    name: str
    model_type: str
    layout: str
    sizes: Sizes
    prompt_format: str
    image_size: int
    text: str
    rope: str
    files: dict[str, int]

    def to_dict(self) -> dict[str, Any]:
        """Return the fields that `sfllava models --json` prints."""
        sizes, frames = self.sizes, 32
        native = Setting(frames, "native").for_model(sizes)
        return {
            "model": self.name,
            "family": self.model_type,
            "layout": self.layout,
            "prompt_format": self.prompt_format,
            "frame_pixels": self.image_size,
            "grid": list(sizes.grid),
            "language_model": self.text,
            "layers": sizes.shape.language.count,
            "width": sizes.shape.language.width,
            "rope": self.rope,
            "context": sizes.context,
            "shared_positions": sizes.shared_positions or sizes.context,
            "default_tokens": Setting().token_count(*sizes.grid),
            f"native_tokens_of_{frames}_frames": native.token_count(*sizes.grid),
            "parameters": sizes.shape.parameters,
            "files": self.files,
        }

    def __str__(self) -> str:
        facts, shape = self.to_dict(), self.sizes.shape
        size = sum(self.files.values())
        files = "1 file" if len(self.files) == 1 else f"{len(self.files)} files"
        loaded = f"{files}, {format_bytes(size)}" if self.files else "not on this machine"
        lines = {
            "family": self.model_type if self.layout == "published" else f"{self.model_type} ({self.layout} layout)",
            "prompt format": facts["prompt_format"],
            "frame": f"{self.image_size}x{self.image_size} pixels, {shape.grid[0]}x{shape.grid[1]} patches",
            "language model": f"{self.text}, {facts['layers']} layers of width {facts['width']:,}, RoPE {self.rope}",
            "context": f"{facts['context']:,} positions; prefix shared up to {facts['shared_positions']:,}",
            "visual tokens": f"{facts['default_tokens']:,} by default, {facts['native_tokens_of_32_frames']:,} with "
            "native and 32 frames",
            "weights": f"{facts['parameters']:,} parameters, {format_bytes(2 * facts['parameters'])} in half "
            f"precision; {loaded}",
        }
        return "\n".join([self.name, *(f"  {name:15} {text}" for name, text in lines.items())])


def describe(model: str | Path) -> Description:
    """Describe a checkpoint without loading its weights.

    Args:
        model: A checkpoint folder, a name in KNOWN, the name of such a checkpoint on the hub, or `tiny`.

    Raises:
        SfllavaError: There is no such model.
        CheckpointError: The checkpoint cannot be loaded; problems within the weights are not found.
    """
    sizes, folder = sizes_of(model), Path(model).expanduser()
    known = None if folder.is_dir() else known_name(str(model))
    folder = Path(__file__).with_name("tiny") / "weights" if str(model) == "tiny" else folder
    config, layout = (KNOWN[known].config, "published") if known else read_config(folder)
    family = find_family(config, folder)
    configuration = configure(config, folder, LoadOptions())
    format_known = known is not None or family.prompt_family(configuration.config, folder, sizes.tokenizer) is not None
    text = configuration.config.get_text_config()
    files = {} if known else {path.name: _size(path) for path in weight_files(folder)}
    rope = str((text.rope_parameters or {}).get("rope_type", "default"))
    return Description(
        str(model), config["model_type"], layout, sizes,
        sizes.family if format_known else "unknown without a tokenizer",
        configuration.image_size, text.model_type, rope, files,
    )  # fmt: skip


def _size(path: Path) -> int:
    if not path.is_file():
        raise CheckpointError(f"{path}: the index names this file, but it is not there")
    return path.stat().st_size


def known_table() -> str:
    """Make a table of the published checkpoints, one row each."""
    rows = [("name", "family", "prompts", "grid", "context", "default", "native", "parameters")]
    for name in KNOWN:
        facts = describe(name).to_dict()
        h, w = facts["grid"]
        rows.append(
            (
                name, facts["family"], facts["prompt_format"], f"{h}x{w}", f"{facts['context']:,}",
                f"{facts['default_tokens']:,}", f"{facts['native_tokens_of_32_frames']:,}",
                f"{facts['parameters'] / 1e9:,.1f} B",
            )
        )  # fmt: skip
    widths = [max(map(len, column)) for column in zip(*rows)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths)).rstrip() for row in rows]
    note = (
        "default: visual tokens with the paper's setting and 50 frames; native: with the model's own video processing\n"
        f"and 32 frames. Checkpoint folders of these families can be loaded: {', '.join(family_names())}."
    )
    return "\n".join([*lines, "", note])


def describe_all(models: list[str]) -> list[Description | SfllavaError]:
    """Describe several checkpoints; return the error in place of each that cannot be read."""
    found: list[Description | SfllavaError] = []
    for model in models:
        try:
            found.append(describe(model))
        except SfllavaError as error:
            found.append(error)
    return found
