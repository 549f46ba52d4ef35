"""Run an experiment plan: each checkpoint is loaded once, and each benchmark has its own run folder."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sfllava.files import Row
from sfllava.published.plan import ExperimentPlan, ModelChoice, Step
from sfllava.runs.evaluate import Evaluation, Run, prepare
from sfllava.runs.identity import choose_questions, make_identity, upgrade
from sfllava.runs.run_folder import RunFolder
from sfllava.runs.run_json import describe_setting
from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM


log = logging.getLogger(__name__)
_NEW_TOKENS = 128  # as the published scripts set it
Load = Callable[[ModelChoice], "VideoLM"]


def load_choice(
    choice: ModelChoice,
    device: str = "auto",
    dtype: str = "auto",
    device_map: str | None = None,
    vision_tower: str | None = None,
    quantize: str | None = None,
) -> VideoLM:
    """Load the model of a plan, on a GPU in float16 as the published code does.

    Args:
        choice: The checkpoint, and its RoPE factor.
        device, dtype, device_map, vision_tower, quantize: As in `load_model`.

    Returns:
        The model.

    Raises:
        SfllavaError: The checkpoint has a RoPE scaling of its own.
    """
    import torch

    from sfllava.models.load import load_model

    on_gpu = bool(device_map) or device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    model = load_model(
        choice.path,
        device,
        "float16" if dtype == "auto" and on_gpu else dtype,
        device_map=device_map,
        vision_tower=vision_tower,
        quantize=quantize,
        rope_factor=choice.rope_factor,
        context=choice.context,
    )
    rope = model.language_model.network.config.text_config.rope_parameters or {}
    if choice.rope_factor and (rope.get("rope_type"), rope.get("factor")) != ("dynamic", choice.rope_factor):
        # the published code overwrites a checkpoint's own scaling; here it is kept, so the model would be another one
        raise SfllavaError(
            f"{choice.path}: needed dynamic RoPE with ROPE_SCALING_FACTOR {choice.rope_factor:g}, but the checkpoint's "
            f"config has a scaling of its own: {rope}"
        )
    return model


def run_plan(
    plan: ExperimentPlan,
    load: Load = load_choice,
    *,
    limit: int | None = None,
    decoders: int = 2,
    progress: bool = True,
) -> Iterator[Run]:
    """Evaluate the steps of a plan, model by model. Called again, it continues where it stopped, as `evaluate` does.

    Args:
        plan: What `plan_experiment` returned.
        load: Loads a model.
        limit: The first questions of each benchmark; None for all.
        decoders: Decoding processes.
        progress: Whether to show a progress bar.

    Yields:
        The run of each step.

    Raises:
        SfllavaError: Before any model is loaded: files are missing, a prompt does not suit its questions, or a folder
            has another run. Before the first step of a model: what only the model can show.
    """
    if plan.problems:
        raise SfllavaError(f"{plan.path}: cannot run: {'; '.join(plan.problems)}")
    for step in plan.steps:
        _check(step, limit)
    for choice in dict.fromkeys(step.model for step in plan.steps):
        model = load(choice)
        steps = [step for step in plan.steps if step.model == choice]
        evaluations = [_prepare(step, model, limit, decoders) for step in steps]
        for evaluation in evaluations:
            yield evaluation.run(progress=progress)
        del model, evaluations, evaluation  # so that the GPU need not hold two checkpoints


def _prepare(step: Step, model: VideoLM, limit: int | None, decoders: int) -> Evaluation:
    assert step.benchmark is not None  # else the plan has a problem
    if step.family not in ("", model.info.family):
        text = "%s: CONV_MODE asks in the format of %s; the format of %s is %s"
        log.warning(text, step.name, step.family, step.model.path, model.info.family)
    return prepare(
        model, step.benchmark, step.setting, step.out, limit=limit, prompt=step.prompt,
        max_new_tokens=_NEW_TOKENS, decoders=decoders,
    )  # fmt: skip


def _check(step: Step, limit: int | None) -> None:
    """Raise what `prepare` would raise, as far as the model is not needed for it."""
    benchmark = step.benchmark
    assert benchmark is not None
    questions = choose_questions(benchmark.questions, limit, None)
    for question in questions:
        step.prompt.pieces(question)
    settings, prompt = [describe_setting(step.setting)], step.prompt.text
    identity = make_identity(
        benchmark.name, questions, settings, prompt=prompt, max_new_tokens=_NEW_TOKENS, read="generate"
    )
    facts = {"questions_sha256": benchmark.fingerprint, "limit": limit, "seed": None}
    RunFolder(step.out, identity, facts, lambda run: _without_model(upgrade(run, benchmark))).check()


def _without_model(run: Row) -> Row:
    """Return a run.json without what the model decides in it."""
    identity = {name: value for name, value in run["identity"].items() if name != "model"}
    settings = [{name: value for name, value in s.items() if name != "budget"} for s in identity["settings"]]
    return run | {"identity": identity | {"settings": settings}}
