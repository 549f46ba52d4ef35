"""From the rows of a grounding run to spans, metrics and the files that report them."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import pandas as pd

from sfllava.analysis.tables import export
from sfllava.attribution.grounding.metrics import GroundedAnswer, best_iop, best_iou, differences, score
from sfllava.attribution.grounding.span_rule import SpanRule
from sfllava.attribution.grounding.tuning import CRITERION, predict, tune
from sfllava.files import Row, RunError, read_lines, write_json
from sfllava.runs.identity import describe_mismatch
from sfllava.runs.run_folder import PREDICTIONS, read_run

_NUMBER = int | float
_ROW = {
    "key": str, "video": str, "qid": str, "type": str, "question": str, "answer": str, "prediction": str | None,
    "error": str | None, "duration": _NUMBER, "spans": [[_NUMBER]], "right": bool, "frame_edges": [_NUMBER],
    "frame_scores": {str: [_NUMBER]},
}  # fmt: skip


@dataclass(frozen=True)
class GroundingResults:
    """A finished grounding run, and the rules that turn its frame scores into spans.

    Attributes:
        folder: the run folder.
        rows: its rows, one for each annotated question.
        rules: measure of the frame scores, such as "leave-out" -> the rule.
        tuned: where and how the rules were tuned; None if they were given.
        without_spans: the number of questions in the benchmark that have no annotated span and were not asked.
    """

    folder: Path
    rows: list[Row]
    rules: Mapping[str, SpanRule]
    tuned: Mapping[str, Any] | None = None
    without_spans: int = 0
    answers: list[GroundedAnswer] = field(init=False)

    def __post_init__(self) -> None:
        answers = [
            GroundedAnswer(
                row["video"],
                row["qid"],
                tuple((float(start), float(end)) for start, end in row["spans"]),
                row["duration"],
                row["right"],
                {name: predict(row, name, rule) for name, rule in self.rules.items()},
            )
            for row in self.rows
        ]
        object.__setattr__(self, "answers", answers)

    @cached_property
    def table(self) -> pd.DataFrame:
        """The metrics of each predictor and baseline; see `metrics.score`."""
        return score(self.answers)

    @cached_property
    def differences(self) -> pd.DataFrame:
        """The differences from both baselines; see `metrics.differences`."""
        return differences(self.answers)

    @cached_property
    def spans(self) -> pd.DataFrame:
        """One row per question and predictor: the span, its IoU and its IoP; start and end are empty without a span."""
        rows = []
        for row, answer in zip(self.rows, self.answers):
            facts = {name: row[name] for name in ("video", "qid", "type", "question", "answer", "prediction")}
            for name, span in answer.predicted.items():
                start, end = span or (None, None)
                own = {"predictor": name, "start": start, "end": end}
                measured = {"iou": best_iou(span, answer.spans), "iop": best_iop(span, answer.spans)}
                error = row["error"] or row.get("score_errors", {}).get(name)
                rows.append(facts | {"right": answer.right, "error": error} | own | measured)
        return pd.DataFrame(rows)

    @property
    def counts(self) -> dict[str, Any]:
        """The numbers of questions, answers, failures and replies without scores by a measure, with the reasons."""
        failed = Counter(row["error"] for row in self.rows if row["error"])
        answered = len(self.rows) - failed.total()
        unscored = Counter(f"{m}: {why}" for row in self.rows for m, why in row.get("score_errors", {}).items())
        return {
            "questions": len(self.rows),
            "videos": len({row["video"] for row in self.rows}),
            "answered": answered,
            "failed": failed.total(),
            "without_spans": self.without_spans,
            "reasons": dict(failed.most_common()),
            "not_scored": dict(unscored.most_common()),
        }

    def write(self, out: str | Path | None = None) -> Path:
        """Write grounding.csv, differences.csv, spans.csv and grounding.json.

        Args:
            out: the folder; by default the run folder.

        Returns:
            The folder.
        """
        out = self.folder if out is None else Path(out)
        export(self.table, out / "grounding.csv")
        export(self.differences, out / "differences.csv")
        export(self.spans, out / "spans.csv")
        rules = {name: rule.to_dict() for name, rule in self.rules.items()}
        tables = {name: getattr(self, name).to_dict("records") for name in ("table", "differences")}
        write_json(out / "grounding.json", {"rules": rules, "tuned": self.tuned, **self.counts, **tables})
        return out

    def __str__(self) -> str:
        counts = self.counts
        lines = [
            f"{counts['questions']:,} annotated questions about {counts['videos']:,} videos: {counts['answered']:,} "
            f"answered, {counts['failed']:,} failed; all are in the metrics"
        ]
        if self.without_spans:
            lines.append(f"{self.without_spans:,} questions of the benchmark have no annotated span and were not asked")
        lines += [f"  failed {count} x: {reason}" for reason, count in list(counts["reasons"].items())[:5]]
        lines += [f"  not scored {count} x: {reason}" for reason, count in list(counts["not_scored"].items())[:5]]
        for name, rule in self.rules.items():
            lines.append(f"{name}: window {rule.window}, share {rule.share:g}{self._origin()}")
        for name, missing in self.table.groupby("predictor", sort=False)["missing"].first().items():
            if missing:
                lines.append(f"{name}: no span for {missing:,} questions, which count as 0")
        gaps = self.differences.round({"points": 1, "low": 1, "high": 1, "p": 4, "p_holm": 4})
        return "\n".join([*lines, "", pivot(self.table), "", gaps.to_string(index=False)])

    def _origin(self) -> str:
        if self.tuned is None:
            return " (given)"
        return f" (tuned by {self.tuned['by']} on {self.tuned['questions']:,} questions in {self.tuned['folder']})"


def pivot(table: pd.DataFrame) -> str:
    """Return the metrics in percent with their intervals as text, one line per metric."""
    cells = table.assign(text=[f"{r.value:.1f} [{r.low:.1f}, {r.high:.1f}]" for r in table.itertuples()])
    wide = cells.pivot(index="metric", columns="predictor", values="text")
    wide = wide.loc[list(dict.fromkeys(table["metric"])), list(dict.fromkeys(table["predictor"]))]
    return wide.rename_axis(index="%", columns=None).to_string()


def load_grounding(folder: str | Path, rule: SpanRule | None = None) -> GroundingResults:
    """Load a finished grounding run, with the same rule for every measure of the frame scores.

    Args:
        folder: the run folder.
        rule: the rule; by default SpanRule().

    Raises:
        RunError: the folder has no grounding run, or an unfinished one.
    """
    rows, run = read_rows(folder), read_run(folder)
    rules = dict.fromkeys(run["identity"]["grounding"]["measures"], rule or SpanRule())
    return GroundingResults(Path(folder), rows, rules, without_spans=_without_spans(run))


def load_tuned(folder: str | Path, tune_on: str | Path, by: str = CRITERION) -> GroundingResults:
    """Load a finished grounding run, with rules tuned on another run.

    Args:
        folder: the run folder.
        tune_on: the folder of a run with the same model, setting and measures on other videos.
        by: the metric to maximize; see `tune`.

    Raises:
        RunError: a folder has no grounding run or an unfinished one, or the two do not fit together.
    """
    rows, run, others = read_rows(folder), read_run(folder), read_rows(tune_on)
    check_tuning(tune_on, run["identity"], {row["video"] for row in rows})
    rules, names = tune(others, by), run["identity"]["grounding"]["measures"]
    if untuned := [name for name in names if name not in rules]:
        raise RunError(f"{tune_on}: has no frame scores by {', '.join(untuned)}")
    videos = len({row["video"] for row in others})
    tuned = {"folder": str(tune_on), "by": by, "questions": len(others), "videos": videos}
    return GroundingResults(Path(folder), rows, {name: rules[name] for name in names}, tuned, _without_spans(run))


def check_tuning(tune_on: str | Path, identity: Row, videos: Collection[str]) -> None:
    """Check that a grounding run can be used to tune the rules of another run.

    Args:
        tune_on: the folder of the run to tune on.
        identity: the identity of the reported run, as in its run.json.
        videos: the videos of the reported run.

    Raises:
        RunError: the folder has no grounding run or an unfinished one; the run has another model, setting or prompt,
            lacks a measure, or shares a video with the reported run.
    """
    others, other = read_rows(tune_on), read_run(tune_on)["identity"]
    varying = {"benchmark": None, "questions": None, "asked_sha256": None, "grounding": None}
    if reasons := describe_mismatch(*({"identity": one | varying, "sessions": []} for one in (other, identity))):
        raise RunError(f"{tune_on}: needed the same model, setting and prompt to tune on: {'; '.join(reasons)}")
    if missing := [name for name in identity["grounding"]["measures"] if name not in other["grounding"]["measures"]]:
        raise RunError(f"{tune_on}: has no frame scores by {', '.join(missing)}")
    if common := sorted({row["video"] for row in others} & set(videos)):
        raise RunError(
            f"{tune_on}: rules must be tuned on other videos than the reported ones, but {len(common)} are in both, "
            f"such as {common[0]}"
        )


def read_rows(folder: str | Path) -> list[Row]:
    """Read the rows of a finished grounding run.

    Raises:
        RunError: the folder has no grounding run, the run is not finished, or a row is malformed.
    """
    folder = Path(folder)
    identity = read_run(folder)["identity"]
    if "measures" not in (identity.get("grounding") or {}):
        raise RunError(f"{folder}: needed the folder of a grounding run (`sfllava ground`), got a run of another kind")
    rows = list(read_lines(folder / PREDICTIONS, "row of a grounding run", _ROW))
    for i, row in enumerate(rows, 1):
        if not isinstance(row.get("score_errors", {}), dict):
            raise RunError(f"{folder / PREDICTIONS}, line {i}: score_errors must be an object")
        lengths = {len(scores) for scores in row["frame_scores"].values()}
        if lengths - {len(row["frame_edges"]) - 1} or not row["spans"] or any(len(span) != 2 for span in row["spans"]):
            raise RunError(f"{folder / PREDICTIONS}, line {i}: wrong length of frame_scores, frame_edges or spans")
    if len(rows) != identity["questions"]:
        raise RunError(
            f"{folder}: the run is not finished, with {len(rows)} of {identity['questions']} questions: resume it "
            "with the command that started it"
        )
    return rows


def _without_spans(run: Row) -> int:
    return next((session.get("without_spans", 0) for session in reversed(run["sessions"])), 0)
