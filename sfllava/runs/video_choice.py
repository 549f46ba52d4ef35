"""Frames chosen for questions about one video, outside of a run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sfllava.files import Row
from sfllava.runs.frame_choice import FrameChooser
from sfllava.runs.jobs import Job
from sfllava.runs.selection_source import SelectionSource
from sfllava.sampler.images import FrameSize
from sfllava.sampler.sampling import AnySample, Sample
from sfllava.sampler.video import Video
from sfllava.settings import Setting
from sfllava.types import Clip, Question

Decode = Callable[[Sequence[AnySample], FrameSize], Video]


@dataclass(frozen=True)
class ChosenFrames:
    """The frames that were chosen for one question.

    Attributes:
        setting: the setting with these frames.
        selected: what the rows of a run say about them: `frames` (indices in the video), the pathway that they are
            `for`, their `scores`, the number of `candidates`, the `scorer`'s hash and the `text` that was scored.
        candidates: (C) int64, indices in the video of the scored frames; empty for a selection without scores.
        scores: (C) float64, their scores.
    """

    setting: Setting
    selected: Row
    candidates: np.ndarray
    scores: np.ndarray

    @property
    def indices(self) -> tuple[int, ...]:
        """The indices of all frames of the setting, in ascending order."""
        assert self.setting.chosen is not None
        return self.setting.chosen.indices


def named_question(question: Question, path: str | Path) -> Question:
    """Return a question with the name of its video, by which lists of frames name it: by default that of the file."""
    return question if question.video else replace(question, video=Path(path).name)


def prepare_source(
    source: SelectionSource, setting: Setting, questions: Sequence[Question], path: str | Path
) -> SelectionSource:
    """Return what the frames of a question-aware setting are chosen with, checked and read.

    Args:
        source: what was given.
        setting: a setting that chooses frames for each question.
        questions: the questions, in the order of a list of frames that names none.
        path: the video.

    Raises:
        SfllavaError: something is missing, or is of another kind.
    """
    asked = [named_question(question, path) for question in questions]
    prepared = source.prepared([setting], asked, asked)
    assert prepared is not None
    return prepared


def with_seconds(selected: Row, seconds: Mapping[int, float]) -> Row:
    """Return what is said about chosen frames, with the second of each after its index.

    Args:
        selected: as in `ChosenFrames`.
        seconds: of the frames, by their indices in the video; NaN where they have none.
    """
    times = [round(seconds[i], 3) if seconds[i] == seconds[i] else None for i in selected["frames"]]
    return {"frames": selected["frames"], "seconds": times} | selected


def choose_frames(
    chooser: FrameChooser,
    path: str | Path,
    setting: Setting,
    questions: Sequence[Question],
    decode: Decode,
    clip: Clip | None = None,
) -> list[ChosenFrames]:
    """Choose the frames of questions about one video.

    Args:
        chooser: chooses them.
        path: the video.
        setting: a setting that chooses frames for each question.
        questions: the questions.
        decode: (samples, size) -> the frames of the video; called only where the scores are not on disk.
        clip: the part of the video that the questions are about.

    Returns:
        The frames of each question, in the order of the questions.

    Raises:
        VideoError: the video cannot be read.
        SfllavaError: no frames can be chosen for a question.
    """
    asked = [named_question(question, path) for question in questions]
    job = Job(str(path), str(path), "", [(setting, asked)], clip)
    try:
        needed = chooser.needed(job)
    except OSError:  # the video cannot be read, and decoding it says why
        needed = [Sample(1)], (1, 1)
    scene = chooser.scene(job, needed and decode(*needed))
    found = []
    for question in asked:
        bound, selected = chooser.bind(setting, question, scene)
        scores = chooser.scores(setting, question, scene)
        indices, values = np.array(list(scores), np.int64), np.array(list(scores.values()), np.float64)
        found.append(ChosenFrames(bound, selected, indices, values))
    return found
