"""The explorer as widgets: controls above, views below; all that computes does so in one thread beside the kernel's."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import ipywidgets as w
import pandas as pd

from sfllava.budgets import budget_of
from sfllava.explorer import pages
from sfllava.explorer.controls import QuestionChoice, SettingChoice, VideoChoice, field, row
from sfllava.explorer.session import Reply, Session, csv
from sfllava.features import Features
from sfllava.looking import parts_of
from sfllava.plots.looking import draw_budget, show_attention, show_frames
from sfllava.types import Setting, SfllavaError

if TYPE_CHECKING:
    from sfllava.models.llava_next import LlavaNext

VIEWS = ("Answer", "Comparison", "Where did it look", "History")
_REDRAW = 0.05  # seconds between two updates of a streamed answer: more would only queue up


def explore(
    model: LlavaNext,
    video: str = "",
    question: str = "",
    setting: Setting | Sequence[Setting] | None = None,
    *,
    max_new_tokens: int = 256,
    memory_gb: float = 2.0,
) -> Explorer:
    """Open the explorer on a model: show it as the last line of a cell.

    setting: where the controls start; of several (4 at most) the first, and all of them are in the comparison.
    `memory_gb` is what decoded frames and their features of the last few videos may take.
    """
    settings = [setting or Setting()] if setting is None or isinstance(setting, Setting) else list(setting)
    if not 1 <= len(settings) <= 4:
        raise SfllavaError(f"needed one setting to start from, or up to four to compare, got {len(settings)}")
    explorer = Explorer(model, video, question, settings[0], max_new_tokens, int(memory_gb * 2**30))
    if len(settings) > 1:
        explorer._set_compared(settings)
    return explorer


class Explorer:
    """A widget that is also data: `state`, `answers` (a DataFrame), `figures` (plotly's) and `session`."""

    def __init__(
        self, model: LlavaNext, video: str, question: str, setting: Setting, max_new_tokens: int, memory: int
    ) -> None:
        self.session = Session(model, Features(model, memory))
        self._figures: dict[str, Any] = {}
        self.compared: list[Setting] = []
        self.video = ""
        self._stop, self._latest = threading.Event(), 0
        self._worker = ThreadPoolExecutor(1, "sfllava-explorer")
        self._last: Future[None] | None = None
        self._error: BaseException | None = None
        self._build(setting, question, max_new_tokens)
        self._move_setting()
        if video:
            self.videos.choose(video)

    # what it shows, as data

    @property
    def setting(self) -> Setting:
        """What the controls say. Raises SfllavaError where that cannot be."""
        return self.settings.setting

    @property
    def answers(self) -> pd.DataFrame:
        """A row an answer."""
        return self.session.table

    @property
    def state(self) -> dict[str, Any]:
        """Video, setting, question, budget and what is under way, as plain values."""
        found: dict[str, Any] = {"video": self.video, "question": self.questions.question.text}
        found |= {"options": list(self.questions.question.options), "max_new_tokens": self.questions.longest.value}
        try:
            setting = self.setting
            budget = budget_of(setting, self.session.model, self.questions.question)
            found |= {"frames": setting.frames, "aggregation": str(setting.aggregation), "prompt": setting.prompt}
            found |= {"budget": {**asdict(budget), "rest": budget.rest, "over": budget.over}}
        except SfllavaError as error:
            found["problem"] = str(error)
        found |= {"compared": [s.name for s in self.compared], "view": self.view.value, "word": self.word.value}
        return found | {"busy": self.busy, "error": "" if self._error is None else str(self._error)}

    @property
    def figures(self) -> dict[str, Any]:
        """What is shown, as plotly figures by name: budget, frames, attention."""
        budget = budget_of(self.setting, self.session.model, self.questions.question)
        return {"budget": draw_budget(budget), **self._figures}

    @property
    def busy(self) -> bool:
        return self._last is not None and not self._last.done()

    def wait(self) -> None:
        """Until nothing is under way."""
        while self._last is not None and not self._last.done():
            self._last.result()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.box._repr_mimebundle_(**options)

    # the page

    def _build(self, setting: Setting, question: str, max_new_tokens: int) -> None:
        self.videos = VideoChoice(self._video_chosen, self._show_error)
        self.settings = SettingChoice(self.session.model.grid, setting, self._move_setting)
        self.questions = QuestionChoice(question, max_new_tokens, self._move)
        self.budget, self.status, self.error = (w.HTML() for _ in range(3))
        self.strip = w.Output()
        self.view = w.ToggleButtons(description="View", options=VIEWS, style={"button_width": "auto"})
        self.view.observe(lambda _: self._show_view(), "value")
        self.ask = w.Button(description="Ask", button_style="primary", tooltip="Answer the question at this setting")
        self.stop = w.Button(description="Stop", disabled=True, tooltip="Stop after the next word")
        self.answer = w.HTML()
        self.add = w.Button(description="Add setting", tooltip="Add the setting above to the comparison")
        self.clear = w.Button(description="Clear", tooltip="Empty the comparison")
        self.compare = w.Button(description="Compare", button_style="primary", tooltip="Ask all settings added")
        self.chosen, self.comparison = w.HTML(), w.HTML()
        self.reply = field(w.Dropdown, "Answer", "420px", options=[("none yet", -1)])
        self.look = w.Button(description="Look", button_style="primary", tooltip="Compute where the model looked")
        self.word = field(w.SelectionSlider, "Word", "420px", options=[("all words", -1)], continuous_update=False)
        self.part = field(w.Dropdown, "Leave out", options=[("each pathway", "")])
        self.leave = w.Button(description="Measure", tooltip="Measure the answer's likelihood without this part")
        self.attention, self.effects = w.Output(), w.HTML()
        self.history, self.cell = w.HTML(), field(w.Textarea, "Notebook cell", "600px", rows=9)
        for button, act in (
            (self.ask, self._ask), (self.compare, self._compare),
            (self.look, self._look), (self.leave, self._leave_out),
        ):  # fmt: skip
            button.on_click(lambda _, act=act: self._start(act))
        self.stop.on_click(lambda _: self._stop.set())
        self.add.on_click(lambda _: self._guard(self._add))
        self.clear.on_click(lambda _: self._set_compared([]))
        self.word.observe(lambda _: self._draw_attention(), "value")
        self.reply.observe(lambda _: self._reply_chosen(), "value")
        self._panels = {
            "Answer": w.VBox([self.answer]),
            "Comparison": w.VBox([row(self.add, self.clear, self.compare), self.chosen, self.comparison]),
            "Where did it look": w.VBox(
                [
                    row(self.reply), row(self.look, self.word), self.attention, w.HTML(pages.help_page()),
                    row(self.part, self.leave), self.effects,
                ]
            ),
            "History": w.VBox([self.history, row(self.reply), row(self.cell)]),
        }  # fmt: skip
        self.box = w.VBox(
            [
                w.HTML(pages.STYLE), self.videos.box, self.settings.box, self.budget, self.strip, self.questions.box,
                row(self.ask, self.stop, self.status), row(self.view), self.error, *self._panels.values(),
            ]
        )  # fmt: skip
        self.box.add_class("sfllava")
        self._show_view()
        self._set_compared([])
        self._show_history()

    def _show_view(self) -> None:
        for name, panel in self._panels.items():
            panel.layout.display = None if name == self.view.value else "none"

    # moves of the controls: cheap things at once, the strip when the worker is free

    def _move(self) -> bool:
        try:
            budget = budget_of(self.setting, self.session.model, self.questions.question)
            self.ask.disabled = budget.over  # first: what is red must not look as if it could be asked
            self.budget.value = pages.budget_page(budget)
        except SfllavaError as error:
            self.budget.value = pages.note_page(str(error), over=True)
            self.ask.disabled = True
            return False
        return True

    def _move_setting(self) -> None:
        self._latest += 1
        if self._move() and self.video:
            self._enqueue(lambda latest=self._latest: self._draw_strip(latest))

    def _video_chosen(self, path: str) -> None:
        self.video = path
        self._move_setting()

    def _draw_strip(self, latest: int) -> None:
        if latest != self._latest:  # the controls have moved on
            return
        setting = self.setting
        video = self.session.video(self.video, setting.frames)
        self._figures["frames"] = show_frames(video, setting, self.session.model.grid)
        _put(self.strip, self._figures["frames"])
        self.status.value = pages.note_page(
            f"{pages.name_of_video(video.path)}: {len(video.frames)} of {video.total} frames"
        )

    # what computes

    def _start(self, act: Callable[[], None]) -> None:
        self._stop.clear()
        self.error.value = ""
        self._error = None
        self.stop.disabled = False
        self._last = self._worker.submit(self._guard, act, True)

    def _enqueue(self, act: Callable[[], None]) -> None:
        self._last = self._worker.submit(self._guard, act)

    def _guard(self, act: Callable[[], None], stoppable: bool = False) -> None:
        try:
            act()
        except Exception as error:
            self._show_error(error)
        if stoppable:
            self.stop.disabled = True

    def _show_error(self, error: BaseException) -> None:
        self._error = error
        self.error.value = pages.error_page(error)

    def _going(self) -> bool:
        return not self._stop.is_set()

    def _ask_one(self, setting: Setting) -> Reply:
        question, last = self.questions.question, 0.0
        if not self.video:
            raise SfllavaError("no video: give a path, upload one, or render the samples")
        if not question.text:
            raise SfllavaError("no question: write one first")
        self.answer.value = pages.answer_page(question.text, "", "decoding and encoding what is new ...")
        steps = self.session.ask(self.video, setting, question, self.questions.longest.value, self._going)
        for text in steps:
            if time.perf_counter() - last > _REDRAW:
                last = time.perf_counter()
                self.answer.value = pages.answer_page(question.text, text, "...")
        reply = self.session.replies[-1]
        self.answer.value = pages.answer_page(question.text, reply.text, pages.seconds_line(reply))
        self._show_history()
        return reply

    def _ask(self) -> None:
        self.view.value = "Answer"
        self._ask_one(self.setting)

    def _add(self) -> None:
        if len(self.compared) == 4:
            raise SfllavaError("four settings are compared at most: clear the comparison first")
        if self.setting.name in {setting.name for setting in self.compared}:
            raise SfllavaError(f"{self.setting.name} is in the comparison already: move a control first")
        self._set_compared([*self.compared, self.setting])

    def _set_compared(self, settings: list[Setting]) -> None:
        self.compared = settings
        listed = "; ".join(setting.name for setting in settings) or "none yet: set the controls, then add the setting"
        self.chosen.value = pages.note_page(f"Settings to compare (2 to 4): {listed}")
        self.comparison.value = ""

    def _compare(self) -> None:
        if len(self.compared) < 2:
            raise SfllavaError("two to four settings are compared: move a control, and add the setting")
        replies: list[Reply] = []
        for setting in self.compared:
            if not self._going():
                return
            replies.append(self._ask_one(setting))
            self.comparison.value = pages.comparison_page(replies)

    def _look(self) -> None:
        reply = self._chosen()
        if reply not in self.session.looks:
            self.effects.value = pages.note_page("reading the answer a second time ...")
        seen = self.session.look(reply)
        at = self.word.value if self.word.value < len(seen.words) else -1
        numbered = [(f"{i}: {word}", i - 1) for i, word in enumerate(seen.words, 1)]
        self.word.options, self.word.value = [("all words", -1), *numbered], at
        names = list(parts_of(seen))
        paths = [name for name in names if not name.startswith("frame ")]
        frames = [name for name in reversed(names) if name.startswith("frame ")]
        several = [("each pathway", "paths")] * bool(paths) + [("each frame", "frames")] * bool(frames)
        self.part.options = several + [(name, name) for name in (*paths, *frames)] or [("nothing here", "")]
        self.effects.value = pages.effects_page(seen)
        self._draw_attention()

    def _draw_attention(self) -> None:
        seen = self.session.looks.get(self._reply_at(self.reply.value)) if self.session.replies else None
        if seen is not None:
            self._figures["attention"] = show_attention(seen, None if self.word.value < 0 else self.word.value)
            _put(self.attention, self._figures["attention"])

    def _leave_out(self) -> None:
        reply = self._chosen()
        seen, wanted = self.session.look(reply), self.part.value
        names = list(parts_of(seen))
        if wanted in ("", "paths"):
            names = [name for name in names if not name.startswith("frame ")]
        elif wanted == "frames":
            names = [name for name in names if name.startswith("frame ")]
        else:
            names = [wanted]
        for _ in self.session.leave_out(reply, names, self._going):
            self.effects.value = pages.effects_page(seen)

    # the answers so far

    def _chosen(self) -> Reply:
        if not self.session.replies:
            raise SfllavaError("no answer yet: ask first")
        return self._reply_at(self.reply.value)

    def _reply_at(self, at: int) -> Reply:
        return self.session.replies[at]

    def _show_history(self) -> None:
        replies = self.session.replies
        self.history.value = pages.history_page(replies, csv(self.session.table) if replies else "")
        if replies:
            names = [(f"{i}: {r.question.text[:60]} - {r.text[:40]}", i - 1) for i, r in enumerate(replies, 1)]
            self.reply.options, self.reply.value = names, len(replies) - 1

    def _reply_chosen(self) -> None:
        if self.session.replies and self.reply.value is not None:
            reply = self._chosen()
            self.cell.value = self.session.cell(reply)
            self.word.options, self.attention.outputs = [("all words", -1)], ()
            self.attention.layout.height = None
            self.effects.value = ""
            if reply in self.session.looks:
                self._enqueue(self._look)


def _put(output: w.Output, figure: Any) -> None:
    """Show a plotly figure in an output, from any thread."""
    data = {**json.loads(figure.to_json()), "config": {"displaylogo": False, "responsive": True}}
    bundle = {"application/vnd.plotly.v1+json": data, "text/plain": "a plotly figure"}
    output.layout.height = f"{figure.layout.height}px"  # drawn anew in another theme, a figure has no height of its own
    output.outputs = ({"output_type": "display_data", "data": bundle, "metadata": {}},)
