"""The strip of frames: what the current setting samples, or what it chooses for the current question."""

from __future__ import annotations

from typing import Any

from sfllava.explorer import pages
from sfllava.explorer.selection import SelectionChoice, describe
from sfllava.explorer.session import Session
from sfllava.explorer.views import Views, show_figure
from sfllava.plots.frames import show_frames
from sfllava.runs.selection_source import SelectionSource
from sfllava.runs.video_choice import ChosenFrames
from sfllava.sampler.video import VideoError
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError


class Strip:
    """Shows the frames of a video, and for a selection the scores that they were chosen by.

    Attributes:
        figure: the plotly figure; None before the first video.
        chosen: the frames that were chosen for the question; None where they are those of the frame rule.
    """

    def __init__(self, session: Session, views: Views, selections: SelectionChoice) -> None:
        self._session, self._views, self._selections = session, views, selections
        self.figure: Any = None
        self.chosen: ChosenFrames | None = None

    def show(self, path: str, setting: Setting, question: Question, source: SelectionSource) -> None:
        """Show the frames of a video at a setting, for a question."""
        self.chosen = self._choose(path, setting, question, source) if setting.question_aware else None
        shown = self.chosen.setting if self.chosen else setting
        video, info = self._session.video(path, shown.sample), self._session.model.info
        self.figure = show_frames(video, shown.for_model(info), info.grid, self.chosen)
        show_figure(self._views.strip, self.figure)
        text = f"{pages.name_of_video(video.path)}: {len(video.frames)} of {video.total} frames"
        self._views.status.value = pages.note_page(text)

    def _choose(self, path: str, setting: Setting, question: Question, source: SelectionSource) -> ChosenFrames | None:
        """Return the frames for a question; None where there are none, and then the controls say why."""
        if not question.text:
            self._selections.say("frames are chosen once there is a question; until then they are uniform")
            return None
        try:
            found = self._session.choose(path, setting, question, source)
        except VideoError:
            raise
        except SfllavaError as error:
            self._selections.say(str(error), wrong=True)
            return None
        self._selections.say(describe(setting.frame_selection, found.selected["frames"], len(found.candidates)))
        return found
