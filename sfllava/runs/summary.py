"""What run.json and scores.json say of a run, for tables of many runs. Nothing here raises: a run may be damaged."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any

from sfllava.benchmarks.base import load_spec
from sfllava.evaluators import find_evaluator
from sfllava.files import Row, RunError, printable
from sfllava.runs.journal import is_held
from sfllava.runs.run_folder import PREDICTIONS, read_run
from sfllava.runs.verdicts import judge_names
from sfllava.types import SfllavaError

_MOST_BYTES = 64 << 20  # of a JSON file that is read whole


@dataclass(frozen=True)
class RunSummary:
    """A run as far as it can be read.

    Attributes:
        path: Its folder.
        name: Its path below the folder that was searched.
        benchmark: The name of its benchmark.
        model: The model in short.
        settings: The visual tokens of each setting, None where unknown, by its name.
        questions: The number of questions that it asks at each setting.
        done: The number of its rows.
        state: "complete", "running" or "unfinished".
        date: When it was last started, in UTC, such as 2026-05-01 12:30; empty if unknown.
        judges: The names of the judges that have verdicts.
        scores: The contents of scores.json; None if there is none, or it is damaged.
        needs_judge: Whether no offline rule scores its benchmark.
        problem: What cannot be read and why; empty if there is no problem.
    """

    path: Path
    name: str
    benchmark: str = ""
    model: str = ""
    settings: dict[str, int | None] = field(default_factory=dict)
    questions: int | None = None
    done: int | None = None
    state: str = "unreadable"
    date: str = ""
    judges: tuple[str, ...] = ()
    scores: dict[str, Row] | None = None
    needs_judge: bool = False
    problem: str = ""

    @property
    def total(self) -> int | None:
        """The number of rows of the complete run."""
        return None if self.questions is None else self.questions * len(self.settings)

    def asked(self, setting: str) -> int:
        """Return the number of questions that scores.json counts at a setting."""
        assert self.scores is not None
        return self.scores[setting]["answered"] + self.scores[setting]["failed"]


def read_summary(path: Path, root: Path) -> RunSummary:
    """Summarise a run folder.

    Args:
        path: The run folder.
        root: The folder that is searched, in which `path` is; files that are links out of it are not read.
    """
    name = printable(path.absolute().name if path == root else str(path.relative_to(root)))
    try:
        if not (path / "run.json").exists() and not (path / "run.json").is_symlink():
            raise RunError("predictions.jsonl without run.json: not a run of sfllava, or it lost its run.json")
        _check_file(path / "run.json", root)
        about = read_run(path)
    except (SfllavaError, OSError) as error:
        return RunSummary(path, name, problem=_short(error, path))
    identity, sessions = about["identity"], about["sessions"]
    session = sessions[-1] if sessions else {}
    settings = {printable(each["name"]): _integer(each.get("budget")) for each in identity["settings"]}
    found: dict[str, Any] = {
        "benchmark": printable(identity["benchmark"]), "settings": settings, "questions": identity["questions"],
        "model": _model_name(identity, session), "date": str(session.get("started") or "")[:16].replace("T", " "),
    }  # fmt: skip
    try:
        for file in (PREDICTIONS, "scores.json", ".lock"):
            _check_file(path / file, root)
        found["needs_judge"] = _needs_judge(identity["benchmark"])
        scores = found["scores"] = _read_scores(path / "scores.json")
        expected = identity["questions"] * len(settings)
        whole = bool(scores) and settings.keys() <= scores.keys() and not any(s["not_asked"] for s in scores.values())
        done = found["done"] = expected if whole else _count_lines(path / PREDICTIONS)
        found["state"] = (
            "complete" if whole or done >= expected else "running" if is_held(path / ".lock") else "unfinished"
        )
        judges = judge_names(path)
        for judge in judges:
            for file in (f"verdicts-{judge}.jsonl", f"scores-{judge}.json"):
                _check_file(path / file, root)
        found["judges"] = tuple(judges)
    except (SfllavaError, OSError) as error:
        found |= {"problem": _short(error, path)}
    return RunSummary(path, name, **found)


def _check_file(file: Path, root: Path) -> None:
    """Raise if a file is a link out of the folder that is searched, or too large to be read whole."""
    if file.is_symlink() and not file.resolve().is_relative_to(root.resolve()):
        raise RunError(f"{file}: a link out of the folder: not read")
    if file.suffix == ".json" and file.exists() and file.stat().st_size > _MOST_BYTES:
        raise RunError(f"{file}: needed at most {_MOST_BYTES >> 20} MiB, got {file.stat().st_size >> 20}")


def _read_scores(file: Path) -> dict[str, Row] | None:
    """Return the scores of each setting; None if there are none, or they are damaged: they follow from the rows."""
    try:
        scores = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    counts = ("questions", "answered", "failed", "not_asked")
    fits = isinstance(scores, dict) and all(
        isinstance(score, dict)
        and all(type(score.get(count)) is int for count in counts)
        and isinstance(score.get("rules"), dict)
        for score in scores.values()
    )
    return {printable(name): score for name, score in scores.items()} if fits else None


@lru_cache
def _needs_judge(benchmark: str) -> bool:
    return find_evaluator(load_spec(benchmark).task) is None


def _count_lines(file: Path) -> int:
    """Return the number of whole lines of a file; 0 if there is none."""
    if not file.exists():
        return 0
    with file.open("rb") as data:
        return sum(block.count(b"\n") for block in iter(lambda: data.read(1 << 20), b""))


def _model_name(identity: Row, session: Row) -> str:
    """Return the last part of the model's path, or its name on the hub; and how its weights are quantised."""
    model, imported = identity.get("model"), identity.get("imported")
    path = str(session.get("model") or (imported.get("model") if isinstance(imported, dict) else "") or "")
    parts = path.rstrip("/").split("/")
    hub = next((part for part in parts if part.startswith("models--")), None)
    if hub:
        name = hub.removeprefix("models--").replace("--", "/")
    else:
        name = "tiny" if parts[-2:] == ["tiny", "weights"] else parts[-1]
    quantize = model.get("quantize") if isinstance(model, dict) else None
    return printable(f"{name} ({quantize})" if quantize else name or ("imported" if imported else ""))


def _integer(value: Any) -> int | None:
    return value if type(value) is int else None


def _short(error: Exception, path: Path) -> str:
    """Return an error as one line, without the path of the run, which its row has."""
    text = error.strerror or str(error) if isinstance(error, OSError) else str(error)
    return printable(" ".join(text.replace(f"{path}/", "").split()))[:300]
