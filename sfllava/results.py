"""Run folders -> tables: accuracy with its interval, what a setting costs, and which differences are real."""

# what a pandas expression gives is a union of half a dozen types to a checker
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import json
from array import array
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from sfllava import stats
from sfllava.benchmarks.base import load_spec
from sfllava.costs import shape_from
from sfllava.disk import as_csv, printable, whole
from sfllava.evaluators.choice import parse_strict
from sfllava.evaluators.match import normalise
from sfllava.runfolder import Asked, RunError, asked_of, read_rows, read_run
from sfllava.types import SfllavaError, Task
from sfllava.verdicts import at_of, judge_names, read_units, read_verdicts, verdicts_path

_TEXTS = ("run", "benchmark", "setting", "key", "video", "type", "reason")
COSTS = "costs.json"


def load_results(runs: str | Path | Iterable[str | Path], judge: str | None = None) -> pd.DataFrame:
    """A row for each question and setting of one or many run folders.

    judge: the name of a judge that has judged them all, for open questions; else an answer is right by its words or
    its letter. A judge's failure is no "no": while it has verdicts to give, that is an error.

    Columns: run, benchmark, setting, key, video, type, tokens, correct, unparsable, failed, reason, seconds, and
    `name`: the setting, and of which run where several runs have it. What failed or cannot be read is not correct.
    `.attrs["runs"]` has each run's identity and what is known of its costs, `.attrs["settings"]` how many rows each
    setting has, which may be none. Raises RunError for a benchmark without an offline score, for a run that is in the
    list twice, and for a line that is no row.
    """
    folders = [Path(runs)] if isinstance(runs, str | Path) else [Path(run) for run in runs]
    texts = {column: _Texts() for column in _TEXTS}
    numbers = {"tokens": array("d"), "seconds": array("d")}
    flags = {name: array("b") for name in ("correct", "unparsable", "failed")}
    facts: dict[str, Any] = {}
    for folder, label in zip(folders, _labels(folders)):
        about = read_run(folder)
        identity = about["identity"]
        spec = load_spec(identity["benchmark"])
        grade = _judged(folder, judge, spec.task) if judge else _grader(spec.task, folder)
        ablations = [session["ablation"] for session in about.get("sessions", []) if session.get("ablation")]
        facts[label] = identity | {"costs": _read_costs(folder), "ablation": ablations[-1] if ablations else None}
        for row in read_rows(folder):
            reason = row["error"] or ("no prediction" if row["prediction"] is None else "")
            correct, parsed = (False, True) if reason else grade(row)
            flags["correct"].append(correct)
            flags["unparsable"].append(not parsed)
            flags["failed"].append(bool(reason))
            seconds = row.get("seconds") or {}
            numbers["seconds"].append(sum(seconds.values()) if seconds else np.nan)
            tokens = row["visual_tokens"]
            numbers["tokens"].append(np.nan if tokens is None else tokens)
            texts["run"].append(label)
            texts["benchmark"].append(spec.name)
            for column in ("setting", "key", "video"):
                texts[column].append(row[column])
            texts["type"].append(spec.types.get(row["type"], row["type"]))
            texts["reason"].append(reason)
    data: dict[str, Any] = {column: values.categories() for column, values in texts.items()}
    data |= {name: np.frombuffer(values) if values else np.empty(0) for name, values in numbers.items()}
    data |= {name: np.array(values, dtype=bool) for name, values in flags.items()}
    table = pd.DataFrame(data)
    settings = [
        (identity["benchmark"], label, setting["name"])
        for label, identity in facts.items() for setting in identity.get("settings") or ()
    ]  # fmt: skip
    at = ["benchmark", "run", "setting"]
    pairs = list(table[at].drop_duplicates().astype(object).itertuples(index=False, name=None))
    names = _names([*pairs, *settings])
    categories = pd.Index(list(dict.fromkeys(names.values())), dtype=object)
    codes = categories.get_indexer([names[pair] for pair in pairs])
    # a group has its pair's place: both are in the order of the rows
    groups = table.groupby(at, sort=False, observed=True).ngroup() if len(table) else np.empty(0, int)
    table["name"] = pd.Categorical.from_codes(codes[groups], categories=categories)
    counts = Counter(groups.tolist() if len(table) else [])
    rows = {pair: counts[i] for i, pair in enumerate(pairs)}
    table.attrs["settings"] = [
        {"benchmark": pair[0], "run": pair[1], "name": name, "rows": rows.get(pair, 0)} for pair, name in names.items()
    ]
    table.attrs["runs"] = facts
    return table


class _Texts:
    """A column of texts, of which each is kept once."""

    def __init__(self) -> None:
        self._codes: dict[str, int] = {}
        self._values = array("i")

    def append(self, text: str) -> None:
        self._values.append(self._codes.setdefault(text, len(self._codes)))

    def categories(self) -> pd.Categorical:
        codes = np.frombuffer(self._values, np.int32) if self._values else np.empty(0, np.int32)
        return pd.Categorical.from_codes(codes, categories=pd.Index(list(self._codes), dtype=object))


def _labels(folders: list[Path]) -> list[str]:
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise RunError(f"a run is given twice: {', '.join(map(str, folders))}")
    if not folders:
        raise RunError("needed a run folder, got none")
    names = [printable(folder.resolve().name) for folder in folders]
    return names if len(set(names)) == len(names) else [printable(str(folder)) for folder in folders]


def _names(pairs: list[tuple[str, str, str]]) -> dict[tuple[str, str, str], str]:
    """(benchmark, run, setting) -> what the setting is called."""
    known = list(dict.fromkeys(pairs))
    # a setting may have a run for each of several benchmarks; two runs of one benchmark need telling apart
    often = Counter((benchmark, setting) for benchmark, _, setting in known)
    again = {setting for (_, setting), count in often.items() if count > 1}
    return {pair: f"{pair[1]}: {pair[2]}" if pair[2] in again else pair[2] for pair in known}


def _grader(task: Task, folder: Path) -> Callable[[dict[str, Any]], tuple[bool, bool]]:
    """Row -> whether it is right, and whether it could be read, by the strict rule of the task."""

    # there may be a million rows, with the same few replies again and again
    read, words = lru_cache(65536)(parse_strict), lru_cache(65536)(normalise)

    def choice(row: dict[str, Any]) -> tuple[bool, bool]:
        chosen = read(row["prediction"], len(row["options"]))
        return chosen is not None and row["options"][chosen] == row["answer"], chosen is not None

    def exact(row: dict[str, Any]) -> tuple[bool, bool]:
        wanted, said = words(row["answer"]), words(row["prediction"])
        return bool(wanted) and said == wanted, bool(said)

    graders = {"choice": choice, "open": exact}
    if task not in graders:
        raise RunError(f"{folder}: no offline score for a {task} benchmark; its predictions are for a judge")
    return graders[task]


def _judged(folder: Path, judge: str, task: Task) -> Callable[[dict[str, Any]], tuple[bool, bool]]:
    """Row -> whether the judge says that it is right, and True."""
    if task != "open":
        raise RunError(f"{folder}: a judge's yes or no is for open questions, and this is a {task} benchmark")
    path = verdicts_path(folder, judge)
    if not path.exists():
        raise RunError(f"{path}: no such verdicts; there are {', '.join(judge_names(folder)) or 'none'}")
    said = {at_of(row): row for row in read_verdicts(path)}
    right: dict[tuple[str, str], bool] = {}
    waiting = stale = 0
    for unit in read_units(folder):
        if unit.ask is None:  # inference failed: wrong, without asking a judge
            continue
        verdict = said.get(unit.at)
        if verdict is None or verdict["error"] is not None:
            waiting += 1
        elif verdict["content"] != unit.ask.content:
            stale += 1
        else:
            right[unit.key, unit.setting] = bool(verdict["correct"])
    if waiting or stale:
        counts = [f"{waiting:,} predictions have no verdict yet, or one that failed"] * bool(waiting)
        counts += [f"{stale:,} verdicts are on other predictions than those in the run now"] * bool(stale)
        raise RunError(f"{path}: {', and '.join(counts)}: judge again, or see what there is with `sfllava judges`")
    return lambda row: (right[row["key"], row["setting"]], True)


def _read_costs(folder: Path) -> dict[str, Any]:
    file = folder / COSTS
    if not file.exists():
        return {}
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise RunError(f"{file}: not JSON: {error}") from error


def accuracy(results: pd.DataFrame, by: Sequence[str] = ()) -> pd.DataFrame:
    """Of each group: tokens, questions, failed, unparsable, and accuracy, low and high in percent over all of them.

    A group is a setting on a benchmark, or what `by` says. Where groups are settings, `not_asked` counts the questions
    that a run has not come to yet; they are in no other column, and a setting that has no rows at all has no accuracy.
    """
    unasked = [setting for setting in results.attrs.get("settings", ()) if not setting["rows"]]
    several = len({*results["benchmark"], *(setting["benchmark"] for setting in unasked)}) > 1
    by = list(by or (["benchmark"] * several + ["name"]))
    rows = []
    for names, group in results.groupby(by, sort=False, observed=True):
        found = stats.share(group["correct"].to_numpy(), group["video"].cat.codes.to_numpy())
        rows.append(
            dict(zip(by, names))
            | {"tokens": group["tokens"].max(), "questions": len(group), "videos": found.videos}
            | {"failed": int(group["failed"].sum()), "unparsable": int(group["unparsable"].sum())}
            | {"accuracy": 100 * found.mean, "low": 100 * found.low, "high": 100 * found.high}
        )
    if not {*by} <= {"benchmark", "name"} or "name" not in by:
        return pd.DataFrame(rows)
    counts = ("questions", "videos", "failed", "unparsable")
    rows += [{**dict.fromkeys(counts, 0), **{column: setting[column] for column in by}} for setting in unasked]
    table = pd.DataFrame(rows)
    table["not_asked"] = [_not_asked(results, row) for row in rows]
    return table


def _not_asked(results: pd.DataFrame, row: dict[str, Any]) -> int:
    """The questions that the runs of a row of `accuracy` have not asked yet at its setting."""
    same = [
        setting for setting in results.attrs.get("settings", ())
        if all(setting[column] == row[column] for column in ("name", "benchmark") if column in row)
    ]  # fmt: skip
    runs = results.attrs.get("runs", {})
    return sum(max(0, runs[s["run"]].get("questions", 0) - s["rows"]) for s in same if s["run"] in runs)


def costs(results: pd.DataFrame) -> pd.DataFrame:
    """Of each name: tokens, frames, aggregation, and prefill_flops, encode_flops, kv_bytes by arithmetic.

    Where a sweep measured them, also seconds (encode and prefill, alone and cold) and peak_bytes (of a GPU).
    """
    rows = []
    for (name, run, setting), _ in results.groupby(["name", "run", "setting"], sort=False, observed=True):
        facts = results.attrs["runs"][run]
        about = next((s for s in facts.get("settings", []) if s["name"] == setting), {})
        row = {"name": name, "run": run, "frames": about.get("frames"), "aggregation": about.get("aggregation")}
        row["tokens"] = about.get("budget")
        if (shape := (facts.get("model") or {}).get("shape")) and about.get("budget"):
            sizes = shape_from(shape)
            row["prefill_flops"] = float(sizes.prefill_flops(about["budget"]))
            row["kv_bytes"] = float(sizes.kv_bytes(about["budget"]))
        row |= facts["costs"].get(setting, {})
        rows.append(row)
    return pd.DataFrame(rows).drop_duplicates("name").reset_index(drop=True)


def pareto(table: pd.DataFrame, cost: str = "tokens") -> pd.Series:
    """Whether no other row is as cheap and better, or as good and cheaper; never where one of both is missing."""
    values = table[[cost, "accuracy"]].to_numpy(float)
    front = [
        np.isfinite(own).all()
        and not any(c <= own[0] and a >= own[1] and (c < own[0] or a > own[1]) for c, a in values)
        for own in values
    ]
    return pd.Series(np.array(front, bool), index=table.index, name="pareto")


def differences(results: pd.DataFrame, reference: str | None = None) -> pd.DataFrame:
    """Of each pair of names, or of each against `reference`, on the same questions: first minus other, in points.

    p is that of flipping the signs of whole videos (`stats.difference`), p_holm the same corrected for the number of
    pairs; `real` is p_holm < 0.05. `detectable` is the true difference that such data would show in 80 of 100 cases,
    before the correction. Raises RunError where two names were not asked the same questions.
    """
    names = list(results["name"].cat.remove_unused_categories().cat.categories) if len(results) else []
    if reference is not None and reference not in names:
        raise RunError(f"no setting is called {reference!r}; there are {', '.join(names)}")
    by_name = {n: _indexed(part) for n, part in results.groupby("name", sort=False, observed=True)}
    pairs = [
        (one, other)
        for i, one in enumerate(names)
        for other in ([reference] if reference else names[i + 1 :])
        if one != other
    ]
    rows = []
    for one, other in pairs:
        first, second = by_name[one], by_name[other]
        if len(first) != len(second) or not first.index.equals(second.index):
            raise RunError(
                f"{one} and {other} were not asked the same questions: {len(first)} and {len(second)} rows, of which "
                f"{len(first.index.intersection(second.index))} agree"
            )
        found = stats.difference(first["correct"], second["correct"], first["video"])
        mean = found.estimate
        rows.append(
            {"setting": one, "other": other, "points": 100 * mean.mean, "low": 100 * mean.low, "high": 100 * mean.high}
            | {"p": found.p, "detectable": 100 * found.detectable, "questions": mean.n, "videos": mean.videos}
        )
    columns = ["setting", "other", "points", "low", "high", "p", "detectable", "questions", "videos"]
    table = pd.DataFrame(rows, columns=columns)
    table.insert(6, "p_holm", stats.holm(table["p"].to_numpy(float)) if len(table) else [])
    table["real"] = table["p_holm"] < 0.05
    return table


def _indexed(part: pd.DataFrame) -> pd.DataFrame:
    index = pd.MultiIndex.from_arrays([part["benchmark"].astype(str), part["key"].astype(str)])
    # a video is one cluster, whatever form its questions have
    plain = pd.DataFrame({"correct": part["correct"].to_numpy(), "video": part["video"].astype(str).to_numpy()}, index)
    return plain.sort_index()


def findings(results: pd.DataFrame, reference: str | None = None, gaps: pd.DataFrame | None = None) -> str:
    """What a reader may take from the numbers: which differences are real, and which are within noise.

    Each benchmark is looked at by itself. Where settings cannot be compared, as in a sweep that is not done yet, it
    says why. gaps: `differences(results, reference)`, where that is at hand.
    """
    parts = by_benchmark(results)
    if len(parts) > 1:
        return "\n\n".join(f"{name}: {findings(part, reference)}" for name, part in parts)
    try:
        found = differences(results, reference) if gaps is None else gaps
        lines = _of_differences(found) if len(results) else ["There is no answer yet."]
    except RunError as error:
        lines = [f"Nothing is compared, since {error}."]
    table = accuracy(results)
    waiting = table["not_asked"] if len(table) else table.assign(not_asked=0)["not_asked"]
    if waiting.any():
        lines.append(f"{int(waiting.sum()):,} questions have not been asked yet: the numbers are those of a part.")
    failed = int(results["failed"].sum())
    if failed:
        lines.append(f"{failed:,} answers failed and count as wrong; the table of failures has their reasons.")
    return "\n".join(lines)


def by_benchmark(results: pd.DataFrame) -> list[tuple[str, pd.DataFrame]]:
    """(name, rows) of each benchmark, also of one that has settings without any rows yet."""
    settings = results.attrs.get("settings", [])
    found = []
    for name in dict.fromkeys(
        [*results["benchmark"].astype(str), *(s["benchmark"] for s in settings if not s["rows"])]
    ):
        part = results[results["benchmark"] == name]
        part.attrs = results.attrs | {"settings": [s for s in settings if s["benchmark"] == name]}
        found.append((name, part))
    return found


def _of_differences(table: pd.DataFrame) -> list[str]:
    if table.empty:
        return ["There is one setting, so nothing is compared."]
    real, noise = table[table["real"]], table[~table["real"]]
    questions, videos = int(table["questions"].max()), int(table["videos"].max())
    if videos < stats.FEWEST_VIDEOS:
        return [
            f"{questions:,} questions about {videos:,} video{'s' * (videos > 1)}: too few videos to tell settings "
            f"apart. Questions about one video are correlated, and no difference can be significant with fewer than "
            f"{stats.FEWEST_VIDEOS} videos. Nothing is ranked."
        ]
    lines = [
        f"Of {len(table)} paired differences on {questions:,} questions about {videos:,} videos, {len(real)} "
        f"{'is' if len(real) == 1 else 'are'} real (p < 0.05, corrected for {len(table)} comparisons) and {len(noise)} "
        f"{'is' if len(noise) == 1 else 'are'} within noise."
    ]
    largest = real.reindex(real["points"].abs().sort_values(ascending=False, kind="stable").index)
    for row in largest.head(8).to_dict("records"):
        swap = row["points"] < 0
        one, other = (row["other"], row["setting"]) if swap else (row["setting"], row["other"])
        low, high = (-row["high"], -row["low"]) if swap else (row["low"], row["high"])
        lines.append(f"- {one} is better than {other} by {abs(row['points']):.1f} points [{low:.1f}, {high:.1f}]")
    if len(largest) > 8:
        lines.append(f"- and {len(largest) - 8} smaller ones, which the table of differences has")
    if len(noise):
        lines.append(
            f"The others must not be read as findings: these questions show a difference of "
            f"{noise['detectable'].median():.1f} points in four of five cases, and smaller ones seldom."
        )
    return lines


def failures(results: pd.DataFrame) -> pd.DataFrame:
    """How often each setting failed for each reason."""
    failed = results[results["failed"]]
    return failed.groupby(["name", "reason"], observed=True).size().rename("questions").reset_index()


def export(table: pd.DataFrame, path: str | Path) -> Path:
    """Write a table as .csv, .parquet or .tex (booktabs); LaTeX's own characters are escaped."""
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole(path) as part:
        if path.suffix == ".csv":
            part.write_text(as_csv(table), encoding="utf-8")
        elif path.suffix == ".parquet":
            table.to_parquet(part, index=False)
        elif path.suffix == ".tex":
            style = table.style.hide(axis="index").format(precision=1, escape="latex", na_rep="--")
            style = style.format_index(escape="latex", axis=1)
            part.write_text(style.to_latex(hrules=True, column_format=_alignment(table)), encoding="utf-8")
        else:
            raise SfllavaError(f"{path}: needed a name that ends in .csv, .parquet or .tex")
    return path


def _alignment(table: pd.DataFrame) -> str:
    return "".join("r" if pd.api.types.is_numeric_dtype(kind) else "l" for kind in table.dtypes)


def compare(runs: Iterable[str | Path], reference: str | None = None, judge: str | None = None) -> str:
    """What `sfllava compare` prints: accuracies, paired differences, and what follows from them.

    Raises RunError for runs of different questions.
    """
    runs = [runs] if isinstance(runs, str | Path) else list(runs)
    results = load_results(runs, judge)
    asked = dict(zip(results.attrs["runs"], map(asked_of, runs)))
    first = next(iter(asked))
    for run, what in asked.items():
        if what != asked[first]:
            raise RunError(
                f"{first} and {run} were not asked the same questions: {_asked(asked[first])} against {_asked(what)}"
            )
    shown = accuracy(results).round(1)
    gaps = differences(results, reference)
    text = [shown.to_string(index=False)]
    if len(gaps):
        digits = {"points": 1, "low": 1, "high": 1, "p": 4, "p_holm": 4, "detectable": 1}
        text += ["", gaps.drop(columns=["questions", "videos"]).round(digits).to_string(index=False)]
    return "\n".join([*text, "", findings(results, reference, gaps)])


def _asked(what: Asked) -> str:
    name, count, digest = what
    return f"{name} ({count} questions, SHA-256 {digest[:12]})"
