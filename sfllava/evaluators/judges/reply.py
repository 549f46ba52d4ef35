"""Parse a judge's reply: JSON or a Python dict literal, with or without text around it. Nothing is evaluated."""

from __future__ import annotations

import json
import re
from typing import Any

_LONGEST = 16_000
"""Characters of a reply that are parsed; a reply in the requested form has about 40."""
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
# A pair in a flat literal: a quoted or bare key, then a quoted text, a number or a bare word. Of nested objects, the
# innermost are parsed.
_TEXT = r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'"
_PAIR = re.compile(rf"\s*({_TEXT}|\w+)\s*:\s*({_TEXT}|[-+]?[\w.]+(?:(?<=[eE])[-+]\d+)?)\s*(?:,\s*(?=[^\s,])|(?=}}))")
_OF_FIVE = re.compile(r"([+-]?\d+(?:\.\d*)?|\.\d+)(?:\s*/\s*5(?:\.0*)?)?")
_DECISIONS = {"yes": True, "true": True, "no": False, "false": False}
Pairs = list[tuple[str, Any]]


def read_reply(text: str, decides: bool) -> tuple[bool | None, float]:
    """Parse a judge's reply.

    Args:
        text: the reply.
        decides: whether the judge must say yes or no, besides a score.

    Returns:
        (correct, score): correct is None unless `decides`; the score is from 0 to 5.

    Raises:
        ValueError: there is no object with these fields, a value is not valid, or objects contradict each other, for
            example because the judge repeats a verdict that the prediction told it to give.
    """
    found = set()
    for pairs in _objects(_THOUGHT.sub("", text[:_LONGEST])):
        fields: dict[str, set] = {"correct": set(), "score": set()}
        for key, value in pairs:
            key = {"pred": "correct"}.get(key.strip().lower(), key.strip().lower())
            if key in fields:
                fields[key].add(value if isinstance(value, str | bool | int | float) else None)
        if not fields["score"] or (decides and not fields["correct"]):
            continue
        decisions = {_parse_decision(value) for value in fields["correct"]} if decides else {None}
        scores = {_parse_score(value) for value in fields["score"]}  # more than one if the key is repeated
        found |= {(correct, score) for correct in decisions for score in scores}
    if len(found) > 1:
        raise ValueError(f"{len(found)} verdicts that contradict each other")
    if not found:
        raise ValueError("no JSON object or dict with " + ("correct and score" if decides else "score"))
    return found.pop()


def _parse_decision(value: object) -> bool:
    if isinstance(value, bool):
        return value
    decision = _DECISIONS.get(str(value).strip().strip(".").lower())
    if decision is None:
        raise ValueError(f"correct must be yes or no, got {str(value)[:40]!r}")
    return decision


def _parse_score(value: object) -> float:
    if isinstance(value, str) and (match := _OF_FIVE.fullmatch(value.strip())):
        value = float(match[1])
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 5:
        raise ValueError(f"score must be a number from 0 to 5, got {str(value)[:40]!r}")
    return float(value)


def _objects(text: str) -> list[Pairs]:
    """Return all objects that have a score; objects inside these are skipped, objects inside others are not."""
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs)
    found, i = [], text.find("{")
    while i >= 0:
        end = i + 1
        try:
            value, stop = decoder.raw_decode(text, i)
        except (ValueError, RecursionError):
            value, stop = _literal(text, i)
        if any(key.strip().lower() == "score" for key, _ in value or []):
            found.append(value)
            end = stop
        i = text.find("{", end)
    return found


class _Pairs(list):
    """The (key, value) pairs of an object, repeated keys included."""


def _literal(text: str, start: int) -> tuple[Pairs | None, int]:
    """Return the pairs of a flat dict literal that starts at a brace, and where it ends; None if there is none."""
    pairs, i = [], start + 1
    while match := _PAIR.match(text, i):
        key, value = match[1], match[2]
        pairs.append((_unquoted(key), _value(value)))
        i = match.end()
    end = re.compile(r"\s*\}").match(text, i)
    return (pairs, end.end()) if end else (None, start + 1)


def _unquoted(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text[1:-1]) if text[0] in "\"'" else text


def _value(text: str) -> Any:
    if text[0] in "\"'":
        return _unquoted(text)
    if text in ("True", "False"):
        return text == "True"
    try:
        return float(text)
    except ValueError:
        return text
