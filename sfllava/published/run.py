"""Do what a plan says: each checkpoint loaded once, each benchmark into a run folder of its own."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from sfllava.files import Row
from sfllava.published.plan import ExperimentPlan, ModelChoice, Step
from sfllava.runs.evaluate import Run, describe_setting, prepare
from sfllava.runs.identity import choose_questions, make_identity, upgrade
from sfllava.runs.run_folder import RunFolder
from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM


log = logging.getLogger(__name__)
_NEW_TOKENS = 128
"""Of an answer, as its scripts say"""
Load = Callable[[ModelChoice], "VideoLM"]


def load_choice(
    choice: ModelChoice,
    device: str = "auto",
    dtype: str = "auto",
    device_map: str | None = None,
    vision_tower: str | None = None,
) -> VideoLM:
    """Load the model of a plan; on a GPU in float16, as the published code does. Raises where RoPE is not as asked."""
    import torch

    from sfllava.models.load import load_model

    on_gpu = bool(device_map) or device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    model = load_model(
        choice.path,
        device,
        "float16" if dtype == "auto" and on_gpu else dtype,
        device_map=device_map,
        vision_tower=vision_tower,
        rope_factor=choice.rope_factor,
        context=choice.context,
    )
    rope = model.language_model.network.config.text_config.rope_parameters or {}
    if choice.rope_factor and (rope.get("rope_type"), rope.get("factor")) != ("dynamic", choice.rope_factor):
        # the published code overwrites a checkpoint's own scaling; here it stays, which is another model
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
    """Evaluate the steps, those of one model together.

    Raises before any model is loaded where files are missing, where a prompt does not suit its questions and where a
    folder holds another run; what only the model tells is checked of all its steps before the first of them. Called
    again it goes on where it stopped, as `evaluate` does.
    """
    if plan.problems:
        raise SfllavaError(f"{plan.path}: cannot run: {'; '.join(plan.problems)}")
    for step in plan.steps:
        _check(step, limit)
    for choice in dict.fromkeys(step.model for step in plan.steps):
        model = load(choice)
        evaluations = []
        for step in plan.steps:
            if step.model == choice:
                assert step.benchmark is not None  # else there was a problem
                if step.family not in ("", model.info.family):
                    log.warning(
                        "%s: CONV_MODE asks in the format of %s; the format of %s is %s",
                        step.name,
                        step.family,
                        choice.path,
                        model.info.family,
                    )
                evaluations.append(
                    prepare(
                        model,
                        step.benchmark,
                        step.setting,
                        step.out,
                        limit=limit,
                        prompt=step.prompt,
                        max_new_tokens=_NEW_TOKENS,
                        decoders=decoders,
                    )
                )
        for evaluation in evaluations:
            yield evaluation.run(progress=progress)
        del model, evaluations, evaluation  # two checkpoints need not fit a GPU together


def _check(step: Step, limit: int | None) -> None:
    """Raise what `prepare` would raise, as far as that is known without the model."""
    benchmark = step.benchmark
    assert benchmark is not None
    asked = choose_questions(benchmark.questions, limit, None)
    for question in asked:
        step.prompt.pieces(question)
    settings, prompt = [describe_setting(step.setting)], step.prompt.text
    identity = make_identity(
        benchmark.name, asked, settings, prompt=prompt, max_new_tokens=_NEW_TOKENS, read="generate"
    )
    facts = {"questions_sha256": benchmark.fingerprint, "limit": limit, "seed": None}
    RunFolder(step.out, identity, facts, lambda run: _without_model(upgrade(run, benchmark))).check()


def _without_model(run: Row) -> Row:
    """A run.json less what a model has decided in it."""
    identity = {name: value for name, value in run["identity"].items() if name != "model"}
    settings = [{name: value for name, value in s.items() if name != "budget"} for s in identity["settings"]]
    return run | {"identity": identity | {"settings": settings}}
