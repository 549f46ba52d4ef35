"""What the explorer shows: its buttons, its four views, and the attention of an answer."""

from __future__ import annotations

import json
from typing import Any

import ipywidgets as w

from sfllava.attribution.attribution import Attribution
from sfllava.attribution.leave_out import removable_parts
from sfllava.explorer import pages
from sfllava.explorer.controls import field, row
from sfllava.plots.attribution import show_attention

VIEWS = ("Answer", "Comparison", "Where did it look", "History")
_ALL_WORDS = ("all words", -1)


class Views:
    """The widgets below the controls. `box` holds them all; the explorer connects the buttons."""

    def __init__(self) -> None:
        self.budget, self.status, self.error = (w.HTML() for _ in range(3))
        self.strip = w.Output()
        self.view = w.ToggleButtons(description="View", options=VIEWS, style={"button_width": "auto"})
        self.ask = w.Button(description="Ask", button_style="primary", tooltip="Answer the question with this setting")
        self.stop = w.Button(description="Stop", disabled=True, tooltip="Stop after the next token")
        self.answer = w.HTML()
        self.add = w.Button(description="Add setting", tooltip="Add the current setting to the comparison")
        self.clear = w.Button(description="Clear", tooltip="Remove all settings from the comparison")
        self.compare = w.Button(
            description="Compare", button_style="primary", tooltip="Answer the question with each setting"
        )
        self.chosen, self.comparison = w.HTML(), w.HTML()
        self.reply = field(w.Dropdown, "Answer", "420px", options=[("none yet", -1)])
        self.attention = AttentionView()
        self.history, self.cell = w.HTML(), field(w.Textarea, "Notebook cell", "600px", rows=9)
        self._panels = {
            "Answer": w.VBox([self.answer]),
            "Comparison": w.VBox([row(self.add, self.clear, self.compare), self.chosen, self.comparison]),
            "Where did it look": w.VBox([row(self.reply), self.attention.box]),
            "History": w.VBox([self.history, row(self.reply), row(self.cell)]),
        }
        self.view.observe(lambda _: self._show_view(), "value")
        self._show_view()

    def box(self, videos: w.Widget, settings: w.Widget, questions: w.Widget) -> w.VBox:
        """Place the controls and the views on one page."""
        box = w.VBox(
            [
                w.HTML(pages.STYLE), videos, settings, self.budget, self.strip, questions,
                row(self.ask, self.stop, self.status), row(self.view), self.error, *self._panels.values(),
            ]
        )  # fmt: skip
        box.add_class("sfllava")
        return box

    def _show_view(self) -> None:
        for name, panel in self._panels.items():
            panel.layout.display = None if name == self.view.value else "none"


class AttentionView:
    """Where the model looked for one answer, and what the answer loses without a part of the visual tokens."""

    def __init__(self) -> None:
        self.look = w.Button(description="Look", button_style="primary", tooltip="Compute where the model looked")
        self.word = field(w.SelectionSlider, "Word", "420px", options=[_ALL_WORDS], continuous_update=False)
        self.part = field(w.Dropdown, "Leave out", options=[("each pathway", "")])
        self.leave = w.Button(description="Measure", tooltip="Measure how likely the same answer is without this part")
        self.output, self.effects = w.Output(), w.HTML()
        self.figure: Any = None
        self._shown: Attribution | None = None
        self.box = w.VBox(
            [
                row(self.look, self.word), self.output, w.HTML(pages.help_page()), row(self.part, self.leave),
                self.effects,
            ]
        )  # fmt: skip
        self.word.observe(lambda _: self._draw(), "value")

    def show(self, attribution: Attribution) -> None:
        """Show an answer's attention, at the word that is selected if the answer has it."""
        self._shown = attribution
        word = self.word.value if self.word.value < len(attribution.words) else -1
        numbered = [(f"{i}: {text}", i - 1) for i, text in enumerate(attribution.words, 1)]
        self.word.options, self.word.value = [_ALL_WORDS, *numbered], word
        names = list(removable_parts(attribution))
        parts, frames = _pathways(names), list(reversed(_frames(names)))
        groups = [("each pathway", "paths")] * bool(parts) + [("each frame", "frames")] * bool(frames)
        self.part.options = groups + [(name, name) for name in (*parts, *frames)] or [("nothing here", "")]
        self.effects.value = pages.effects_page(attribution)
        self._draw()

    def clear(self) -> None:
        """Show nothing, until the attention of the chosen answer is computed."""
        self._shown = None
        self.word.options, self.output.outputs = [_ALL_WORDS], ()
        self.output.layout.height = None
        self.effects.value = ""

    def _draw(self) -> None:
        if self._shown is not None:
            self.figure = show_attention(self._shown, None if self.word.value < 0 else self.word.value)
            show_figure(self.output, self.figure)


def parts_to_leave_out(attribution: Attribution, choice: str) -> list[str]:
    """Return the parts that a choice of "Leave out" stands for."""
    names = list(removable_parts(attribution))
    if choice in ("", "paths"):
        return _pathways(names)
    return _frames(names) if choice == "frames" else [choice]


def show_figure(output: w.Output, figure: Any) -> None:
    """Show a plotly figure in an output, from any thread."""
    data = {**json.loads(figure.to_json()), "config": {"displaylogo": False, "responsive": True}}
    bundle = {"application/vnd.plotly.v1+json": data, "text/plain": "a plotly figure"}
    output.layout.height = f"{figure.layout.height}px"  # when the theme changes, a redrawn figure has no own height
    output.outputs = ({"output_type": "display_data", "data": bundle, "metadata": {}},)


def _frames(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith("frame ")]


def _pathways(names: list[str]) -> list[str]:
    return [name for name in names if not name.startswith("frame ")]
