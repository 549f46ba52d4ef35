"""Parse text from outside as JSON or a Python literal, up to a limited size. Nothing is executed."""

from __future__ import annotations

import ast
import json
import warnings
from typing import Any

_LONGEST = 1 << 20  # characters of JSON
_LONGEST_LITERAL = 100_000  # the parser of literals is slower, and no real file has a longer one


def parse_value(text: str) -> Any:
    """Return the value of JSON text, or of a Python literal such as `{'pred': 'yes'}`; else raise ValueError."""
    if len(text) > _LONGEST:
        raise ValueError(f"needed at most {_LONGEST:,} characters, got {len(text):,}")
    try:
        return json.loads(text, object_pairs_hook=_no_duplicates, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        reason = str(error)
    if not text.lstrip().startswith(("{", "[")) or len(text) > _LONGEST_LITERAL:
        raise ValueError(f"not readable as JSON: {reason}")
    try:
        with warnings.catch_warnings(action="ignore"):  # of escapes that Python does not know
            tree = ast.parse(text.strip(), mode="eval")
            for node in ast.walk(tree):
                if isinstance(node, ast.Dict):  # where the last of two equal keys would silently win
                    _no_duplicates([(ast.dump(key), None) for key in node.keys if key])
            return ast.literal_eval(tree)
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError) as error:
        raise ValueError(f"not readable as JSON ({reason}), nor as a Python literal") from error


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) < len(pairs):
        raise ValueError("a key occurs twice in one object")
    return value


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not a number")
