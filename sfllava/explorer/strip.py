"""The strip of frames: what the current setting samples, or what it chooses for the current question."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from sfllava.aggregators.base import detailed_frames
from sfllava.explorer.selection import describe
from sfllava.explorer.session import Session
from sfllava.explorer.videos import name_of_video
from sfllava.explorer.widget import ExplorerWidget
from sfllava.plots.canvas import data_uri
from sfllava.plots.frames import cells_of, frame_seconds, frames_of, seconds_of, sources_of
from sfllava.runs.selection_source import SelectionSource
from sfllava.runs.video_choice import ChosenFrames
from sfllava.sampler.video import Video, VideoError
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

Say = Callable[..., None]
_SMALL, _LARGE = 96, 448  # pixels of the longer side: in the strip, and alone


class Strip:
    """Shows the frames of a video, and for a selection the scores that they were chosen by.

    Attributes:
        video: the sampled frames; None before the first video.
        setting: what they were sampled with.
        chosen: the frames that were chosen for the question; None where they are those of the frame rule.
    """

    def __init__(self, session: Session, widget: ExplorerWidget, say: Say) -> None:
        self._session, self._face, self._say = session, widget, say
        self.video: Video | None = None
        self.setting: Setting | None = None
        self.chosen: ChosenFrames | None = None

    def show(self, path: str, setting: Setting, question: Question, source: SelectionSource) -> None:
        """Show the frames of a video at a setting, for a question."""
        chosen = self._choose(path, setting, question, source) if setting.question_aware else None
        shown = chosen.setting if chosen else setting
        video, info = self._session.video(path, shown.sample), self._session.model.info
        self.video, self.setting, self.chosen = video, shown.for_model(info), chosen
        pictures = pictures_of(video)
        with self._face.hold_sync():  # the browser has the pictures when it draws the strip
            self._face.pictures = pictures
            self._face.strip = strip_data(video, self.setting, info.grid, chosen)

    def clear(self) -> None:
        """Show no video."""
        self.video = self.setting = self.chosen = None
        self._face.strip, self._face.pictures = {}, {}

    def _choose(self, path: str, setting: Setting, question: Question, source: SelectionSource) -> ChosenFrames | None:
        """Return the frames for a question; None where there are none, and then the controls say why."""
        if not question.text:
            self._say("selection", "frames are chosen once there is a question; until then they are uniform")
            return None
        try:
            found = self._session.choose(path, setting, question, source)
        except VideoError:
            raise
        except SfllavaError as error:
            self._say("selection", str(error), wrong=True)
            return None
        self._say("selection", describe(setting.frame_selection, found.selected["frames"], len(found.candidates)))
        return found


def strip_data(
    video: Video, setting: Setting, grid: tuple[int, int], chosen: ChosenFrames | None = None
) -> dict[str, Any]:
    """Return frames with their times, the borders of the tokens of each part, and scores, as plain values."""
    sources, note = sources_of(video, setting, grid)
    slow = set(detailed_frames(setting.aggregation, len(video.frames)))
    clock = not np.isnan(video.pts_seconds).any()
    times = frame_seconds(video)
    parts = []
    for source in sources:
        frames = frames_of(source)
        parts.append(
            {
                "name": source.name, "tokens": len(source.frames), "frames": frames,
                "each": int((source.frames[:, frames[0]] > 0).sum()), "lines": cells_of(source, frames[0]),
            }
        )  # fmt: skip
    frames = [
        {"index": int(index), "at": round(float(at), 4), "slow": i in slow}
        for i, (index, at) in enumerate(zip(video.indices, times))
    ]
    data = {
        "video": name_of_video(video.path), "total": video.total, "clock": clock, "frames": frames, "parts": parts,
        "grid": list(grid), "note": note, "size": list(video.size), "duration": _duration(video),
    }  # fmt: skip
    if chosen is not None and len(chosen.candidates):
        data["scores"] = _scores(video, chosen)
    return data


def pictures_of(video: Video, side: int = _SMALL) -> dict[str, str]:
    """Return a small picture of each frame, by its index in the source."""
    return {str(int(index)): data_uri(frame, side) for index, frame in zip(video.indices, video.frames)}


def large_picture(video: Video, position: int) -> str:
    """Return a frame as large as the model sees it."""
    return data_uri(video.frames[position], _LARGE)


def _duration(video: Video) -> float | None:
    return round(video.total / video.fps, 3) if video.fps else None


def _scores(video: Video, chosen: ChosenFrames) -> dict[str, Any]:
    taken = set(chosen.selected["frames"])
    return {
        "at": [round(float(at), 4) for at in seconds_of(chosen.candidates, video)],
        "score": [round(float(score), 6) for score in chosen.scores],
        "index": [int(i) for i in chosen.candidates],
        "chosen": [place for place, i in enumerate(chosen.candidates.tolist()) if i in taken],
        "for": chosen.selected["for"],
    }
