"""Import an output folder of the published code as a run folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

from sfllava.aggregators.base import name_of
from sfllava.benchmarks import Benchmark
from sfllava.display.private import command_line
from sfllava.files import Row, file_sha256
from sfllava.published.judged import PublishedVerdicts, find_judged, read_judged
from sfllava.published.outputs import FOLDERS, OutputError, Outputs, QuestionIndex, find_outputs, read_outputs
from sfllava.runs.identity import make_identity, upgrade
from sfllava.runs.jobs import make_row
from sfllava.runs.judge_items import read_items
from sfllava.runs.run_folder import RunFolder
from sfllava.runs.score_table import format_scores
from sfllava.runs.scoring import score_rows
from sfllava.runs.verdicts import VerdictFile, verdict_key
from sfllava.settings import Setting
from sfllava.types import Question

log = logging.getLogger(__name__)
NOT_THERE = "not in the published output"
_SHOWN = 5
# fields of a verdict row that the published code does not record
_NOT_RECORDED = {"served": "", "tokens": [0, 0], "cost": None, "tries": 0, "paid": False, "cut": False}


@dataclass(frozen=True)
class Imported:
    """The result of an import: the run folder, its scores, and what could not be used."""

    path: Path
    scores: Row
    outputs: Outputs
    judged: tuple[PublishedVerdicts, ...]

    def __str__(self) -> str:
        out = self.outputs
        counts = f"{out.rows:,} rows read, {len(out.repeated):,} repeated, {len(out.bad):,} not usable"
        lines = [f"{self.path}: {counts}", *_some(out.repeated), *_some(out.bad)]
        for judged in self.judged:
            failed = sum(row["error"] is not None for row in judged.rows)
            lines.append(
                f"judge {judged.judge}: {len(judged.rows) - failed:,} verdicts, {failed:,} questions without one, "
                f"{len(judged.bad):,} files not usable"
            )
            lines += _some(judged.bad)
        return "\n".join([*lines, format_scores(self.scores)])


def import_outputs(
    folder: str | Path,
    benchmark: Benchmark,
    out: str | Path,
    *,
    setting: Setting | None = None,
    config_name: str | None = None,
    judged: str | Path | None = None,
    judge: str | None = None,
) -> Imported:
    """Read `merge.jsonl`, and a judge's files, into a run folder. Called again, it changes nothing.

    Args:
        folder: The folder of merge.jsonl, or its OUTPUT_DIR.
        benchmark: The questions; each gets a row, a failed one if the output lacks it.
        out: The run folder to write.
        setting: The setting it was run with, if known; else its CONFIG_NAME is the setting's name.
        config_name: Which CONFIG_NAME, if there are several.
        judged: Its TEMP_DIR, or the folder of one judge.
        judge: Which judge, or what to call it.

    Raises:
        OutputError, RunError: The output folder cannot be read, or the run folder cannot be written.
    """
    files = find_outputs(Path(folder), benchmark.name, config_name)
    config = config_name or next(iter(files.values())).absolute().parent.name
    index = QuestionIndex(benchmark.questions, list(FOLDERS.get(benchmark.name, {"": ""})))
    outputs = read_outputs(files, index)
    name = setting.name if setting else config
    verdicts: list[PublishedVerdicts] = []
    if judged:
        if benchmark.spec.task == "choice":
            raise OutputError(f"{judged}: {benchmark.name} is multiple choice, and has no judge")
        verdicts = read_judged(find_judged(Path(judged), benchmark.name, config, judge), index, outputs, name)
    facts = _facts(benchmark, config, files, outputs)
    with RunFolder(
        out, _identity(benchmark, name, setting, files), facts, partial(upgrade, benchmark=benchmark)
    ) as run:
        for problem in [*outputs.repeated, *outputs.bad, *(bad for each in verdicts for bad in each.bad)]:
            log.info("not used: %s", problem)
        done = {row["key"] for row in run.rows()}
        run.append(_row(q, name, outputs) for q in benchmark.questions if q.key not in done)
        scores = score_rows(benchmark.questions, [name], run.rows(), benchmark)
        run.write_scores(scores)
        log.info("imported:\n%s", format_scores(scores))
    for each in verdicts:
        _write_verdicts(Path(out), each, facts)
    return Imported(Path(out), scores, outputs, tuple(verdicts))


def _facts(benchmark: Benchmark, config: str, files: dict[str, Path], outputs: Outputs) -> Row:
    return {
        "questions_sha256": benchmark.fingerprint,
        "imported_files": [str(path.absolute()) for path in files.values()],
        "config_name": config,
        "question_files": [str(path) for path in benchmark.files],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": command_line(),
        "rows": outputs.rows,
        "repeated": len(outputs.repeated),
        "not_usable": len(outputs.bad),
    }


def _identity(benchmark: Benchmark, name: str, setting: Setting | None, files: dict[str, Path]) -> Row:
    described = {
        "name": name,
        "frames": setting.frames if setting else None,
        "aggregation": name_of(setting.aggregation) if setting else None,
    }
    hashes = {part or "all": file_sha256(path) for part, path in files.items()}
    return make_identity(
        benchmark.name, benchmark.questions, [described], model=None, prompt=None, max_new_tokens=None,
        read="generate", imported={"from": "published code", "sha256": hashes},
    )  # fmt: skip


def _row(question: Question, setting: str, outputs: Outputs) -> Row:
    error = None if question.key in outputs.predictions else NOT_THERE
    prediction, place = outputs.predictions.get(question.key), outputs.places.get(question.key, True)
    return make_row(question, setting, error, prediction=prediction, imported=place)


def _write_verdicts(run: Path, judged: PublishedVerdicts, facts: Row) -> None:
    """Write verdicts as a judge does. Those already there on the same texts stay; another judge's are an error."""
    items = read_items(run)
    identity = {"judge": "imported", "model": judged.judge, "rules": "as the published code reads a reply"}
    found = {(row["key"], row["setting"], row["rubric"]): row for row in judged.rows}
    session = {name: facts[name] for name in ("started", "command")}
    with VerdictFile(run, judged.judge, identity, session, items) as file:
        done = {verdict_key(row) for row in file.rows()}
        file.append(
            {
                **_NOT_RECORDED,
                **found[item.row_key],
                "video": item.video,
                "content": item.request.content,
                "model": judged.judge,
            }
            for item in items
            if item.request and item.row_key in found and item.row_key not in done
        )


def _some(problems: list[str]) -> list[str]:
    more = [f"  ... and {len(problems) - _SHOWN:,} more, in log.txt"] if len(problems) > _SHOWN else []
    return [f"  {problem}" for problem in problems[:_SHOWN]] + more
