"""The explorer: asks, compares and looks in a worker thread, and is data too."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from sfllava.explorer.attention import attention_data, effects_data, heat_data, parts_to_leave_out
from sfllava.explorer.cards import card_of, chips_of, comparison_of
from sfllava.explorer.clicks import connect
from sfllava.explorer.control_panel import ControlPanel, FieldError
from sfllava.explorer.session import Reply
from sfllava.explorer.snapshot import snapshot_page
from sfllava.explorer.state import Request, state_of
from sfllava.explorer.worker import Going, Work
from sfllava.files import write_file
from sfllava.models.base import VideoLM
from sfllava.plots.attribution import show_attention
from sfllava.plots.budget import draw_budget
from sfllava.plots.frames import show_frames
from sfllava.runs.selection_source import SelectionSource
from sfllava.settings import Setting
from sfllava.types import SfllavaError

_REDRAW_SECONDS = 0.05  # between two updates of a streamed answer: more would only queue up
MOST_COMPARED = 4


class Explorer(ControlPanel):
    """A widget that is also data: `state`, `answers` (a DataFrame), `figures` (by plotly) and `session`.

    Its methods are the buttons of the page; they return at once, and `wait` waits for what they started.
    """

    def __init__(
        self, model: VideoLM, video: str, question: str, setting: Setting, max_new_tokens: int, memory_bytes: int,
        source: SelectionSource,
    ) -> None:  # fmt: skip
        self.compared: list[Setting] = []
        super().__init__(model, setting, question, max_new_tokens, memory_bytes, source)
        self.widget.observe(lambda _: self._answer_chosen(), "answer")
        self.widget.observe(lambda _: self._show_heat(), "word")
        connect(self)
        if video:
            self.open(video)

    # 1) What it shows, as data

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
        """What is shown, as plotly figures: the budget; once there are any, the frames and the attention."""
        figures, strip = {"budget": draw_budget(self.budget())}, self.strip
        if strip.video is not None and strip.setting is not None:
            figures["frames"] = show_frames(strip.video, strip.setting, self.session.model.info.grid, strip.chosen)
        if (found := self.attribution()) is not None:
            figures["attention"] = show_attention(found, None if self.widget.word < 0 else self.widget.word)
        return figures

    def save_html(self, path: str | Path) -> Path:
        """Save what is shown as one page without links, scripts from elsewhere, or absolute paths.

        Args:
            path: the file to write.

        Returns:
            The file.
        """
        write_file(Path(path), self.snapshot().encode())
        return Path(path)

    def snapshot(self) -> str:
        """Return the page that `save_html` writes."""
        with self._lock:
            return snapshot_page(self.widget, self.strip.video, self.attribution())

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.widget._repr_mimebundle_(**options)

    # 2) What the user does: read the controls at once, and compute when the worker is free

    def ask(self) -> None:
        """Answer the question with the setting."""
        self.widget.view = "Answers"
        self._begin("Ask", "answer", self._ask)

    def compare(self) -> None:
        """Answer the question with each setting of the comparison."""
        self._begin("Compare", "compare", self._compare)

    def look(self) -> None:
        """Compute the attention of the chosen answer."""
        self._begin("Attention", "attention", self._look)

    def leave_out(self, part: str = "paths") -> None:
        """Measure how likely the chosen answer is without a part, each pathway ("paths") or each frame ("frames")."""
        self._begin("Leave out", "attention", lambda: self._leave_out(part))

    def stop(self) -> None:
        """Stop everything that was started so far."""
        self._worker.stop()

    def add(self) -> None:
        """Add the setting to the comparison."""
        self.say("compare", "")
        try:
            if len(self.compared) == MOST_COMPARED:
                raise SfllavaError("four settings are compared at most: remove one first")
            if self.setting.name in {setting.name for setting in self.compared}:
                raise SfllavaError(f"{self.setting.name} is in the comparison already: move a control first")
            self.set_compared([*self.compared, self.setting])
        except Exception as error:
            self.failed(error, "compare")

    def set_compared(self, settings: Sequence[Setting]) -> None:
        """Choose the settings of the comparison."""
        self.compared = list(settings)
        self.widget.compared = [{"name": setting.name, "chips": chips_of(setting)} for setting in settings]
        self.widget.comparison = []

    def _begin(self, name: str, field: str, read: Callable[[], Work]) -> None:
        self.error = None
        with self._lock:
            self.widget.messages = {name: said for name, said in self.widget.messages.items() if name == "selection"}
            try:
                work = read()
            except Exception as error:
                self.failed(error, field)
                return

        def guarded(going: Going) -> None:
            try:
                work(going)
            except Exception as error:
                self.failed(error, field)
            finally:
                self.widget.progress = {}

        self._worker.start(name, guarded)

    def _request(self, setting: Setting) -> Request:
        request = Request(self.video, setting, self.question, self.widget.max_new_tokens, self.source)
        if not request.video:
            raise FieldError("video", "No video: give a path, upload one, or render the samples")
        if not request.question.text:
            raise FieldError("question", "No question: write one first")
        return request

    def _answer(self, request: Request, going: Going) -> Reply:
        last, shown = 0.0, {"question": request.question.text, "chips": chips_of(request.setting)}
        self.widget.progress = {**shown, "text": "", "stage": "decoding and encoding frames"}
        asked = (request.video, request.setting, request.question, request.max_new_tokens, going, request.source)
        for text in self.session.ask(*asked):
            if time.perf_counter() - last > _REDRAW_SECONDS:
                last = time.perf_counter()
                self.widget.progress = {**shown, "text": text, "stage": "answering"}
        self._show_answers()
        return self.session.replies[-1]

    def _ask(self) -> Work:
        request = self._request(self.setting)
        return lambda going: self._answer(request, going)

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
                self.widget.comparison = comparison_of(replies, self._number(replies[0]))

        return work

    # 3) The answers so far, and the attention of the one that is chosen

    def chosen(self) -> Reply:
        """Return the answer that is chosen. Raises SfllavaError where there is none."""
        if not self.session.replies:
            raise SfllavaError("no answer yet: ask first")
        return self.session.replies[self.widget.answer]

    def _number(self, reply: Reply) -> int:
        return self.session.replies.index(reply) + 1

    def attribution(self) -> Any:
        """Return the attention of the chosen answer; None while it is not computed."""
        return self.session.kept_attribution(self.chosen()) if self.session.replies else None

    def _look(self) -> Work:
        reply = self.chosen()

        def work(_: Going) -> None:
            if reply is self.chosen() and self.session.kept_attribution(reply) is None:
                self.say("attention", "reading the answer a second time ...")
            self.session.attribute(reply)
            self.say("attention", "")
            self._show_attention(reply)
            if reply is not self.chosen():
                self.say("attention", f"the attention of answer {self._number(reply)} is computed: choose it to see it")

        return work

    def _show_attention(self, reply: Reply) -> None:
        """Show the attention of an answer, unless another answer has been chosen meanwhile."""
        found = self.session.kept_attribution(reply)
        if found is None or reply is not self.chosen():
            return
        number = self._number(reply)
        with self.widget.hold_sync():
            if self.widget.word >= len(found.words):
                self.widget.word = -1
            self.widget.heat = heat_data(found, number, self.widget.word)
            self.widget.effects = effects_data(found, number)
            self.widget.attention = attention_data(found, number)

    def _show_heat(self) -> None:
        found = self.attribution()
        if found is not None and self.widget.word < len(found.words) and self.widget.attention:
            self.widget.heat = heat_data(found, self._number(self.chosen()), self.widget.word)

    def _leave_out(self, part: str) -> Work:
        reply = self.chosen()

        def work(going: Going) -> None:
            attribution = self.session.attribute(reply)
            for _ in self.session.leave_out(reply, parts_to_leave_out(attribution, part), going):
                if reply is self.chosen():
                    self.widget.effects = effects_data(attribution, self._number(reply))

        return work

    def _show_answers(self) -> None:
        replies = self.session.replies
        with self._lock, self.widget.hold_sync():
            known = list(self.widget.cards)
            new = [card_of(i, reply, self.session.cell(reply)) for i, reply in enumerate(replies, 1) if i > len(known)]
            self.widget.cards, self.widget.answer = known + new, len(replies) - 1

    def _answer_chosen(self) -> None:
        reply = self.chosen()
        with self.widget.hold_sync():
            self.widget.attention, self.widget.heat, self.widget.effects = {}, {}, {}
        if self.session.kept_attribution(reply) is not None:
            self._worker.enqueue(lambda: self._show_attention(reply))
