"""Runs on the same questions compared: what `sfllava compare` prints and writes."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd

from sfllava.analysis.breakdown import headline_of, headlines
from sfllava.analysis.differences import describe_findings, paired_differences
from sfllava.analysis.loading import load_results
from sfllava.analysis.results import accuracy
from sfllava.display import text
from sfllava.display.units import format_p
from sfllava.files import as_json
from sfllava.runs.run_folder import AskedQuestions, RunError, asked_questions

_COUNTS = {"failed": "failed", "empty": "empty", "unparsable": "unparsable", "not_asked": "not asked"}
_DIFFERENCE = {"points": "points", "low": "points_low", "high": "points_high"}
_TESTED = ["p", "p_holm", "significant", "min_detectable_effect"]


@dataclass(frozen=True)
class _Table:
    """Rows of cells by column, with a sentence above them and notes below."""

    about: str
    rows: list[dict[str, str]]
    notes: list[str] = field(default_factory=list)

    @property
    def _heads(self) -> list[str]:
        return list(self.rows[0]) if self.rows else ["setting"]

    @property
    def _right(self) -> list[int]:
        return [i for i, head in enumerate(self._heads) if head == "tokens" or head in _COUNTS.values()]

    def text(self, width: int | None) -> str:
        wrapped = [i for i, head in enumerate(self._heads) if head in ("setting", "other")]
        cells = [list(row.values()) for row in self.rows]
        return text.table(cells, self._heads, right=self._right, wrap=wrapped, fold=wrapped, width=width)

    def markdown(self) -> str:
        cells = [[cell.strip() for cell in row.values()] for row in self.rows]
        return text.markdown(cells, self._heads, right=self._right)


@dataclass(frozen=True)
class Comparison:
    """The accuracies of settings on the same questions, and their paired differences.

    Attributes:
        benchmark: The name of the benchmark.
        judge: The judge whose verdicts count; empty for the offline rules.
        baseline: The setting that the others are compared with; empty for all pairs.
        settings: From `accuracy`.
        differences: From `paired_differences`.
        findings: From `describe_findings`.
        headline: The name of the number that the benchmark reports, if it is a mean over groups; otherwise empty.
        headlines: From `breakdown.headlines`.
        headline_differences: From `paired_differences`, of the means over groups.
    """

    benchmark: str
    judge: str
    baseline: str
    settings: pd.DataFrame
    differences: pd.DataFrame
    findings: str
    headline: str = ""
    headlines: pd.DataFrame = field(default_factory=pd.DataFrame)
    headline_differences: pd.DataFrame = field(default_factory=pd.DataFrame)

    def __str__(self) -> str:
        return self.text()

    def text(self, width: int | None = None) -> str:
        """Return the tables and the findings as text that fits a terminal, or `width` columns."""
        blocks = [
            *(
                "\n".join(
                    [text.paragraph(table.about, width), table.text(width), *map(text.escape_controls, table.notes)]
                )
                for table in self._tables()
            ),
            text.paragraph("\n".join(self._legend()), width),
            text.paragraph(self.findings, width),
        ]
        return "\n\n".join(blocks)

    def markdown(self) -> str:
        """Return the tables in Markdown."""
        tables = ["\n\n".join([table.about, table.markdown(), *table.notes]) for table in self._tables()]
        return "\n\n".join([*tables, "  \n".join(self._legend())])

    def json(self) -> str:
        """Return all numbers as JSON, in percent and percentage points."""
        found: dict[str, Any] = {
            "benchmark": self.benchmark, "judge": self.judge or None, "baseline": self.baseline or None,
            "settings": self.settings.to_dict("records"), "differences": self.differences.to_dict("records"),
        }  # fmt: skip
        if self.headline:
            found |= {
                "headline": self.headline, "headlines": self.headlines.to_dict("records"),
                "headline_differences": self.headline_differences.to_dict("records"),
            }  # fmt: skip
        return as_json(found | {"findings": self.findings})

    def table(self) -> pd.DataFrame:
        """Return one table: a row per setting with its difference to the baseline, or one per pair."""
        gaps = self.differences.rename(columns=_DIFFERENCE)
        if self.baseline or gaps.empty:
            return self.settings.merge(
                gaps[["setting", *_DIFFERENCE.values(), *_TESTED]], how="left", left_on="name", right_on="setting"
            ).drop(columns="setting")
        known = self.settings.set_index("name")["accuracy"]
        gaps.insert(2, "accuracy", gaps["setting"].map(known))
        gaps.insert(3, "other_accuracy", gaps["other"].map(known))
        return gaps

    def _tables(self) -> list[_Table]:
        """Return the tables with the sentence above each of them and the notes below it."""
        first = self.settings.iloc[0] if len(self.settings) else {"questions": 0, "videos": 0}
        about = f"{self.benchmark}: {int(first['questions']):,} questions about {int(first['videos']):,} videos, by "
        about += f"judge {self.judge}" if self.judge else "the strict offline rules"
        tables = [_Table(about, self._rows(self.settings, "accuracy", self.differences))]
        if not self.baseline and len(self.differences):
            tables.append(_Table("all pairs:", _pairs(self.differences)))
        if not self.headline:
            return tables
        official = self.headlines
        groups = official["groups"].iloc[0] if official["groups"].nunique() == 1 else "its groups"
        named = official.rename(columns={"value": self.headline})
        rows = self._rows(named, self.headline, self.headline_differences)
        missing = dict(zip(official["name"].astype(str), official["missing"]))
        alike = len(set(missing.values())) == 1
        notes = list(dict.fromkeys(("" if alike else f"{name}: ") + words for name, words in missing.items() if words))
        tables.append(_Table(f"{self.headline}, the mean of the accuracies of {groups}:", rows, notes))
        if not self.baseline and len(self.headline_differences):
            tables.append(_Table(f"all pairs, by {self.headline}:", _pairs(self.headline_differences)))
        return tables

    def _rows(self, settings: pd.DataFrame, value: str, differences: pd.DataFrame) -> list[dict[str, str]]:
        """Return the cells of a row per setting; a count that is 0 everywhere has no column."""
        gaps = {row["setting"]: row for row in differences.to_dict("records")} if self.baseline else {}
        rows = []
        for setting in settings.to_dict("records"):
            name = str(setting["name"])
            row = {"setting": name + (" (baseline)" if name == self.baseline else "")}
            if "tokens" in setting:
                row["tokens"] = "–" if pd.isna(setting["tokens"]) else f"{setting['tokens']:,.0f}"
            row[f"{value}, %"] = _interval(setting[value], setting["low"], setting["high"])
            if gaps:
                gap = gaps.get(name)
                row["difference, points"] = _difference(gap) if gap else ""
                row["p"] = _p(gap["p_holm"]) if gap else ""
            for count, words in _COUNTS.items():
                if count in settings and settings[count].any():
                    row[words] = f"{int(setting[count]):,}"
            rows.append(row)
        return rows

    def _legend(self) -> list[str]:
        lines = ["[ ] 95 % interval, clustered by video"]
        if n := len(self.differences):
            corrected = f", corrected for {n} comparisons (Holm)" if n > 1 else ""
            lines[0] += f"; p of paired differences{corrected}"
            lines[0] += "; * p < 0.05" if self.differences["significant"].any() else ""
        return lines


def compare(
    runs: str | Path | Iterable[str | Path],
    baseline: str | None = None,
    judge: str | None = None,
    all_pairs: bool = False,
) -> Comparison:
    """Compare the settings of one or more runs on the same questions.

    Args:
        runs: The run folders.
        baseline: The name of the setting that all others are compared with. Default: the first setting of the first
            run.
        judge: As for `load_results`.
        all_pairs: Compare each pair of settings instead, which costs significance.

    Raises:
        RunError: The runs were not asked the same questions, there is no such setting, or both a baseline and all pairs
            are wanted.
    """
    if baseline and all_pairs:
        raise RunError("needed a baseline or all pairs, got both")
    runs = [runs] if isinstance(runs, str | Path) else list(runs)
    results = load_results(runs, judge)
    _check_asked(dict(zip(results.attrs["runs"], map(asked_questions, runs))))
    settings = accuracy(results)
    names = list(results["name"].astype("category").cat.remove_unused_categories().cat.categories)
    if not all_pairs and baseline is None and len(names) > 1:
        baseline = next(name for name in settings["name"].astype(str) if name in names)
    gaps = paired_differences(results, baseline)
    official = headlines(results)
    about: dict[str, Any] = {}
    if len(official):
        headline = headline_of(str(official["benchmark"].iloc[0]))
        assert headline is not None
        about = {"headline": headline.name, "headlines": official}
        about["headline_differences"] = paired_differences(results, baseline, headline.groups)
    benchmark = next(iter(results.attrs["runs"].values()))["benchmark"]
    findings = describe_findings(results, baseline, gaps, about.get("headline_differences"))
    return Comparison(benchmark, judge or "", baseline or "", settings, gaps, findings, **about)


def _check_asked(asked: dict[str, AskedQuestions]) -> None:
    """Raise if not all runs ask the questions of the first."""
    first = next(iter(asked))
    for run, what in asked.items():
        if what != asked[first]:
            raise RunError(
                f"{first} and {run} were not asked the same questions: {_asked(asked[first])} against {_asked(what)}"
            )


def _asked(what: AskedQuestions) -> str:
    name, count, digest = what
    return f"{name} ({count} questions, SHA-256 {digest[:12]})"


def _pairs(differences: pd.DataFrame) -> list[dict[str, str]]:
    return [
        {"setting": str(gap["setting"]), "other": str(gap["other"]), "difference, points": _difference(gap),
         "p": _p(gap["p_holm"])}
        for gap in differences.to_dict("records")
    ]  # fmt: skip


def _interval(value: float, low: float, high: float) -> str:
    return "–" if pd.isna(value) else f"{value:5.1f} [{low:.1f}, {high:.1f}]"


def _difference(gap: dict[str, Any]) -> str:
    star = " *" if gap["significant"] else ""
    return f"{gap['points']:+6.1f} [{gap['low']:+.1f}, {gap['high']:+.1f}]{star}"


def _p(p: float) -> str:
    return "–" if pd.isna(p) else format_p(p).replace(" ", "")
