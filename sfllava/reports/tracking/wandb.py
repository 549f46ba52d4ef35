"""Weights & Biases: one W&B run per run folder; with WANDB_MODE=offline, files to upload later with `wandb sync`."""

from __future__ import annotations

import uuid
from pathlib import Path
from typing import Any

from sfllava.files import Row
from sfllava.reports.tracking.base import Record, Remember, Tracker, columns_of, environment
from sfllava.types import SfllavaError

PROJECT = "sfllava"
# The client also collects the command line, the host, folders, git, installed packages and the terminal's output. None
# of it is wanted. The time limits let go of a server that does not answer: the data are then kept on disk.
_SETTINGS = {
    "silent": True, "console": "off", "disable_git": True, "disable_code": True, "save_code": False,
    "x_disable_meta": True, "x_disable_stats": True, "x_disable_machine_info": True, "x_save_requirements": False,
    "host": "-",
    "init_timeout": 60, "login_timeout": 20, "finish_timeout": 120, "finish_timeout_raises": True,
}  # fmt: skip


# The client reads these at its import: some of its lines in the terminal, and tracing, have no other switch.
_VARIABLES = {"WANDB_SILENT": "true", "WANDB_DISABLE_WEAVE": "true"}


def send(record: Record, where: str, known: Row, run: Path, remember: Remember) -> str:
    """Send a record to the project `where`, or ENTITY/PROJECT."""
    with environment(_VARIABLES):
        return _send(record, where, known, remember)


def _send(record: Record, where: str, known: Row, remember: Remember) -> str:
    import wandb

    entity, _, project = where.rpartition("/")
    # versions of the client differ in the settings that they have
    settings = {name: value for name, value in _SETTINGS.items() if name in wandb.Settings.model_fields}
    run_id = str(known.get("id") or uuid.uuid4().hex[:12])
    remember({"id": run_id})
    own: Any = wandb.init(
        project=project or PROJECT,
        entity=entity or None,
        id=run_id,
        resume="allow",
        name=record.name,
        group=str(record.facts.get("benchmark", "")),
        config=record.facts | {"versions": record.versions},
        reinit="create_new",  # a run of the user's own in this notebook goes on
        settings=wandb.Settings(**settings),
    )
    if own.disabled:
        raise SfllavaError("not logged in or switched off: `wandb login`, or WANDB_MODE=offline to upload later")
    try:
        own.log(_media(record) | record.scores | {"answered": record.answered})
        own.summary.update(record.scores | {"finished": record.finished})
    finally:
        own.finish()
    folder = Path(own.dir).parent
    offline = f"offline; upload it with `wandb sync {folder}`"
    return own.url or offline


def _media(record: Record) -> dict[str, Any]:
    """Return the tables and figures of a record."""
    import wandb

    media: dict[str, Any] = {f"figures/{path.stem}": wandb.Image(str(path)) for path in record.figures}
    for name, rows in (("settings", record.settings), ("examples", record.examples)):
        if rows:
            columns: list[Any] = [*columns_of(rows)]
            media[name] = wandb.Table(columns=columns, data=[[row.get(column) for column in columns] for row in rows])
    return media


TRACKER = Tracker("wandb", "a project, or ENTITY/PROJECT (default: sfllava)", send)
