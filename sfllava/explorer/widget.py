"""The explorer's front end, and the state that Python and the browser share.

One anywidget instead of stacked ipywidgets: (1) a video, a strip and lanes on one time axis need a layout and a
pointer of their own, which boxes of ready-made controls cannot give; (2) the state is some forty traits, so a move of a
slider sends one number and gets one small dictionary back; (3) the same module draws the saved page, without a kernel.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import anywidget
from traitlets import Bool, Dict, Int, List, Unicode

STATIC = Path(__file__).parent / "static"
MOST_UPLOADED_BYTES = 1 << 30
MODULES = ("dom", "controls", "ask", "stage", "strip", "cards", "attention", "explorer")
_LINKS = re.compile(r"^import .*;\n|^export (?!default)", re.MULTILINE)


def join_modules() -> str:
    """Return the modules in `static/` as one: a widget has one file, so imports between them are left out."""
    return "\n".join(_LINKS.sub("", (STATIC / f"{name}.js").read_text(encoding="utf-8")) for name in MODULES)


def _shared(kind: Any, *args: Any) -> Any:
    return kind(*args).tag(sync=True)


class ExplorerWidget(anywidget.AnyWidget):
    """What is on the page. The browser writes the first two groups; Python writes the third.

    A click sends `{"action": NAME, "state": {...}, ...}`, with what the controls say then. The browser gets
    messages with pictures and files.
    All texts are plain: the front end never reads them as HTML.
    """

    _esm = join_modules()
    _css = (STATIC / "explorer.css").read_text(encoding="utf-8")

    # 1) The controls: each move is sent at once
    path = _shared(Unicode, "")
    frames = _shared(Int, 50)
    slow = _shared(Int, 10)
    pool = _shared(Unicode, "")
    fast = _shared(Unicode, "4x4")
    method = _shared(Unicode, "slowfast")
    tokens = _shared(Int, 1024)
    aggregation = _shared(Unicode, "")
    prompt = _shared(Unicode, "")
    selection = _shared(Unicode, "uniform")
    rule_options = _shared(Unicode, "")
    selection_for = _shared(Unicode, "all")
    scorer = _shared(Unicode, "")
    scored_text = _shared(Unicode, "question")
    frame_list = _shared(Unicode, "")
    question = _shared(Unicode, "")
    answer_options = _shared(Unicode, "")
    reply = _shared(Unicode, "open")
    max_new_tokens = _shared(Int, 256)

    # 2) What is looked at
    view = _shared(Unicode, "Answers")
    answer = _shared(Int, -1)
    word = _shared(Int, -1)
    part = _shared(Unicode, "paths")

    # 3) What Python shows
    limits = _shared(Dict)
    recent = _shared(List)
    budget = _shared(Dict)
    messages = _shared(Dict)
    strip = _shared(Dict)
    pictures = _shared(Dict)
    progress = _shared(Dict)
    cards = _shared(List)
    compared = _shared(List)
    comparison = _shared(List)
    attention = _shared(Dict)
    heat = _shared(Dict)
    effects = _shared(Dict)
    busy = _shared(Bool, False)
    snapshot = _shared(Bool, False)


CONTROLS = (
    "frames", "slow", "pool", "fast", "method", "tokens", "aggregation", "prompt", "selection", "rule_options",
    "selection_for", "scorer", "scored_text", "frame_list",
)  # fmt: skip
ASKED = ("question", "answer_options", "reply")
CLICKED = (*CONTROLS, *ASKED, "max_new_tokens")  # what a click brings along
