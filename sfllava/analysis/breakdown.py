"""Accuracy by groups of questions, and the headline numbers that benchmarks report: means of group means."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from sfllava.analysis import stats
from sfllava.analysis.loading import codes_of
from sfllava.analysis.results import accuracy
from sfllava.benchmarks.base import load_spec
from sfllava.benchmarks.groups import count_groups, describe_missing, group_name
from sfllava.benchmarks.spec import Headline
from sfllava.runs.coded import combine


def breakdowns(results: pd.DataFrame) -> dict[str, pd.DataFrame]:
    """Compute the accuracy of each setting by each column of groups.

    Args:
        results: From `load_results`.

    Returns:
        Column -> a table as `accuracy` makes it. The columns are type, and those of groups such as duration; questions
        without a group are left out of its table. Columns in which all questions are alike, or which repeat an earlier
        one, are left out.
    """
    return {
        column: accuracy(results[results[column] != ""], ("benchmark", "name", column))
        for column in columns_of(results)
    }


def columns_of(results: pd.DataFrame) -> list[str]:
    """Return the columns by which results can be broken down, as `breakdowns` does."""
    found: dict[str, np.ndarray] = {}
    for column in ("type", *results.attrs.get("groups", ())):
        texts = results[column].to_numpy()
        if len(set(results[column].unique()) - {""}) > 1 and not any(
            (texts == other).all() for other in found.values()
        ):
            found[column] = texts
    return list(found)


def headlines(results: pd.DataFrame) -> pd.DataFrame:
    """Compute the number that each benchmark reports, where it is not the accuracy over all questions.

    Args:
        results: From `load_results`.

    Returns:
        One row per benchmark with a headline and setting, with the columns benchmark, name, headline (its name), value,
        low and high (the mean of the accuracies of its groups, in percent, with its 95 % interval), accuracy,
        accuracy_low and accuracy_high (of all questions together), questions, groups (their number, in words) and
        missing (groups without questions, or without all of them, as in a run with a limit; empty if none is known).
    """
    rows = []
    for (benchmark, name), group in results.groupby(["benchmark", "name"], sort=False, observed=True):
        headline = headline_of(str(benchmark))
        if headline is None:
            continue
        labels = group_labels(group, headline.groups)
        videos, right = codes_of(group["video"]), group["correct"].to_numpy()
        found, together = stats.group_mean(right, labels, videos), stats.proportion(right, videos)
        sizes = dict(zip(*(each.tolist() for each in np.unique(labels, return_counts=True))))
        rows.append(
            {"benchmark": benchmark, "name": name, "headline": headline.name}
            | _percent(found, "value", "low", "high")
            | _percent(together, "accuracy", "accuracy_low", "accuracy_high")
            | {"questions": len(group), "groups": count_groups(len(sizes), headline.groups)}
            | {"missing": describe_missing(sizes, _complete(results, group))}
        )
    return pd.DataFrame(rows)


def headline_of(benchmark: str) -> Headline | None:
    """Return the headline of a benchmark whose groups are columns of the results; None if it has none."""
    headline = load_spec(benchmark).headline
    return None if headline is None or "rubric" in headline.groups else headline


def group_labels(results: pd.DataFrame, columns: Sequence[str]) -> np.ndarray:
    """Return the name of each row's group, such as "yes_no / action"."""
    there = [column for column in columns if column in results]
    numbers, rows = combine(np.zeros(len(results), int), *(codes_of(results[column]) for column in there))
    texts = results.iloc[rows][there].astype(str).assign(**{c: "" for c in columns if c not in there})[list(columns)]
    names = [group_name(values, columns) for values in texts.itertuples(index=False, name=None)]
    return np.array(names, dtype=str)[numbers]


def _percent(found: stats.Estimate, *names: str) -> dict[str, float]:
    return dict(zip(names, (100 * found.mean, 100 * found.low, 100 * found.high)))


def _complete(results: pd.DataFrame, group: pd.DataFrame) -> dict[str, int]:
    """Return the number of questions in each group of the whole benchmark, as the run of these rows recorded it."""
    run = str(group["run"].iloc[0])
    sizes: Any = results.attrs.get("runs", {}).get(run, {}).get("headline_sizes") or {}
    return {name: n for name, n in sizes.items() if isinstance(n, int)} if isinstance(sizes, dict) else {}
