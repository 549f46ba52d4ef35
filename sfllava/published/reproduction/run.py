"""Answer and judge the runs of a reproduction. An error in one run does not stop the others."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfllava.evaluators.judges.base import Judge
from sfllava.models.base import ContextError
from sfllava.prompts import Prompt, pack_prompt
from sfllava.published.reproduction.plan import NEW_TOKENS, PlannedRun
from sfllava.runs.evaluate import Evaluation, Run, prepare
from sfllava.runs.judge import judge, plan_judging
from sfllava.runs.judging_run import JudgingResult
from sfllava.runs.run_folder import PREDICTIONS
from sfllava.runs.runner import Runner
from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import ModelInfo, VideoLM


log = logging.getLogger(__name__)
OpenModel = Callable[[str], "AbstractContextManager[VideoLM | Runner]"]
"""Model size -> a context manager that loads the model and frees it at the end."""


@dataclass
class Problems:
    """What failed in this call.

    Attributes:
        runs: Run -> why its answers are missing or incomplete.
        settings: (run, setting) -> why the setting was left out.
        judging: Run -> why its verdicts are missing or incomplete.
    """

    runs: dict[str, str] = field(default_factory=dict)
    settings: dict[tuple[str, str], str] = field(default_factory=dict)
    judging: dict[str, str] = field(default_factory=dict)

    @property
    def any(self) -> bool:
        """Whether a run or its judging failed; a setting that does not fit the context is not a failure."""
        return bool(self.runs or self.judging)


def answer_runs(
    runs: Iterable[PlannedRun],
    open_model: OpenModel,
    problems: Problems,
    say: Callable[[object], None],
    *,
    retry_failed: bool = False,
    progress: bool = True,
    **options: Any,
) -> None:
    """Answer the questions of runs that have no row yet, model by model.

    Args:
        runs: The runs; those with a problem are skipped, with a message.
        open_model: Loads the model of a size.
        problems: Collects the failures.
        say: Called with a message about each event.
        retry_failed: Ask the questions again that failed in an earlier call.
        progress: Show progress bars.
        options: Other arguments of `evaluate`, such as decoders.
    """
    runs = list(runs)
    for run in runs:
        if run.problem:
            say(f"skipped {run.name}: {run.problem}")
    for size in dict.fromkeys(run.experiment.size for run in runs):
        ours = [run for run in runs if run.experiment.size == size and not run.problem]
        try:
            if ours:
                _answer_with(open_model(size), ours, problems, say, retry_failed, progress, options)
        except Exception as error:
            for run in ours:
                problems.runs.setdefault(run.name, _reason(error))
            say(f"FAILED {size}: {_reason(error)}")


def _answer_with(
    opened: AbstractContextManager[VideoLM | Runner],
    runs: Sequence[PlannedRun],
    problems: Problems,
    say: Callable[[object], None],
    retry_failed: bool,
    progress: bool,
    options: dict[str, Any],
) -> None:
    """Answer the runs of one model. No reference to the model remains afterwards: the next model needs its memory."""
    with opened as model:
        # prepare all runs first, so that an error in the last one is found before the first one takes hours
        prepared = [(run, _prepare(run, model, problems, say, options)) for run in runs]
        for run, evaluation in prepared:
            if evaluation:
                _answer(run, evaluation, problems, say, retry_failed, progress)


def _prepare(
    run: PlannedRun, model: VideoLM | Runner, problems: Problems, say: Callable[[object], None], options: dict[str, Any]
) -> Evaluation | None:
    """Check a run; if it cannot start, return None and add the reason to the problems."""
    assert run.benchmark is not None  # else the run has a problem
    try:
        reasons = _too_long(model.info, run)
        for setting, reason in reasons.items():
            problems.settings[run.name, setting] = reason
            say(f"left out {run.name}, {setting}: {reason}")
        settings = [setting for setting in run.settings if setting.name not in reasons]
        if not settings:
            raise SfllavaError("no setting fits the context of the model")
        return prepare(
            model, run.benchmark, settings, run.folder, prompt=run.prompt, max_new_tokens=NEW_TOKENS, **options
        )
    except Exception as error:
        problems.runs[run.name] = _reason(error)
        say(f"FAILED {run.name}: {_reason(error)}")
        return None


def _too_long(info: ModelInfo, run: PlannedRun) -> dict[str, str]:
    """Return the settings at which not even the shortest question fits the context, and why."""
    assert run.benchmark is not None
    questions, found = run.benchmark.questions, {}
    shortest: dict[Prompt, int] = {}
    for setting in run.settings:
        prompt = setting.prompt_or(run.prompt or pack_prompt(info.family, questions[0].task))
        if prompt not in shortest:
            shortest[prompt] = min(sum(map(len, info.prompt_ids(question, prompt))) for question in questions)
        try:
            info.check_context(info.prompt_rows(setting), shortest[prompt], setting.name)
        except ContextError as error:
            found[setting.name] = str(error)
    return found


def _answer(
    run: PlannedRun,
    evaluation: Evaluation,
    problems: Problems,
    say: Callable[[object], None],
    retry_failed: bool,
    progress: bool,
) -> None:
    try:
        result: Run = evaluation.run(retry_failed=retry_failed, progress=progress)
        say(_describe(run, result))
    except Exception as error:
        problems.runs[run.name] = _reason(error)
        say(f"FAILED {run.name}: {_reason(error)}")


def _describe(run: PlannedRun, result: Run) -> str:
    """Return the counts of a run over all its settings; the report has its scores."""
    answered, failed = (sum(scores[name] for scores in result.scores.values()) for name in ("answered", "failed"))
    reasons = Counter[str]()
    for scores in result.scores.values():
        reasons.update(scores["reasons"])
    settings = f"{len(result.scores)} setting{'s' * (len(result.scores) > 1)}"
    lines = [f"{run.name}: {settings}, {answered:,} answered, {failed:,} failed, in {result.path}"]
    return "\n".join([*lines, *(f"  failed {count} x: {reason}" for reason, count in reasons.most_common(5))])


def judge_runs(
    runs: Sequence[PlannedRun],
    grader: Judge,
    problems: Problems,
    say: Callable[[object], None],
    *,
    rubrics: str | Path | None = None,
    limit_cost: float | None = None,
    batch: Any = None,
    progress: bool = True,
) -> None:
    """Judge the answers of all open-ended runs.

    Args:
        runs: The runs; multiple choice and runs without answers are skipped.
        grader: The judge.
        problems: Collects the failures.
        say: Called with a message or a `JudgingResult` about each event.
        rubrics, batch, progress: As in `judge`.
        limit_cost: The maximum cost of all runs together in this call, in US dollars.
    """
    spent = 0.0
    for run in runs:
        if not run.judged or not (run.folder / PREDICTIONS).exists():
            continue
        left = None if limit_cost is None else max(0.0, limit_cost - spent)
        before = spent
        try:
            # what a batch or a failure costs is not known here: then the estimate counts, which is rather too high
            spent += (plan_judging(run.folder, grader, rubrics=rubrics).cost or 0.0) if left is not None else 0.0
            result: JudgingResult = judge(
                run.folder, grader, rubrics=rubrics, limit_cost=left, batch=batch, progress=progress
            )
        except Exception as error:
            problems.judging[run.name] = _reason(error)
            say(f"NOT JUDGED {run.name}: {_reason(error)}")
            continue
        if batch is None:
            spent = before + (result.cost or 0.0)
        say(result)
        if not result.complete:
            problems.judging[run.name] = result.stopped or "some predictions have no verdict yet"


def _reason(error: Exception) -> str:
    """Return an error as one line, with its type unless it is an SfllavaError."""
    log.info("failed", exc_info=error)
    text = " ".join(str(error).split())[:400]
    return text if isinstance(error, SfllavaError) else f"{type(error).__name__}: {text}"
