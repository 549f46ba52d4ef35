"""List what there is: ablations, benchmarks, methods, selections, models, judges, protocols, figures, notebooks."""

from __future__ import annotations

import argparse
import ast
from collections.abc import Callable

ORDER = 0.5
Rows = list[tuple[str, str]]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("kind", nargs="?", choices=KINDS, metavar="KIND", help=f"one of {', '.join(KINDS)}")


def run(arguments: argparse.Namespace) -> int:
    for kind in [arguments.kind] if arguments.kind else KINDS:
        rows = KINDS[kind]()
        if not arguments.kind:
            print(f"\n{kind}" if kind != next(iter(KINDS)) else kind)
        width = max(len(name) for name, _ in rows)
        for name, text in rows:
            print(f"{'' if arguments.kind else '  '}{name:{width}}  {text}".rstrip())
    return 0


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

    return [(method.usage.removeprefix("or "), "") for method in methods()]


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
}
