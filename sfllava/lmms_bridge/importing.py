"""Import a sample log of lmms-eval as a run folder."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

from sfllava.aggregators.base import name_of
from sfllava.benchmarks.question_files import read_rows
from sfllava.display.private import command_line
from sfllava.files import Row, file_sha256
from sfllava.lmms_bridge.documents import add_documents, find_benchmark_of, make_questions
from sfllava.lmms_bridge.samples import Sample, SampleLog, read_log
from sfllava.runs.identity import make_identity
from sfllava.runs.jobs import make_row
from sfllava.runs.run_folder import RunFolder
from sfllava.runs.score_table import format_scores
from sfllava.runs.scoring import score_rows
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

log = logging.getLogger(__name__)
_UNKNOWN = (None, "", "unknown", "unknown@unknown")
"""Values of lmms_eval_version if lmms-eval was installed as a package."""


@dataclass(frozen=True)
class ImportedLog:
    """The result of an import: the run folder, its scores, and warnings about missing information."""

    path: Path
    log: SampleLog
    benchmark: str
    videos: int
    scores: Row
    warnings: tuple[str, ...]

    @property
    def answered(self) -> int:
        """The number of samples that have an answer."""
        return sum(not sample.error for sample in self.log.samples)

    def __str__(self) -> str:
        counts = f"{len(self.log.samples):,} samples of task {self.log.task} about {self.videos:,} videos"
        warnings = [f"  {warning}" for warning in self.warnings]
        return "\n".join([f"{self.path}: {counts}, as {self.benchmark}", *warnings, format_scores(self.scores)])


def import_log(
    path: str | Path,
    out: str | Path,
    *,
    benchmark: str | None = None,
    questions: str | Path | None = None,
    setting: Setting | None = None,
) -> ImportedLog:
    """Import a sample log as a run folder. A second call changes nothing.

    Args:
        path: `*_samples_*.jsonl`, or a folder with one such file.
        out: The run folder to write.
        benchmark: The benchmark that scores the answers; see `documents.find_benchmark_of` for the default.
        questions: The task's own data, one row per document in the original order (CSV or JSON). It supplies videos,
            types and options that the log does not have.
        setting: The setting of the run, if the results file does not have it.

    Returns:
        The run folder, its scores, and warnings about missing information.

    Raises:
        RunError: A line of the log cannot be used, or the run folder cannot be written.
        BenchmarkError: The question file cannot be read.
    """
    found = read_log(path)
    samples = add_documents(found.samples, read_rows(Path(questions))[0]) if questions else found.samples
    spec = find_benchmark_of(found.task, samples, benchmark)
    asked, warnings = make_questions(found.task, samples, spec)
    warnings = [*_lost_samples(found), *warnings]
    described = _describe(found, setting)
    with RunFolder(out, _identity(found, spec.name, asked, described), _facts(found)) as run:
        for warning in warnings:
            log.info("%s", warning)
        done = {row["key"] for row in run.rows()}
        pairs = [pair for pair in zip(asked, samples) if pair[0].key not in done]
        run.append(_row(question, sample, described["name"]) for question, sample in pairs)
        scores = score_rows(asked, [described["name"]], run.rows())
        run.write_scores(scores)
        log.info("imported:\n%s", format_scores(scores))
    videos = len({question.video for question in asked})
    return ImportedLog(Path(out), found, spec.name, videos, scores, tuple(warnings))


def _row(question: Question, sample: Sample, setting: str) -> Row:
    return make_row(
        question, setting, sample.error or None,
        prediction=sample.answer, visual_tokens=sample.visual_tokens, imported=sample.where,
    )  # fmt: skip


def _lost_samples(found: SampleLog) -> list[str]:
    if found.expected in (None, len(found.samples)):
        return []
    return [f"{found.results_path}: reports {found.expected:,} samples, but {len(found.samples):,} are in the log"]


def _describe(found: SampleLog, setting: Setting | None) -> Row:
    """Return the entry of the setting in run.json: frames and aggregation if known, else only the name of the model."""
    arguments = found.config.get("model_args")
    if setting is None and found.config.get("model") == "sfllava" and isinstance(arguments, str):
        setting = _setting_of(arguments)
    if setting is not None:
        return {"name": setting.name, "frames": setting.frames, "aggregation": name_of(setting.aggregation)}
    names = (found.results.get("model_name"), found.config.get("model"), found.path.absolute().parent.name)
    named = next(name for name in names if isinstance(name, str) and name)
    return {"name": named.rstrip("/").rpartition("/")[2] or named, "frames": None, "aggregation": None}


def _setting_of(arguments: str) -> Setting | None:
    """Return the setting in the `--model_args` of the model sfllava; None if they are malformed."""
    values = dict(pair.split("=", 1) for pair in arguments.split(",") if "=" in pair)
    frames = values.get("frames", str(Setting.frames))
    try:
        return Setting(int(frames), values.get("aggregation", Setting.aggregation))
    except (ValueError, SfllavaError):
        return None


def _identity(found: SampleLog, benchmark: str, asked: list[Question], described: Row) -> Row:
    files = {"samples": found.path} | ({"results": found.results_path} if found.results_path else {})
    version = found.results.get("lmms_eval_version")
    imported = {
        "source": "lmms-eval",
        "version": "unknown" if version in _UNKNOWN else version,
        "task": found.task,
        "model": found.config.get("model"),
        "model_args": found.config.get("model_args"),
        "sha256": {name: file_sha256(path) for name, path in files.items()},
    }
    return make_identity(
        benchmark, asked, [described], model=None, prompt=None, max_new_tokens=None, read="generate", imported=imported
    )


def _facts(found: SampleLog) -> Row:
    results = found.results.get("results")
    return {
        "source": "lmms-eval",
        "imported_files": [str(path.absolute()) for path in (found.path, found.results_path) if path],
        "date": found.results.get("date"),
        "gen_kwargs": found.config.get("gen_kwargs"),
        "lmms_eval_results": results.get(found.task) if isinstance(results, dict) else None,
        "command": command_line(),
        "rows": len(found.samples),
    }
