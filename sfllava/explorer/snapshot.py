"""What is shown, as one page to send to a colleague: the same front end, without a kernel."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from sfllava.attribution.attribution import Attribution
from sfllava.explorer.attention import heat_data
from sfllava.explorer.strip import large_picture
from sfllava.explorer.widget import CONTROLS, STATIC, ExplorerWidget, join_modules
from sfllava.sampler.video import Video

_SHOWN = (
    *CONTROLS, "question", "answer_options", "reply", "max_new_tokens", "view", "answer", "word", "part", "limits",
    "budget", "strip", "pictures", "cards", "compared", "comparison", "attention", "heat", "effects",
)  # fmt: skip
_MOST_HEAT_BYTES = 4 << 20  # for maps of all words; beyond, the page has those of the chosen word
# Nothing is loaded from anywhere, whatever the texts on the page say
_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'"
_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta http-equiv="Content-Security-Policy" content="{policy}">
<title>{title}</title><style>{style}
body {{ margin: 16px; background: Canvas; }} :root {{ color-scheme: light dark; }}</style></head>
<body><div id="explorer"></div><script type="application/json" id="state">{state}</script>
<script type="module">{module}
showSaved(JSON.parse(document.getElementById("state").textContent), document.getElementById("explorer"));
</script></body></html>
"""


def snapshot_page(widget: ExplorerWidget, video: Video | None, attribution: Attribution | None) -> str:
    """Return the page of what a front end shows.

    Args:
        widget: the front end.
        video: the frames of the strip, which the page has in full size.
        attribution: the attention that is shown, if any.
    """
    state = {name: getattr(widget, name) for name in _SHOWN}
    for name in ("scorer", "frame_list"):
        state[name] = PurePath(state[name]).name
    state["cards"] = [{**card, "code": ""} for card in state["cards"]]
    state |= {"snapshot": True, "path": widget.strip.get("video", ""), "recent": [], "messages": {}}
    state |= {"busy": False, "progress": {}, "large": _large("strip", video), "heats": {}}
    if attribution is not None and widget.attention:
        state["large"] |= _large("attention", attribution.video)
        state["heats"] = _heats(attribution, widget)
    module = join_modules().replace("</", "<\\/")
    # "<" does not occur in the JSON, so that no text can end the script
    data = json.dumps(state, ensure_ascii=True).replace("<", "\\u003c")
    style = (STATIC / "explorer.css").read_text(encoding="utf-8")
    return _PAGE.format(policy=_POLICY, title="sfllava explorer", style=style, state=data, module=module)


def _large(of: str, video: Video | None) -> dict[str, str]:
    if video is None:
        return {}
    return {f"{of}-{int(index)}": large_picture(video, place) for place, index in enumerate(video.indices)}


def _heats(attribution: Attribution, widget: ExplorerWidget) -> Mapping[str, Any]:
    """Return the maps of each word; of the chosen one alone where that is too much."""
    number = widget.attention["answer"]
    shown = {str(widget.word): dict(widget.heat)}
    one = sum(len(frame) for frames in widget.heat.get("parts", {}).values() for frame in frames)
    if one * (1 + len(attribution.words)) > _MOST_HEAT_BYTES:
        return shown
    return {str(word): heat_data(attribution, number, word) for word in range(-1, len(attribution.words))}
