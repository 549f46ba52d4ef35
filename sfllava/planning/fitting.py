"""The memory that a setting needs, and what would fit where it does not."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace

from sfllava.files import format_bytes
from sfllava.models.operations import QUANTIZATIONS
from sfllava.models.sizes import Sizes
from sfllava.planning import stages
from sfllava.planning.roofline import Roofline
from sfllava.planning.workload import PlannedQuestions, with_frames


@dataclass(frozen=True)
class Memory:
    """Bytes by what they hold, at their peak."""

    weights: int
    kv: int
    """Keys and values of the prefixes that are decoded together, with room for questions and answers"""
    patches: int
    """Patch grids of their videos, and one more while its batches are concatenated"""
    work: int
    """Activations of a batch of images, or of a forward pass of the language model"""

    @property
    def peak(self) -> int:
        return self.weights + self.kv + self.patches + self.work


@dataclass(frozen=True)
class BatchSizes:
    """How much a run does at a time."""

    group_questions: int
    """Videos are answered together up to so many questions; with 1, each video on its own"""
    questions: int
    """Questions of one video at a time"""
    images: int
    """Images in a batch of the vision tower"""


def image_batch(device: Roofline) -> int:
    """Return how many images `VideoLM.encode` puts in a batch."""
    return 64 if device.kind == "cuda" else 8


def estimate_memory(
    questions: PlannedQuestions, sizes: Sizes, device: Roofline, images: int, batch: BatchSizes
) -> Memory:
    """Return the most memory that a setting needs; `images` is how many images of a video have their patches kept."""
    shape, itemsize, answer_room = sizes.shape, device.itemsize, questions.workload.answer_room
    groups = questions.units.groups(batch.group_questions)
    kv, work = 0, stages.encode_bytes(shape, itemsize, min(batch.images, images))
    for counts in questions.batches(groups):
        at_a_time = questions.questions_at_a_time(counts, batch.questions)
        positions = questions.prefix_tokens + at_a_time * (questions.suffix + answer_room)
        kv = max(kv, shape.kv_bytes(len(counts) * positions, itemsize))
        rows = max(questions.prefix_tokens, len(counts) * at_a_time * questions.suffix)
        work = max(work, stages.forward_bytes(shape, itemsize, rows, len(counts) * at_a_time))
    if questions.alone:
        kv = max(kv, shape.kv_bytes(questions.prompt_tokens + answer_room, itemsize))
        work = max(work, stages.forward_bytes(shape, itemsize, questions.prompt_tokens, 1))
    widest = max(len({questions.owners[i] for i in group}) for group in groups)
    patches = (widest + 1) * images * math.prod(shape.grid) * shape.language.width * itemsize
    return Memory(shape.weight_bytes(itemsize), kv, patches, work)


def batch_sizes(questions: PlannedQuestions, device: Roofline, group_questions: int) -> list[BatchSizes]:
    """Return the batch sizes that a run tries: the largest, then fewer videos, then fewer questions of one video."""
    per_video, images = max(1, *questions.sharing), image_batch(device)
    found = [BatchSizes(group_questions, per_video, images)]
    while group_questions > 1:
        group_questions //= 2
        found.append(BatchSizes(group_questions, per_video, images))
    while per_video > 1 or images > 1:
        per_video, images = max(1, per_video // 2), max(1, images // 2)
        found.append(BatchSizes(1, per_video, images))
    return found


def largest_fitting(
    questions: PlannedQuestions, sizes: Sizes, device: Roofline, images: int, group_questions: int
) -> BatchSizes | None:
    """Return the first batch sizes that fit in the device's free memory, or None."""
    for batch in batch_sizes(questions, device, group_questions):
        if estimate_memory(questions, sizes, device, images, batch).peak <= device.free_bytes:
            return batch
    return None


def advice(questions: PlannedQuestions, sizes: Sizes, device: Roofline, images: int) -> str:
    """Say what would fit, for a setting that does not."""
    frames = questions.setting.frames
    if not questions.answered:
        fitting = _largest(frames, lambda n: with_frames(questions, sizes, n).answered > 0)
        return (
            f"{questions.visual_tokens:,} visual and {questions.shortest:,} text tokens do not fit the context of "
            f"{sizes.context:,}; " + (f"at most {fitting} frames do" if fitting else "at no number of frames")
        )
    least = BatchSizes(1, 1, 1)

    def fits(n: int) -> bool:
        fewer = with_frames(questions, sizes, n)
        return estimate_memory(fewer, sizes, device, min(images, n), least).peak <= device.free_bytes

    need = estimate_memory(questions, sizes, device, images, least)
    options = []
    if fitting := _largest(frames, fits):
        options.append(f"at most {fitting} frames")
    if device.dtype == "float32":
        half = estimate_memory(questions, sizes, replace(device, dtype="float16"), images, least).peak
        if half <= device.free_bytes:
            options.append(f"float16 ({format_bytes(half)})")
    for quantize in reversed(QUANTIZATIONS):  # nearest to full precision first
        smaller = replace(sizes, shape=replace(sizes.shape, quantize=quantize))
        peak = estimate_memory(questions, smaller, device, images, least).peak
        if peak <= min(device.free_bytes, need.peak - 1):
            options.append(f"--quantize {quantize} ({format_bytes(peak)})")
    spread, each = need.weights + need.kv, need.patches + need.work
    if device.kind == "cuda" and each < device.free_bytes:
        options.append(f"{math.ceil(spread / (device.free_bytes - each))} such GPUs (--device-map auto)")
    return (
        f"{format_bytes(need.peak)} even one question at a time, and {format_bytes(device.free_bytes)} are free; "
        f"what fits: {', or '.join(options) or 'no number of frames'}"
    )


def sharing_frames(questions: PlannedQuestions, sizes: Sizes) -> int:
    """Return the most frames with which all questions share a prefix; 0 for none."""

    def all_share(frames: int) -> bool:
        fewer = with_frames(questions, sizes, frames)
        return not fewer.alone and not fewer.failing

    return _largest(questions.setting.frames, all_share)


def _largest(frames: int, fits: Callable[[int], bool]) -> int:
    """Return the largest number below `frames` that fits, where fewer frames need less; 0 for none."""
    low, high = 0, frames
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low
