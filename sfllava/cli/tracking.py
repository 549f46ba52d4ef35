"""The options that send a run to an experiment tracker, and sending it, which never stops a command."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from sfllava.cli.parser import group
from sfllava.display.private import without_credentials
from sfllava.types import SfllavaError


def add_track(parser: argparse.ArgumentParser) -> None:
    """Add the tracker, and whether it gets questions and answers."""
    output = group(parser, "output")
    output.add_argument(
        "--track", metavar="NAME[:PLACE]", action="append", default=[], type=_checked,
        help="send scores, settings and figures to wandb[:PROJECT], mlflow[:URI] or tensorboard[:DIR] (docs/how-to/"
        "tracking.md)",
    )  # fmt: skip
    output.add_argument(
        "--track-examples", action="store_true", help="with --track: also questions, answers and names of videos"
    )


def _checked(text: str) -> str:
    """Return the name of a tracker that can be used, so that a missing package shows before a run of hours."""
    from sfllava.reports.tracking import find_tracker

    try:
        find_tracker(text)
    except SfllavaError as error:
        raise argparse.ArgumentTypeError(str(error)) from error
    return text


def send(arguments: argparse.Namespace, run: str | Path, judge: str | None = None) -> None:
    """Send a run to the trackers of a command line, and say on stderr where it is, or why it is not there."""
    for tracker in arguments.track:
        from sfllava.reports.tracking import track

        name = tracker.partition(":")[0]
        try:
            line = track(run, tracker, judge=judge, examples=arguments.track_examples)
        except KeyboardInterrupt:
            line = f"{name}: stopped before all was sent; the run is in {run}, and the same command sends it again"
        except Exception as error:  # of a client: whatever it is, the run is on disk
            text = without_credentials(" ".join(str(error).split()))[:300] or type(error).__name__
            line = f"{name}: not sent: {text}; the run is in {run}, and the same command sends it again"
        print(line, file=sys.stderr, flush=True)
