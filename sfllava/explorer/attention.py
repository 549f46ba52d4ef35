"""The attention of an answer, and what it loses without a part, as plain values for the front end."""

from __future__ import annotations

import base64
from typing import Any

import numpy as np

from sfllava.attribution.attribution import EXPLANATION, Attribution
from sfllava.attribution.leave_out import removable_parts
from sfllava.explorer.strip import pictures_of, strip_data
from sfllava.plots.attribution import strongest

SCALES = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0)  # nats at the end of a bar: never less than 1


def attention_data(attribution: Attribution, number: int) -> dict[str, Any]:
    """Return an answer's frames, words, and attention on each frame by part; the mean of all words comes first."""
    words = list(attribution.words)
    totals = {
        name: [np.round(attribution.totals(word)[name], 6).tolist() for word in (None, *range(len(words)))]
        for name in attribution.totals()
    }
    return {
        "answer": number, "question": attribution.question.text, "words": words, "totals": totals,
        "strip": strip_data(attribution.video, attribution.setting, attribution.grid),
        "pictures": pictures_of(attribution.video), "parts": choices_of(attribution), "about": EXPLANATION,
    }  # fmt: skip


def heat_data(attribution: Attribution, number: int, word: int) -> dict[str, Any]:
    """Return the attention on the patches of each frame at one word, or at all (-1).

    Each map is base64 of one byte per patch, row by row; 255 is `top`, the strongest of all words. A frame without any
    has an empty text.
    """
    parts, tops = {}, {}
    for source in attribution.sources:
        heat = attribution.heat(source.name, None if word < 0 else word)
        top = max(strongest(source, weights) for weights in attribution.attention) or 1.0
        scaled = np.clip(np.rint(255 * heat / top), 0, 255).astype(np.uint8)
        parts[source.name] = [base64.b64encode(frame.tobytes()).decode() if frame.any() else "" for frame in scaled]
        tops[source.name] = float(f"{top:.3g}")
    return {"answer": number, "word": word, "parts": parts, "top": tops}


def effects_data(attribution: Attribution, number: int) -> dict[str, Any]:
    """Return the change of the answer's log-likelihood without each part measured so far, the greatest loss first."""
    rows = sorted(attribution.left_out.items(), key=lambda item: item[1])
    largest = max((abs(change) for _, change in rows), default=0.0)
    return {
        "answer": number, "log_likelihood": round(attribution.log_likelihood, 4),
        "scale": next((scale for scale in SCALES if scale >= largest), float(f"{largest:.1g}")),
        "rows": [{"part": part, "nats": round(change, 4)} for part, change in rows],
    }  # fmt: skip


def choices_of(attribution: Attribution) -> list[list[str]]:
    """Return what can be left out, as (value, label)."""
    names = list(removable_parts(attribution))
    parts, frames = _pathways(names), list(reversed(_frames(names)))
    groups = [["paths", "each pathway"]] * bool(parts) + [["frames", "each frame"]] * bool(frames)
    return groups + [[name, name] for name in (*parts, *frames)]


def parts_to_leave_out(attribution: Attribution, choice: str) -> list[str]:
    """Return the parts that a choice stands for."""
    names = list(removable_parts(attribution))
    if choice in ("", "paths"):
        return _pathways(names)
    return _frames(names) if choice == "frames" else [choice]


def _frames(names: list[str]) -> list[str]:
    return [name for name in names if name.startswith("frame ")]


def _pathways(names: list[str]) -> list[str]:
    return [name for name in names if not name.startswith("frame ")]
