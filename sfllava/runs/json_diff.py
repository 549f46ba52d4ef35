"""What differs between two JSON values, in words."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def describe_changes(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """In words what differs between two values of JSON; objects in lists are told apart by their names."""
    before, now = _by_name(before), _by_name(now)
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from describe_changes(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        was, is_ = _apart(before, now)
        yield f"{name} was {was}, is {is_}"


def _by_name(value: Any) -> Any:
    """A list of objects that have names of their own, as an object of them; any other value as it is."""
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(v, dict) and isinstance(v.get("name"), str) for v in value)
    ):
        return value
    named = {v["name"]: v for v in value}
    return named if len(named) == len(value) else value


def _apart(before: Any, now: Any) -> tuple[str, str]:
    """Two values in short; of long ones the part in which they begin to differ."""
    was, is_ = (json.dumps(value, ensure_ascii=False) for value in (before, now))
    if max(len(was), len(is_)) <= 160:
        return was, is_
    same = next((i for i, (a, b) in enumerate(zip(was, is_)) if a != b), min(len(was), len(is_)))
    start = max(0, same - 40)
    return _part(was, start), _part(is_, start)


def _part(text: str, start: int) -> str:
    end = start + 120
    return ("..." if start else "") + text[start:end] + ("..." if end < len(text) else "")
