"""A judge's reply -> its verdict: JSON or a Python dict literal, with words around it or not; nothing is evaluated."""

from __future__ import annotations

import json
import re
from typing import Any

_LONGEST = 16_000
"""Characters of a reply that are read; what a judge was asked for is about 40."""
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
# A flat literal: quoted or bare keys, then quoted texts, numbers or bare words. What is nested is read from inside.
_TEXT = r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'"
_PAIR = re.compile(rf"\s*({_TEXT}|\w+)\s*:\s*({_TEXT}|[-+]?[\w.]+(?:(?<=[eE])[-+]\d+)?)\s*(?:,\s*(?=[^\s,])|(?=}}))")
_OF_FIVE = re.compile(r"([+-]?\d+(?:\.\d*)?|\.\d+)(?:\s*/\s*5(?:\.0*)?)?")
_SAYS = {"yes": True, "true": True, "no": False, "false": False}
Pairs = list[tuple[str, Any]]


def read_reply(text: str, decides: bool) -> tuple[bool | None, float]:
    """(correct, score) of a reply; `decides` where yes or no is wanted beside the score.

    Raises ValueError with the reason: no such object, a score outside 0 to 5, or objects that contradict each other,
    as when a judge repeats what a prediction told it to say.
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
        said = {_says(value) for value in fields["correct"]} if decides else {None}
        scores = {_score(value) for value in fields["score"]}  # a key that stands twice counts twice
        found |= {(correct, score) for correct in said for score in scores}
    if len(found) > 1:
        raise ValueError(f"{len(found)} verdicts that contradict each other")
    if not found:
        raise ValueError("no JSON object or dict with " + ("correct and score" if decides else "score"))
    return found.pop()


def _says(value: object) -> bool:
    if isinstance(value, bool):
        return value
    said = _SAYS.get(str(value).strip().strip(".").lower())
    if said is None:
        raise ValueError(f"correct must be yes or no, got {str(value)[:40]!r}")
    return said


def _score(value: object) -> float:
    if isinstance(value, str) and (match := _OF_FIVE.fullmatch(value.strip())):
        value = float(match[1])
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 5:
        raise ValueError(f"score must be a number from 0 to 5, got {str(value)[:40]!r}")
    return float(value)


def _objects(text: str) -> list[Pairs]:
    """All objects that have fields a verdict could have; those inside others too, unless the outer one was read."""
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
    """An object with its keys as they stand, equal ones too."""


def _literal(text: str, start: int) -> tuple[Pairs | None, int]:
    """The pairs of a flat dict literal that starts at a brace, and where it ends."""
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
