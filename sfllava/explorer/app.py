"""The explorer as widgets: controls above, views below; all that computes does so in one thread beside the kernel's."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import ipywidgets as w
import pandas as pd

from sfllava.attribution.attribution import Attribution
from sfllava.attribution.leave_out import removable_parts
from sfllava.explorer import pages
from sfllava.explorer.controls import QuestionChoice, SettingChoice, VideoChoice, field, row
from sfllava.explorer.feature_cache import FeatureCache
from sfllava.explorer.session import Reply, Session, csv
from sfllava.explorer.worker import Going, Work, Worker
from sfllava.planning.budget import ContextBudget, context_budget
from sfllava.plots.attribution import show_attention
from sfllava.plots.budget import draw_budget
from sfllava.plots.frames import show_frames
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM


VIEWS = ("Answer", "Comparison", "Where did it look", "History")
_REDRAW = 0.05  # seconds between two updates of a streamed answer: more would only queue up


@dataclass(frozen=True)
class AskedReply:
    """What the controls said when a button was clicked."""

    video: str
    setting: Setting
    question: Question
    max_new_tokens: int


def explore(
    model: VideoLM,
    video: str = "",
    question: str = "",
    setting: Setting | Sequence[Setting] | None = None,
    *,
    max_new_tokens: int = 256,
    memory_gb: float = 2.0,
) -> Explorer:
    """Open the explorer on a model: show it as the last line of a cell.

    setting: where the controls start; of several (4 at most) the first, and all of them are in the comparison.
    `memory_gb` is what decoded frames, their features and attention of the last few videos may take.
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
        self, model: VideoLM, video: str, question: str, setting: Setting, max_new_tokens: int, memory: int
    ) -> None:
        self.session = Session(model, FeatureCache(model, memory))
        self._figures: dict[str, Any] = {}
        self.compared: list[Setting] = []
        self.video = ""
        self._latest, self._lock = 0, threading.RLock()
        self._shown: Attribution | None = None
        self._worker = Worker(
            lambda yes: setattr(self.stop, "disabled", not yes),
            lambda name: self._say(f"{name} was stopped before it began"),
            self._show_error,
        )
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
            budget = self._budget()
            found |= {"frames": setting.frames, "aggregation": str(setting.aggregation), "prompt": setting.prompt}
            found |= {"budget": {**asdict(budget), "rest": budget.rest, "over": budget.over}}
        except SfllavaError as error:
            found["problem"] = str(error)
        found |= {"compared": [s.name for s in self.compared], "view": self.view.value, "word": self.word.value}
        return found | {"busy": self.busy, "error": "" if self._error is None else str(self._error)}

    @property
    def figures(self) -> dict[str, Any]:
        """What is shown, as plotly figures by name: budget, frames, attention."""
        return {"budget": draw_budget(self._budget()), **self._figures}

    @property
    def busy(self) -> bool:
        return self._worker.busy

    def wait(self) -> None:
        """Until nothing is under way."""
        self._worker.wait()

    def _repr_mimebundle_(self, **options: Any) -> Any:
        return self.box._repr_mimebundle_(**options)

    # the page

    def _build(self, setting: Setting, question: str, max_new_tokens: int) -> None:
        self.videos = VideoChoice(self._video_chosen, self._show_error)
        self.settings = SettingChoice(self.session.model.info.grid, setting, self._move_setting)
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
        for button, read in (
            (self.ask, self._ask), (self.compare, self._compare),
            (self.look, self._look), (self.leave, self._leave_out),
        ):  # fmt: skip
            button.on_click(lambda button, read=read: self._start(button, read))
        self.stop.on_click(lambda _: self._worker.stop())
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

    def _budget(self) -> ContextBudget:
        """Of what the controls say; of the frames that the video has, once a sample of it is at hand."""
        total = self.session.features.total(self.video) if self.video else None
        return context_budget(self.setting, self.session.model, self.questions.question, total=total)

    def _move(self) -> bool:
        with self._lock:  # the worker comes here too, and the last to come must have read the controls last
            try:
                budget = self._budget()
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
            latest, video, setting = self._latest, self.video, self.setting
            self._worker.enqueue(lambda: self._draw_strip(latest, video, setting))

    def _video_chosen(self, path: str) -> None:
        self.video = path
        self._move_setting()

    def _draw_strip(self, latest: int, path: str, setting: Setting) -> None:
        if latest != self._latest:  # the controls have moved on
            return
        video = self.session.video(path, setting.frames)
        self._figures["frames"] = show_frames(video, setting, self.session.model.info.grid)
        _put(self.strip, self._figures["frames"])
        self.status.value = pages.note_page(
            f"{pages.name_of_video(video.path)}: {len(video.frames)} of {video.total} frames"
        )
        self._move()  # how many frames the video has is known now

    # what computes: a click reads the controls at once, and the worker does what was clicked when it is free

    def _start(self, button: w.Button, read: Callable[[], Work]) -> None:
        self.error.value = ""
        self._error = None
        try:
            with self._lock:
                work = read()
        except Exception as error:
            self._show_error(error)
            return
        self._worker.start(button.description, work)

    def _guard(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            self._show_error(error)

    def _say(self, text: str) -> None:
        self.error.value = pages.note_page(text)

    def _show_error(self, error: BaseException) -> None:
        self._error = error
        self.error.value = pages.error_page(error)

    def _asked(self, setting: Setting) -> AskedReply:
        """What the controls ask, at a setting."""
        asked = AskedReply(self.video, setting, self.questions.question, self.questions.longest.value)
        if not asked.video:
            raise SfllavaError("no video: give a path, upload one, or render the samples")
        if not asked.question.text:
            raise SfllavaError("no question: write one first")
        return asked

    def _answer(self, asked: AskedReply, going: Going) -> Reply:
        text, last = asked.question.text, 0.0
        self.answer.value = pages.answer_page(text, "", "decoding and encoding what is new ...")
        for said in self.session.ask(asked.video, asked.setting, asked.question, asked.max_new_tokens, going):
            if time.perf_counter() - last > _REDRAW:
                last = time.perf_counter()
                self.answer.value = pages.answer_page(text, said, "...")
        reply = self.session.replies[-1]
        self.answer.value = pages.answer_page(text, reply.text, pages.seconds_line(reply))
        self._show_history()
        return reply

    def _ask(self) -> Work:
        self.view.value = "Answer"
        asked = self._asked(self.setting)

        def work(going: Going) -> None:
            self._answer(asked, going)

        return work

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

    def _compare(self) -> Work:
        if len(self.compared) < 2:
            raise SfllavaError("two to four settings are compared: move a control, and add the setting")
        wanted = [self._asked(setting) for setting in self.compared]

        def work(going: Going) -> None:
            replies: list[Reply] = []
            for asked in wanted:
                if not going():
                    return
                replies.append(self._answer(asked, going))
                self.comparison.value = pages.comparison_page(replies)

        return work

    def _look(self) -> Work:
        reply = self._chosen()

        def work(_: Going) -> None:
            if reply is self._chosen() and self.session.kept_attribution(reply) is None:
                self.effects.value = pages.note_page("reading the answer a second time ...")
            self.session.attribute(reply)
            self._show_look(reply)
            if reply is not self._chosen():
                number = self.session.replies.index(reply) + 1
                self._say(f"where answer {number} looked is computed: choose that answer to see it")

        return work

    def _show_look(self, reply: Reply) -> None:
        """Show where the model looked, where that is at hand and no other answer has been chosen meanwhile."""
        seen = self.session.kept_attribution(reply)
        if seen is None or reply is not self._chosen():
            return
        self._shown = seen
        at = self.word.value if self.word.value < len(seen.words) else -1
        numbered = [(f"{i}: {word}", i - 1) for i, word in enumerate(seen.words, 1)]
        self.word.options, self.word.value = [("all words", -1), *numbered], at
        names = list(removable_parts(seen))
        paths = [name for name in names if not name.startswith("frame ")]
        frames = [name for name in reversed(names) if name.startswith("frame ")]
        several = [("each pathway", "paths")] * bool(paths) + [("each frame", "frames")] * bool(frames)
        self.part.options = several + [(name, name) for name in (*paths, *frames)] or [("nothing here", "")]
        self.effects.value = pages.effects_page(seen)
        self._draw_attention()

    def _draw_attention(self) -> None:
        if self._shown is not None:
            self._figures["attention"] = show_attention(self._shown, None if self.word.value < 0 else self.word.value)
            _put(self.attention, self._figures["attention"])

    def _leave_out(self) -> Work:
        reply, wanted = self._chosen(), self.part.value

        def work(going: Going) -> None:
            seen = self.session.attribute(reply)
            names = list(removable_parts(seen))
            if wanted in ("", "paths"):
                names = [name for name in names if not name.startswith("frame ")]
            elif wanted == "frames":
                names = [name for name in names if name.startswith("frame ")]
            else:
                names = [wanted]
            for _ in self.session.leave_out(reply, names, going):
                if reply is self._chosen():
                    self.effects.value = pages.effects_page(seen)

        return work

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
        with self._lock:  # on the way to the last answer, the first is chosen
            names = [(f"{i}: {r.question.text[:60]} - {r.text[:40]}", i - 1) for i, r in enumerate(replies, 1)]
            if replies:
                self.reply.options, self.reply.value = names, len(replies) - 1

    def _reply_chosen(self) -> None:
        if self.session.replies and self.reply.value is not None:
            reply = self._chosen()
            self.cell.value = self.session.cell(reply)
            self.word.options, self.attention.outputs = [("all words", -1)], ()
            self.attention.layout.height = None
            self.effects.value = ""
            self._shown = None
            if self.session.kept_attribution(reply) is not None:
                self._worker.enqueue(lambda: self._show_look(reply))


def _put(output: w.Output, figure: Any) -> None:
    """Show a plotly figure in an output, from any thread."""
    data = {**json.loads(figure.to_json()), "config": {"displaylogo": False, "responsive": True}}
    bundle = {"application/vnd.plotly.v1+json": data, "text/plain": "a plotly figure"}
    output.layout.height = f"{figure.layout.height}px"  # drawn anew in another theme, a figure has no height of its own
    output.outputs = ({"output_type": "display_data", "data": bundle, "metadata": {}},)
