"""Check what each run of a reproduction needs: questions, videos, prompts, rows of earlier calls."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from sfllava.benchmarks import Benchmark, BenchmarkError, load_benchmark
from sfllava.benchmarks.base import load_spec
from sfllava.benchmarks.spec import Spec
from sfllava.models.known import KNOWN
from sfllava.prompts import Prompt, load_prompt
from sfllava.published.plan import MODES
from sfllava.published.reproduction.experiments import Experiment
from sfllava.runs.identity import choose_questions
from sfllava.runs.run_folder import read_rows, read_run
from sfllava.settings import Setting
from sfllava.types import SfllavaError

NEW_TOKENS = 128
"""The maximum length of an answer in the published code."""
JUDGE_WORDINGS = "judge"
"""The folder in a prompt pack with the wordings of the judge."""


@dataclass(frozen=True)
class PlannedRun:
    """One run, and the files that exist for it.

    Attributes:
        experiment: The numbers that it measures.
        folder: Its run folder.
        benchmark: The benchmark with the questions to ask; None if it is missing.
        missing_videos: The names of videos without a file.
        prompt: The published wording; None for the package's own.
        earlier: Settings in the folder from an earlier call that selected more tables. A run keeps its settings, so
            they are finished too.
        done: Number of answers that the folder already has.
        problem: Why it cannot run; empty if it can.
    """

    experiment: Experiment
    folder: Path
    benchmark: Benchmark | None
    missing_videos: tuple[str, ...]
    prompt: Prompt | None
    earlier: tuple[Setting, ...]
    done: int
    problem: str

    @property
    def name(self) -> str:
        """The name of the experiment."""
        return self.experiment.name

    @property
    def spec(self) -> Spec:
        """What is fixed about its benchmark."""
        return load_spec(self.experiment.benchmark)

    @property
    def settings(self) -> list[Setting]:
        """All settings of the run."""
        return [*self.experiment.settings, *self.earlier]

    @property
    def question_count(self) -> int:
        """The number of questions at each setting; the published number if there is no question file."""
        return len(self.benchmark.questions) if self.benchmark else self.spec.question_count or 0

    @property
    def answers(self) -> int:
        """The number of answers at all settings, including those of earlier calls."""
        return self.question_count * len(self.settings)

    @property
    def judged(self) -> bool:
        """Whether a judge scores its answers."""
        return self.spec.task != "choice"


def plan_runs(
    experiments: Iterable[Experiment],
    root: str | Path,
    out: str | Path,
    *,
    limit: int | None = None,
    seed: int | None = None,
    prompts: str | Path | None = None,
    follow_links: bool = False,
) -> list[PlannedRun]:
    """Check what the runs need; this writes nothing and reads no model or video.

    Args:
        experiments: The runs.
        root: The folder of the benchmarks, in the published layout.
        out: The folder of the reproduction, which contains the run folders.
        limit, seed: As in `evaluate`.
        prompts: A folder written by `sfllava prompts import`; its wordings replace the package's own.
        follow_links: As in `load_benchmark`.

    Returns:
        One planned run per experiment. If something is missing, only its run has a problem.

    Raises:
        SfllavaError: `root` is not a folder, `limit` is less than 1, or `prompts` lacks a wording.
    """
    root, out = Path(root), Path(out)
    if not root.is_dir():
        raise SfllavaError(f"--root {root}: needed the folder of the benchmarks, got no folder")
    choose_questions([], limit, seed)  # raises for a wrong limit before any benchmark is read
    found: dict[str, tuple[Benchmark | None, tuple[str, ...], str]] = {}
    planned = []
    for experiment in experiments:
        name = experiment.benchmark
        if name not in found:
            found[name] = _find(name, root, limit, seed, follow_links)
        benchmark, missing, problem = found[name]
        prompt = load_prompt(_wording(Path(prompts), experiment)) if prompts else None
        earlier, done = (), 0
        try:
            earlier, done = _earlier(out / experiment.name, experiment)
        except SfllavaError as error:
            problem = problem or str(error)
        planned.append(
            PlannedRun(experiment, out / experiment.name, benchmark, missing, prompt, earlier, done, problem)
        )
    return planned


def _find(
    name: str, root: Path, limit: int | None, seed: int | None, follow_links: bool
) -> tuple[Benchmark | None, tuple[str, ...], str]:
    """Return a benchmark with the questions to ask, its missing videos, and why it cannot run."""
    benchmark = None
    try:
        benchmark = load_benchmark(name, root=root, follow_links=follow_links)
        benchmark = replace(benchmark, questions=choose_questions(benchmark.questions, limit, seed))
        benchmark.require_videos()
        videos = list(dict.fromkeys(question.video for question in benchmark.questions))
        missing = tuple(video for video in videos if not _is_there(benchmark, video))
    except SfllavaError as error:
        return benchmark, (), str(error)
    if len(missing) == len(videos):
        return benchmark, missing, f"{name}: none of its {len(videos):,} videos is in {benchmark.videos_dir}"
    return benchmark, missing, ""


def _is_there(benchmark: Benchmark, video: str) -> bool:
    try:
        benchmark.find_video(video)
    except BenchmarkError:
        return False
    return True


def _wording(prompts: Path, experiment: Experiment) -> Path:
    """Return the file of the published wording for a model and a task."""
    task, family = load_spec(experiment.benchmark).task, KNOWN[experiment.size].family
    mode = next(mode for mode, about in MODES.items() if about == (family, task == "choice"))
    return prompts / mode / f"{task}.txt"


def _earlier(folder: Path, experiment: Experiment) -> tuple[tuple[Setting, ...], int]:
    """Return the other settings in a run folder, and the number of its answers."""
    if not (folder / "run.json").exists():
        return (), 0
    names = {setting.name for setting in experiment.settings}
    known = [one for one in read_run(folder)["identity"]["settings"] if one["name"] not in names]
    settings = [Setting(one.get("frames"), one.get("aggregation"), prompt=one.get("prompt", "")) for one in known]
    renamed = [s if s.name == one["name"] else replace(s, label=one["name"]) for s, one in zip(settings, known)]
    return tuple(renamed), sum(1 for _ in read_rows(folder))
