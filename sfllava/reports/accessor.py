"""`results.sfl`: the tables and figures of a results table, where pandas users look for them.

results = sfllava.load_results("runs/fast_grid")
results.sfl.accuracy()        # one row per setting, with intervals as bars
results.sfl.compare()         # paired differences
results.sfl.plot.budget()     # a figure, by the name of its file in figures/
"""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd
from pandas.api.extensions import register_dataframe_accessor

from sfllava import catalogue
from sfllava.analysis import breakdown, differences, results
from sfllava.analysis.loading import load_results
from sfllava.display.html import Html, block, interval_bar, table
from sfllava.types import SfllavaError

__all__ = ["IntervalTable", "Plots", "ResultsAccessor", "load_results"]
_COLUMNS = {"run", "benchmark", "setting", "key", "video", "correct", "failed", "name"}
_MOST_ROWS = 60
_DIGITS = {"p": 4, "p_holm": 4, "accuracy": 1, "points": 1, "value": 1, "score": 2}
# an estimate and the columns with the ends of its interval, for the tables of `analysis`
_ESTIMATES = (
    ("accuracy", "low", "high"), ("points", "low", "high"), ("value", "low", "high"),
    ("accuracy", "accuracy_low", "accuracy_high"), ("score", "score_low", "score_high"),
)  # fmt: skip


class IntervalTable(pd.DataFrame):
    """A table that a notebook shows with its intervals as bars; everything computed from it is a plain DataFrame."""

    def _repr_html_(self) -> str:
        known = [names for names in _ESTIMATES if set(names) <= set(self.columns)]
        if {"value", "accuracy_low"} & set(self.columns):  # then low and high are not those of the accuracy
            known = [names for names in known if names != ("accuracy", "low", "high")]
        ends = {end for names in known for end in names[1:]}
        most = {names[0]: self._reach(names) for names in known}
        rows = []
        for record in self.head(_MOST_ROWS).to_dict("records"):
            row: dict[str, object] = {}
            for column, value in record.items():
                if column in ends:
                    continue
                row[str(column)] = _rounded(str(column), value)
                for estimate, low, high in known:
                    if estimate == column and value == value:
                        lows, highs = record[low], record[high]
                        row[str(column)] = Html(f"{value:.1f}")
                        row[f"{column}, 95 %"] = Html(f'<span class="nowrap">[{lows:.1f}, {highs:.1f}]</span>')
                        row[" " * (1 + known.index((estimate, low, high)))] = interval_bar(
                            value, lows, highs, *most[estimate]
                        )
            rows.append(row)
        columns = list(dict.fromkeys(name for row in rows for name in row))
        rest = len(self) - _MOST_ROWS
        note = f'<div class="soft">and {rest:,} more rows</div>' if rest > 0 else ""
        columns = columns or list(map(str, self.columns))
        rows = [{name.replace("_", " "): row.get(name) for name in columns} for row in rows]
        return block(table(rows, [name.replace("_", " ") for name in columns]), note)

    def _reach(self, names: tuple[str, str, str]) -> tuple[float, float]:
        """Return the values at the ends of the bars of an estimate: those of differences have zero in the middle."""
        if names[0] == "points":
            reach = max(1.0, float(self[list(names)].abs().max().max()))
            return -reach, reach
        return (0.0, 5.0) if names[0] == "score" else (0.0, 100.0)


def _rounded(column: str, value: Any) -> Any:
    if not isinstance(value, float):
        return value
    if column in ("p", "p_holm") and value < 1e-4:
        return "< 0.0001"
    if value.is_integer() and column not in _DIGITS:
        return int(value)
    return round(value, _DIGITS.get(column, 2)) if abs(value) < 1e6 else value


@register_dataframe_accessor("sfl")
class ResultsAccessor:
    """The tables and figures of results from `load_results`.

    Args:
        frame: The results.

    Raises:
        AttributeError: The table is not one of results; pandas then says that it has no such attribute.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        if missing := sorted(_COLUMNS - set(frame.columns)):
            raise AttributeError(f".sfl is for results from load_results; the columns {', '.join(missing)} are missing")
        self._results = frame

    def accuracy(self, by: Sequence[str] = ()) -> IntervalTable:
        """Compute the accuracy of each setting, or of each group of columns `by`; see `analysis.results.accuracy`."""
        return IntervalTable(results.accuracy(self._results, by))

    def compare(self, reference: str | None = None, *, headline: bool = False) -> IntervalTable:
        """Compute paired differences between settings; see `analysis.differences.paired_differences`.

        Args:
            reference: The setting that all others are compared with. Default: all pairs.
            headline: Whether to compare the number that a benchmark reports, such as M-Avg, where it is not the
                accuracy over all questions; see `analysis.differences.headline_differences`.
        """
        if headline:
            return IntervalTable(differences.headline_differences(self._results, reference))
        parts = differences.by_benchmark(self._results)
        if len(parts) == 1:
            return IntervalTable(differences.paired_differences(self._results, reference))
        found = [differences.paired_differences(part, reference).assign(benchmark=name) for name, part in parts]
        return IntervalTable(pd.concat(found)[["benchmark", *found[0].columns.drop("benchmark")]])

    def findings(self, reference: str | None = None) -> str:
        """Say in words which differences are significant; see `analysis.differences.describe_findings`."""
        return differences.describe_findings(self._results, reference)

    def headlines(self) -> IntervalTable:
        """Compute the number that a benchmark reports, where it is another one; see `analysis.breakdown.headlines`."""
        return IntervalTable(breakdown.headlines(self._results))

    def groups(self) -> dict[str, IntervalTable]:
        """Compute the accuracy by type of question and by other groups; see `analysis.breakdown.breakdowns`."""
        return {name: IntervalTable(found) for name, found in breakdown.breakdowns(self._results).items()}

    def costs(self) -> pd.DataFrame:
        """Return what each setting costs; see `analysis.results.costs`."""
        return results.costs(self._results)

    def failures(self) -> pd.DataFrame:
        """Count the failed questions by reason; see `analysis.results.failures`."""
        return results.failures(self._results)

    @property
    def plot(self) -> Plots:
        """The figures, each by its name."""
        return Plots(self._results)


class Plots:
    """The figures of results: `plot.budget()`, or `plot("my_figure.py")` for a file of your own.

    Args:
        frame: From `load_results`.
    """

    def __init__(self, frame: pd.DataFrame) -> None:
        self._results = frame

    def __call__(self, name: str, *, paper: bool = False) -> Any:
        """Draw a figure.

        Args:
            name: A name in figures/, or a file of your own.
            paper: Whether to draw it with seaborn, as for print, instead of with plotly.

        Returns:
            A plotly or a matplotlib figure, which a notebook shows.

        Raises:
            SfllavaError: There is no such figure, or these results have nothing that it could show.
        """
        from sfllava import plots

        chart = plots.draw_chart(name, self._results)
        if isinstance(chart, str):
            raise SfllavaError(f"figure {name}: none, since {chart}")
        return plots.static.render(chart) if paper else plots.interactive.render(chart)

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("_"):
            raise AttributeError(name)
        if name not in (known := catalogue.names("figures")):
            raise AttributeError(catalogue.unknown_name("figure", name, known))

        def draw(*, paper: bool = False) -> Any:
            return self(name, paper=paper)

        draw.__name__, draw.__doc__ = name, f"Draw the figure {name}; with `paper=True` as for print."
        return draw

    def __dir__(self) -> list[str]:
        return catalogue.names("figures")

    def __repr__(self) -> str:
        return f"figures: {', '.join(dir(self))}"
