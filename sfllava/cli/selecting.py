"""Options of the commands that choose frames for each question, and the objects made of them."""

from __future__ import annotations

import argparse
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from sfllava.cli import options, parsed
from sfllava.cli.parser import group

if TYPE_CHECKING:
    from sfllava.runs.selection_source import SelectionSource
    from sfllava.settings import Setting


def add_selections(parser: argparse.ArgumentParser) -> None:
    """Add how frames are chosen for each question, in one or more ways."""
    _add_selection(parser, nargs="+", default=["uniform"])


def add_one_selection(parser: argparse.ArgumentParser) -> None:
    """Add how frames are chosen for each question, and what with."""
    _add_selection(parser, default="uniform")
    add_source(parser)


def _add_selection(parser: argparse.ArgumentParser, **more: Any) -> None:
    setting = group(parser, "setting")
    selection = setting.add_argument(
        "--selection", metavar="NAME", **more,
        help="frames for each question: uniform (default), topk, bolt, aks, qframe, with options as in bolt:power=2.5; "
        "listed needs --frame-list",
    )  # fmt: skip
    options.complete_with(selection, selections)
    setting.add_argument(
        "--selection-for", default="all", choices=["all", "slow", "both"],
        help="which frames are chosen: all (default), the Slow pathway's while the Fast one's are uniform, or both "
        "pathways' by themselves",
    )  # fmt: skip


def add_source(parser: argparse.ArgumentParser) -> None:
    """Add what frames are chosen with."""
    setting = group(parser, "setting")
    setting.add_argument("--scorer", metavar="PATH", help="folder or hub name of the CLIP or SigLIP that scores frames")
    setting.add_argument(
        "--score-text", default="question", choices=["question", "options"],
        help="what frames are compared with: the question (default), or the question with its options",
    )  # fmt: skip
    group(parser, "speed and failures").add_argument(
        "--score-cache", metavar="DIR", help="where scores are kept (default: ~/.cache/sfllava/scores)"
    )
    setting.add_argument("--frame-list", metavar="FILE", help="JSON or parquet with the frames of each question")


def selections() -> list[str]:
    """Return the names of the selections, for completion."""
    from sfllava.sampler.selection.selectors import selectors

    return list(selectors())


def settings(arguments: argparse.Namespace) -> list[Setting]:
    """Return the settings of a command line, each with each selection."""
    return [
        replace(setting, selection=selection, selection_for=arguments.selection_for)
        for setting in parsed.settings(arguments)
        for selection in arguments.selection
    ]


def selection_source(arguments: argparse.Namespace) -> SelectionSource:
    """Return what the frames of a run are chosen with."""
    from sfllava.runs.selection_source import SelectionSource

    a = arguments
    return SelectionSource(a.scorer, a.score_text, a.score_cache, a.frame_list)
