"""Plan a run before it uses a GPU: tokens, operations, memory, seconds, and what fits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sfllava.ablation import Ablation, load_ablation
from sfllava.aggregators.base import identity_key, image_count, makes_images, shared_tokens
from sfllava.benchmarks import Benchmark
from sfllava.models.operations import QUANTIZATIONS
from sfllava.models.sizes import Sizes, sizes_of
from sfllava.planning import stages
from sfllava.planning.fitting import (
    BatchSizes,
    advice,
    batch_sizes,
    estimate_memory,
    format_bytes,
    image_batch,
    largest_fitting,
    sharing_frames,
)
from sfllava.planning.plans import Plan, SettingPlan
from sfllava.planning.presets import preset_names, preset_roofline
from sfllava.planning.roofline import Roofline, measure
from sfllava.planning.stages import Cost
from sfllava.planning.workload import PlannedQuestions, Workload, planned_questions, workload_of
from sfllava.runs.jobs import MAX_BATCH_QUESTIONS, order_by_prefix
from sfllava.sampler.sampling import RULES, Sample, union_indices
from sfllava.settings import Setting
from sfllava.types import SfllavaError


def plan(
    model: str | Path | Sizes,
    settings: Setting | Iterable[Setting] | Ablation | str,
    benchmark: Benchmark | str,
    roofline: Roofline | None = None,
    *,
    budget: int | None = None,
    workers: int = 1,
    video_frames: int = 900,
    quantize: str | None = None,
    **questions: Any,
) -> Plan:
    """Predict what `evaluate` or `ablate` would take of a device, without loading weights or videos.

    Args:
        model: A checkpoint folder, of which only JSON is read, or a name such as `7b` (`models.sizes.KNOWN`).
        settings: One, several, or an ablation by name.
        benchmark: A loaded one, or a name; by name, the published numbers of questions and videos are planned for.
        roofline: Measurements of the device, or a preset (`presets.preset_roofline`); None measures this one.
        budget: Visual tokens, for an ablation that matches them.
        workers: Devices, each with a model.
        video_frames: Frames of a video, which decide how many frames two samples of it have in common.
        quantize: As in `load_model`.
        **questions: What is asked, as `workload.workload_of` takes it: videos, questions, max_new_tokens, new_tokens,
            answer_mode, protocol, subtitles.

    Returns:
        The plan, which prints as a table.

    Raises:
        SfllavaError: The arguments do not go together.
    """
    sizes, chosen = _prepare(model, settings, benchmark, budget, quantize, questions)
    _check_counts(workers, video_frames)
    return _plan(chosen, sizes, roofline or measure(), workers, video_frames)


def plan_presets(
    model: str | Path | Sizes,
    settings: Setting | Iterable[Setting] | Ablation | str,
    benchmark: Benchmark | str,
    dtype: str = "auto",
    *,
    budget: int | None = None,
    workers: int = 1,
    video_frames: int = 900,
    quantize: str | None = None,
    **questions: Any,
) -> dict[str, Plan]:
    """Predict the same for each device of `presets`; arguments as in `plan`, and the dtype as in `preset_roofline`."""
    sizes, chosen = _prepare(model, settings, benchmark, budget, quantize, questions)
    _check_counts(workers, video_frames)
    return {name: _plan(chosen, sizes, preset_roofline(name, dtype), workers, video_frames) for name in preset_names()}


def _prepare(
    model: str | Path | Sizes,
    settings: Setting | Iterable[Setting] | Ablation | str,
    benchmark: Benchmark | str,
    budget: int | None,
    quantize: str | None,
    questions: dict[str, Any],
) -> tuple[Sizes, list[PlannedQuestions]]:
    """Return the sizes of the model, and the questions at each setting."""
    sizes = model if isinstance(model, Sizes) else sizes_of(model)
    if quantize is not None:
        if quantize not in QUANTIZATIONS:
            raise SfllavaError(f"quantize must be {' or '.join(QUANTIZATIONS)}, got {quantize!r}")
        sizes = replace(sizes, shape=replace(sizes.shape, quantize=quantize))
    workload = workload_of(benchmark, **questions)
    wanted = _choose_settings(settings, sizes, workload, budget)
    return sizes, [planned_questions(setting, sizes, workload) for setting in wanted]


def _check_counts(workers: int, video_frames: int) -> None:
    if workers < 1 or video_frames < 1:
        raise SfllavaError(f"workers and video_frames must be at least 1, got {workers} and {video_frames}")


def _choose_settings(
    settings: Setting | Iterable[Setting] | Ablation | str, sizes: Sizes, workload: Workload, budget: int | None
) -> list[Setting]:
    """Return the settings in the order in which a run asks them: those with the same prefix one after another."""
    if isinstance(settings, str | Ablation):
        ablation = load_ablation(settings) if isinstance(settings, str) else settings
        wanted = ablation.settings(sizes, workload.task, budget)  # type: ignore[arg-type]  # it reads grid and family
    else:
        wanted = [settings] if isinstance(settings, Setting) else list(settings)
    names = [setting.name for setting in wanted]
    if not wanted or len(set(names)) < len(names):
        raise SfllavaError(f"needed one or more settings with different names, got {names}")
    return order_by_prefix([setting.for_model(sizes) for setting in wanted])


def _plan(chosen: Sequence[PlannedQuestions], sizes: Sizes, device: Roofline, workers: int, video_frames: int) -> Plan:
    workload, shape = chosen[0].workload, sizes.shape
    each = -(-workload.question_count // len(workload.videos))
    images = sum(_count_images([questions.setting for questions in chosen], video_frames, each))
    planned = []
    for questions in chosen:
        # a single worker groups videos; several are handed one at a time, whose questions may have different frames
        group_questions = MAX_BATCH_QUESTIONS if workers == 1 else 1
        if questions.setting.question_aware:
            group_questions = min(MAX_BATCH_QUESTIONS, max(group_questions, each))
        own = sum(_count_images([questions.setting], video_frames, each))
        planned.append(_plan_setting(questions, sizes, device, images, own, group_questions))
    prefill, decode, one_by_one = Cost(), Cost(), Cost()
    earlier: Setting | None = None
    fitting = [(questions, one) for questions, one in zip(chosen, planned) if one.fits]
    for questions, one in fitting:
        prefill += questions.prefill(shape, device, _reused_tokens(earlier, questions.setting, sizes))
        decode += Cost(seconds=one.decode_seconds) * len(workload.videos)
        seen = image_count(questions.setting.aggregation, questions.setting.most_frames())
        encode_one = stages.encode_cost(shape, device, seen, image_batch(device))
        one_by_one += questions.one_by_one(shape, device) + encode_one * questions.answered
        earlier = questions.setting if questions.sharing_videos else earlier
    encode = Cost()
    for count in _count_images([questions.setting for questions, _ in fitting], video_frames, each):
        encode += stages.encode_cost(shape, device, count, image_batch(device)) * len(workload.videos)
    return Plan(
        sizes.name, shape.parameters, shape.weight_bytes(device.itemsize), shape.quantize,
        workload.name, len(workload.videos), workload.question_count, workload.new_tokens,
        device, workers, tuple(planned), encode.seconds, prefill.seconds, decode.seconds, one_by_one.seconds,
        _text_notes(workload),
    )  # fmt: skip


def _text_notes(workload: Workload) -> tuple[str, ...]:
    """Say which text is counted, where that is not obvious."""
    notes = []
    if workload.protocol:
        notes.append(f"prompts are counted in the wording of the protocol {workload.protocol}")
    if workload.subtitles:
        notes.append(
            "subtitles are not counted, since their text depends on the videos: prompts are longer than planned by the "
            "text of the sampled frames"
        )
    return tuple(notes)


def _plan_setting(
    questions: PlannedQuestions, sizes: Sizes, device: Roofline, images: int, own: int, group_questions: int
) -> SettingPlan:
    """Plan one setting on its own.

    `images` is how many images of a video have their patches kept for all settings, `own` how many this one may need
    where frames are chosen for each question.
    """
    setting, shape, videos = questions.setting, sizes.shape, len(questions.workload.videos)
    full = batch_sizes(questions, device, group_questions)[0]
    found = largest_fitting(questions, sizes, device, images, group_questions) if questions.answered else None
    batch = found or full
    memory = estimate_memory(questions, sizes, device, images, batch)
    seen = own if setting.question_aware else image_count(setting.aggregation, setting.frames)
    encode = stages.encode_cost(shape, device, seen, batch.images)
    prefill = questions.prefill(shape, device)
    batches = questions.batches(questions.units.groups(batch.group_questions))
    decode = questions.decode(shape, device, batches, batch.questions)
    one_by_one = questions.one_by_one(shape, device)
    notes = []
    if found is None:
        notes.append(advice(questions, sizes, device, images))
    elif found != full:
        notes.append(
            f"full batches need more than the {format_bytes(device.free_bytes)} free, so a run falls back to "
            f"{_at_a_time(questions, batch)} at a time"
        )
    notes += _position_notes(questions, sizes)
    if setting.question_aware:
        notes.append(
            f"frames are chosen for each question: at most {len(questions.units.videos):,} prefixes in all, and "
            f"{own:,} images a video"
        )
    return SettingPlan(
        setting.name, setting.frames, questions.visual_tokens, questions.prompt_tokens,
        encode.flops, prefill.flops / videos, decode.flops / videos,
        memory.kv, memory.patches, memory.work, memory.peak,
        encode.seconds, prefill.seconds / videos, decode.seconds / videos, one_by_one.seconds / videos,
        questions.alone, questions.failing, found is not None, "; ".join(notes),
        setting.frame_selection.needs_scores,
    )  # fmt: skip


def _position_notes(questions: PlannedQuestions, sizes: Sizes) -> list[str]:
    """Say which questions share no prefix, or do not fit the context."""
    notes = []
    if questions.alone:
        frames, limit = sharing_frames(questions, sizes), sizes.shared_positions or sizes.context
        notes.append(
            f"{questions.alone:,} questions pass {limit:,} positions with their answers, so each is answered alone"
            + (f"; at {frames} frames or fewer none does" if frames else "")
        )
    if questions.answered and questions.failing:
        notes.append(f"{questions.failing:,} questions do not fit the context of {sizes.context:,}")
    return notes


def _at_a_time(questions: PlannedQuestions, batch: BatchSizes) -> str:
    videos = max(map(len, questions.units.groups(batch.group_questions)))
    what = "choice of frames" if questions.setting.question_aware else "video"
    counts = ((videos, what), (batch.questions, "question"), (batch.images, "image"))
    one, two, three = (f"{n} {what}{'s' * (n > 1)}" for n, what in counts)
    return f"{one}, {two} of each and {three}" if videos > 1 else f"{one}, {two} and {three}"


def _reused_tokens(earlier: Setting | None, setting: Setting, sizes: Sizes) -> int:
    """Return how many visual tokens a setting has in common with the one asked before it."""
    if earlier is None or any(
        getattr(earlier, name) != getattr(setting, name) for name in ("prompt", "sample", "selection", "selection_for")
    ):
        return 0
    return shared_tokens(earlier.aggregation, setting.aggregation, setting.frames, *sizes.grid)


def _count_images(settings: Sequence[Setting], video_frames: int, questions: int) -> list[int]:
    """Return how many images of a video are encoded: frames for all settings, then those that some make of frames.

    For each question of a video, all frames that are chosen for it count as frames that no other question has.
    """
    making = [setting for setting in settings if makes_images(setting.aggregation)]
    made = {
        (s.uniform_sample, s.selection, identity_key(s.aggregation)): image_count(s.aggregation, s.frames)
        * (questions if s.question_aware else 1)
        for s in making
    }
    if len(making) == len(settings):
        return [0, *made.values()]
    # a run encodes all frames that it decoded, also those that only a setting with images of its own sampled
    total = max([video_frames, *(setting.frames for setting in settings)])
    # for a number of frames per second, the largest number is planned
    uniform = [s for s in settings if not s.question_aware or s.selection_for == "slow"]
    samples = [s.uniform_sample if s.frame_rule in RULES else Sample(s.frames) for s in uniform]
    shared = len(union_indices(samples, 0, total - 1)) if samples else 0
    chosen = sum(s.most_frames() - s.frames * (s.selection_for == "slow") for s in settings if s.question_aware)
    return [min(total, shared + chosen * questions), *made.values()]
