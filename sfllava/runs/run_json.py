"""The contents of run.json: the settings, the prompts, the model and the versions of a run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from sfllava.aggregators.base import name_of
from sfllava.benchmarks import Benchmark
from sfllava.benchmarks.groups import headline_sizes
from sfllava.display.private import command_line
from sfllava.evaluators.protocols import load_protocol
from sfllava.files import Row
from sfllava.models.host import versions
from sfllava.prompts import Prompt, pack_prompt
from sfllava.runs.identity import make_identity, rope_facts
from sfllava.runs.jobs import GenerationOptions
from sfllava.sampler.sampling import PUBLISHED
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError, Task

if TYPE_CHECKING:
    from sfllava.models.base import ModelInfo


def choose_prompts(
    family: str,
    benchmark: Benchmark,
    asked: Sequence[Question],
    prompt: Prompt | None,
    protocol: str | None,
    subtitles: bool = False,
) -> dict[Task, Prompt]:
    """Return the prompt of each task in the questions."""
    if prompt is not None and protocol is not None:
        raise SfllavaError("give either your own prompt or a protocol, not both")
    tasks: list[Task] = list(dict.fromkeys(question.task for question in asked))
    if prompt is not None:
        return dict.fromkeys(tasks, prompt)
    chosen = load_protocol(protocol) if protocol else None
    found: dict[Task, Prompt] = {}
    for task in tasks:
        wording = chosen.wording(benchmark.name, task, subtitles) if chosen else None
        found[task] = wording.prompt(family, f"{family}/{protocol}") if wording else pack_prompt(family, task)
    return found


def prompts_by_setting(settings: Sequence[Setting], defaults: Mapping[Task, Prompt]) -> dict[str, dict[Task, Prompt]]:
    """Return the prompt of each task at each setting, by name; a setting's own prompt takes precedence."""
    return {s.name: {task: s.prompt_or(default) for task, default in defaults.items()} for s in settings}


def run_identity(
    benchmark: Benchmark,
    asked: Sequence[Question],
    settings: Sequence[Setting],
    model: ModelInfo,
    prompts: Mapping[Task, Prompt],
    options: GenerationOptions,
) -> Row:
    """Return the part of run.json that must be equal for a run to be resumed."""
    return make_identity(
        benchmark.name,
        asked,
        [describe_setting(setting, model.grid) for setting in settings],
        model={
            "sha256_sampled": model.fingerprint,
            "dtype": str(model.dtype),
            "context": model.context,
            "rope": rope_facts(model.rope),
            "shape": model.shape.to_dict(),
            **({"options": model.options} if model.options else {}),
            **({"quantize": model.quantize} if model.quantize else {}),
            **model.engine.identity(),
        },
        prompt=_one_or_by_task({task: prompt.identity() for task, prompt in prompts.items()}),
        max_new_tokens=options.max_new_tokens,
        read=options.answer_mode,  # the field keeps this name, so that earlier runs can be resumed
        **({"subtitles": True} if options.subtitles else {}),
        **(options.selection.identity() if options.selection else {}),
    )


def _one_or_by_task(values: dict[Task, Any]) -> Any:
    """Return the only value, or the values by task if there are several tasks."""
    return next(iter(values.values())) if len(values) == 1 else values


def session_facts(benchmark: Benchmark, model: ModelInfo, prompts: Mapping[Task, Prompt], **more: Any) -> Row:
    """Return the part of run.json that describes this session; a later session may differ. `more` is added."""
    sizes = headline_sizes(benchmark.questions, benchmark.spec)
    return {
        "questions_sha256": benchmark.fingerprint,
        "model": str(model.path),
        "layout": model.layout,
        **({"known_visual_tokens": model.known_visual_tokens} if model.known_visual_tokens else {}),
        "device": str(model.device),
        "engine": str(model.engine),
        "prompt_source": _one_or_by_task({task: prompt.source for task, prompt in prompts.items()}),
        "question_files": [str(file) for file in benchmark.files],
        **({"question_flaws": benchmark.flaws} if benchmark.flaws else {}),
        "videos": str(benchmark.videos_dir),
        "subtitle_files": str(benchmark.subtitles_dir) if benchmark.subtitles_dir else None,
        **({"headline_sizes": sizes} if sizes else {}),
        "command": command_line(),
        "versions": versions(),
        **more,
    }


def describe_setting(setting: Setting, grid: tuple[int, int] | None = None) -> dict[str, Any]:
    """Return the entry of a setting in run.json.

    Args:
        setting: The setting.
        grid: Rows and columns of patches in a frame; if given, the entry includes the number of visual tokens.
    """
    facts = {"name": setting.name, "frames": setting.frames, "aggregation": name_of(setting.aggregation)}
    budget = {"budget": setting.token_count(*grid)} if grid else {}
    rule = {"frame_rule": setting.frame_rule} if setting.frame_rule != PUBLISHED else {}
    if setting.question_aware:
        rule |= {"selection": str(setting.selection), "selection_for": setting.selection_for}
    return facts | budget | rule | ({"prompt": setting.prompt} if setting.prompt else {})
