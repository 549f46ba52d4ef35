"""List benchmarks, methods, models, judges, ablations, figures and more, by name."""

from __future__ import annotations

import argparse
import ast
import importlib
import json
import shutil
import sys
import textwrap
from collections.abc import Callable

from sfllava.cli.parser import group

ORDER = 0.5
EXAMPLES = ("sfllava list", "sfllava list benchmarks", "sfllava list methods --json")
Rows = list[tuple[str, str]]
_NAME_WIDTH = 30  # longer names have their text on the next line, on a terminal


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "kind", nargs="?", choices=KINDS, metavar="KIND", help=f"one of {', '.join(KINDS)} (default: all)"
    )
    group(parser, "output").add_argument("--json", action="store_true", help="print names and texts as JSON, by kind")


def run(arguments: argparse.Namespace) -> int:
    found = {kind: KINDS[kind]() for kind in ([arguments.kind] if arguments.kind else KINDS)}
    if arguments.json:
        rows = {kind: [{"name": name, "text": text} for name, text in rows] for kind, rows in found.items()}
        print(json.dumps(rows, ensure_ascii=False, indent=1))
        return 0
    columns = shutil.get_terminal_size().columns if sys.stdout.isatty() else 0
    for i, (kind, rows) in enumerate(found.items()):
        if not arguments.kind:
            print(f"\n{kind}" if i else kind)
        print(*_lines(rows, "" if arguments.kind else "  ", columns), sep="\n")
    return 0


def _lines(rows: Rows, indent: str, columns: int) -> list[str]:
    """Return a line per row, or several where a terminal has fewer columns; 0 columns for any number."""
    width = max(len(name) for name, _ in rows)
    if not columns:
        return [f"{indent}{name:{width}}  {text}".rstrip() for name, text in rows]
    width = min(width, _NAME_WIDTH)
    lines = []
    for name, text in rows:
        wrapped = textwrap.wrap(text, max(20, columns - len(indent) - width - 2)) or [""]
        if len(name) > width:
            lines.append(f"{indent}{name}")
        else:
            lines.append(f"{indent}{name:{width}}  {wrapped.pop(0)}".rstrip())
        lines += [f"{indent}{'':{width}}  {line}".rstrip() for line in wrapped if line]
    return lines


def _first_sentences(kind: str) -> Rows:
    """Return the files of a kind with the first line of their docstrings; none of them is executed."""
    from sfllava import catalogue

    rows = []
    for name in catalogue.names(kind):  # type: ignore[arg-type]  # KINDS has the names that catalogue knows
        text = ast.get_docstring(ast.parse(catalogue.find(kind, name).read_text(encoding="utf-8")))  # type: ignore[arg-type]
        rows.append((name, (text or "").partition("\n")[0]))
    return rows


def _notebooks() -> Rows:
    from sfllava import catalogue
    from sfllava.files import read_object

    rows = []
    for name in catalogue.names("notebooks"):
        cells = read_object(catalogue.find("notebooks", name), "a notebook", {"cells": list})["cells"]
        rows.append((name, "".join(cells[0]["source"]).partition("\n")[0].lstrip("# ")))
    return rows


def _benchmarks() -> Rows:
    from sfllava.benchmarks import benchmark_names
    from sfllava.benchmarks.base import load_spec

    rows = []
    for spec in map(load_spec, benchmark_names()):
        count = f"{spec.question_count:,} questions" if spec.question_count else "any number of questions"
        videos = f", {spec.video_count:,} videos" if spec.video_count else ""
        rows.append((spec.name, f"{spec.task}, {count}{videos}"))
    return rows


def _methods() -> Rows:
    from sfllava.aggregators.methods import methods

    rows = []
    for method in methods():
        forms, _, note = method.usage.removeprefix("or ").partition(" (")
        if forms.startswith("one of "):
            names = forms.removeprefix("one of ").split(", ")
            rows += [(name, f"All frames pooled alike; {note.rstrip(')')}.") for name in names]
        else:
            text = importlib.import_module(method.make.__module__).__doc__ or ""
            rows.append((forms, text.partition("\n")[0]))
    return rows


def _selections() -> Rows:
    from sfllava.sampler.selection.selectors import selectors

    return [(name, selector.usage) for name, selector in selectors().items()]


def _models() -> Rows:
    from sfllava.models.known import KNOWN

    rows = [(name, f"a {model.config['model_type']}, see `sfllava models {name}`") for name, model in KNOWN.items()]
    return [*rows, ("tiny", "the small trained model in the package")]


def _judges() -> Rows:
    from sfllava.evaluators.judges import judge_kinds

    return [(", ".join(kind.names), kind.help) for kind in judge_kinds()]


def _protocols() -> Rows:
    from sfllava.evaluators.protocols import load_protocol, protocol_names

    return [(name, load_protocol(name).summary) for name in protocol_names()]


def _devices() -> Rows:
    from sfllava.planning.presets import find_preset, preset_names

    rows = []
    for name in preset_names():
        one = find_preset(name)
        assert one is not None
        speed = f"{one.tflops['float16']:g} TFLOP/s in 16 bits, {one.bandwidth_gb:,g} GB/s"
        rows.append((name, f"{one.label}: {one.memory_gb:g} GB, {speed}; published peak figures"))
    return rows


KINDS: dict[str, Callable[[], Rows]] = {
    "ablations": lambda: _first_sentences("ablations"),
    "benchmarks": _benchmarks,
    "methods": _methods,
    "selections": _selections,
    "models": _models,
    "judges": _judges,
    "protocols": _protocols,
    "figures": lambda: _first_sentences("figures"),
    "notebooks": _notebooks,
    "devices": _devices,
}
