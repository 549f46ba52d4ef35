"""Read string expressions of Python source as text with named gaps, without executing anything."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_LARGEST = 1 << 20  # bytes
_PERCENT = re.compile(r"%(.?)", re.DOTALL)


class Unreadable(ValueError):
    """An expression that is more than text with gaps; the message says what."""


@dataclass(frozen=True)
class Gap:
    """A place that the value of a variable fills."""

    name: str


Template = tuple[str | Gap, ...]


@dataclass(frozen=True)
class Wording:
    """One text of a prompt pack: its file there, and where in the checkout it comes from."""

    file: str
    text: str
    source: str


def parse_file(path: Path) -> ast.Module:
    """Return the syntax tree of a Python file, or raise Unreadable with the reason."""
    try:
        data = path.read_bytes()
        if len(data) > _LARGEST:
            raise Unreadable(f"needed at most {_LARGEST:,} bytes, got {len(data):,}")
        return ast.parse(data)
    except OSError as error:
        raise Unreadable(f"cannot be read: {error.strerror}") from error
    except Unreadable:
        raise
    except (SyntaxError, ValueError, MemoryError, RecursionError) as error:
        raise Unreadable(f"not readable as Python: {' '.join(str(error).split())[:200]}") from error


def read_template(node: ast.expr, known: Mapping[str, Template]) -> Template:
    """Return a string expression as text and gaps. A variable in `known` is replaced; any other is a gap."""
    match node:
        case ast.Constant(value=str(text)):
            return (text,)
        case ast.Name(id=name):
            return known.get(name, (Gap(name),))
        case ast.JoinedStr(values=values):
            return _join(read_template(value, known) for value in values)
        case ast.FormattedValue(value=ast.Name() as name, conversion=-1, format_spec=None):
            return read_template(name, known)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return _join([read_template(left, known), read_template(right, known)])
        case ast.BinOp(left=left, op=ast.Mod(), right=right):
            values = right.elts if isinstance(right, ast.Tuple) else [right]
            return fill(read_template(left, known), [read_template(value, known) for value in values])
    raise Unreadable(f"line {node.lineno}: a {type(node).__name__} expression is not text with variables in it")


def fill(template: Template, values: Sequence[Template]) -> Template:
    """Replace each %s with the next of the values, as `%` does."""
    parts: list[Template] = []
    left = list(values)
    for part in template:
        if isinstance(part, Gap):
            raise Unreadable(f"the variable {part.name} is filled in by %, so what it holds is not known")
        end = 0
        for found in _PERCENT.finditer(part):
            parts.append((part[end : found.start()],))
            end = found.end()
            if found[1] == "%":
                parts.append(("%",))
            elif found[1] != "s" or not left:
                raise Unreadable(f"{found[0]!r} has no value, or is not %s: there are {len(values)} values")
            else:
                parts.append(left.pop(0))
        parts.append((part[end:],))
    if left:
        raise Unreadable(f"{len(values)} values for {len(values) - len(left)} places")
    return _join(parts)


def branches(tree: ast.AST) -> Iterator[tuple[str, list[ast.stmt]]]:
    """Yield the text and the statements of each `if NAME == "text":` below a node."""
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and (text := compared_with(node.test)) is not None:
            yield text, node.body


def compared_with(test: ast.expr) -> str | None:
    """Return the text of `NAME == "text"`, or None for another test."""
    match test:
        case ast.Compare(left=ast.Name(), ops=[ast.Eq()], comparators=[ast.Constant(value=str(text))]):
            return text
    return None


def render(template: Template, names: Mapping[str, str]) -> str:
    """Return the text with a marker for each gap. Unreadable: a gap has no marker, or the text has a marker in it."""
    for part in template:
        if isinstance(part, Gap) and part.name not in names:
            raise Unreadable(f"it has the variable {part.name}; known are {', '.join(names)}")
        if isinstance(part, str) and (found := next((m for m in names.values() if m.strip() in part), None)):
            raise Unreadable(f"its own text has {found.strip()} in it")
    text = "".join(part if isinstance(part, str) else names[part.name] for part in template)
    if any("\ud800" <= character <= "\udfff" for character in text):
        raise Unreadable("its text has half a character in it (a surrogate)")
    return text


def _join(templates: Iterator[Template] | Sequence[Template]) -> Template:
    parts: list[str | Gap] = []
    for template in templates:
        for part in template:
            if isinstance(part, str) and parts and isinstance(parts[-1], str):
                parts[-1] += part
            elif part != "":
                parts.append(part)
    return tuple(parts)
