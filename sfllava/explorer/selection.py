"""The explorer's controls for frames that are chosen for each question."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import ipywidgets as w

from sfllava.explorer import pages
from sfllava.explorer.controls import columns, field
from sfllava.runs.selection_source import SelectionSource
from sfllava.sampler.selection.selectors import FrameSelection, selectors
from sfllava.settings import SELECTION_FOR, Setting
from sfllava.types import SfllavaError


class SelectionChoice:
    """Choose how frames are chosen for each question, and what with; `changed()` is called on each change.

    What is wrong is said in one line below the controls.
    """

    def __init__(self, setting: Setting, source: SelectionSource, changed: Callable[[], object]) -> None:
        selection = setting.frame_selection
        self._source = source
        self.name = field(w.Dropdown, "Selection", options=list(selectors()), value=selection.name)
        self.options = field(w.Text, "Rule options", value=str(selection).partition(":")[2], continuous_update=False)
        self.pathway = field(w.Dropdown, "Selection for", options=SELECTION_FOR, value=setting.selection_for)
        self.scorer = field(
            w.Text, "Scorer", value=source.scorer or "", continuous_update=False,
            placeholder="folder or hub name of a CLIP or SigLIP",
        )  # fmt: skip
        texts = [("question", "question"), ("question and options", "options")]
        self.text = field(w.Dropdown, "Scored text", options=texts, value=source.text)
        listed = getattr(source.frame_list, "path", source.frame_list)
        self.listed = field(
            w.Text, "Frame list", value=str(listed or ""), continuous_update=False,
            placeholder="JSON or parquet with the frames of each question",
        )  # fmt: skip
        self.message = w.HTML()
        self._all = (self.name, self.options, self.pathway, self.scorer, self.text, self.listed)
        self.box = w.VBox([columns(*self._all), self.message])
        self._show()
        self.name.observe(lambda _: self._chosen(), "value")
        for control in self._all:
            control.observe(lambda _: changed(), "value")

    @property
    def source(self) -> SelectionSource:
        """What frames are chosen with."""
        names = {"scorer": self.scorer.value.strip() or None, "frame_list": self.listed.value.strip() or None}
        return replace(self._source, text=self.text.value, **names)

    def apply(self, setting: Setting) -> Setting:
        """Return a setting with the selection that the controls show.

        Raises:
            SfllavaError: that is impossible, or there is no scorer or list.
        """
        options = self.options.value.strip()
        name = f"{self.name.value}:{options}" if options else self.name.value
        chosen = replace(setting, selection=name, selection_for=self.pathway.value)
        selection, source = chosen.frame_selection, self.source
        if selection.needs_scores and chosen.question_aware and not source.scorer:
            raise SfllavaError(
                f"{selection.name} needs a scorer: the folder or hub name of a CLIP or SigLIP, such as "
                "openai/clip-vit-large-patch14"
            )
        if selection.selector.from_list and not source.frame_list:
            raise SfllavaError(f"{selection.name} needs a frame list: a file with the frames of each question")
        return chosen

    def say(self, text: str, wrong: bool = False) -> None:
        """Say something in one line below the controls."""
        self.message.value = pages.note_page(" ".join(text.split()), over=wrong) if text else ""

    def _chosen(self) -> None:
        self.options.value = ""  # the options are another rule's
        self._show()

    def _show(self) -> None:
        selector = selectors()[self.name.value]
        aware, scored = self.name.value != "uniform", selector.choose is not None
        defaults = ",".join(f"{option}={value:g}" for option, value in selector.options.items())
        self.options.placeholder = f"default: {defaults}"
        shown = {
            self.options: aware and bool(defaults), self.pathway: aware, self.scorer: aware and scored,
            self.text: aware and scored, self.listed: selector.from_list,
        }  # fmt: skip
        for control, visible in shown.items():
            control.layout.display = None if visible else "none"
        self.name.tooltip = selector.usage
        self.say("")


def describe(selection: FrameSelection, frames: list[int], candidates: int) -> str:
    """Return what was chosen, in one line."""
    of = f" of {candidates:,} candidates" if candidates else ""
    return f"{selection}: {len(set(frames)):,} frames{of} for this question: {selection.selector.usage}"
