"""TensorBoard: event files in a folder, of which `tensorboard --logdir` shows one line per run folder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sfllava.files import Row
from sfllava.reports.tracking.base import Record, Remember, Tracker, columns_of

_MOST_EXAMPLES, _MOST_PIXELS = 100, 1400


def send(record: Record, where: str, known: Row, run: Path, remember: Remember) -> str:
    """Write a record below the folder `where`; empty for a folder in the run folder."""
    from torch.utils.tensorboard.writer import SummaryWriter

    folder = _folder(record.name, Path(where), known) if where else run / "tensorboard"
    folder.mkdir(parents=True, exist_ok=True)
    remember({"folder": folder.name})
    step = record.answered
    # what an earlier call wrote for the same number of answers is replaced
    writer: Any = SummaryWriter(str(folder), purge_step=step)
    try:
        for name, value in record.scores.items():
            writer.add_scalar(name, value, step)
        charts = {
            name.partition("/")[2] or "accuracy": ["Margin", [name, *(_end(name, end) for end in ("low", "high"))]]
            for name in record.scores
            if name.partition("/")[0] == "accuracy"
        }
        if charts:
            writer.add_custom_scalars({"accuracy with 95 % interval": charts})
        facts = [{"": name, "value": value} for name, value in (record.facts | record.versions).items()]
        tables = (("run", facts), ("settings", record.settings), ("examples", record.examples[:_MOST_EXAMPLES]))
        for name, rows in tables:
            if rows:
                writer.add_text(name, _markdown(rows), step)
        for path in record.figures:
            writer.add_image(f"figures/{path.stem}", _pixels(path), step, dataformats="HWC")
    finally:
        writer.close()
    return f"`tensorboard --logdir {where or folder}`"


def _folder(name: str, parent: Path, known: Row) -> Path:
    """Return the folder of an earlier call, or a new one: two run folders may have the same name."""
    if known.get("folder") and (parent / Path(str(known["folder"])).name).is_dir():
        return parent / Path(str(known["folder"])).name
    folder, i = parent / name, 2
    while folder.exists():
        folder, i = parent / f"{name}-{i}", i + 1
    return folder


def _end(name: str, end: str) -> str:
    metric, slash, setting = name.partition("/")
    return f"{metric}_{end}{slash}{setting}"


def _markdown(rows: list[Row]) -> str:
    columns = columns_of(rows)
    lines = [columns, ["---"] * len(columns), *([_cell(row.get(column)) for column in columns] for row in rows)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(value: object) -> str:
    text = "" if value is None else f"{value:,.4g}" if isinstance(value, float) else str(value)
    return " ".join(text.replace("|", "\\|").split())


def _pixels(path: Path) -> np.ndarray:
    """Return (H W 3) uint8, not larger than a page shows."""
    with Image.open(path) as image:
        image = image.convert("RGB")
        image.thumbnail((_MOST_PIXELS, _MOST_PIXELS))
        return np.asarray(image)


TRACKER = Tracker("tensorboard", "a folder (default: the run folder)", send)
