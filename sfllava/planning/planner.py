"""What a run would take, before a GPU hour is spent: tokens, operations, memory, seconds, and what fits."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from sfllava.ablation import Ablation, load_ablation
from sfllava.aggregators.base import identity_key, image_count, makes_images, prefix_key, shared_tokens
from sfllava.benchmarks import Benchmark
from sfllava.models.sizes import Sizes, sizes_of
from sfllava.planning import stages
from sfllava.planning.fitting import Way, advice, batch_of, gib, memory, sharing_frames, way_that_fits, ways
from sfllava.planning.plans import Plan, SettingPlan
from sfllava.planning.roofline import Roofline, measure
from sfllava.planning.stages import Cost
from sfllava.planning.workload import PlannedQuestions, Workload, planned_questions, workload_of
from sfllava.runs.jobs import MAX_BATCH_QUESTIONS
from sfllava.sampler.sampling import sample_indices
from sfllava.settings import Setting
from sfllava.types import SfllavaError


def plan(
    model: str | Path | Sizes,
    settings: Setting | Iterable[Setting] | Ablation | str,
    benchmark: Benchmark | str,
    roofline: Roofline | None = None,
    *,
    videos: int | None = None,
    questions: int | None = None,
    budget: int | None = None,
    max_new_tokens: int = 128,
    new_tokens: int | None = None,
    answer_mode: str = "generate",
    workers: int = 1,
    video_frames: int = 900,
) -> Plan:
    """What `evaluate` or `ablate` would take of a device, without weights, videos, or anything computed on them.

    model: a checkpoint folder, of which only JSON is read, or a name such as `7b` (`models.sizes.KNOWN`). settings:
    one, several, or an ablation by name, whose token budget is `budget`. benchmark: a loaded one, whose questions are
    counted, or a name, for which the published numbers stand unless `questions` and `videos` give others. roofline: of
    the device (`models.roofline`); None measures this one. max_new_tokens is what room is kept for, new_tokens what an
    answer is expected to take (default: as much). workers: devices with a model each. video_frames: of a video, to
    know which frames two samples have in common. Raises SfllavaError.
    """
    sizes = model if isinstance(model, Sizes) else sizes_of(model)
    if workers < 1 or video_frames < 1:
        raise SfllavaError(f"workers and video_frames must be at least 1, got {workers} and {video_frames}")
    load = workload_of(
        benchmark, videos, questions, max_new_tokens=max_new_tokens, new_tokens=new_tokens, answer_mode=answer_mode
    )
    # one model groups videos; of several, each is handed one video after another
    together = MAX_BATCH_QUESTIONS if workers == 1 else 1
    wanted = _settings(settings, sizes, load, budget)
    device = roofline or measure()
    shape, films = sizes.shape, len(load.asked)
    plain, tiled = _images(wanted, video_frames)
    kept = plain + sum(tiled)
    planned = {s.name: _one(planned_questions(s, sizes, load), sizes, device, kept, together) for s in wanted}
    prefill, decode, one_by_one = Cost(), Cost(), Cost()
    earlier: Setting | None = None
    fitting = [asked for asked, one in planned.values() if one.fits]
    for asked in fitting:
        one = planned[asked.setting.name][1]
        prefill += asked.prefill(shape, device, _reused(earlier, asked.setting, sizes))
        decode += Cost(seconds=one.decode_seconds) * films
        one_by_one += asked.one_by_one(shape, device) + Cost(seconds=one.encode_seconds) * asked.answered
        earlier = asked.setting if asked.videos else earlier
    encode = Cost()
    plain, tiled = _images([asked.setting for asked in fitting], video_frames)
    for images in (plain, *tiled):
        encode += stages.encode_cost(shape, device, images, batch_of(device)) * films
    return Plan(
        sizes.name, shape.parameters, shape.parameters * device.itemsize, load.name, films, load.questions, load.steps,
        device, workers, tuple(planned[s.name][1] for s in wanted),
        encode.seconds, prefill.seconds, decode.seconds, one_by_one.seconds,
    )  # fmt: skip


def _settings(
    settings: Setting | Iterable[Setting] | Ablation | str, sizes: Sizes, load: Workload, budget: int | None
) -> list[Setting]:
    if isinstance(settings, str | Ablation):
        ablation = load_ablation(settings) if isinstance(settings, str) else settings
        wanted = ablation.settings(sizes, load.task, budget)  # type: ignore[arg-type]  # it asks for grid and family
    else:
        wanted = [settings] if isinstance(settings, Setting) else list(settings)
    names = [setting.name for setting in wanted]
    if not wanted or len(set(names)) < len(names):
        raise SfllavaError(f"needed settings with names of their own, got {names}")
    # settings of one front side by side, as a run asks them
    fronts: dict[object, list[Setting]] = {}
    for setting in wanted:
        fronts.setdefault((setting.prompt, setting.frames, prefix_key(setting.aggregation)), []).append(setting)
    return [setting for group in fronts.values() for setting in group]


def _one(
    asked: PlannedQuestions, sizes: Sizes, device: Roofline, kept: int, together: int
) -> tuple[PlannedQuestions, SettingPlan]:
    """A setting by itself; `kept` are the images of a video whose patches the run keeps for all settings."""
    setting, shape, films = asked.setting, sizes.shape, len(asked.load.asked)
    full = ways(asked, device, together)[0]
    found = way_that_fits(asked, sizes, device, kept, together) if asked.answered else None
    way, notes = found or full, []
    taken = memory(asked, sizes, device, kept, way)
    if found is None:
        notes.append(advice(asked, sizes, device, kept))
    elif found != full:
        notes.append(
            f"full batches need more than the {gib(device.free_bytes)} free, so a run falls back to "
            f"{_at_a_time(asked, way)} at a time"
        )
    if asked.alone:
        some, limit = sharing_frames(asked, sizes), sizes.shared_positions or sizes.context
        notes.append(
            f"{asked.alone:,} questions pass {limit:,} positions with their answers, so each is answered alone"
            + (f"; at {some} frames or fewer none does" if some else "")
        )
    if asked.answered and asked.failing:
        notes.append(f"{asked.failing:,} questions do not fit the context of {sizes.context:,}")
    encode = stages.encode_cost(shape, device, _count(setting), way.batch)
    prefill = asked.prefill(shape, device)
    decode = asked.decode(shape, device, asked.counts(asked.load.groups(way.together)), way.most)
    one_by_one = asked.one_by_one(shape, device)
    return asked, SettingPlan(
        setting.name, setting.frames, asked.visual, asked.prompt,
        encode.flops, prefill.flops / films, decode.flops / films,
        taken.kv, taken.patches, taken.work, taken.peak,
        encode.seconds, prefill.seconds / films, decode.seconds / films, one_by_one.seconds / films,
        asked.alone, asked.failing, found is not None, "; ".join(notes),
    )  # fmt: skip


def _at_a_time(asked: PlannedQuestions, way: Way) -> str:
    videos = max(map(len, asked.load.groups(way.together)))
    counts = ((videos, "video"), (way.most, "question"), (way.batch, "image"))
    one, two, three = (f"{n} {what}{'s' * (n > 1)}" for n, what in counts)
    return f"{one}, {two} of each and {three}" if videos > 1 else f"{one}, {two} and {three}"


def _reused(earlier: Setting | None, setting: Setting, sizes: Sizes) -> int:
    """Visual tokens that two settings of one front, asked one after the other, have in common."""
    if earlier is None or (earlier.prompt, earlier.frames) != (setting.prompt, setting.frames):
        return 0
    return shared_tokens(earlier.aggregation, setting.aggregation, setting.frames, *sizes.grid)


def _count(setting: Setting) -> int:
    """Images that the vision tower sees of a video."""
    return image_count(setting.aggregation, setting.frames)


def _images(settings: Sequence[Setting], video_frames: int) -> tuple[int, list[int]]:
    """Frames that all settings together sample of a video; and images that those which tile make, each of its own."""
    plain = {s.frames for s in settings if not makes_images(s.aggregation)}
    tiled = {(s.frames, identity_key(s.aggregation)): _count(s) for s in settings if makes_images(s.aggregation)}
    # a run encodes all frames that it decoded, also those that only a tiled setting sampled
    counts = {s.frames for s in settings} if plain else set()
    total = max([video_frames, *counts])
    samples = [sample_indices(total, n) for n in counts]
    return (len(np.unique(np.concatenate(samples))) if samples else 0), list(tiled.values())
