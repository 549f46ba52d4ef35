"""Plan an experiment of the published code: the runs that it asks for, and what differs here."""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

from sfllava.aggregators.base import name_of
from sfllava.benchmarks import Benchmark, load_benchmark
from sfllava.benchmarks.base import load_spec
from sfllava.prompts import Prompt, load_prompt, pack_prompt
from sfllava.published.config import DEFAULTS, Experiment, Value, read_experiment
from sfllava.published.plan_table import format_plan
from sfllava.settings import Setting
from sfllava.types import SfllavaError

# script -> the benchmarks it runs, or parts of VCGBench
SCRIPTS = {
    "run_eval_videoqabench.sh": ("msvd", "msrvtt", "tgif", "activitynet"),
    "run_eval_multiplechoiceqabench.sh": ("nextqa", "egoschema", "intentqa"),
    "run_eval_generativebench.sh": ("vcgbench",),
    "run_eval_generic.sh": ("vcgbench/generic",),
    "run_eval_temporal.sh": ("vcgbench/temporal",),
    "run_eval_consistency.sh": ("vcgbench/consistency",),
    **{
        f"run_eval_{name}.sh": (name,)
        for name in ("msvd", "msrvtt", "tgif", "activitynet", "nextqa", "egoschema", "intentqa")
    },
}
# benchmark -> its questions under GT_QA_DIR, and its videos under DATA_DIR
_PLACES = {
    "msvd": ("MSVD_Zero_Shot_QA/val_q.json", "MSVD_Zero_Shot_QA/videos"),
    "msrvtt": ("MSRVTT_Zero_Shot_QA/val_q.json", "MSRVTT_Zero_Shot_QA/videos/all"),
    "tgif": ("TGIF_Zero_Shot_QA/val_q.json", "TGIF_Zero_Shot_QA/mp4"),
    "activitynet": ("Activitynet_Zero_Shot_QA/test_q.json", "Activitynet_Zero_Shot_QA/all_test"),
    "nextqa": ("NExTQA/val_qa.json", "NExTQA/video"),
    "egoschema": ("EgoSchema/val_qa.json", "EgoSchema/video"),
    "intentqa": ("IntentQA/val_qa.json", "IntentQA/video"),
    "vcgbench": ("VCGBench", "Activitynet_Zero_Shot_QA/all_test"),
}
# CONV_MODE -> our prompt family, and whether it is for multiple choice
MODES = {
    "image_seq_v3": ("vicuna", False),
    "image_seq_34b_v3": ("chatml", False),
    "multiple_choice_allvideo_v4": ("vicuna", True),
    "multiple_choice_allvideo_34b_v4": ("chatml", True),
}
# keys without a meaning here, and why no result depends on them
_UNUSED = {
    "CUDA_VISIBLE_DEVICES": "not used: its scripts split the questions over these GPUs, here one process answers all; "
    "--device and --device-map choose where",
    "TEMP_DIR": "not used: it is for the judge's replies, and judging is a step of its own here",
    "SAVE_DIR": "not used: each run folder has its own log.txt",
}
_POSITIONS = 4096  # of the checkpoints; the published code truncates inputs at ROPE_SCALING_FACTOR times as many


@dataclass(frozen=True)
class ModelChoice:
    """The checkpoint to load; equal choices are loaded once. With rope_factor None its RoPE is unchanged."""

    path: str
    rope_factor: float | None
    context: int


@dataclass(frozen=True)
class Step:
    """One benchmark of an experiment."""

    name: str
    questions: Path
    videos: Path
    model: ModelChoice
    setting: Setting
    prompt: Prompt
    family: str
    """The prompt family of our own wording; empty for an imported one"""
    out: Path
    benchmark: Benchmark | None
    """None if there is a problem"""
    problem: str
    """Why the step cannot run, or empty"""

    @property
    def facts(self) -> dict[str, str | Path]:
        """How the benchmark is run, by what each fact is about"""
        rope = f"dynamic RoPE, factor {self.model.rope_factor:g}" if self.model.rope_factor else "the checkpoint's RoPE"
        return {
            "benchmark": self.name,
            "questions": f"{len(self.benchmark.questions):,}" if self.benchmark else "-",
            "model": f"{self.model.path}, {rope}, inputs up to {self.model.context:,} tokens",
            "setting": f"{self.setting.frames} frames, {name_of(self.setting.aggregation)}",
            "prompt": self.prompt.source,
            "question file": self.questions,
            "videos": self.videos,
            "run folder": self.out,
        }


@dataclass(frozen=True)
class ExperimentPlan:
    """The steps of an experiment file, and notes on what differs here."""

    path: Path
    steps: tuple[Step, ...]
    notes: tuple[str, ...]

    @property
    def problems(self) -> list[str]:
        """Why steps cannot run"""
        return [f"{step.name}: {step.problem}" for step in self.steps if step.problem]

    def __str__(self) -> str:
        runs = f"{self.path}: {len(self.steps)} runs"
        return format_plan(runs, [step.facts for step in self.steps], self.problems, self.notes)


def plan_experiment(
    path: str | Path, *, root: str | Path = ".", prompts: str | Path | None = None, follow_links: bool = False
) -> ExperimentPlan:
    """Read an experiment file and plan its runs, without loading a model.

    Args:
        path: The YAML file.
        root: The folder that relative paths start from.
        prompts: A folder that `sfllava prompts import` wrote; its exact wordings replace the package's own.
        follow_links: As in `load_benchmark`.

    Returns:
        The plan, which prints as a list of runs. Missing files are problems of its steps.

    Raises:
        ExperimentError: The file asks for something that cannot be done here.
    """
    experiment = read_experiment(path)
    root, prompts = Path(root), Path(prompts) if prompts else None
    steps = [
        _step(experiment, i, name, root, prompts, follow_links)
        for i, script in enumerate(experiment.scripts)
        for name in _benchmarks_of(experiment, script)
    ]
    outs = [step.out for step in steps]
    if doubled := next((out for out in outs if outs.count(out) > 1), None):
        raise experiment.error(
            experiment.scripts[0].line, f"two of its runs would write {doubled}; give CONFIG_NAME as a list of names"
        )
    return ExperimentPlan(experiment.path, tuple(steps), tuple(_notes(experiment, prompts)))


def _benchmarks_of(experiment: Experiment, script: Value) -> tuple[str, ...]:
    try:
        words = shlex.split(script.text)
    except ValueError:
        words = []
    if words and words[0] in ("bash", "sh"):
        words = words[1:]
    name = PurePosixPath(words[0]).name if len(words) == 1 else ""
    if name not in SCRIPTS:
        raise experiment.error(
            script.line, f"SCRIPT: needed 'bash scripts/NAME', NAME one of {', '.join(SCRIPTS)}; got {script.text!r}"
        )
    return SCRIPTS[name]


def _step(experiment: Experiment, i: int, name: str, root: Path, prompts: Path | None, follow_links: bool) -> Step:
    """Return the step of one benchmark, or part of one, for the script of number i."""
    benchmark_name, _, part = name.partition("/")
    task = load_spec(benchmark_name).task
    for key, only in (("IMAGE_ASPECT_RATIO", "resize"), ("INPUT_STRUCTURE", "image_seq")):
        if (value := experiment.value(key, i)).text != only:
            raise experiment.error(value.line, f"{key}: needed {only}, the one way there is here; got {value.text!r}")
    questions, videos = _files(experiment, i, benchmark_name, task, root)
    out = _out(experiment, i, name, root)
    model, problem = _model(experiment, i, root)
    prompt, family = _prompt(experiment, i, task, prompts)
    benchmark = None
    try:
        benchmark = load_benchmark(benchmark_name, questions, videos, follow_links=follow_links)
        if part:
            benchmark.questions = [question for question in benchmark.questions if question.type == part]
    except SfllavaError as error:
        problem = str(error)
    setting = _setting(experiment, i)
    return Step(name, questions, videos, model, setting, prompt, family, out, benchmark, problem)


def _files(experiment: Experiment, i: int, benchmark: str, task: str, root: Path) -> tuple[Path, Path]:
    """Return the question file and the folder of videos."""
    questions, videos = _PLACES[benchmark]
    default = f"playground/data/{'multiple_choice_qa' if task == 'choice' else 'video_qa'}"
    return (
        _path(experiment, "GT_QA_DIR", experiment.value("GT_QA_DIR", i), root) / questions,
        _path(experiment, "DATA_DIR", experiment.value("DATA_DIR", i, default), root) / videos,
    )


def _out(experiment: Experiment, i: int, name: str, root: Path) -> Path:
    """Return the run folder."""
    config = experiment.value("CONFIG_NAME", i)
    if not re.fullmatch(r"[^/\\\0]+", config.text) or config.text in (".", ".."):
        raise experiment.error(config.line, f"CONFIG_NAME: needed the name of a folder, got {config.text!r}")
    out = _path(experiment, "OUTPUT_DIR", experiment.value("OUTPUT_DIR", i), root)
    return out / config.text / name.replace("/", "-")


def _path(experiment: Experiment, key: str, value: Value, root: Path) -> Path:
    if "$" in value.text or "`" in value.text:  # bash would expand them, and a guess could be wrong
        raise experiment.error(value.line, f"{key}: needed a path written out, got {value.text!r}")
    try:
        return root / Path(value.text).expanduser()
    except RuntimeError as error:
        raise experiment.error(value.line, f"{key}: no such home folder in {value.text!r}") from error


def _positive(experiment: Experiment, key: str, i: int) -> int:
    value = experiment.value(key, i)
    if not re.fullmatch(r"[0-9]{1,6}", value.text.strip()) or int(value.text) < 1:
        raise experiment.error(value.line, f"{key}: needed a whole number of at least 1, got {value.text!r}")
    return int(value.text)


def _model(experiment: Experiment, i: int, root: Path) -> tuple[ModelChoice, str]:
    factor = _positive(experiment, "ROPE_SCALING_FACTOR", i)
    value = experiment.value("MODEL_PATH", i)
    folder = _path(experiment, "MODEL_PATH", value, root)
    name, problem = value.text.rstrip("/"), ""
    if folder.is_dir():
        name = str(folder)
    elif name != "tiny" and (name.count("/") != 1 or name.startswith((".", "/", "~"))):
        problem = f"{folder}: no such checkpoint folder (MODEL_PATH, line {value.line})"
    # as in the published code, a factor of 1 leaves the checkpoint unchanged
    return ModelChoice(name, float(factor) if factor > 1 else None, _POSITIONS * factor), problem


def _setting(experiment: Experiment, i: int) -> Setting:
    frames, aggregation = _positive(experiment, "NUM_FRAMES", i), experiment.value("TEMPORAL_AGGREGATION", i)
    name = "none" if aggregation.text.lower() in ("none", "false") else aggregation.text
    try:
        return Setting(frames, name)
    except SfllavaError as error:
        raise experiment.error(aggregation.line, f"TEMPORAL_AGGREGATION: {error}") from error


def _prompt(experiment: Experiment, i: int, task: str, prompts: Path | None) -> tuple[Prompt, str]:
    choice = task == "choice"
    mode = experiment.value("CONV_MODE", i, "multiple_choice_allvideo_v4" if choice else "image_seq_v3")
    if prompts:
        if not re.fullmatch(r"\w[\w.-]*", mode.text):
            raise experiment.error(mode.line, f"CONV_MODE: needed the name of a wording, got {mode.text!r}")
        if not (file := prompts / mode.text / f"{task}.txt").is_file():
            raise experiment.error(mode.line, f"CONV_MODE: {mode.text} has no wording for {task} questions: no {file}")
        return load_prompt(file), ""
    fitting = [name for name, (_, for_choice) in MODES.items() if for_choice == choice]
    if mode.text not in fitting:
        raise experiment.error(
            mode.line,
            f"CONV_MODE: needed {' or '.join(fitting)} for {task} questions (or --prompts with a folder that "
            f"`sfllava prompts import` wrote), got {mode.text!r}",
        )
    family = MODES[mode.text][0]
    return pack_prompt(family, task), family  # type: ignore[arg-type]


def _notes(experiment: Experiment, prompts: Path | None) -> list[str]:
    def shown(key: str) -> str:
        return ", ".join(dict.fromkeys(value.text for value in experiment.values[key]))

    notes = ["greedy decoding, at most 128 new tokens, as its scripts say; on a GPU in float16, on a CPU in float32"]
    if prompts is None:
        modes = shown("CONV_MODE") if "CONV_MODE" in experiment.values else "by default"
        notes.append(
            f"CONV_MODE {modes}: the wording is this package's own for that model family, so answers differ; "
            "`sfllava prompts import CHECKOUT --out FOLDER`, then --prompts FOLDER, uses the exact one"
        )
    notes += [f"{key} {shown(key)}: {why}" for key, why in _UNUSED.items() if key in experiment.values]
    used = [key for key in DEFAULTS if key not in _UNUSED and key not in experiment.values and key != "SCRIPT"]
    if used:
        notes.append(f"not in the file, so as its scripts have it by default: {', '.join(used)}")
    return notes
