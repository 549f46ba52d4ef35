"""What of a run folder goes to a tracker: only the fields that are named here."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

import pandas as pd

from sfllava import catalogue, plots
from sfllava.analysis.breakdown import headlines
from sfllava.analysis.judge_scores import judge_scores, load_verdicts
from sfllava.analysis.loading import load_results
from sfllava.analysis.results import accuracy, costs
from sfllava.display.objects import checkpoint_name, without_folders
from sfllava.display.private import private_folders
from sfllava.files import Row
from sfllava.reports.tracking.base import Record
from sfllava.runs.run_folder import RunError, read_rows, read_run
from sfllava.runs.verdicts import read_verdicts, verdicts_path
from sfllava.types import SfllavaError

_IDENTITY = ("benchmark", "questions", "asked_sha256", "max_new_tokens", "subtitles")
_SESSION = ("layout", "device", "engine", "limit", "seed", "ablation", "protocol")
_MODEL = ("sha256_sampled", "dtype", "context", "quantize")
_SETTING = ("name", "frames", "aggregation", "budget", "frame_rule", "selection", "selection_for")
_COUNTS = ("questions", "videos", "failed", "unparsable", "not_asked")
_MOST_EXAMPLES = 1000


def make_record(run: Path, judge: str | None, examples: bool, figures: Path) -> Record:
    """Read a run folder.

    Args:
        run: The run folder.
        judge: The judge whose scores are added.
        examples: Whether to add questions and answers.
        figures: A folder for figures, which are drawn where there are several settings.

    Raises:
        RunError: It is no run folder, or a file in it cannot be read.
    """
    about = read_run(run)
    identity = about["identity"]
    sessions = [session for session in about.get("sessions", []) if isinstance(session, dict)]
    session = sessions[-1] if sessions else {}
    roots = private_folders(about)
    names = [str(setting["name"]) for setting in identity["settings"]]
    by_setting = {name: _setting(setting, roots) for name, setting in zip(names, identity["settings"])}
    results = _results(run)
    if results is not None:
        _add_scores(by_setting, results)
    if judge:
        _add_judged(by_setting, run, judge)
    answered = sum(1 for _ in read_rows(run))
    facts = _facts(identity, session, roots)
    return Record(
        name=without_folders(run.resolve().name),
        facts=facts,
        versions={str(k): str(v) for k, v in (session.get("versions") or {}).items()},
        scores=_scores(by_setting),
        settings=list(by_setting.values()),
        answered=answered,
        finished=answered >= len(names) * int(identity["questions"]),
        figures=_draw(results, figures) if results is not None and len(names) > 1 else [],
        examples=without_folders(_examples(read_rows(run), results), roots) if examples else [],
    )


def _facts(identity: Row, session: Row, roots: Sequence[str]) -> Row:
    """Return what a run is: benchmark, model and options."""
    model = identity.get("model") if isinstance(identity.get("model"), dict) else {}
    assert isinstance(model, dict)
    found = {name: identity.get(name) for name in _IDENTITY} | {"answer_mode": identity.get("read")}
    found |= {name: session.get(name) for name in _SESSION}
    found |= {f"model_{name}": model.get(name) for name in _MODEL}
    found["model"] = checkpoint_name(session["model"]) if session.get("model") else None
    found |= {f"model_{name}": value for name, value in (model.get("options") or {}).items()}
    if "prompt" in identity:
        found["prompt_sha256"] = hashlib.sha256(json.dumps(identity["prompt"], sort_keys=True).encode()).hexdigest()
    return {name: without_folders(value, roots) for name, value in found.items() if value is not None}


def _setting(setting: Row, roots: Sequence[str]) -> Row:
    known = {name: setting[name] for name in _SETTING if name in setting}
    return without_folders(known, roots) | ({"own_prompt": True} if setting.get("prompt") else {})


def _results(run: Path) -> pd.DataFrame | None:
    """Return the graded answers, or None where only a judge can grade them or there are none yet."""
    try:
        results = load_results(run)
    except RunError:
        return None
    return results if len(results) else None


def _add_scores(by_setting: dict[str, Row], results: pd.DataFrame) -> None:
    for row in _records(accuracy(results)):
        counts = {name: int(row[name]) for name in _COUNTS if row.get(name) == row.get(name)}
        by_setting[row["name"]] |= _interval(row, "accuracy", "accuracy", "low", "high") | counts
    for row in _records(headlines(results)):
        name = re.sub(r"\W+", "_", str(row["headline"])).strip("_")
        by_setting[row["name"]] |= _interval(row, name, "value", "low", "high")
    for row in _records(costs(results)):
        numbers = {name: value for name, value in row.items() if _is_number(value) and name not in _SETTING}
        by_setting[row["name"]] |= numbers


def _add_judged(by_setting: dict[str, Row], run: Path, judge: str) -> None:
    """Add the scores that a judge gives, and what its requests cost."""
    for row in _records(judge_scores(load_verdicts(run, [judge]))):
        prefix = f"{judge}-{row['rubric']}"
        found = {f"{prefix}-{name}": row[name] for name in ("judged", "failed", "unjudged") if name in row}
        for name in ("accuracy", "score"):
            found |= _interval(row, f"{prefix}-{name}", name, f"{name}_low", f"{name}_high")
        by_setting[row["setting"]] |= found
    used: dict[str, dict[str, float]] = {}
    for row in read_verdicts(verdicts_path(run, judge)):
        tokens, own = row.get("tokens") or (0, 0), used.setdefault(row["setting"], {})
        for name, value in (("prompt_tokens", tokens[0]), ("reply_tokens", tokens[1]), ("dollars", row.get("cost"))):
            if isinstance(value, int | float):
                own[f"{judge}-{name}"] = own.get(f"{judge}-{name}", 0) + value
    for setting, numbers in used.items():
        by_setting[setting] |= numbers


def _interval(row: Row, name: str, value: str, low: str, high: str) -> Row:
    found = {name: row.get(value), f"{name}_low": row.get(low), f"{name}_high": row.get(high)}
    return {column: number for column, number in found.items() if _is_number(number)}


def _scores(by_setting: dict[str, Row]) -> dict[str, float]:
    """Return all numbers by name; with one setting by the same names in all runs, which can then be compared."""
    alone = len(by_setting) == 1
    return {
        column if alone else f"{column}/{row['name']}": float(value)
        for row in by_setting.values()
        for column, value in row.items()
        if _is_number(value)
    }


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _records(table: pd.DataFrame) -> list[Row]:
    """Return the rows of a table with plain Python values."""
    return [{str(k): getattr(v, "item", lambda v=v: v)() for k, v in row.items()} for row in table.to_dict("records")]


def _draw(results: pd.DataFrame, folder: Path) -> list[Path]:
    """Draw the figures that there is something to show in."""
    made = []
    for name in catalogue.names("figures"):
        try:
            chart = plots.draw_chart(name, results)
        except SfllavaError:  # as of settings that cannot be compared yet
            continue
        if not isinstance(chart, str):
            made.append(plots.static.save(plots.static.render(chart), folder / f"{name}.png"))
    return made


def _examples(rows: Iterable[Row], results: pd.DataFrame | None) -> list[Row]:
    """Return the first answers with their questions."""
    right = {} if results is None else dict(zip(zip(results["key"], results["setting"]), results["correct"]))
    found = []
    for _, row in zip(range(_MOST_EXAMPLES), rows):
        graded = right.get((row["key"], row["setting"]))
        found.append(
            {
                "setting": row["setting"],
                "video": row["video"],
                "question": row["question"],
                "options": " | ".join(row["options"]),
                "reference": row["answer"],
                "answer": row["prediction"] or "",
                "correct": "" if graded is None else "yes" if graded else "no",
                "error": row["error"] or "",
            }
        )
    return found
