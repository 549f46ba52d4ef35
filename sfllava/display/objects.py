"""How an object shows itself in a notebook: a card with its kind and name, its values, and more on demand."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from sfllava.display.html import Html, block, cell, chips
from sfllava.display.private import cut_folders

_STYLE = """<style>
.sfl .card { border: 1px solid var(--sfl-line); border-radius: 6px; padding: 8px 12px; margin: 2px 0; max-width: 980px;
  overflow-x: auto; } .sfl .card p { margin: 4px 0; } .sfl .card > * + * { margin-top: 6px; }
.sfl .kind { color: var(--sfl-soft); margin-right: 6px; } .sfl .name { font-weight: 600; overflow-wrap: anywhere; }
.sfl details > summary { cursor: pointer; color: var(--sfl-soft); } .sfl details { margin-top: 4px; }
.sfl code { font-size: 12px; overflow-wrap: anywhere; background: none; color: inherit; padding: 0; }
.sfl .strip { display: flex; flex-wrap: wrap; gap: 6px; } .sfl .strip figure { margin: 0; }
.sfl .strip img { display: block; border-radius: 3px; max-width: none; margin: 0; }
.sfl .strip figcaption { color: var(--sfl-soft); font-size: 11px; text-align: center; margin: 0; padding: 1px 0 0; }
.sfl .strip .slow img { outline: 2px solid var(--sfl-bar); } .sfl .strip .slow figcaption { color: var(--sfl-text); }
.sfl .text { white-space: pre-wrap; overflow-wrap: anywhere; }
</style>"""
MOST_FRAMES = 12
_MOST_BYTES = 54_000  # of all images of a strip in base64
_SIZES = ((72, 70), (72, 45), (48, 40), (32, 30))  # height in pixels and JPEG quality, the best first


def card(kind: str, name: object, *parts: str, facts: Iterable[object] = ()) -> Html:
    """Show one object: what it is, what it is called, short facts as chips, and further parts below each other.

    Args:
        kind: The kind of object, such as "Setting".
        name: Its name; escaped.
        *parts: HTML, each part on lines of its own; empty parts are left out.
        facts: Short values for chips.
    """
    head = f'<div><span class="kind">{escape(kind)}</span><span class="name">{cell(name)}</span></div>'
    shown = chips(facts)
    body = "".join(f"<div>{part}</div>" for part in (shown, *parts) if part)
    return block(_STYLE, f'<div class="card">{head}{body}</div>')


def text(value: str, soft: bool = False) -> Html:
    """Escape a text of several lines, which keeps its line breaks."""
    return Html(f'<span class="text{" soft" if soft else ""}">{escape(value)}</span>')


def more(summary: str, *parts: str) -> Html:
    """Hide parts behind a line that opens them."""
    return Html(f"<details><summary>{escape(summary)}</summary>{''.join(parts)}</details>")


def file_name(path: object) -> str:
    """Return the last part of a path: a notebook that is sent to others should not show the folders of a machine."""
    return Path(str(path)).name or str(path)


def without_folders(value: Any, roots: Sequence[object] = ()) -> Any:
    """Cut the folders off every absolute path in a text, or in the texts of a list or an object.

    `roots` are folders that may be in the texts: they are found whatever characters their names have.
    """
    if isinstance(value, Mapping):
        return {str(key): without_folders(each, roots) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(each, roots) for each in value]
    return cut_folders(value, roots) if isinstance(value, str) else value


def checkpoint_name(path: object) -> str:
    """Return the name of a checkpoint: that on the hub for a folder in the hub's cache, else that of its folder."""
    parts = Path(str(path)).parts
    hub = [part.removeprefix("models--").replace("--", "/") for part in parts if part.startswith("models--")]
    if hub:
        return hub[0]
    return parts[-2] if parts[-1:] == ("weights",) and len(parts) > 1 else file_name(path)


def short(value: str, most: int = 60) -> str:
    """Cut a text to `most` characters on one line."""
    line = " ".join(value.split())
    return line if len(line) <= most else f"{line[: most - 1]}…"


def evenly_spaced(count: int, most: int = MOST_FRAMES) -> list[int]:
    """Return at most `most` evenly spaced indices out of `count`, with the first and the last one."""
    if count <= most or most < 2:
        return list(range(min(count, most)))
    return [round(i * (count - 1) / (most - 1)) for i in range(most)]


def time_of(seconds: float, index: int) -> str:
    """Return the time of a frame in words, or its number where the source has no clock (NaN)."""
    if seconds != seconds:
        return f"frame {index}"
    return f"{seconds:.1f} s" if seconds < 60 else f"{int(seconds // 60)}:{seconds % 60:04.1f}"


def strip(frames: Any, captions: Sequence[str], marked: Iterable[int] = ()) -> Html:
    """Show frames as small images in a row.

    Args:
        frames: (T H W 3) uint8, RGB; at most `MOST_FRAMES`.
        captions: (T) what stands below each.
        marked: Positions of frames that get an outline.
    """
    marked, images = set(marked), _images(frames)
    slow = ' class="slow"'
    shown = [
        f'<figure{slow if i in marked else ""}><img alt="{escape(caption)}" '
        f'src="data:image/jpeg;base64,{data}"><figcaption>{escape(caption)}</figcaption></figure>'
        for i, (data, caption) in enumerate(zip(images, captions))
    ]
    return Html(f'<div class="strip">{"".join(shown)}</div>')


def _images(frames: Any) -> list[str]:
    """Return each frame as a JPEG in base64, all together small enough for a notebook."""
    import base64
    import io

    from PIL import Image

    found: list[str] = []
    for height, quality in _SIZES:
        found = []
        for frame in frames:
            width = max(1, min(2 * height, round(frame.shape[1] * height / frame.shape[0])))
            buffer = io.BytesIO()
            Image.fromarray(frame).resize((width, height)).save(buffer, "JPEG", quality=quality)
            found.append(base64.b64encode(buffer.getvalue()).decode())
        if sum(map(len, found)) <= _MOST_BYTES:
            break
    return found


def shares(values: Mapping[str, float]) -> Html:
    """Show shares between 0 and 1 by name as small bars."""
    rows = [
        f'<tr><td>{escape(name)}</td><td>{_share_bar(value)}</td><td class="num">{100 * value:.1f} %</td></tr>'
        for name, value in values.items()
    ]
    return Html(f"<table><tbody>{''.join(rows)}</tbody></table>")


def _share_bar(share: float) -> str:
    width = 120 * min(max(share, 0.0), 1.0)
    return (
        '<svg width="120" height="10" viewBox="0 0 120 10" role="img">'
        '<rect width="120" height="10" rx="2" fill="var(--sfl-fill)"/>'
        f'<rect width="{width:.1f}" height="10" rx="2" fill="var(--sfl-bar)"/></svg>'
    )
