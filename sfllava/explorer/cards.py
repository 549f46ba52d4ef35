"""Answers, comparisons, budgets and errors as plain values for the front end."""

from __future__ import annotations

import difflib
import traceback
from collections.abc import Sequence
from typing import Any

from sfllava.aggregators.base import name_of
from sfllava.aggregators.slowfast import named_pathways
from sfllava.explorer.session import Reply
from sfllava.explorer.videos import name_of_video
from sfllava.planning.budget import ContextBudget
from sfllava.sampler.sampling import PUBLISHED
from sfllava.settings import Setting
from sfllava.types import SfllavaError


def chips_of(setting: Setting) -> list[dict[str, str]]:
    """Return a setting in a few short texts, each with the part that it is about."""
    known, chips = named_pathways(setting.aggregation), [{"text": f"{setting.frames} frames", "kind": ""}]
    if known:
        if known.slow_frames:
            chips.append({"text": f"Slow {known.slow_frames} × {known.slow}", "kind": "slow"})
        if known.fast != (0, 0):
            chips.append({"text": "Fast {}×{}".format(*known.fast), "kind": "fast"})
    else:
        chips.append({"text": name_of(setting.aggregation), "kind": "visual"})
    if setting.question_aware:
        target = "" if setting.selection_for == "all" else f" for {setting.selection_for}"
        chips.append({"text": f"{setting.selection}{target}", "kind": ""})
    if setting.frame_rule != PUBLISHED:
        chips.append({"text": setting.frame_rule, "kind": ""})
    return chips + ([{"text": "own prompt", "kind": "text"}] if setting.prompt else [])


def card_of(number: int, reply: Reply, code: str = "") -> dict[str, Any]:
    """Return a reply as a card; `code` asks the same question again."""
    return {
        "number": number, "video": name_of_video(reply.video), "question": reply.question.text, "text": reply.text,
        "stopped": reply.stopped, "chips": chips_of(reply.setting), "cost": cost_of(reply),
        "stages": [{"name": name, "seconds": round(seconds, 3)} for name, seconds in reply.seconds.items()],
        "seconds": round(sum(reply.seconds.values()), 3), "code": code,
    }  # fmt: skip


def cost_of(reply: Reply) -> str:
    """Return the tokens of a reply, and what had to be computed for it."""
    return (
        f"{reply.visual_tokens:,} visual tokens, {reply.reused_tokens:,} of them reused; "
        f"{reply.decoded_frames} frames decoded, {reply.encoded_frames} encoded"
    )


def comparison_of(replies: Sequence[Reply], first_number: int) -> list[dict[str, Any]]:
    """Return replies side by side, with their differences from the first marked.

    Args:
        replies: the replies to one question.
        first_number: the number of the first among all answers.
    """
    first = replies[0]
    shown = {chip["text"] for chip in chips_of(first.setting)}
    cards = []
    for i, reply in enumerate(replies):
        card = card_of(first_number + i, reply)
        for chip in card["chips"]:
            chip["differs"] = chip["text"] not in shown
        card["words"] = marked_words(first.text.split(), reply.text.split()) if i else [[reply.text, "same"]]
        card["verdict"] = "first" if not i else "same words" if first.text == reply.text else "other words"
        cards.append(card)
    return cards


def marked_words(one: Sequence[str], two: Sequence[str]) -> list[list[str]]:
    """Return the second text in pieces (words, kind): `same`, `new`, or `gone` for words of the first alone."""
    pieces = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        if kind in ("delete", "replace"):
            pieces.append([" ".join(one[a:b]), "gone"])
        if kind != "delete":
            pieces.append([" ".join(two[c:d]), "same" if kind == "equal" else "new"])
    return pieces


def budget_data(budget: ContextBudget) -> dict[str, Any]:
    """Return a budget as named parts and short lines."""
    tokens, _, costs = str(budget).partition("; keys and values ")
    return {
        "parts": [{"name": name, "tokens": tokens} for name, tokens in budget.parts.items()],
        "visual": budget.visual, "context": budget.context, "rest": budget.rest, "over": budget.over,
        "text": tokens, "costs": f"keys and values {costs}",
    }  # fmt: skip


def message_of(error: BaseException) -> dict[str, str]:
    """Return an error as one line, with its traceback."""
    line = str(error) if isinstance(error, SfllavaError) else f"{type(error).__name__}: {error}"
    trace = "".join(traceback.format_exception(error))
    return {"text": " ".join(line.split())[:400], "kind": "error", "trace": trace}
