"""The explorer's controls, and what follows them at once: the budget, then the frames."""

from __future__ import annotations

import threading
import time

from sfllava.explorer.cards import budget_data, message_of
from sfllava.explorer.controls import limits, question_of, setting_of, start_values
from sfllava.explorer.feature_cache import FeatureCache
from sfllava.explorer.selection import source_of, with_selection
from sfllava.explorer.session import Session
from sfllava.explorer.strip import Strip
from sfllava.explorer.videos import Videos
from sfllava.explorer.widget import ASKED, CONTROLS, ExplorerWidget
from sfllava.explorer.worker import Worker
from sfllava.models.base import ContextError, VideoLM
from sfllava.planning.budget import ContextBudget, context_budget
from sfllava.prompts import Prompt
from sfllava.runs.selection_source import SelectionSource
from sfllava.sampler.video import VideoError
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

_TYPING_SECONDS = 0.4  # frames are chosen for a question once nothing more is typed for so long


class FieldError(SfllavaError):
    """What is wrong with one field of the page.

    Args:
        field: the field that the message stands next to.
        text: the message.
    """

    def __init__(self, field: str, text: str) -> None:
        super().__init__(text)
        self.field = field


class ControlPanel:
    """A session and its controls. `widget` has them: `panel.widget.slow = 4` moves a slider.

    Args:
        model: a loaded model.
        setting: what the controls start with.
        question: what to start with.
        max_new_tokens: longest answer.
        memory_bytes: memory for frames, features and attention.
        source: what frames are chosen with.
    """

    def __init__(
        self, model: VideoLM, setting: Setting, question: str, max_new_tokens: int, memory_bytes: int,
        source: SelectionSource,
    ) -> None:  # fmt: skip
        self.session = Session(model, FeatureCache(model, memory_bytes))
        self.video = self._shown = ""
        self.error: BaseException | None = None
        self._started, self._source = setting, source
        self._latest, self._lock = 0, threading.RLock()
        values = start_values(setting, question, max_new_tokens, source)
        self.widget = ExplorerWidget(limits=limits(model, setting), **values)
        self.videos = Videos(self.widget)
        self.strip = Strip(self.session, self.widget, self.say)
        self._worker = Worker(
            lambda possible: setattr(self.widget, "busy", possible),
            lambda name: self.say("answer", f"{name} was stopped before it began"),
            self.failed,
        )
        # the options of one rule are not those of another
        self.widget.observe(lambda _: setattr(self.widget, "rule_options", ""), "selection")
        self.widget.observe(lambda _: self._setting_changed(), list(CONTROLS))
        self.widget.observe(lambda _: self._question_changed(), list(ASKED))
        self._setting_changed()

    # 1) What the controls say

    @property
    def setting(self) -> Setting:
        """The setting that the controls show. Raises SfllavaError where that is impossible."""
        return with_selection(self._uniform(), self.widget, self.source)

    @property
    def question(self) -> Question:
        """The question that the controls show."""
        return question_of(self.widget)

    @property
    def source(self) -> SelectionSource:
        """What frames are chosen with, according to the controls."""
        return source_of(self.widget, self._source)

    @property
    def busy(self) -> bool:
        """Whether the worker thread has anything to do."""
        return self._worker.busy

    def wait(self) -> None:
        """Wait until the worker thread has nothing to do."""
        self._worker.wait()

    # 2) Messages, each next to its field

    def say(self, field: str, text: str, wrong: bool = False) -> None:
        """Say something in one line next to a field; an empty text removes what was said."""
        self._put(field, {"text": " ".join(text.split()), "kind": "error" if wrong else "note"} if text else {})

    def failed(self, error: BaseException, field: str = "answer") -> None:
        """Show an error next to its field, which may be another than the given one."""
        self.error = error
        if isinstance(error, VideoError):
            field = "video"
        elif isinstance(error, ContextError):
            field = "setting"
        self._put(getattr(error, "field", field), message_of(error))

    def _put(self, field: str, message: dict[str, str]) -> None:
        with self._lock:
            others = {name: said for name, said in self.widget.messages.items() if name != field}
            self.widget.messages = others | ({field: message} if message else {})

    # 3) A control changes: the budget follows at once, the frames when the worker is free

    def budget(self) -> ContextBudget:
        """Count with the frames that the video has, once they are known; uniform ones where none can be chosen."""
        total = self.session.features.total(self.video) if self.video else None
        return context_budget(self._possible(), self.session.model, self.question, total=total)

    def _uniform(self) -> Setting:
        return setting_of(self.widget, self.session.model.info.grid, self._started)

    def _possible(self) -> Setting:
        """Return the setting, with uniform frames where its selection is impossible."""
        try:
            return self.setting
        except SfllavaError:
            return self._uniform()

    def _show_budget(self) -> bool:
        """Show the budget; return whether the setting is possible, at least with uniform frames."""
        with self._lock:  # the worker calls this too, and the last caller must have read the controls last
            try:
                data = budget_data(self.budget())
            except SfllavaError as error:
                self.widget.budget = {"problem": " ".join(str(error).split()), "field": self._field_of_problem()}
                return False
            try:
                _ = self.setting
            except SfllavaError as error:
                self.say("selection", str(error), wrong=True)
                data["blocked"] = True
            self.widget.budget = data
        return True

    def _field_of_problem(self) -> str:
        try:
            if self.widget.prompt:
                Prompt(self.widget.prompt, "prompt")
        except SfllavaError:
            return "prompt"
        return "setting"

    def _setting_changed(self, pause: float = 0) -> None:
        self._latest += 1
        self.say("selection", "")
        if self._show_budget() and self.video:
            latest, video, setting = self._latest, self.video, self._possible()
            question, source = self.question, self.source

            def show() -> None:
                if latest == self._latest:  # else the controls have changed since
                    time.sleep(pause)
                if latest == self._latest:
                    self._show_frames(video, setting, question, source)

            self._worker.enqueue(show)

    def _show_frames(self, video: str, setting: Setting, question: Question, source: SelectionSource) -> None:
        try:
            self.strip.show(video, setting, question, source)
        except VideoError as error:
            self.failed(error)
            if self.video == video:
                self._return_to_shown(video)
            return
        self._shown = video
        self.videos.remember(video)
        self._show_budget()  # now it is known how many frames the video has

    def _return_to_shown(self, failed: str) -> None:
        """Ask about the video that is still on the page, if there is one."""
        self.video = "" if self._shown == failed else self._shown
        if self.video:
            self._setting_changed()
        else:
            self.strip.clear()

    def _question_changed(self) -> None:
        if self._show_budget() and self._possible().question_aware:
            self._setting_changed(_TYPING_SECONDS)

    def open(self, path: str) -> None:
        """Show a video: a file, or a folder of frame images."""
        self.say("video", "" if path else "No video: give a path, upload one, or render the samples", wrong=True)
        if path:
            self.widget.path = self.video = path
            self._setting_changed()
