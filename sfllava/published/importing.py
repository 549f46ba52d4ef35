"""Import an output folder of the published code: a run folder like one of ours, marked as imported."""

from __future__ import annotations

import json
import logging
import os
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from sfllava.benchmarks import Benchmark
from sfllava.published.judged import Judged, find_judged, read_judged
from sfllava.published.outputs import FOLDERS, OutputError, Outputs, QuestionIndex, find_outputs, read_outputs, sha256
from sfllava.runfolder import RunError, RunFolder
from sfllava.scoring import format_scores, score
from sfllava.types import Question, Setting, name_of

log = logging.getLogger(__name__)
Row = dict[str, Any]
NOT_THERE = "not in the published output"
_SHOWN = 5


@dataclass(frozen=True)
class Imported:
    """What was imported: the run folder, its scores, and what could not be used."""

    path: Path
    scores: Row
    outputs: Outputs
    judged: tuple[Judged, ...]

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
    """Read `merge.jsonl` (and a judge's files) of the published code into the run folder `out`.

    folder: where merge.jsonl is, or its OUTPUT_DIR. setting: what it was run with, where that is known; else the
    config's name stands for it. judged: its TEMP_DIR, or a judge's folder. Every question of the benchmark gets a row;
    one that the output lacks is a failed one. Called again it changes nothing. Raises OutputError, RunError.
    """
    files = find_outputs(Path(folder), benchmark.name, config_name)
    config = config_name or next(iter(files.values())).absolute().parent.name
    index = QuestionIndex(benchmark.questions, list(FOLDERS.get(benchmark.name, {"": ""})))
    outputs = read_outputs(files, index)
    name = setting.name if setting else config
    verdicts: list[Judged] = []
    if judged:
        if benchmark.spec.task == "choice":
            raise OutputError(f"{judged}: {benchmark.name} is multiple choice, and has no judge")
        verdicts = read_judged(find_judged(Path(judged), benchmark.name, config, judge), index, outputs, name)
    about = {
        "name": name,
        "frames": setting.frames if setting else None,
        "aggregation": name_of(setting.aggregation) if setting else None,
    }
    identity = {
        "benchmark": benchmark.name,
        "questions_sha256": benchmark.fingerprint,
        "limit": None,
        "seed": None,
        "settings": [about],
        "model": None,
        "prompt": None,
        "max_new_tokens": None,
        "read": "generate",
        "imported": {"from": "published code", "sha256": {part or "all": sha256(p) for part, p in files.items()}},
    }
    facts = {
        "imported_files": [str(path.absolute()) for path in files.values()],
        "config_name": config,
        "question_files": [str(path) for path in benchmark.files],
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "rows": outputs.rows,
        "repeated": len(outputs.repeated),
        "not_usable": len(outputs.bad),
    }
    with RunFolder(out, identity, facts) as run:
        for problem in [*outputs.repeated, *outputs.bad, *(bad for each in verdicts for bad in each.bad)]:
            log.info("not used: %s", problem)
        done = {row["key"] for row in run.rows()}
        run.append(_row(q, name, outputs) for q in benchmark.questions if q.key not in done)
        for each in verdicts:
            _write_verdicts(run.path / f"verdicts-{each.judge}.jsonl", each.rows)
        scores = score(benchmark.questions, [name], run.rows())
        run.write_scores(scores)
        log.info("imported:\n%s", format_scores(scores))
    return Imported(Path(out), scores, outputs, tuple(verdicts))


def _row(question: Question, setting: str, outputs: Outputs) -> Row:
    found = question.key in outputs.predictions
    return {
        "key": question.key,
        "setting": setting,
        "video": question.video,
        "id": question.id,
        "type": question.type,
        "question": question.text,
        "answer": question.answer,
        "options": list(question.options),
        "prediction": outputs.predictions.get(question.key),
        "token_ids": [],
        "visual_tokens": None,
        "seconds": {},
        "error": None if found else NOT_THERE,
        "imported": outputs.places.get(question.key, True),
    }


def _write_verdicts(path: Path, rows: list[Row]) -> None:
    """Replace the file whole; one that a judge of ours has written into stays."""
    data = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode("utf-8", "backslashreplace")
    try:
        if path.exists() and path.read_bytes() != data:
            for line in path.read_text(encoding="utf-8").splitlines():
                if not json.loads(line).get("imported"):
                    raise RunError(f"{path}: has verdicts that were not imported; import into another folder")
        part = path.with_name(path.name + ".part")
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise RunError(f"{path}: cannot write: {error.strerror}") from error
    except (ValueError, AttributeError) as error:
        raise RunError(f"{path}: not a file of verdicts: {error}") from error


def _some(problems: list[str]) -> list[str]:
    more = [f"  ... and {len(problems) - _SHOWN:,} more, in log.txt"] if len(problems) > _SHOWN else []
    return [f"  {problem}" for problem in problems[:_SHOWN]] + more
