"""Show the verdicts of a run's judges: scores, agreement, and where they differ."""

from __future__ import annotations

import argparse
from pathlib import Path

from sfllava.types import SfllavaError

ORDER = 5
EXAMPLES = (
    "sfllava verdicts runs/msvd",
    "sfllava verdicts runs/msvd --figure judges.svg --differing differ.csv",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN")
    parser.add_argument("--judge", nargs="+", default=[], metavar="NAME", help="these judges only (default: all)")
    parser.add_argument("--differing", metavar="FILE", help="write the questions on which they differ as CSV")
    parser.add_argument("--figure", metavar="FILE", help="draw it: .png, .svg or .pdf")


def run(arguments: argparse.Namespace) -> int:
    from sfllava.analysis import agreement
    from sfllava.analysis.judge_scores import format_judge_scores, judge_scores, load_verdicts
    from sfllava.files import as_csv, write_file

    figure, differing = arguments.figure, arguments.differing
    if figure and Path(figure).suffix not in (".svg", ".pdf", ".png"):
        raise SfllavaError(f"--figure {figure}: needed a file that ends in .svg, .pdf or .png")
    verdicts = load_verdicts(arguments.run_folder, arguments.judge)
    if verdicts.empty:
        raise SfllavaError(f"{arguments.run_folder}: no verdicts yet; `sfllava judge` makes them")
    scores, pairs = judge_scores(verdicts), agreement.judge_pairs(verdicts)
    differ = agreement.disagreements(verdicts)
    print(format_judge_scores(scores))
    if pairs:
        print(agreement.format_pairs(pairs))
        print(f"{len(differ)} questions on which they differ" + (f", in {differing}" if differing else ""))
    if differing:
        write_file(Path(differing), as_csv(differ).encode())
    if figure:
        from sfllava.plots.judges import judges_agreement
        from sfllava.plots.static import save

        save(judges_agreement(scores, agreement.kappas(pairs)), Path(figure))
    return 0
