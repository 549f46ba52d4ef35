"""Let a judge grade a run's predictions; the same command resumes, and retries what failed."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec

from sfllava.cli import tracking
from sfllava.cli.judging import add_judge, make_judge
from sfllava.types import SfllavaError

ORDER = 4
EXAMPLES = (
    "sfllava judge runs/msvd --judge match-contains",
    "sfllava judge runs/msvd --judge openai --model gpt-4o-mini-2024-07-18 --price 0.15 0.60 --limit-cost 5",
    "sfllava judge runs/msvd --judge local --model JUDGE_FOLDER",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN")
    add_judge(parser)
    tracking.add_track(parser)
    parser.add_argument("--reuse", nargs="+", default=[], metavar="RUN", help="take over equal verdicts of other runs")


def run(arguments: argparse.Namespace) -> int:
    from sfllava.evaluators.judges.openai_batch import BatchClient
    from sfllava.runs.judge import judge, plan_judging

    grader = make_judge(arguments)
    folder, sources = arguments.run_folder, {"rubrics": arguments.rubrics, "reuse": arguments.reuse}
    planned = plan_judging(folder, grader, **sources)
    print(planned, file=sys.stderr, flush=True)
    if grader.paid and planned.requests and not arguments.yes and arguments.limit_cost is None:
        raise SfllavaError("nothing sent: pass --yes, or --limit-cost DOLLARS with --price")
    batch = BatchClient(wait=arguments.wait) if arguments.batch else None
    done = judge(folder, grader, limit_cost=arguments.limit_cost, batch=batch, **sources)
    print(done)
    if done.judged and find_spec("pandas"):
        from sfllava.analysis.judge_scores import format_judge_scores
        from sfllava.analysis.judge_summary import keep_judge_scores

        print(format_judge_scores(keep_judge_scores(folder, grader.name)))
    tracking.send(arguments, folder, grader.name)
    return 0 if done.complete else 1
