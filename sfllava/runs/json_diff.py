"""Describe the differences between two JSON values."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any


def describe_changes(before: Any, now: Any, name: str = "") -> Iterator[str]:
    """Yield a description of each difference between two JSON values.

    Args:
        before: The old value. In a list of objects with unique names, each is compared with the one of the same name.
        now: The new value.
        name: The path of the values, such as `model.rope`; empty at the top.
    """
    before, now = _by_name(before), _by_name(now)
    if isinstance(before, dict) and isinstance(now, dict):
        for key in sorted(before.keys() | now.keys()):
            yield from describe_changes(before.get(key), now.get(key), f"{name}.{key}" if name else key)
    elif before != now:
        was, is_ = _shorten(before, now)
        yield f"{name} was {was}, is {is_}"


def _by_name(value: Any) -> Any:
    """Convert a list of objects with unique names to an object by name; return any other value as it is."""
    if (
        not isinstance(value, list)
        or not value
        or not all(isinstance(v, dict) and isinstance(v.get("name"), str) for v in value)
    ):
        return value
    named = {v["name"]: v for v in value}
    return named if len(named) == len(value) else value


def _shorten(before: Any, now: Any) -> tuple[str, str]:
    """Return two values as JSON; if one is long, only the part where they begin to differ."""
    was, is_ = (json.dumps(value, ensure_ascii=False) for value in (before, now))
    if max(len(was), len(is_)) <= 160:
        return was, is_
    same = next((i for i, (a, b) in enumerate(zip(was, is_)) if a != b), min(len(was), len(is_)))
    start = max(0, same - 40)
    return _excerpt(was, start), _excerpt(is_, start)


def _excerpt(text: str, start: int) -> str:
    end = start + 120
    return ("..." if start else "") + text[start:end] + ("..." if end < len(text) else "")
