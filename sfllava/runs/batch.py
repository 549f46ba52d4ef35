"""Batches of a worker: decoded and encoded videos, and their questions at one setting."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from sfllava.aggregators.base import identity_key, token_count
from sfllava.aggregators.native import NativeFrames
from sfllava.aggregators.tower import TowerFrames, tower_needs, with_outputs
from sfllava.benchmarks.subtitles import Subtitle, SubtitleError, lines_at, read_subtitles
from sfllava.files import Row
from sfllava.runs.failures import reason_of
from sfllava.runs.jobs import GenerationOptions, Job, make_row, selected_key
from sfllava.sampler.video import Video
from sfllava.settings import Setting
from sfllava.types import Answer, Question, SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM


_FRAMES = "frames"  # the key of the patch grid of the frames themselves


class EncodedVideo:
    """The decoded video of a job and its patch grids; each frame is encoded once for all settings.

    Attributes:
        job: The job.
        video: The decoded video.
        remaining: The settings that are not answered yet, with their questions.
        postponed: Whether the current group is answered without it.
        subtitle_errors: Why files of subtitles cannot be used, by their names.
        alone: Whether it must be answered alone, because it failed in a group for a reason other than memory.
        grids: The patch grids, which the parts of a video have in common.
    """

    def __init__(self, model: VideoLM, job: Job, video: Video) -> None:
        self.job, self.video, self.remaining = job, video, list(job.by_setting)
        self.postponed = self.alone = self._by_setting = False
        self._model = model
        self.grids: dict[object, Any] = {}
        self._needs = tower_needs(*(setting.aggregation for setting, _ in job.by_setting))
        self._subtitles: dict[str, list[Subtitle]] = {}
        self.subtitle_errors: dict[str, str] = {}

    @property
    def max_questions(self) -> int:
        """The number of questions at the remaining setting with the most questions."""
        return max((len(questions) for _, questions in self.remaining), default=0)

    def forget(self) -> None:
        """Drop the patch grids to free their memory; `grid` encodes them again."""
        self.grids.clear()

    def encode_by_setting(self) -> None:
        """Encode only the frames of one setting at a time from now on, which takes less memory."""
        self.forget()
        self.grids, self._by_setting = {}, True

    def part(self, job: Job) -> EncodedVideo:
        """Return the same video for another job about it: they share frames, patch grids and subtitles."""
        other = EncodedVideo(self._model, job, self.video)
        other.grids, other._needs = self.grids, self._needs
        other._subtitles, other.subtitle_errors = self._subtitles, self.subtitle_errors
        return other

    def with_subtitles(self, questions: Sequence[Question], seconds: np.ndarray) -> list[Question]:
        """Return the questions with the subtitles that are visible at the sampled frames.

        Args:
            questions: The questions.
            seconds: (T) The time of each sampled frame, in seconds.
        """
        if not self.job.subtitles:
            return list(questions)
        shown = []
        for question in questions:
            subtitles = self._read_subtitles(question.subtitle_file) if question.subtitle_file else []
            shown.append(replace(question, subtitles=lines_at(subtitles, seconds, question.subtitle_start)))
        return shown

    def _read_subtitles(self, name: str) -> list[Subtitle]:
        """Return the subtitles of a file, which is read once; none if that is impossible, and then note why."""
        if name not in self._subtitles:
            path, reason = self.job.subtitles[name]
            self._subtitles[name] = []
            try:
                if np.isnan(self.video.pts_seconds).all():
                    reason = f"{self.job.video}: has no times, by which subtitles are chosen"
                elif path is not None:
                    self._subtitles[name] = read_subtitles(Path(path))
            except SubtitleError as error:
                reason = reason_of(error)
            if reason:
                self.subtitle_errors[name] = reason
        return self._subtitles[name]

    def grid(self, setting: Setting) -> Any:
        """Return the patch grid (T h w D) that the setting's aggregator takes."""
        positions = self.video.positions(setting.sample)
        frames = self.video.frames[positions]
        images = setting.images(frames)
        if images is frames or isinstance(images, TowerFrames):
            if self._by_setting:
                if (own := (_FRAMES, setting.sample)) not in self.grids:
                    self.grids = {own: self._model.encode(with_outputs(frames, self._needs))}
                return self.grids[own]
            if _FRAMES not in self.grids:
                self.grids[_FRAMES] = self._model.encode(with_outputs(self.video.frames, self._needs))
            return self.grids[_FRAMES][positions]
        frame_by_frame = isinstance(images, NativeFrames) and images.per_image == 1
        key = (None if frame_by_frame else setting.sample, identity_key(setting.aggregation))
        if key not in self.grids:
            self.grids[key] = self._model.encode(NativeFrames(self.video.frames) if frame_by_frame else images)
        return self.grids[key][positions] if frame_by_frame else self.grids[key]


class BatchItem:
    """One video of a batch at one setting.

    Attributes:
        encoded: The video.
        setting: The setting.
        questions: The questions that fit the context together with the visual tokens.
        failed_rows: The rows of those that do not fit.
        tokens: The visual tokens (N D).
        seconds: Time to encode and aggregate, in seconds per question.
    """

    def __init__(self, encoded: EncodedVideo, model: VideoLM, setting: Setting, options: GenerationOptions) -> None:
        self._options, self._info = options, model.info
        remaining = [] if encoded.postponed else encoded.remaining
        # a video's own setting of this name has the frames that were chosen for its questions
        own = next(((s, questions) for s, questions in remaining if s.name == setting.name), None)
        setting, asked = own or (setting, [])
        self.encoded, self.setting, self.failed_rows = encoded, setting, []
        self.tokens, self.questions, self.seconds = torch.zeros(0, 1), [], 0.0
        if not asked:
            return
        seconds = encoded.video.pts_seconds[encoded.video.positions(setting.sample)]
        # 1) questions without enough room for the visual tokens fail before any token is computed
        visual_tokens = token_count(setting.aggregation, len(seconds), *model.info.grid)
        self.questions = self._fitting(encoded.with_subtitles(asked, seconds), visual_tokens)
        # 2) encode and aggregate; the tokens include the text that some families put between frames
        start = time.perf_counter()
        self.tokens = model.tokens(setting, encoded.grid(setting), seconds) if self.questions else torch.zeros(0, 1)
        self.seconds = round((time.perf_counter() - start) / max(1, len(self.questions)), 6)
        self.questions = self._fitting(self.questions, len(self.tokens))

    def _fitting(self, questions: Sequence[Question], visual_tokens: int) -> list[Question]:
        """Return the questions that fit the context; the others get rows with the reason."""
        fitting = []
        for question in questions:
            try:
                prompt = self._options.prompt(self.setting.name, question)
                text_tokens = sum(map(len, self._info.prompt_ids(question, prompt)))
                self._info.check_context(visual_tokens, text_tokens, question.text)
                fitting.append(question)
            except SfllavaError as error:
                self.failed_rows.append(make_row(question, self.setting.name, error=str(error)))
        return fitting

    def row(self, answer: Answer, reused_tokens: int, seconds: float) -> Row:
        """Return the row of an answer.

        Args:
            answer: The answer to one of the questions.
            reused_tokens: Number of visual tokens whose keys and values an earlier setting, or other questions about
                the same video, had computed.
            seconds: Time to answer, in seconds per question.
        """
        if answer.error:
            return make_row(answer.question, self.setting.name, error=answer.error)
        video, error = self.encoded.video, self.encoded.subtitle_errors.get(answer.question.subtitle_file)
        return make_row(
            answer.question,
            self.setting.name,
            prediction=answer.text,
            token_ids=list(answer.token_ids),
            visual_tokens=answer.visual_tokens,
            reused_tokens=reused_tokens,
            frames=len(video.positions(self.setting.sample)),
            seconds={"encode": self.seconds, "answer": seconds},
            **self._selected(answer.question),
            **self._info.engine.row(),
            **({"letters": answer.letters} if answer.letters else {}),
            **({"damage": video.damage} if video.damage else {}),
            **({"subtitles": answer.question.subtitles.count("\n") + 1} if answer.question.subtitles else {}),
            **({"subtitle_error": error} if error else {}),
        )

    def _selected(self, question: Question) -> Row:
        """Return what the row of a question says about the frames that were chosen for it; empty where none were."""
        found = self.encoded.job.selected.get(selected_key(self.setting.name, question))
        return {"selected": found} if found else {}
