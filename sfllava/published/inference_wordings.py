"""The inference prompts of a checkout of the published code, parsed out of its prompt.py."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from sfllava.prompts import VIDEO, Prompt, check_placeholders
from sfllava.published.templates import (
    Gap,
    Template,
    Unreadable,
    Wording,
    branches,
    compared_with,
    parse_file,
    read_template,
    render,
)
from sfllava.types import SfllavaError

INFERENCE_FILE = "prompt.py"
_IMAGE = "<image>"
_OPTIONS = ("(", Gap("letter"), ") ", Gap("option"), "\n")  # how {options} is written here, and a line end


def read_inference(checkout: Path) -> Iterator[Wording | str]:
    """Yield the texts with <image> under `if conv_mode == "..."`, or why one cannot be used.

    A text that lists options is for choice questions.
    """
    tree = parse_file(checkout / INFERENCE_FILE)
    for mode, body in branches(tree):
        if not any(_IMAGE in text for text in _texts(body)):
            continue
        line = f"{INFERENCE_FILE}, line {body[0].lineno}"
        try:
            if not re.fullmatch(r"\w[\w.-]*", mode) or mode == "judge":
                raise Unreadable(f"{mode!r} cannot be the name of a folder")
            template, options = _branch(body, tree)
            names = {"question": "{question}", **({options: "{options}\n"} if options else {})}
            text = render(template, names)
            if text.count(_IMAGE) != 1 or VIDEO in text:
                raise Unreadable(f"it needs {_IMAGE} once, and no {VIDEO}")
            prompt = Prompt(text.replace(_IMAGE, VIDEO), line)
            check_placeholders(prompt.text, line)
        except (Unreadable, SfllavaError) as error:
            yield f"{mode} (line {body[0].lineno}): {error}"
            continue
        for task in ("choice",) if "{options}" in prompt.text else ("open", "describe"):
            yield Wording(f"{mode}/{task}.txt", prompt.text, line)


def _branch(body: list[ast.stmt], tree: ast.Module) -> tuple[Template, str]:
    """Return the prompt that a branch builds, and the variable that holds the options ("" for none)."""
    known: dict[str, Template] = {}
    options, last = "", None
    for statement in body:
        match statement:
            case ast.Assign(targets=[ast.Tuple(elts=[ast.Name(id=name), *_])], value=ast.Call() as call):
                if _option_line(call, tree) != _OPTIONS:
                    raise Unreadable("its options are written otherwise than (A) text, one a line")
                options = name
            case ast.Assign(targets=[ast.Name(id=name)], value=value):
                known[name] = read_template(value, known)
                last = known[name] if any(isinstance(p, str) and _IMAGE in p for p in known[name]) else last
            case ast.Return(value=ast.expr() as value):
                last = read_template(value, known)
            case ast.Expr(value=ast.Constant()):
                continue
            case _:
                raise Unreadable(f"line {statement.lineno}: a {type(statement).__name__} is not understood")
    if last is None:
        raise Unreadable(f"it ends without a text with {_IMAGE}")
    return last, options


def _option_line(call: ast.Call, tree: ast.Module) -> Template:
    """Return what the called function appends for each option, its two gaps named letter and option."""
    function = next(
        (
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef) and isinstance(call.func, ast.Name) and node.name == call.func.id
        ),
        None,
    )
    if function is None:
        raise Unreadable("its options come from a function that is not in this file")
    version = next(
        (k.value.value for k in call.keywords if k.arg == "version" and isinstance(k.value, ast.Constant)), None
    )
    lines = [
        read_template(node.value, {})
        for statement in _taken(function.body, version)
        for node in ast.walk(statement)
        if isinstance(node, ast.AugAssign) and isinstance(node.op, ast.Add)
    ]
    if len(lines) != 1:
        raise Unreadable(f"needed one place where {function.name} adds an option, got {len(lines)}")
    gaps = iter((Gap("letter"), Gap("option")))
    return tuple(next(gaps, part) if isinstance(part, Gap) else part for part in lines[0])


def _taken(statements: list[ast.stmt], version: object) -> Iterator[ast.stmt]:
    """Yield the simple statements that a call with that version reaches."""
    for statement in statements:
        if isinstance(statement, ast.For):
            yield from _taken(statement.body, version)
        elif isinstance(statement, ast.If) and (text := compared_with(statement.test)) is not None:
            yield from _taken(statement.body if text == version else statement.orelse, version)
        else:
            yield statement


def _texts(body: list[ast.stmt]) -> Iterator[str]:
    """Yield all string constants."""
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
