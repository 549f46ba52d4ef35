"""The judge prompts of a checkout of the published code, parsed out of its evaluation scripts."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from sfllava.published.templates import Gap, Unreadable, Wording, fill, parse_file, read_template, render

RUBRICS_FILE = "eval/eval_prompt.py"
FIELDS_FILE = "eval/eval_generative_qa.py"
MESSAGES_FILE = "eval/eval_video_qa.py"
# the judge's prompt_mode -> our name of the rubric
RUBRICS = {
    "correctness": "CI",
    "detailed_orientation": "DO",
    "context": "CU",
    "temporal": "TU",
    "consistency": "CO",
}
_NAMES = {
    "question": "{question}",
    "answer": "{answer}",
    "pred": "{prediction}",
    "question1": "{question}",
    "question2": "{question2}",
    "pred1": "{prediction}",
    "pred2": "{prediction2}",
}


def read_rubrics(checkout: Path) -> Iterator[Wording | str]:
    """Yield the system and user prompts of two dicts by mode, or why one cannot be used.

    The variables that fill a user prompt are named in another file, where it is used.
    """
    try:
        fields = _fields(parse_file(checkout / FIELDS_FILE))
    except Unreadable as error:
        yield f"the variables that fill its user prompts are named in {FIELDS_FILE}, which {error}"
        fields = {}
    for node in ast.walk(parse_file(checkout / RUBRICS_FILE)):
        match node:
            case ast.Assign(targets=[ast.Name(id=variable)], value=ast.Dict(keys=keys, values=values)):
                role = next((role for role in ("system", "user") if role in variable), None)
            case _:
                continue
        for key, value in zip(keys, values) if role else ():
            if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
                yield f"{variable}, line {value.lineno}: needed the name of a mode"
                continue
            try:
                yield _read_rubric(key.value, str(role), value, fields)
            except Unreadable as error:
                yield f"{key.value} of {variable} (line {value.lineno}): {error}"


def _read_rubric(mode: str, role: str, value: ast.expr, fields: dict[int, list[str]]) -> Wording:
    if not re.fullmatch(r"\w[\w.-]*", mode):
        raise Unreadable("cannot be the name of a file")
    template = read_template(value, {})
    if role == "user":
        count = sum(part.count("%s") for part in template if isinstance(part, str))
        if count not in fields:
            raise Unreadable(f"no variables are known for its {count} places")
        template = fill(template, [(Gap(field),) for field in fields[count]])
    file = f"judge/{RUBRICS.get(mode, mode)}.{role}.txt"
    return Wording(file, render(template, _NAMES), f"{RUBRICS_FILE}, line {value.lineno}")


def _fields(tree: ast.Module) -> dict[int, list[str]]:
    """Return the names of the variables that fill a user prompt, in order, by their number."""
    found = {}
    for node in ast.walk(tree):
        match node:
            case ast.BinOp(left=ast.Name(id=name), op=ast.Mod(), right=ast.Tuple(elts=elts)) if "user" in name:
                names = [element.id for element in elts if isinstance(element, ast.Name)]
                if len(names) == len(elts):
                    found[len(names)] = names
    return found


def read_messages(checkout: Path) -> Iterator[Wording | str]:
    """Yield the messages of the judge of open questions, {"role": ..., "content": ...}, or why one cannot be used."""
    for node in ast.walk(parse_file(checkout / MESSAGES_FILE)):
        match node:
            case ast.Dict(
                keys=[ast.Constant(value="role"), ast.Constant(value="content")],
                values=[ast.Constant(value="system" | "user" as role), content],
            ):
                try:
                    text = render(read_template(content, {}), _NAMES)
                    yield Wording(f"judge/open.{role}.txt", text, f"{MESSAGES_FILE}, line {content.lineno}")
                except Unreadable as error:
                    yield f"the {role} message (line {content.lineno}): {error}"
