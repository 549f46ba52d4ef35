"""Paired differences between settings, and which of them are significant."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Collection, Sequence

import numpy as np
import pandas as pd

from sfllava.analysis import stats
from sfllava.analysis.breakdown import group_labels, headline_of
from sfllava.analysis.flags import describe_flags, many_empty
from sfllava.analysis.loading import codes_of
from sfllava.analysis.results import accuracy
from sfllava.benchmarks.spec import Headline
from sfllava.catalogue import unknown_name
from sfllava.runs.coded import combine
from sfllava.runs.run_folder import RunError
from sfllava.types import SfllavaError


def paired_differences(results: pd.DataFrame, reference: str | None = None, groups: Sequence[str] = ()) -> pd.DataFrame:
    """Compare each pair of settings, or each setting with a reference, on the same questions.

    Args:
        results: from `load_results`.
        reference: name of the setting that all others are compared with. Default: all pairs.
        groups: the columns that define a group; the means of the groups' accuracies are then compared. Default: the
            accuracies over all questions.

    Returns:
        One row per pair. points: accuracy of `setting` minus that of `other`, in percentage points, with its interval
        low to high. p: of the sign-flip test over videos (`stats.difference`). p_holm: p corrected for the number of
        pairs. significant: p_holm < 0.05. min_detectable_effect: the true difference, in points, that such data would
        show in 80 of 100 cases at p < 0.05 divided by the number of pairs, the most that the correction asks for.

    Raises:
        RunError: There is no such reference, or two settings were not asked the same questions.
    """
    names = list(results["name"].astype("category").cat.remove_unused_categories().cat.categories)
    if names and reference is not None and reference not in names:
        raise RunError(unknown_name("setting", reference, names))
    pairs = [
        (i, k)
        for i, one in enumerate(names)
        for k in ([names.index(reference)] if reference else range(i + 1, len(names)))
        if names[k] != one
    ]
    rows_of, questions = _rows_by_name(results, names)
    for one, other in pairs:
        first, second = questions[rows_of[one]], questions[rows_of[other]]
        if not np.array_equal(first, second):
            raise RunError(
                f"{names[one]} and {names[other]} were not asked the same questions: {len(first)} and {len(second)} "
                f"rows, of which {len(np.intersect1d(first, second))} agree"
            )
    rows = []
    if pairs:
        # a video is one cluster, whatever the types of its questions
        first, correct = results.iloc[rows_of[0]], results["correct"].to_numpy()
        labels = group_labels(first, groups) if groups else None
        found = stats.differences(
            np.stack([correct[rows] for rows in rows_of]), pairs, _ranks(first["video"]), groups=labels
        )
        rows = [{"setting": names[i], "other": names[k]} | _in_points(each) for (i, k), each in zip(pairs, found)]
    columns = ["setting", "other", "points", "low", "high", "p", "min_detectable_effect", "questions", "videos"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(6, "p_holm", stats.holm(table["p"].to_numpy(float)) if len(table) else [])
    table["significant"] = table["p_holm"] < 0.05
    return table


def headline_differences(results: pd.DataFrame, reference: str | None = None) -> pd.DataFrame:
    """Compare settings by the number that each benchmark reports, where it is not the accuracy over all questions.

    Args:
        results: from `load_results`.
        reference: as for `paired_differences`.

    Returns:
        A table as `paired_differences` returns it, after the columns benchmark and headline (the number's name); empty
        if there is no such benchmark or a single setting.

    Raises:
        RunError: as for `paired_differences`.
    """
    found = []
    for name, part in by_benchmark(results):
        if (headline := _headline(part)) is not None:
            table = paired_differences(part, reference, headline.groups)
            table.insert(0, "benchmark", name)
            table.insert(1, "headline", headline.name)
            found.append(table)
    return pd.concat(found, ignore_index=True) if found else pd.DataFrame()


def _headline(results: pd.DataFrame) -> Headline | None:
    """Return the headline of the only benchmark of results; None if it has none, or is a name of the user's own."""
    names = results["benchmark"].unique()
    try:
        return headline_of(str(names[0])) if len(names) == 1 else None
    except SfllavaError:
        return None


def _rows_by_name(results: pd.DataFrame, names: Sequence[str]) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the indices of each setting's rows in the order of their questions, and the number of each question."""
    questions, _ = combine(*(codes_of(results[column]) for column in ("benchmark", "key")))
    order = np.argsort(questions, kind="stable")
    each = results["name"].astype("category").cat
    own = pd.Index(names).get_indexer(each.categories)[each.codes.to_numpy()][order]
    return [order[own == i] for i in range(len(names))], questions


def _ranks(texts: pd.Series) -> np.ndarray:
    """Return (N) the place of each text in the order of texts: the flips of a test must not depend on that of rows."""
    known = list(texts.astype("category").cat.categories)
    ranks = np.empty(len(known), int)
    ranks[sorted(range(len(known)), key=known.__getitem__)] = np.arange(len(known))
    return ranks[codes_of(texts)]


def _in_points(found: stats.Difference) -> dict[str, float]:
    mean = found.estimate
    return {
        "points": 100 * mean.mean,
        "low": 100 * mean.low,
        "high": 100 * mean.high,
        "p": found.p,
        "min_detectable_effect": 100 * found.min_detectable_effect,
        "questions": mean.n,
        "videos": mean.videos,
    }


def describe_findings(
    results: pd.DataFrame,
    reference: str | None = None,
    gaps: pd.DataFrame | None = None,
    headline_gaps: pd.DataFrame | None = None,
) -> str:
    """Say in words which differences are significant and which are within noise, for each benchmark.

    Where a benchmark reports another number than the accuracy over all questions, it is said for both.

    Args:
        results: from `load_results`.
        reference: as for `paired_differences`.
        gaps: `paired_differences(results, reference)`, if already computed.
        headline_gaps: `headline_differences(results, reference)`, if already computed.

    Returns:
        The text; where settings cannot be compared, for example in an unfinished sweep, it says why.
    """
    parts = by_benchmark(results)
    if len(parts) > 1:
        return "\n\n".join(f"{name}: {describe_findings(part, reference)}" for name, part in parts)
    try:
        lines = _describe_measures(results, reference, gaps, headline_gaps)
    except RunError as error:
        lines = [f"Nothing is compared, since {error}."]
    lines = [*describe_flags(results), *lines]
    table = accuracy(results)
    waiting = table["not_asked"] if len(table) else table.assign(not_asked=0)["not_asked"]
    if waiting.any():
        lines.append(f"{int(waiting.sum()):,} questions have not been asked yet: the numbers cover only the others.")
    failed = int(results["failed"].sum())
    if failed:
        lines.append(f"{failed:,} answers failed and count as wrong; the table of failures has their reasons.")
    return "\n".join(lines)


def _describe_measures(
    results: pd.DataFrame, reference: str | None, gaps: pd.DataFrame | None, headline_gaps: pd.DataFrame | None
) -> list[str]:
    """Describe the differences of the accuracy and, before it, of the benchmark's own number."""
    if not len(results):
        return ["There is no answer yet."]
    empty = many_empty(results)
    plain = _describe_differences(paired_differences(results, reference) if gaps is None else gaps, empty)
    headline = _headline(results)
    if headline is None:
        return plain
    found = headline_differences(results, reference) if headline_gaps is None else headline_gaps
    official = _describe_differences(found, empty)
    if official == plain:  # there is nothing to compare
        return plain
    return [
        f"By {headline.name}: {official[0]}",
        *official[1:],
        f"By accuracy over all questions: {plain[0]}",
        *plain[1:],
    ]


def by_benchmark(results: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """Split results by benchmark into (name, rows), also for benchmarks without any rows yet."""
    settings = results.attrs.get("settings", [])
    found = []
    for name in dict.fromkeys([*results["benchmark"].unique(), *(s["benchmark"] for s in settings if not s["rows"])]):
        part = results[results["benchmark"] == name]
        part.attrs = results.attrs | {"settings": [s for s in settings if s["benchmark"] == name]}
        found.append((name, part))
    return found


def _describe_differences(all_pairs: pd.DataFrame, not_ranked: Collection[str] = ()) -> list[str]:
    if all_pairs.empty:
        return ["There is one setting, so nothing is compared."]
    table = all_pairs[~(all_pairs["setting"].isin(not_ranked) | all_pairs["other"].isin(not_ranked))]
    if table.empty:
        return ["Fewer than two settings can be ranked, so nothing is compared."]
    significant, noise = table[table["significant"]], table[~table["significant"]]
    questions, videos = int(table["questions"].max()), int(table["videos"].max())
    if videos < stats.FEWEST_VIDEOS:
        return [
            f"{questions:,} questions about {videos:,} video{'s' * (videos > 1)}: too few videos to tell settings "
            f"apart. Questions about one video are correlated, and no difference can be significant with fewer than "
            f"{stats.FEWEST_VIDEOS} videos. Nothing is ranked."
        ]
    lines = [
        f"Of {len(table)} paired differences on {questions:,} questions about {videos:,} videos, {len(significant)} "
        f"{'is' if len(significant) == 1 else 'are'} significant (p < 0.05, corrected for {len(all_pairs)} "
        f"comparisons) and {len(noise)} {'is' if len(noise) == 1 else 'are'} within noise."
    ]
    largest = significant.reindex(significant["points"].abs().sort_values(ascending=False, kind="stable").index)
    for row in largest.head(8).to_dict("records"):
        swap = row["points"] < 0
        one, other = (row["other"], row["setting"]) if swap else (row["setting"], row["other"])
        low, high = (-row["high"], -row["low"]) if swap else (row["low"], row["high"])
        lines.append(f"- {one} is better than {other} by {abs(row['points']):.1f} points [{low:.1f}, {high:.1f}]")
    if len(largest) > 8:
        lines.append(f"- and {len(largest) - 8} smaller ones, listed in the table of differences")
    if len(noise):
        known = noise["min_detectable_effect"].median()
        shown = f"after the correction these questions reveal a true difference of {known:.1f} points in four of five "
        shown += "cases"
        shown = f"{shown}, and smaller ones less often" if known <= 100 else "these questions are too few to reveal any"
        lines.append(f"The others must not be read as findings: {shown}.")
    return lines
