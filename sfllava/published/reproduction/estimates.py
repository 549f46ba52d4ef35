"""Estimate the cost of a reproduction: hours and memory of a device, requests and dollars of a judge."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from sfllava.benchmarks.spec import Spec
from sfllava.evaluators.judges.base import Judge, JudgeRequest
from sfllava.evaluators.judges.rubric import load_rubric
from sfllava.files import format_bytes
from sfllava.models.sizes import Sizes
from sfllava.planning import Plan, plan
from sfllava.planning.roofline import Roofline
from sfllava.published.reproduction.plan import NEW_TOKENS, PlannedRun
from sfllava.runs.judge import plan_judging
from sfllava.runs.judge_items import rubrics_of
from sfllava.runs.judging_run import estimate_cost
from sfllava.types import Question

_PREDICTION = "x" * 4 * NEW_TOKENS
"""A stand-in for an answer of maximum length: English has about four characters per token."""
_TYPICAL = Question("x" * 50, answer="x" * 20, type="generic")
"""A stand-in for a question of a missing file."""
_VERDICTS_PER_QUESTION = 2
"""For VCGBench, the average over a video's four generic questions with three verdicts each, one temporal question with
one verdict, and a pair of questions with one verdict together."""


@dataclass(frozen=True)
class JudgingEstimate:
    """The maximum requests to judge a run, with prompt and reply tokens and US dollars if they are known."""

    requests: int
    tokens: tuple[int, int] | None = None
    cost: float | None = None


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of the remaining work of a run.

    Attributes:
        run: The run.
        plan: Its hours and memory for all answers; None without measurements of a device.
        judging: The cost of judging; None if no judge is needed.
    """

    run: PlannedRun
    plan: Plan | None
    judging: JudgingEstimate | None

    @property
    def hours(self) -> float:
        """Device hours of the remaining answers."""
        done = min(1.0, self.run.done / self.run.answers) if self.run.answers else 0.0
        return self.plan.device_hours * (1 - done) if self.plan else 0.0

    def lines(self) -> list[str]:
        """Describe the run in a few lines."""
        run = self.run
        published = run.spec.question_count
        source = "" if published in (None, run.question_count) else f" of {published:,}"
        source = source if run.benchmark else " (the published number)"
        settings = f"{len(run.settings)} setting{'s' * (len(run.settings) > 1)}"
        asked = f"{run.question_count:,} questions{source} x {settings} = {run.answers:,} answers"
        found = [f"{run.name}: {asked}" + (f", {run.done:,} of them done" if run.done else "")]
        if run.problem:
            found.append(f"MISSING  {run.problem}")
        if run.missing_videos and not run.problem:
            names = ", ".join(run.missing_videos[:3]) + ("..." if len(run.missing_videos) > 3 else "")
            found.append(f"MISSING  {len(run.missing_videos):,} videos, whose questions would fail: {names}")
        if run.earlier:
            found.append(f"settings {len(run.earlier)} of them are from an earlier call")
        found += [f"device   {text}" for text in ([_describe(self.plan, self.hours)] if self.plan else [])]
        found += [f"judge    {_describe_judging(self.judging)}"] if self.judging else []
        return found


@dataclass(frozen=True)
class ReproductionPlan:
    """All runs and their total cost; `str` lists them."""

    estimates: tuple[Estimate, ...]
    models: Mapping[str, str]
    device: Roofline | None
    notes: Sequence[str] = field(default_factory=tuple)

    @property
    def problems(self) -> list[str]:
        """Why some runs cannot start."""
        return [f"{one.run.name}: {one.run.problem}" for one in self.estimates if one.run.problem]

    def __str__(self) -> str:
        numbers = {(n.run, n.setting.name, n.measure) for one in self.estimates for n in one.run.experiment.numbers}
        lines = [f"{len(self.estimates)} runs measure {len(numbers)} numbers of the paper"]
        lines += [f"{size}: {model}" for size, model in self.models.items()]
        lines += [f"device: {self.device}"] if self.device else []
        for i, one in enumerate(self.estimates, 1):
            first, *more = one.lines()
            lines += [f"  {i}. {first}", *(f"     {line}" for line in more)]
        lines.append(self._total())
        return "\n".join([*lines, *(f"note: {note}" for note in self.notes)])

    def _total(self) -> str:
        answers = sum(one.run.answers - one.run.done for one in self.estimates)
        parts = [f"{answers:,} answers to generate"]
        if self.device:
            peak = max((setting.peak_bytes for one in self.estimates for setting in _fitting(one.plan)), default=0)
            unit = "GPU-hours" if self.device.kind == "cuda" else "hours"
            parts.append(f"about {sum(one.hours for one in self.estimates):,.1f} {unit}, up to {format_bytes(peak)}")
        judged = [one.judging for one in self.estimates if one.judging]
        if judged:
            priced = all(one.cost is not None for one in judged)
            cost = f", at most ${sum(one.cost or 0 for one in judged):,.2f}" if priced else ""
            parts.append(f"at most {sum(one.requests for one in judged):,} requests to a judge{cost}")
        return f"total: {'; '.join(parts)}"


def estimate_runs(
    runs: Iterable[PlannedRun],
    models: Mapping[str, str],
    sizes: Mapping[str, Sizes],
    device: Roofline | None = None,
    judge: Judge | None = None,
    *,
    rubrics: str | Path | None = None,
    new_tokens: int | None = None,
    notes: Sequence[str] = (),
) -> ReproductionPlan:
    """Estimate the cost of planned runs.

    Args:
        runs: The runs.
        models: Model size -> the checkpoint, as the user gave it.
        sizes: Model size -> the sizes of the checkpoint.
        device: Measurements of the device; None leaves out hours and memory.
        judge: The judge; None only counts the requests.
        rubrics: As in `judge`.
        new_tokens: The expected length of an answer; None for the maximum, 128.
        notes: Lines to print after the plan.
    """
    found = []
    for run in runs:
        made = None
        if device:
            what = run.benchmark or run.experiment.benchmark
            made = plan(
                sizes[run.experiment.size], run.settings, what, device, max_new_tokens=NEW_TOKENS, new_tokens=new_tokens
            )
        found.append(Estimate(run, made, _estimate_judging(run, judge, rubrics) if run.judged else None))
    return ReproductionPlan(tuple(found), models, device, notes)


def _estimate_judging(run: PlannedRun, judge: Judge | None, rubrics: str | Path | None) -> JudgingEstimate:
    if judge and run.done and run.done >= run.answers:  # all predictions exist, and perhaps some verdicts
        exact = plan_judging(run.folder, judge, rubrics=rubrics)
        return JudgingEstimate(exact.requests, exact.tokens, exact.cost)
    if run.benchmark:
        requests = _requests(run.spec, run.benchmark.questions, rubrics)
        one, times = requests, len(run.settings)
    else:
        one = _requests(run.spec, [_TYPICAL], rubrics)[:1]
        times = run.answers * (_VERDICTS_PER_QUESTION if run.spec.task == "describe" else 1)
    if judge is None:
        return JudgingEstimate(len(one) * times)
    (prompt, reply), cost = estimate_cost(judge, one)
    return JudgingEstimate(len(one) * times, (prompt * times, reply * times), None if cost is None else cost * times)


def _requests(spec: Spec, questions: Sequence[Question], rubrics: str | Path | None) -> list[JudgeRequest]:
    """Return what a judge would be asked about questions at one setting."""
    found, firsts = [], {}
    by_type = rubrics_of(spec)
    for question in questions:
        for name in by_type[question.type if question.type in by_type else ""]:
            rubric, texts = load_rubric(name, rubrics), (question.text,)
            if rubric.pair:
                stem = question.key.rpartition("/")[0]
                if stem not in firsts:
                    firsts[stem] = question
                    continue
                texts = (firsts[stem].text, question.text)
            found.append(JudgeRequest(rubric, texts, question.answer, (_PREDICTION,) * len(texts)))
    return found


def _fitting(made: Plan | None) -> list:
    return [setting for setting in made.settings if setting.fits] if made else []


def _describe(made: Plan, hours: float) -> str:
    unit = "GPU-hours" if made.device.kind == "cuda" else "hours"
    fitting = _fitting(made)
    text = f"about {hours:,.2f} {unit}" if fitting else "nothing fits"
    if fitting:
        text += f", up to {format_bytes(max(setting.peak_bytes for setting in fitting))} of memory"
    if left := [setting.name for setting in made.settings if not setting.fits]:
        text += f"; does not fit: {', '.join(left)}"
    return text


def _describe_judging(one: JudgingEstimate) -> str:
    text = f"at most {one.requests:,} requests"
    if one.tokens:
        text += f", {one.tokens[0]:,} prompt and {one.tokens[1]:,} reply tokens"
    return text + (f", ${one.cost:,.2f}" if one.cost is not None else "")
