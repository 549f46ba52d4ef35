"""Settings in the order of their accuracy, and which of them can be told apart."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from sfllava.analysis import stats
from sfllava.analysis.breakdown import headline_of, headlines
from sfllava.analysis.differences import paired_differences
from sfllava.analysis.flags import beyond_known, many_empty
from sfllava.analysis.results import accuracy, costs
from sfllava.files import RunError


@dataclass(frozen=True)
class Entry:
    """One setting of one run.

    Attributes:
        name: Its name, with that of the run if several runs have the setting.
        run: The label of its run.
        tokens: Visual tokens per video; None if unknown.
        value: The number that the benchmark reports, in percent, with its 95 % interval `low` to `high`; None
            without answers.
        counts: Numbers of questions by what became of them: questions, failed, empty, unparsable, not_asked.
        accuracy: The accuracy over all questions, where `value` is another number.
        place: 1 and the number of settings that are significantly better; None if it is not ranked.
        status: "best", "tied" (not distinguishable from the best), "worse", or "" if it is not ranked.
        why: Why it is not ranked, in words.
        beyond: Its visual tokens, if the model is not known to answer with so many.
    """

    name: str
    run: str
    tokens: int | None
    value: float | None
    low: float
    high: float
    counts: dict[str, int]
    accuracy: float | None = None
    place: int | None = None
    status: str = ""
    why: str = ""
    beyond: int | None = None


@dataclass(frozen=True)
class Gap:
    """How much better one setting is than another, in points, with its 95 % interval and corrected p-value."""

    points: float
    low: float
    high: float
    p: float
    significant: bool

    def turned(self) -> Gap:
        """Return the same difference, seen from the other setting."""
        return Gap(-self.points, -self.high, -self.low, self.p, self.significant)


@dataclass(frozen=True)
class Ranking:
    """The settings of comparable runs.

    Attributes:
        measure: What is ranked: "accuracy", or the benchmark's own number, such as M-Avg.
        entries: The ranked settings, the best first, and then the others.
        gaps: (setting, other) -> their difference, for all pairs in both orders; empty if nothing can be compared.
        reason: Why nothing is compared, in words.
        questions: Questions that each setting was asked.
        videos: Videos that they are about.
        detectable: The true difference that such data show in four of five cases after the correction, in points: the
            median over the pairs of ranked settings without a significant difference; None if there are none, or too
            few videos.
        missing: Groups of the benchmark without questions, in words.
    """

    measure: str
    entries: list[Entry]
    gaps: dict[tuple[str, str], Gap]
    reason: str
    questions: int
    videos: int
    detectable: float | None
    missing: str

    @property
    def ranked(self) -> list[Entry]:
        """The settings that are ranked, the best first."""
        return [entry for entry in self.entries if entry.place is not None]

    @property
    def pairs(self) -> int:
        """The number of pairs that the p-values are corrected for."""
        return len(self.gaps) // 2


def make_ranking(results: pd.DataFrame) -> Ranking:
    """Rank the settings of comparable runs.

    Settings with many empty answers (`flags.many_empty`), or without answers, are listed and not ranked. Nothing is
    ranked with fewer videos than a difference can be significant with.

    Args:
        results: From `load_results`, for one benchmark.
    """
    official = headlines(results)
    headline = headline_of(str(official["benchmark"].iloc[0])) if len(official) else None
    table, reason = pd.DataFrame(), ""
    if results["name"].nunique() > 1:
        try:
            table = paired_differences(results, groups=headline.groups if headline else ())
        except RunError as error:
            reason = f"{error}"
    gaps = _gaps(table)
    entries = _entries(results, official)
    questions = max((entry.counts["questions"] for entry in entries), default=0)
    videos = int(results["video"].nunique())
    if not reason and len(entries) > 1 and videos < stats.FEWEST_VIDEOS:
        about = f"{questions:,} questions about {videos:,} video{'s' * (videos != 1)}"
        reason = f"{about}: too few videos to tell settings apart"
    return Ranking(
        headline.name if headline else "accuracy",
        _placed(entries, gaps, ranked=not reason),
        gaps,
        reason,
        questions,
        videos,
        _detectable(table, many_empty(results)),
        "; ".join(sorted(set(official["missing"]) - {""})) if len(official) else "",
    )


def _gaps(table: pd.DataFrame) -> dict[tuple[str, str], Gap]:
    found = {}
    for row in table.to_dict("records"):
        gap = Gap(row["points"], row["low"], row["high"], row["p_holm"], bool(row["significant"]))
        found[row["setting"], row["other"]], found[row["other"], row["setting"]] = gap, gap.turned()
    return found


def _detectable(table: pd.DataFrame, not_ranked: Collection[str]) -> float | None:
    if not len(table):
        return None
    ranked = ~(table["setting"].isin(not_ranked) | table["other"].isin(not_ranked))
    found = table[ranked & ~table["significant"]]["min_detectable_effect"].median()
    return float(found) if found <= 100 else None


def _entries(results: pd.DataFrame, official: pd.DataFrame) -> list[Entry]:
    """Return the settings in their order, not yet ranked."""
    empty, beyond = many_empty(results), beyond_known(results)
    values = {row["name"]: row for row in official.to_dict("records")}
    about = {row["name"]: row for row in costs(results).to_dict("records")}
    found = []
    for row in accuracy(results, ("name",)).to_dict("records"):
        name, own, own_number = row["name"], about.get(row["name"], {}), values.get(row["name"])
        tokens = next((n for n in (own.get("tokens"), row.get("tokens")) if n is not None and n == n), None)
        value = (own_number or {}).get("value", row.get("accuracy"))
        low, high = (float((own_number or row).get(end, float("nan"))) for end in ("low", "high"))
        why = f"{100 * empty[name]:.0f} % of its answers are empty" if name in empty else ""
        why = why if row["questions"] else "it has no answers yet"
        counts = {key: int(row[key]) for key in ("questions", "failed", "empty", "unparsable", "not_asked")}
        found.append(
            Entry(
                name, str(own.get("run", "")), None if tokens is None else int(tokens),
                None if value is None or value != value else float(value), low, high, counts,
                float(row["accuracy"]) if own_number else None, why=why, beyond=beyond.get(name, (None,))[0],
            )
        )  # fmt: skip
    return found


def _placed(entries: Sequence[Entry], gaps: dict[tuple[str, str], Gap], ranked: bool) -> list[Entry]:
    """Return settings in order, with their places if they are ranked."""
    ordered = sorted(entries, key=lambda entry: -1.0 if entry.value is None else entry.value, reverse=True)
    good, others = [e for e in ordered if not e.why], [e for e in ordered if e.why]
    if not ranked or not good:
        return [*good, *others]
    placed = []
    for entry in good:
        better = [other for other in good if other is not entry and gaps[other.name, entry.name].significant
                  and gaps[other.name, entry.name].points > 0]  # fmt: skip
        first = entry is good[0]
        tied = not first and not gaps[good[0].name, entry.name].significant
        placed.append(replace(entry, place=1 + len(better), status="best" if first else "tied" if tied else "worse"))
    return [*placed, *others]


def headline_sentence(ranking: Ranking) -> str:
    """Say what is best, by how much, with the interval and whether it is significant."""
    entries, ranked = ranking.entries, ranking.ranked
    if not any(entry.counts["questions"] for entry in entries):
        return "There is no answer yet."
    if ranking.reason:
        start = "" if ranking.videos < stats.FEWEST_VIDEOS else "Nothing is ranked: "
        return f"{start}{ranking.reason}."
    if not ranked:
        return "Nothing is ranked: at every setting many answers are empty."
    best, others = ranked[0], ranked[1:]
    score = f"{best.value:.1f} % [{best.low:.1f}, {best.high:.1f}]"
    if not others:
        only = " It is the only setting that can be ranked." if len(entries) > 1 else ""
        measure = "an accuracy" if ranking.measure == "accuracy" else f"a {ranking.measure}"
        return f"{best.name} reaches {measure} of {score}.{only}"
    worse = [entry for entry in others if entry.status == "worse"]
    ties = [entry for entry in others if entry.status == "tied"]
    by, rivals = _by(ranking, best, others[0]), others[0].name
    if not ties:
        behind = "" if len(others) == 1 else f" over {rivals}, the next best"
        rivals = rivals if len(others) == 1 else f"all {len(others)} others"
        return f"{best.name} is best with {score}, significantly better than {rivals}: by {by}{behind}."
    if not worse:
        ahead = "ahead" if len(others) == 1 else f"ahead of {rivals}, the next best"
        rivals = rivals if len(others) == 1 else f"any of the {len(others)} others"
        return (
            f"{best.name} has the highest {ranking.measure}, {score}, but is not significantly better than {rivals}: "
            f"it is {by} {ahead}."
        )
    near = min(worse, key=lambda entry: ranking.gaps[best.name, entry.name].points)
    tied = ties[0].name if len(ties) == 1 else f"{len(ties)} others"
    rest, more = (near.name, "") if len(worse) == 1 else (f"{len(worse)} others", " or more")
    rest = rest if len(ties) == 1 or len(worse) == 1 else f"the other {len(worse)}"
    return (
        f"{best.name} has the highest {ranking.measure}, {score}; {tied} cannot be told apart from it, and it is "
        f"significantly better than {rest}, by {_by(ranking, best, near)}{more}."
    )


def _by(ranking: Ranking, best: Entry, other: Entry) -> str:
    gap = ranking.gaps[best.name, other.name]
    return f"{in_points(gap.points)} points [{in_points(gap.low)}, {in_points(gap.high)}]"


def in_points(number: float, sign: bool = False) -> str:
    """Return points with one decimal and a minus sign; with `sign` also with a plus sign."""
    text = f"{number:+.1f}" if sign else f"{number:.1f}"
    return "0.0" if float(text) == 0 else text.replace("-", "\u2212")
