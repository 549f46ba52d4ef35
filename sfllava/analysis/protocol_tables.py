"""Tables of a run's readings: accuracy under each protocol, and the replies that protocols read differently.

Intervals are 95 % and clustered by video, as in `results`.
"""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from sfllava.analysis import stats
from sfllava.analysis.protocols import NONE, Readings
from sfllava.benchmarks import benchmark_names
from sfllava.benchmarks.base import load_spec
from sfllava.evaluators.protocols.base import Protocol
from sfllava.files import printable
from sfllava.prompts import LETTERS

FATES = {"unread_wrong": "wrong", "guessed": "guessed", "left_out": "left out", "unread_right": "right"}
"""What becomes of a question without a readable reply: the column of `protocol_accuracy`, and its name"""
_PAIR = ["setting", "one", "other", "read_differently", "only_one_right", "only_other_right"]
_REPLY_WIDTH = 48


def protocol_accuracy(readings: Readings) -> pd.DataFrame:
    """Compute the accuracy of each setting under each protocol, by the protocol's own mean.

    Returns:
        One row per setting and protocol, with the columns setting, protocol, mean (what is averaged), accuracy, low and
        high (percent; with guesses of the seed), expected (percent; with each guess at its chance of being right),
        questions, counted (in the denominator), videos, failed, unparsable (replies that name no option), what becomes
        of failed and unparsable ones (unread_wrong, guessed, left_out and unread_right), and the protocol's note.
    """
    found = []
    for setting, rows in readings.rows.groupby("setting", sort=False):
        for protocol in readings.protocols:
            read = readings.by_protocol[protocol.name].loc[rows.index]
            by = _groups_of(protocol, readings.benchmark)
            found.append({"setting": setting, "protocol": protocol.name} | _accuracy(rows, read, by))
            found[-1]["note"] = protocol.note(readings.benchmark)
    return pd.DataFrame(found)


def _groups_of(protocol: Protocol, benchmark: str) -> tuple[str, ...]:
    """Return the groups whose means a protocol averages."""
    if protocol.means is not None:
        return protocol.means.get(benchmark, ())
    headline = load_spec(benchmark).headline if benchmark in benchmark_names() else None
    return headline.groups if headline else ()


def _accuracy(rows: pd.DataFrame, read: pd.DataFrame, by: tuple[str, ...]) -> dict[str, Any]:
    counted = read["counted"].to_numpy()
    correct, guessed = read["correct"].to_numpy(float), read["guessed"].to_numpy()
    chance = np.where(guessed, 1 / rows["labels"].map(len).to_numpy(float), correct)
    groups = np.array(["/".join(str(of.get(name, "")) for name in by) for of in rows["groups"]])
    failed, unread = rows["reply"].isna().to_numpy(), ~read["parsed"].to_numpy()
    several = len(set(groups[counted]))
    out: dict[str, Any] = {"mean": f"{several} means, by {' and '.join(by)}" if several > 1 else "all questions"}
    if counted.any():
        videos = rows["video"].to_numpy(str)[counted]
        mean = stats.group_mean(correct[counted], groups[counted], videos)
        expected = stats.group_mean(chance[counted], groups[counted], videos).mean
        out |= {"accuracy": 100 * mean.mean, "low": 100 * mean.low, "high": 100 * mean.high, "expected": 100 * expected}
    else:
        out |= dict.fromkeys(("accuracy", "low", "high", "expected"), np.nan)
    right = unread & counted & ~guessed & read["correct"].to_numpy()
    counts = {"questions": np.ones(len(rows)), "counted": counted, "failed": failed, "unparsable": unread & ~failed}
    counts |= {"unread_wrong": unread & counted & ~guessed & ~right, "guessed": guessed, "left_out": ~counted}
    counts |= {"unread_right": right}
    return out | {name: int(flags.sum()) for name, flags in counts.items()} | {"videos": rows["video"].nunique()}


def protocol_pairs(readings: Readings) -> pd.DataFrame:
    """Count on how many replies each two protocols differ.

    Returns:
        One row per setting and pair, with the columns setting, one, other, read_differently (they read other options,
        or only one of them reads any), only_one_right and only_other_right (right under one of them, under the other
        wrong or left out).
    """
    found = []
    for setting, rows in readings.rows.groupby("setting", sort=False):
        for one, other in combinations(readings.by_protocol, 2):
            first, second = (readings.by_protocol[name].loc[rows.index] for name in (one, other))
            right, otherwise = first["correct"] & first["counted"], second["correct"] & second["counted"]
            counts = (_read(first) != _read(second), right & ~otherwise, otherwise & ~right)
            found.append((setting, one, other, *(int(count.sum()) for count in counts)))
    return pd.DataFrame(found, columns=_PAIR)


def _read(reading: pd.DataFrame) -> Any:
    """Return the options that a protocol read, -1 where it read none."""
    return reading["chosen"].where(reading["parsed"], NONE)


def read_differently(readings: Readings) -> pd.DataFrame:
    """Return the replies that protocols read or grade differently, those that they grade differently first.

    Returns:
        One row per question and setting, with the columns key, setting, video, question, answer, right (the label of
        the right option) and reply; and for each protocol what it read and how it counts: "B wrong", "none left out",
        "C guessed, right".
    """
    tables = list(readings.by_protocol.values())
    read = np.stack([_read(table) for table in tables])
    grade = np.stack([table["correct"].astype(int).where(table["counted"], NONE) for table in tables])
    graded = grade.max(0) != grade.min(0)
    differs = graded | (read.max(0) != read.min(0))
    order = [*readings.rows.index[differs & graded], *readings.rows.index[differs & ~graded]]
    rows = readings.rows.loc[order]
    found = rows[["key", "setting", "video", "question", "answer"]].copy()
    found["right"] = [_label(labels, right) for labels, right in zip(rows["labels"], rows["right"])]
    found["reply"] = rows["reply"]
    for name, table in readings.by_protocol.items():
        entries = table.loc[order].to_dict("records")
        found[name] = [_shown(labels, entry) for labels, entry in zip(rows["labels"], entries)]
    return found.reset_index(drop=True)


def _label(labels: Sequence[str], chosen: int) -> str:
    return "none" if chosen < 0 else labels[chosen] if chosen < len(labels) else LETTERS[chosen]


def _shown(labels: Sequence[str], entry: dict[str, Any]) -> str:
    count = "left out" if not entry["counted"] else "right" if entry["correct"] else "wrong"
    return f"{_label(labels, entry['chosen'])} {'guessed, ' if entry['guessed'] else ''}{count}"


def format_protocols(
    readings: Readings, accuracy: pd.DataFrame, pairs: pd.DataFrame, differing: pd.DataFrame, most: int
) -> str:
    """Format the tables of readings as text.

    Args:
        readings: From `read_by_protocols`.
        accuracy, pairs, differing: From `protocol_accuracy`, `protocol_pairs` and `read_differently`.
        most: How many of the replies that are read differently to list.
    """
    settings = list(accuracy["setting"].unique())
    numbers = {name: str(i) for i, name in enumerate(settings, 1)}
    blocks = []
    for name in settings:
        part, two = (table[table["setting"] == name] for table in (accuracy, pairs))
        counts = part.iloc[0]
        failed = f", {counts['failed']} failed" if counts["failed"] else ""
        videos = "1 video" if counts["videos"] == 1 else f"{counts['videos']} videos"
        number = f"{numbers[name]}. " if len(settings) > 1 else ""
        lines = [
            f"{number}{printable(name)}: {counts['questions']} questions about {videos}{failed}",
            _accuracies(part),
        ]
        blocks.append("\n".join([*lines, "", _pairs(two)] if len(two) else lines))
    notes = [f"  {row['protocol']}: {row['note']}" for row in accuracy.drop_duplicates("protocol").to_dict("records")]
    if accuracy["guessed"].any():
        notes.append(f"Guesses are those of seed {readings.seed}; expected has each at its chance of being right.")
    blocks.append("\n".join(["Unparsable replies and failed questions:", *notes]))
    if readings.not_asked:
        blocks.append(f"{readings.not_asked:,} questions have not been asked yet: the numbers cover only the others.")
    if readings.need_judge:
        blocks.append(f"{readings.need_judge:,} questions need a judge: they are in none of these numbers.")
    if len(pairs):
        blocks.append(f"{len(differing):,} of {len(readings.rows):,} replies are read or counted differently.")
    if len(differing) and most:
        shown = differing.head(most).assign(setting=lambda table: table["setting"].map(numbers))
        columns = ["key", *["setting"] * int(len(settings) > 1), "reply", "right", *readings.by_protocol]
        shown = shown.assign(reply=[_short(reply) for reply in shown["reply"]])[columns]
        blocks[-1] += f"\n{_aligned(shown)}"
    return "\n\n".join(blocks)


def _accuracies(part: pd.DataFrame) -> str:
    """Format the accuracies of one setting."""
    shown = part[["protocol"]].copy()
    shown["accuracy, %"] = [
        "none" if np.isnan(row["accuracy"]) else f"{row['accuracy']:.1f} [{row['low']:.1f}, {row['high']:.1f}]"
        for row in part.to_dict("records")
    ]
    if part["guessed"].any():
        shown["expected"] = [f"{value:.1f}" for value in part["expected"]]
    shown["mean of"] = part["mean"]
    shown[["counted", "unparsable"]] = part[["counted", "unparsable"]]
    for column, name in FATES.items():
        if part[column].any():
            shown[f"-> {name}"] = part[column]
    return _aligned(shown)


def _pairs(pairs: pd.DataFrame) -> str:
    """Format the pairs of protocols in one setting."""
    names = [f"{row['one']} and {row['other']}" for row in pairs.to_dict("records")]
    columns = {"only_one_right": "right under the first only", "only_other_right": "under the second only"}
    shown = pairs.rename(columns={"read_differently": "read differently"} | columns).iloc[:, 3:]
    shown.insert(0, "pair", names)
    return _aligned(shown)


def _short(reply: Any) -> str:
    """Return a reply in quotes on one line, without control characters."""
    if not isinstance(reply, str):  # pandas has NaN for a missing text
        return "(failed)"
    plain = "".join(c if c.isprintable() else " " for c in reply)
    return f'"{plain}"' if len(plain) <= _REPLY_WIDTH else f'"{plain[: _REPLY_WIDTH - 3]}..."'


def _aligned(table: pd.DataFrame) -> str:
    """Format a table with texts to the left and numbers to the right."""
    lines = [""] * (len(table) + 1)
    for name in table:
        cells = [str(name), *(printable(str(cell)) for cell in table[name])]
        width = max(map(len, cells))
        numbers = pd.api.types.is_numeric_dtype(table[name])
        lines = [
            f"{line}  {cell:>{width}}" if numbers else f"{line}  {cell:<{width}}" for line, cell in zip(lines, cells)
        ]
    return "\n".join(line.rstrip() for line in lines)
