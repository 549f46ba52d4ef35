"""MLflow, also as mlflow-skinny: one MLflow run per run folder, in the experiment MLFLOW_EXPERIMENT_NAME or sfllava."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import io
import logging
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sfllava.display.private import without_credentials
from sfllava.files import Row
from sfllava.reports.tracking.base import Record, Remember, Tracker, columns_of, environment

EXPERIMENT = "sfllava"
# A server that does not answer is let go of after seconds, not after the many minutes of the client's defaults.
_LIMITS = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "20",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # the client refuses files by default, but mlflow-skinny has no driver for the databases that it wants instead
    "MLFLOW_ALLOW_FILE_STORE": "true",
}
_MOST_TEXT, _MOST_NAME, _BATCH = 5000, 250, 90  # characters, and the items of one request, that every server takes


def send(record: Record, where: str, known: Row, run: Path, remember: Remember) -> str:
    """Send a record to the tracking URI or folder `where`; empty for the client's own, MLFLOW_TRACKING_URI."""
    with environment(_LIMITS):
        import mlflow  # sets the levels of its loggers, which `_quiet` then raises

        with _quiet():
            if not where and not mlflow.is_tracking_uri_set() and not _has_database():
                where = "mlruns"  # the client's default, a database in this folder, would fail
            is_uri = re.match(r"[a-z][a-z0-9+-]+:|databricks$", where)
            folder = Path(where).absolute() if where and not is_uri else None
            return _send(record, known, _uri(folder) if folder else where or None, folder, remember)


def _uri(folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder / 'mlflow.db'}" if _has_database() else folder.as_uri()


def _send(record: Record, known: Row, uri: str | None, folder: Path | None, remember: Remember) -> str:
    from mlflow import MlflowClient
    from mlflow.environment_variables import MLFLOW_EXPERIMENT_NAME

    client, name = MlflowClient(tracking_uri=uri), MLFLOW_EXPERIMENT_NAME.get() or EXPERIMENT
    run_id = _resumed(client, known) or _created(client, name, record, folder)
    remember({"run_id": run_id})
    _log(client, run_id, record)
    if record.finished:  # otherwise it is still running, as far as MLflow is concerned
        client.set_terminated(run_id, "FINISHED")
    shown = without_credentials(str(client.tracking_uri))
    return f"run {run_id} of experiment {name} in {shown}"


def _has_database() -> bool:
    """Return whether the client can use SQLite, which mlflow-skinny alone cannot."""
    return all(importlib.util.find_spec(package) for package in ("alembic", "sqlalchemy"))


def _resumed(client: Any, known: Row) -> str | None:
    """Return the id of the run of an earlier call, if it still exists."""
    from mlflow.exceptions import MlflowException

    if not known.get("run_id"):
        return None
    try:
        found = client.get_run(str(known["run_id"]))
    except MlflowException as error:
        if error.error_code != "RESOURCE_DOES_NOT_EXIST":
            raise
        return None
    if found.info.lifecycle_stage != "active":
        return None
    client.update_run(found.info.run_id, status="RUNNING")
    return found.info.run_id


def _created(client: Any, experiment: str, record: Record, folder: Path | None) -> str:
    # not the fluent interface: that adds the user, the script's folder and the git commit to each run
    found = client.get_experiment_by_name(experiment)
    artifacts = (folder / "artifacts").as_uri() if folder and _has_database() else None
    known = found.experiment_id if found else client.create_experiment(experiment, artifact_location=artifacts)
    return client.create_run(known, run_name=record.name, tags={"mlflow.source.name": "sfllava"}).info.run_id


def _log(client: Any, run_id: str, record: Record) -> None:
    from mlflow.entities import Metric, Param, RunTag

    now, before = int(time.time() * 1000), client.get_run(run_id).data.params
    facts = {name: str(value)[:_MOST_TEXT] for name, value in _names(record.facts).items()}
    # a parameter can never change; what a later session has otherwise becomes a tag
    params = [Param(name, value) for name, value in facts.items() if name not in before]
    tags = {name: value for name, value in facts.items() if name in before and before[name] != value}
    tags |= {f"version.{name}": value for name, value in record.versions.items()}
    scores = _names(record.scores | {"answered": float(record.answered)})
    metrics = [Metric(name, value, now, record.answered) for name, value in scores.items()]
    for kind, items in (("params", params), ("tags", [RunTag(*pair) for pair in tags.items()]), ("metrics", metrics)):
        for at in range(0, len(items), _BATCH):
            client.log_batch(run_id, **{kind: items[at : at + _BATCH]})
    for name, rows in (("settings", record.settings), ("examples", record.examples)):
        if rows:
            client.log_text(run_id, _as_csv(rows), f"{name}.csv")
    for path in record.figures:
        client.log_artifact(run_id, str(path), "figures")


def _names(values: dict[str, Any]) -> dict[str, Any]:
    """Return values by names that MLflow accepts; of two names that become equal, the second gets a number."""
    found: dict[str, Any] = {}
    for name, value in values.items():
        plain = re.sub(r"[^\w.\- /]", "_", name, flags=re.ASCII)[:_MOST_NAME]
        plain = "/".join(part.strip(".") or "_" for part in plain.split("/"))
        chosen, i = plain, 2
        while chosen in found:
            chosen, i = f"{plain[: _MOST_NAME - 4]}-{i}", i + 1
        found[chosen] = value
    return found


def _as_csv(rows: list[Row]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns_of(rows))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the client's progress, such as the migrations of a new database, out of the terminal."""
    loggers = [logging.getLogger(name) for name in ("mlflow", "alembic")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels):
            logger.setLevel(level)


TRACKER = Tracker("mlflow", "a tracking URI, or a folder (default: MLFLOW_TRACKING_URI)", send)
