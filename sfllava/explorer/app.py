"""The explorer: controls above, views below; a worker thread does all computation."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import ipywidgets as w
import pandas as pd

from sfllava.explorer import pages
from sfllava.explorer.controls import QuestionChoice, SettingChoice, VideoChoice
from sfllava.explorer.feature_cache import FeatureCache
from sfllava.explorer.selection import SelectionChoice
from sfllava.explorer.session import Reply, Session, csv
from sfllava.explorer.state import Request, state_of
from sfllava.explorer.strip import Strip
from sfllava.explorer.views import Views, parts_to_leave_out
from sfllava.explorer.worker import Going, Work, Worker
from sfllava.models.base import VideoLM
from sfllava.planning.budget import ContextBudget, context_budget
from sfllava.plots.budget import draw_budget
from sfllava.runs.selection_source import SelectionSource
from sfllava.settings import Setting
from sfllava.types import SfllavaError

_REDRAW_SECONDS = 0.05  # between two updates of a streamed answer: more would only queue up
_TYPING_SECONDS = 0.4  # frames are chosen for a question once nothing more is typed for so long
MOST_COMPARED = 4


class Explorer:
    """A widget that is also data: `state`, `answers` (a DataFrame), `figures` (by plotly) and `session`."""

    def __init__(
        self, model: VideoLM, video: str, question: str, setting: Setting, max_new_tokens: int, memory_bytes: int,
        source: SelectionSource,
    ) -> None:  # fmt: skip
        self.session = Session(model, FeatureCache(model, memory_bytes))
        self.compared: list[Setting] = []
        self.video = ""
        self._latest, self._lock = 0, threading.RLock()
        self.error: BaseException | None = None
        self.views = Views()
        self.videos = VideoChoice(self._video_chosen, self._show_error)
        self.settings = SettingChoice(model.info.grid, setting, self._setting_changed)
        self.selections = SelectionChoice(setting, source, self._setting_changed)
        self.questions = QuestionChoice(question, max_new_tokens, self._question_changed)
        self.strip = Strip(self.session, self.views, self.selections)
        self.box = self.views.box(self.videos.box, w.VBox([self.settings.box, self.selections.box]), self.questions.box)
        self._worker = Worker(
            lambda possible: setattr(self.views.stop, "disabled", not possible),
            lambda name: self._show_note(f"{name} was stopped before it began"),
            self._show_error,
        )
        self._connect()
        self.set_compared([])
        self._show_history()
        self._setting_changed()
        if video:
            self.videos.choose(video)

    # 1) What it shows, as data

    @property
    def setting(self) -> Setting:
        """The setting that the controls show. Raises SfllavaError where that is impossible."""
        return self.selections.apply(self.settings.setting)

    @property
    def answers(self) -> pd.DataFrame:
        """One row per answer."""
        return self.session.table

    @property
    def state(self) -> dict[str, Any]:
        """Video, setting, question, budget and what is in progress, as plain values."""
        return state_of(self)

    @property
    def figures(self) -> dict[str, Any]:
        """The plotly figures shown: budget, frames, attention."""
        drawn = {"frames": self.strip.figure, "attention": self.views.attention.figure}
        return {"budget": draw_budget(self.budget())} | {k: v for k, v in drawn.items() if v is not None}

    @property
    def busy(self) -> bool:
        """Whether the worker thread has anything to do."""
        return self._worker.busy

    def wait(self) -> None:
        """Wait until the worker thread has nothing to do."""
        self._worker.wait()

    def set_compared(self, settings: Sequence[Setting]) -> None:
        """Choose the settings of the comparison."""
        self.compared = list(settings)
        listed = "; ".join(setting.name for setting in settings) or "none yet: set the controls, then add the setting"
        self.views.chosen.value = pages.note_page(f"Settings to compare (2 to {MOST_COMPARED}): {listed}")
        self.views.comparison.value = ""

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.box._repr_mimebundle_(**options)

    def _connect(self) -> None:
        views, attention = self.views, self.views.attention
        for button, read in (
            (views.ask, self._ask), (views.compare, self._compare),
            (attention.look, self._look), (attention.leave, self._leave_out),
        ):  # fmt: skip
            button.on_click(lambda button, read=read: self._start(button, read))
        views.stop.on_click(lambda _: self._worker.stop())
        views.add.on_click(lambda _: self._add())
        views.clear.on_click(lambda _: self.set_compared([]))
        views.reply.observe(lambda _: self._reply_chosen(), "value")

    # 2) A control changes: the budget follows at once, the frames when the worker is free

    def budget(self) -> ContextBudget:
        """Count with the frames that the video has, once they are known; uniform ones where none can be chosen."""
        total = self.session.features.total(self.video) if self.video else None
        return context_budget(self._possible(), self.session.model, self.questions.question, total=total)

    def _possible(self) -> Setting:
        """Return the setting, with uniform frames where its selection is impossible."""
        try:
            return self.setting
        except SfllavaError:
            return self.settings.setting

    def _show_budget(self) -> bool:
        """Show the budget; return whether the setting is possible, at least with uniform frames."""
        with self._lock:  # the worker calls this too, and the last caller must have read the controls last
            try:
                budget = self.budget()
                self.views.ask.disabled = budget.over  # first: while the budget is red, the button must be disabled
                self.views.budget.value = pages.budget_page(budget)
            except SfllavaError as error:
                self.views.budget.value = pages.note_page(str(error), over=True)
                self.views.ask.disabled = True
                return False
            try:
                _ = self.setting
            except SfllavaError as error:
                self.selections.say(str(error), wrong=True)
                self.views.ask.disabled = True
        return True

    def _setting_changed(self, pause: float = 0) -> None:
        self._latest += 1
        self.selections.say("")
        if self._show_budget() and self.video:
            latest, video, setting = self._latest, self.video, self._possible()
            question, source = self.questions.question, self.selections.source

            def show() -> None:
                if latest == self._latest:  # else the controls have changed since
                    time.sleep(pause)
                if latest == self._latest:
                    self.strip.show(video, setting, question, source)
                    self._show_budget()  # now it is known how many frames the video has

            self._worker.enqueue(show)

    def _question_changed(self) -> None:
        if self._show_budget() and self._possible().question_aware:
            self._setting_changed(_TYPING_SECONDS)

    def _video_chosen(self, path: str) -> None:
        self.video = path
        self._setting_changed()

    # 3) A click: read the controls at once, and compute when the worker is free

    def _start(self, button: w.Button, read: Callable[[], Work]) -> None:
        self.views.error.value = ""
        self.error = None
        try:
            with self._lock:
                work = read()
        except Exception as error:
            self._show_error(error)
            return
        self._worker.start(button.description, work)

    def _show_note(self, text: str) -> None:
        self.views.error.value = pages.note_page(text)

    def _show_error(self, error: BaseException) -> None:
        self.error = error
        self.views.error.value = pages.error_page(error)

    def _request(self, setting: Setting) -> Request:
        question, longest = self.questions.question, self.questions.longest.value
        request = Request(self.video, setting, question, longest, self.selections.source)
        if not request.video:
            raise SfllavaError("no video: give a path, upload one, or render the samples")
        if not request.question.text:
            raise SfllavaError("no question: write one first")
        return request

    def _answer(self, request: Request, going: Going) -> Reply:
        question, last = request.question.text, 0.0
        self.views.answer.value = pages.answer_page(question, "", "decoding and encoding new frames ...")
        asked = (request.video, request.setting, request.question, request.max_new_tokens, going, request.source)
        for text in self.session.ask(*asked):
            if time.perf_counter() - last > _REDRAW_SECONDS:
                last = time.perf_counter()
                self.views.answer.value = pages.answer_page(question, text, "...")
        reply = self.session.replies[-1]
        self.views.answer.value = pages.answer_page(question, reply.text, pages.seconds_line(reply))
        self._show_history()
        return reply

    def _ask(self) -> Work:
        self.views.view.value = "Answer"
        request = self._request(self.setting)

        return lambda going: self._answer(request, going)

    def _add(self) -> None:
        try:
            if len(self.compared) == MOST_COMPARED:
                raise SfllavaError("four settings are compared at most: clear the comparison first")
            if self.setting.name in {setting.name for setting in self.compared}:
                raise SfllavaError(f"{self.setting.name} is in the comparison already: move a control first")
            self.set_compared([*self.compared, self.setting])
        except Exception as error:
            self._show_error(error)

    def _compare(self) -> Work:
        if len(self.compared) < 2:
            raise SfllavaError("two to four settings are compared: move a control, and add the setting")
        requests = [self._request(setting) for setting in self.compared]

        def work(going: Going) -> None:
            replies: list[Reply] = []
            for request in requests:
                if not going():
                    return
                replies.append(self._answer(request, going))
                self.views.comparison.value = pages.comparison_page(replies)

        return work

    def _look(self) -> Work:
        reply = self._chosen()

        def work(_: Going) -> None:
            if reply is self._chosen() and self.session.kept_attribution(reply) is None:
                self.views.attention.effects.value = pages.note_page("reading the answer a second time ...")
            self.session.attribute(reply)
            self._show_attribution(reply)
            if reply is not self._chosen():
                number = self.session.replies.index(reply) + 1
                self._show_note(f"where answer {number} looked is computed: choose that answer to see it")

        return work

    def _show_attribution(self, reply: Reply) -> None:
        """Show where the model looked, unless another answer has been chosen meanwhile."""
        attribution = self.session.kept_attribution(reply)
        if attribution is not None and reply is self._chosen():
            self.views.attention.show(attribution)

    def _leave_out(self) -> Work:
        reply, choice = self._chosen(), self.views.attention.part.value

        def work(going: Going) -> None:
            attribution = self.session.attribute(reply)
            for _ in self.session.leave_out(reply, parts_to_leave_out(attribution, choice), going):
                if reply is self._chosen():
                    self.views.attention.effects.value = pages.effects_page(attribution)

        return work

    # 4) The answers so far

    def _chosen(self) -> Reply:
        if not self.session.replies:
            raise SfllavaError("no answer yet: ask first")
        return self.session.replies[self.views.reply.value]

    def _show_history(self) -> None:
        replies = self.session.replies
        self.views.history.value = pages.history_page(replies, csv(self.session.table) if replies else "")
        with self._lock:  # setting the options chooses the first answer for a moment, then the last
            names = [(f"{i}: {r.question.text[:60]} - {r.text[:40]}", i - 1) for i, r in enumerate(replies, 1)]
            if replies:
                self.views.reply.options, self.views.reply.value = names, len(replies) - 1

    def _reply_chosen(self) -> None:
        if self.session.replies and self.views.reply.value is not None:
            reply = self._chosen()
            self.views.cell.value = self.session.cell(reply)
            self.views.attention.clear()
            if self.session.kept_attribution(reply) is not None:
                self._worker.enqueue(lambda: self._show_attribution(reply))
