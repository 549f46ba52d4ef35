"""Parse a judge's reply: JSON or a Python dict literal, with or without text around it. Nothing is evaluated."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from functools import partial
from itertools import product
from typing import TYPE_CHECKING, Any

from sfllava.prompts import LETTERS

if TYPE_CHECKING:
    from sfllava.evaluators.judges.base import JudgeRequest

_LONGEST = 16_000
"""Characters of a reply that are parsed; a reply in the requested form has about 40."""
_THOUGHT = re.compile(r"\A\s*<think>.*?</think>", re.DOTALL)
# A pair in a flat literal: a quoted or bare key, then a quoted text, a number or a bare word. Of nested objects, the
# innermost are parsed.
_TEXT = r"\"(?:[^\"\\\n]|\\.)*\"|'(?:[^'\\\n]|\\.)*'"
_PAIR = re.compile(rf"\s*({_TEXT}|\w+)\s*:\s*({_TEXT}|[-+]?[\w.]+(?:(?<=[eE])[-+]\d+)?)\s*(?:,\s*(?=[^\s,])|(?=}}))")
_FRACTION = re.compile(r"([+-]?\d+(?:\.\d*)?|\.\d+)(?:\s*/\s*(\d+)(?:\.0*)?)?")  # 4, or 4/5 on a scale that ends at 5
_OPTION = re.compile(r"\s*\(?([A-Za-z])(?:\s*$|[).:])")
_NO_OPTION = re.compile(r"\s*none\b", re.IGNORECASE)
_FIELD = {"pred": "correct"}  # as the published judge calls it
_DECISIONS = {"yes": True, "true": True, "no": False, "false": False}
Pairs = list[tuple[str, Any]]


def read_verdict(text: str, request: JudgeRequest) -> dict[str, Any]:
    """Parse the reply to a request as its rubric's head says.

    Args:
        text: the reply.
        request: what the judge was asked.

    Returns:
        The fields correct, score and chosen of a `Verdict`. An option is correct if it is the right one.

    Raises:
        ValueError: as in `read_reply`; a score outside of the rubric's scale is not valid, and neither is the letter of
            no option.
    """
    head = request.rubric.head
    if not head.chooses:
        correct, score = read_reply(text, head.decides, head.scale)
        return {"correct": correct, "score": score}
    chosen = read_choice(text, len(request.options))
    return {"correct": chosen is not None and chosen == request.right, "chosen": chosen}


def read_reply(
    text: str, decides: bool, scale: tuple[float, float] | None = (0.0, 5.0)
) -> tuple[bool | None, float | None]:
    """Parse a judge's reply.

    Args:
        text: the reply.
        decides: whether the judge must say yes or no.
        scale: the lowest and the highest score that it may give; None if it gives none.

    Returns:
        (correct, score): correct is None unless `decides`, and score unless there is a scale.

    Raises:
        ValueError: there is no object with these fields, a value is not valid, or objects contradict each other, for
            example because the judge repeats a verdict that the prediction told it to give.
    """
    parsers: dict[str, Callable[[object], Any]] = {"correct": _parse_decision} if decides else {}
    if scale is not None:
        parsers["score"] = partial(_parse_score, scale=scale)
    found = _read_fields(text, parsers)
    return found.get("correct"), found.get("score")


def read_choice(text: str, options: int) -> int | None:
    """Parse the reply of a judge that names an option.

    Args:
        text: the reply.
        options: the number of options.

    Returns:
        The index of the option, or None where the judge says that none fits.

    Raises:
        ValueError: as in `read_reply`.
    """
    return _read_fields(text, {"choice": partial(_parse_choice, options=options)})["choice"]


def _read_fields(text: str, parsers: Mapping[str, Callable[[object], Any]]) -> dict[str, Any]:
    """Return the values of the fields in the only verdict of a reply."""
    found = set()
    for pairs in _objects(_THOUGHT.sub("", text[:_LONGEST]), list(parsers)[-1]):
        fields: dict[str, set] = {name: set() for name in parsers}
        for key, value in pairs:
            name = _FIELD.get(name := key.strip().lower(), name)
            if name in fields:
                fields[name].add(value if isinstance(value, str | bool | int | float) else None)
        if all(fields.values()):  # a field has several values if its key is repeated
            found |= set(product(*({parse(value) for value in fields[name]} for name, parse in parsers.items())))
    if len(found) > 1:
        raise ValueError(f"{len(found)} verdicts that contradict each other")
    if not found:
        raise ValueError(f"no JSON object or dict with {' and '.join(parsers)}")
    return dict(zip(parsers, found.pop()))


def _parse_decision(value: object) -> bool:
    if isinstance(value, bool):
        return value
    decision = _DECISIONS.get(str(value).strip().strip(".").lower())
    if decision is None:
        raise ValueError(f"correct must be yes or no, got {str(value)[:40]!r}")
    return decision


def _parse_score(value: object, scale: tuple[float, float]) -> float:
    low, high = scale
    if isinstance(value, str) and (match := _FRACTION.fullmatch(value.strip())) and match[2] in (None, f"{high:g}"):
        value = float(match[1])
    if isinstance(value, bool) or not isinstance(value, int | float) or not low <= value <= high:
        raise ValueError(f"score must be a number from {low:g} to {high:g}, got {str(value)[:40]!r}")
    return float(value)


def _parse_choice(value: object, options: int) -> int | None:
    letters = LETTERS[:options]
    if isinstance(value, str) and _NO_OPTION.match(value):
        return None
    found = _OPTION.match(value) if isinstance(value, str) else None
    if found is None or (letter := found[1].upper()) not in letters:
        raise ValueError(f"choice must be a letter from A to {letters[-1:]} or none, got {str(value)[:40]!r}")
    return letters.index(letter)


def _objects(text: str, field: str) -> list[Pairs]:
    """Return all objects that have a field; objects inside these are skipped, objects inside others are not."""
    decoder = json.JSONDecoder(object_pairs_hook=_Pairs)
    found, i = [], text.find("{")
    while i >= 0:
        end = i + 1
        try:
            value, stop = decoder.raw_decode(text, i)
        except (ValueError, RecursionError):
            value, stop = _literal(text, i)
        if any(_FIELD.get(name := key.strip().lower(), name) == field for key, _ in value or []):
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
