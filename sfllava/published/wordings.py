"""The exact prompts of a checkout of the published code, by parsing its files, as a prompt pack in your own folder.

Nothing of it is run or imported, and none of its wordings are in this package.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sfllava.evaluators.judges.base import USER
from sfllava.prompts import VIDEO, Prompt, check_placeholders
from sfllava.published.outputs import sha256
from sfllava.published.templates import (
    Gap,
    Template,
    Unreadable,
    branches,
    compared_with,
    fill,
    parse_file,
    read_template,
    render,
)
from sfllava.types import SfllavaError

_IMAGE = "<image>"
_INFERENCE = "prompt.py"
_JUDGE = ("eval/eval_prompt.py", "eval/eval_generative_qa.py", "eval/eval_video_qa.py")
_OPTIONS = ("(", Gap("letter"), ") ", Gap("option"), "\n")  # as {options} is written here, and a line end
# a judge's prompt_mode -> the rubric as it is called here
RUBRICS = {
    "correctness": "CI",
    "detailed_orientation": "DO",
    "context": "CU",
    "temporal": "TU",
    "consistency": "CO",
}
_JUDGE_NAMES = {
    "question": "{question}",
    "answer": "{answer}",
    "pred": "{prediction}",
    "question1": "{question}",
    "question2": "{question2}",
    "pred1": "{prediction}",
    "pred2": "{prediction2}",
}
_WANTED = (
    "image_seq_v3/open.txt",
    "image_seq_34b_v3/open.txt",
    "multiple_choice_allvideo_v4/choice.txt",
    "multiple_choice_allvideo_34b_v4/choice.txt",
    *(f"judge/{rubric}.txt" for rubric in ("open", *RUBRICS.values())),
)


@dataclass(frozen=True)
class Wording:
    """One text of a pack: its file there, and where in the checkout it is from."""

    file: str
    text: str
    source: str


@dataclass(frozen=True)
class PromptPack:
    """What was found in a checkout, and what was not, with the reasons."""

    checkout: Path
    wordings: tuple[Wording, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        found = [f"  {wording.file}  from {wording.source}" for wording in self.wordings]
        missing = [f"  not found: {reason}" for reason in self.missing]
        return "\n".join([f"{self.checkout}: {len(found)} wordings", *found, *missing])


def read_wordings(checkout: str | Path) -> PromptPack:
    """Parse the files of a checkout that hold its prompts for inference and for the judge."""
    checkout = Path(checkout)
    if not checkout.is_dir():
        raise SfllavaError(f"{checkout}: needed the folder of a checkout of the published code")
    found: dict[str, Wording] = {}
    missing: list[str] = []
    readers = {_INFERENCE: _inference, _JUDGE[0]: _judge_dicts, _JUDGE[2]: _judge_messages}
    for name, reader in readers.items():
        try:
            for item in reader(checkout, name):
                if isinstance(item, str):
                    missing.append(f"{name}: {item}")
                elif (before := found.setdefault(item.file, item)) != item and before.text != item.text:
                    missing.append(f"{item.source}: another text for {item.file}; the first, {before.source}, counts")
        except (Unreadable, RecursionError) as error:
            missing.append(f"{name}: {error}")
    wordings = [*_joined(found, missing)]
    missing += [file for file in _WANTED if file not in {wording.file for wording in wordings}]
    return PromptPack(checkout, tuple(wordings), tuple(missing))


def _joined(found: dict[str, Wording], missing: list[str]) -> Iterator[Wording]:
    """The two parts of a judge's wording as one file, as `sfllava judge --rubrics` reads it."""
    for file, wording in found.items():
        stem, role = re.fullmatch(r"(.*?)(?:\.(system|user))?\.txt", file).groups()  # type: ignore[union-attr]
        if not role:
            yield wording
        elif (other := found.get(f"{stem}.{'user' if role == 'system' else 'system'}.txt")) is None:
            missing.append(f"{stem}.txt: its {role} part alone was found ({wording.source})")
        elif role == "system":
            text = f"{wording.text}\n{USER}{other.text}"
            yield Wording(f"{stem}.txt", text, f"{wording.source}, and {other.source}")


def write_pack(pack: PromptPack, folder: str | Path) -> None:
    """Write the texts byte for byte, and pack.json with where they are from; other texts there are an error."""
    folder = Path(folder)
    texts = {wording.file: wording.text.encode() for wording in pack.wordings}
    about = {
        "checkout": str(pack.checkout.absolute()),
        "sha256": {
            name: sha256(pack.checkout / name) for name in (_INFERENCE, *_JUDGE) if (pack.checkout / name).exists()
        },
        "wordings": {wording.file: wording.source for wording in pack.wordings},
        "not_found": list(pack.missing),
    }
    try:
        if other := [
            name for name, data in texts.items() if (folder / name).exists() and (folder / name).read_bytes() != data
        ]:
            raise SfllavaError(f"{folder}: has other texts already: {', '.join(other)}; use a new folder")
        for name, data in texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pack.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise SfllavaError(f"{error.filename or folder}: cannot write the pack: {error.strerror}") from error


def _inference(checkout: Path, name: str) -> Iterator[Wording | str]:
    """The texts with <image> under `if conv_mode == "..."`; those that list options are for choice questions."""
    tree = parse_file(checkout / name)
    for mode, body in branches(tree):
        if not any(_IMAGE in text for text in _texts(body)):
            continue
        line = f"{name}, line {body[0].lineno}"
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
    """The prompt that a branch makes, and the name of the variable that holds the options ("" for none)."""
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
        raise Unreadable(f"no text with {_IMAGE} is left at its end")
    return last, options


def _option_line(call: ast.Call, tree: ast.Module) -> Template:
    """What the called function adds for each option, its two gaps called letter and option."""
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
    """The plain statements that a call with that version would reach."""
    for statement in statements:
        if isinstance(statement, ast.For):
            yield from _taken(statement.body, version)
        elif isinstance(statement, ast.If) and (text := compared_with(statement.test)) is not None:
            yield from _taken(statement.body if text == version else statement.orelse, version)
        else:
            yield statement


def _judge_dicts(checkout: Path, name: str) -> Iterator[Wording | str]:
    """Two dicts, of system and of user prompts by mode; which variables fill them stands where they are used."""
    try:
        fields = _fields(parse_file(checkout / _JUDGE[1]))
    except Unreadable as error:
        yield f"which variables fill its user prompts stands in {_JUDGE[1]}, which {error}"
        fields = {}
    for node in ast.walk(parse_file(checkout / name)):
        match node:
            case ast.Assign(targets=[ast.Name(id=variable)], value=ast.Dict(keys=keys, values=values)):
                role = next((role for role in ("system", "user") if role in variable), None)
            case _:
                continue
        for key, value in zip(keys, values) if role else ():
            if not isinstance(key, ast.Constant) or not isinstance(key.value, str):
                yield f"{variable}, line {value.lineno}: needed the name of a mode"
                continue
            file = f"judge/{RUBRICS.get(key.value, key.value)}.{role}.txt"
            try:
                if not re.fullmatch(r"\w[\w.-]*", key.value):
                    raise Unreadable("cannot be the name of a file")
                template = read_template(value, {})
                if role == "user":
                    count = sum(part.count("%s") for part in template if isinstance(part, str))
                    if count not in fields:
                        raise Unreadable(f"no variables are known for its {count} places")
                    template = fill(template, [(Gap(field),) for field in fields[count]])
                yield Wording(file, render(template, _JUDGE_NAMES), f"{name}, line {value.lineno}")
            except Unreadable as error:
                yield f"{key.value} of {variable} (line {value.lineno}): {error}"


def _fields(tree: ast.Module) -> dict[int, list[str]]:
    """How many variables fill the user's prompt -> their names in order."""
    found = {}
    for node in ast.walk(tree):
        match node:
            case ast.BinOp(left=ast.Name(id=name), op=ast.Mod(), right=ast.Tuple(elts=elts)) if "user" in name:
                names = [element.id for element in elts if isinstance(element, ast.Name)]
                if len(names) == len(elts):
                    found[len(names)] = names
    return found


def _judge_messages(checkout: Path, name: str) -> Iterator[Wording | str]:
    """The messages of the judge of open questions: {"role": ..., "content": ...}."""
    for node in ast.walk(parse_file(checkout / name)):
        match node:
            case ast.Dict(
                keys=[ast.Constant(value="role"), ast.Constant(value="content")],
                values=[ast.Constant(value="system" | "user" as role), content],
            ):
                try:
                    text = render(read_template(content, {}), _JUDGE_NAMES)
                    yield Wording(f"judge/open.{role}.txt", text, f"{name}, line {content.lineno}")
                except Unreadable as error:
                    yield f"the {role} message (line {content.lineno}): {error}"


def _texts(body: list[ast.stmt]) -> Iterator[str]:
    for statement in body:
        for node in ast.walk(statement):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                yield node.value
