"""The results of a reproduction: each number of the paper, our number with its interval, and notes on differences."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from sfllava.analysis import stats
from sfllava.analysis.judge_scores import judge_scores, load_verdicts
from sfllava.benchmarks.base import load_spec
from sfllava.evaluators import find_evaluator
from sfllava.files import Row
from sfllava.published.reproduction.experiments import Experiment, choose_experiments
from sfllava.published.reproduction.notes import judge_notes, run_notes
from sfllava.published.reproduction.paper import MAIN_TABLE, PaperNumber
from sfllava.published.reproduction.plan import PlannedRun
from sfllava.published.reproduction.run import Problems
from sfllava.runs.run_folder import read_rows, read_run
from sfllava.runs.verdicts import judge_names, read_judge_info
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

CHOICE_RULE = "choice-published"
"""The rule of the paper's multiple-choice accuracies."""


@dataclass(frozen=True)
class Result:
    """A number of the paper and our number.

    Attributes:
        number: The number of the paper.
        state: "measured", "not judged" or "not run".
        judge: The name of the judge's verdicts; empty if no judge is needed.
        ours: Our number, with the ends of its 95 % interval, `low` and `high`; None if it was not measured.
        n: Number of questions (with a judge: of predictions with a verdict, and of failed ones).
        failed: Number of questions on which inference failed; they count as wrong.
        unparsable: Number of replies that name no option; they count as wrong.
        notes: Why our number is not comparable, or why it is missing.
    """

    number: PaperNumber
    state: str
    judge: str = ""
    ours: float | None = None
    low: float | None = None
    high: float | None = None
    n: int = 0
    failed: int = 0
    unparsable: int = 0
    notes: tuple[str, ...] = ()

    @property
    def difference(self) -> tuple[float, float, float] | None:
        """Ours minus the paper's, and the ends of its interval, which only covers our sampling error."""
        if self.ours is None or self.low is None or self.high is None or self.number.value is None:
            return None
        return self.ours - self.number.value, self.low - self.number.value, self.high - self.number.value

    @property
    def inside(self) -> bool | None:
        """Whether the paper's number is in our interval, rounded to the paper's decimals; None if one is missing."""
        if self.low is None or self.high is None or self.number.value is None:
            return None
        digits = self.number.decimals
        return bool(round(self.low, digits) <= self.number.value <= round(self.high, digits))

    @property
    def key(self) -> tuple[str, str, str, str]:
        """The key of the number, which is the same in several tables."""
        return self.number.run, self.number.setting.name, self.number.measure, self.judge


@dataclass(frozen=True)
class RunRecord:
    """A run folder of a reproduction: the identity and the last session of its run.json, and its judges."""

    name: str
    identity: Row
    session: Row
    judges: dict[str, Row]


@dataclass(frozen=True)
class Results:
    """All results, their runs, and how many numbers of the paper were neither selected nor found."""

    results: tuple[Result, ...]
    runs: tuple[RunRecord, ...]
    not_asked: int

    def distinct(self) -> list[Result]:
        """Return the results without duplicates: the main setting is also a row of the ablations."""
        found: dict[tuple[str, str, str, str], Result] = {}
        for result in self.results:
            found.setdefault(result.key, result)
        return list(found.values())


@dataclass
class _Answers:
    """The graded answers of one setting."""

    right: list[bool] = field(default_factory=list)
    videos: list[str] = field(default_factory=list)
    unparsable: int = 0
    reasons: Counter[str] = field(default_factory=Counter)


def read_results(
    out: str | Path, planned: Iterable[PlannedRun], problems: Problems | None = None, judge: str | None = None
) -> Results:
    """Read the results of this call, and those of earlier calls in the same folder.

    Args:
        out: The folder of the reproduction.
        planned: The runs of this call.
        problems: The problems of this call.
        judge: The judge whose verdicts count. Default: every judge that has verdicts, each on its own.
    """
    problems = problems or Problems()
    wanted = {run.name: run for run in planned}
    results, runs, left = [], [], set()
    for experiment in choose_experiments():
        run = wanted.get(experiment.name)
        folder, record, broken = Path(out) / experiment.name, None, ""
        try:
            record = _read_record(experiment.name, folder)
            found = _measure(experiment, folder, record, run, judge, problems) if record else {}
        except SfllavaError as error:
            found, broken = {}, str(error)
        runs += [record] if record else []
        # the main setting alone does not add a table that was not selected
        begun = {MAIN_TABLE, *(number.table for number in found if number.setting.name != Setting().name)}
        for number in experiment.numbers:
            asked = run is not None and number in run.experiment.numbers
            if number in found and (asked or number.table in begun):
                results += found[number]
            elif asked:
                results.append(Result(number, "not run", notes=(broken or _why_not(number, run, problems),)))
            else:
                left.add((number.run, number.setting.name, number.measure))
    left -= {result.key[:3] for result in results}
    order = {table: i for i, table in enumerate(dict.fromkeys(result.number.table for result in results))}
    results.sort(key=lambda result: order[result.number.table])
    return Results(tuple(results), tuple(runs), len(left))


def _read_record(name: str, folder: Path) -> RunRecord | None:
    if not (folder / "run.json").exists():
        return None
    about = read_run(folder)
    judges = {judge: read_judge_info(folder, judge)["identity"] for judge in judge_names(folder)}
    return RunRecord(name, about["identity"], (about["sessions"] or [{}])[-1], judges)


def _why_not(number: PaperNumber, run: PlannedRun | None, problems: Problems) -> str:
    left_out = problems.settings.get((number.run, number.setting.name))
    return left_out or problems.runs.get(number.run) or (run.problem if run else "") or "not started yet"


def _measure(
    experiment: Experiment,
    folder: Path,
    record: RunRecord,
    run: PlannedRun | None,
    judge: str | None,
    problems: Problems,
) -> dict[PaperNumber, list[Result]]:
    """Return the results of the settings in a run folder."""
    spec = load_spec(experiment.benchmark)
    settings = {setting["name"] for setting in record.identity["settings"]}
    numbers = [number for number in experiment.numbers if number.setting.name in settings]
    answers = _read_answers(folder, run)
    common = run_notes(record.identity, spec, experiment.size)
    if problem := problems.runs.get(record.name):
        common.append(f"the run stopped: {problem}")
    notes = {name: [*common, *_answer_notes(answers.get(name, _Answers()), record.identity)] for name in settings}
    if spec.task == "choice":
        return {number: [_choice_result(number, answers, notes)] for number in numbers}
    names = [judge] if judge else list(record.judges)
    found: dict[PaperNumber, list[Result]] = {number: [] for number in numbers}
    for name in names:
        if name in record.judges:
            table = judge_scores(load_verdicts(folder, [name]))
            rows = {(row["setting"], row["rubric"]): row for row in table.to_dict("records")}
            for number in numbers:
                found[number].append(_judged_result(number, name, rows, record.judges[name], notes))
    why = problems.judging.get(record.name, "no judge was selected")
    return {n: one or [Result(n, "not judged", notes=(why, *notes[n.setting.name]))] for n, one in found.items()}


def _read_answers(folder: Path, run: PlannedRun | None) -> dict[str, _Answers]:
    """Grade multiple-choice answers by the published rule, and count failures, for each setting."""
    evaluator = find_evaluator("choice")
    assert evaluator is not None
    # the index in the question file matters if two options are equal
    known = {q.key: q.answer_index for q in run.benchmark.questions} if run and run.benchmark else {}
    found: dict[str, _Answers] = {}
    for row in read_rows(folder):
        one = found.setdefault(row["setting"], _Answers())
        right = False
        if row["error"] or row["prediction"] is None:
            one.reasons[row["error"] or "no prediction"] += 1
        elif options := tuple(row["options"] or ()):
            index = known.get(row["key"])
            if index is None and row["answer"] in options:
                index = options.index(row["answer"])
            question = Question(row["question"], row["key"], row["video"], row["answer"], options, index)
            verdict = evaluator.grade(question, row["prediction"])[CHOICE_RULE]
            right, one.unparsable = bool(verdict.correct), one.unparsable + (not verdict.parsed)
        one.right.append(right)
        one.videos.append(row["video"])
    return found


def _answer_notes(answers: _Answers, identity: Row) -> list[str]:
    notes = []
    if failed := answers.reasons.total():
        notes.append(
            f"{failed:,} of {len(answers.right):,} questions failed and count as wrong, most often: "
            f"{answers.reasons.most_common(1)[0][0]}"
        )
    if (waiting := identity["questions"] - len(answers.right)) > 0:
        notes.append(f"{waiting:,} of {identity['questions']:,} questions not asked yet, so not in the number")
    return notes


def _choice_result(number: PaperNumber, answers: dict[str, _Answers], notes: dict[str, list[str]]) -> Result:
    name = number.setting.name
    one = answers.get(name, _Answers())
    if not one.right:
        return Result(number, "not run", notes=tuple(notes[name]))
    found = stats.proportion(np.array(one.right, float), np.array(one.videos, str))
    ours, low, high = (100 * value for value in (found.mean, found.low, found.high))
    counts = (found.n, one.reasons.total(), one.unparsable)
    return Result(number, "measured", "", ours, low, high, *counts, _with_memory(number, notes[name]))


def _judged_result(
    number: PaperNumber, judge: str, rows: dict[Any, Row], identity: Row, notes: dict[str, list[str]]
) -> Result:
    """Return an accuracy, score or rubric score of a judge at a setting."""
    column = "accuracy" if number.percent else "score"
    rubric = "open" if number.measure in ("accuracy", "score") else number.measure
    common = (*judge_notes(identity, rubric), *notes[number.setting.name])
    row = rows.get((number.setting.name, rubric))
    if row is None or not np.isfinite(row[column]):
        why = "nothing is judged yet"
        if row is None or row["missing"]:
            why = (
                "its average needs all five kinds of questions"
                if rubric == "average"
                else f"no {rubric} question was asked"
            )
        elif row["judged"] and column == "score":
            why = "this judge gives no score"
        return Result(number, "not judged", judge, notes=(why, *common))
    ours, low, high = (float(row[name]) for name in (column, f"{column}_low", f"{column}_high"))
    extra = []
    if unknown := row["failed"] + row["unjudged"]:
        extra.append(f"{unknown:,} predictions have no verdict and are left out")
    if column == "score" and round(row["published"], 2) != round(row["score"], 2):
        extra.append(f"{row['published']:.2f} with scores truncated to whole numbers, as in the published evaluation")
    known = row["judged"] + row["no_prediction"]
    notes_of = _with_memory(number, [*extra, *common])
    return Result(number, "measured", judge, ours, low, high, known, row["no_prediction"], 0, notes_of)


def _with_memory(number: PaperNumber, notes: Sequence[str]) -> tuple[str, ...]:
    """Return the notes, with an additional one if the paper ran out of memory at the setting."""
    return ("the paper ran out of memory at this setting",) * (number.value is None) + tuple(notes)


def count_results(results: Sequence[Result]) -> Counter[str]:
    """Count results by state, and by whether their interval contains the paper's number ("inside" of "compared")."""
    counts = Counter(result.state for result in results)
    counts["inside"] = sum(result.inside is True for result in results)
    counts["compared"] = sum(result.inside is not None for result in results)
    counts["comparable"] = sum(result.inside is not None and not result.notes for result in results)
    return counts
