"""Grade a run's predictions; started again, it goes on, and retries what failed."""

from __future__ import annotations

import argparse
import sys
from importlib.util import find_spec
from typing import Any

from sfllava.cli import options
from sfllava.evaluators.judges import JudgeOptions, find_judge, judge_kinds, judge_names
from sfllava.types import SfllavaError

ORDER = 4


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN")
    parser.add_argument(
        "--judge",
        required=True,
        choices=judge_names(),
        help="; ".join(kind.help for kind in judge_kinds()),
    )
    parser.add_argument("--model", default="", metavar="NAME", help="exact name (openai), or folder (local, llava)")
    parser.add_argument("--name", default="", help="name of the verdicts' file (default: made of judge and model)")
    parser.add_argument("--rubrics", metavar="DIR", help="your own wordings: open.txt, CI.txt, ...")
    parser.add_argument("--reuse", nargs="+", default=[], metavar="RUN", help="take over equal verdicts of other runs")
    parser.add_argument("--yes", action="store_true", help="go on without a limit on the cost")
    parser.add_argument("--price", type=float, nargs=2, metavar=("IN", "OUT"), help="dollars per million tokens")
    parser.add_argument("--limit-cost", type=float, metavar="DOLLARS", help="the most that this call may cost")
    parser.add_argument("--concurrency", type=int, default=16, metavar="N", help="requests at a time (default: 16)")
    parser.add_argument("--seconds", type=float, default=60, metavar="S", help="time limit for one request")
    parser.add_argument("--tries", type=int, default=8, metavar="N", help="requests for one verdict (default: 8)")
    parser.add_argument("--max-reply-tokens", type=int, metavar="N", help="more for a model that thinks first")
    parser.add_argument("--plain", action="store_true", help="do not ask for the reply's JSON schema")
    parser.add_argument("--batch", action="store_true", help="the provider's Batch API: submit, later collect")
    parser.add_argument("--wait", action="store_true", help="with --batch: wait until it has ended")
    options.add_device(parser, "for local and llava: auto, cpu, cuda, cuda:1", dtype=False)


def run(arguments: argparse.Namespace) -> int:
    from sfllava.evaluators.judges.openai_batch import BatchClient
    from sfllava.runs.judge import judge, plan_judging

    grader = _make_judge(arguments)
    folder, sources = arguments.run_folder, {"rubrics": arguments.rubrics, "reuse": arguments.reuse}
    planned = plan_judging(folder, grader, **sources)
    print(planned, file=sys.stderr, flush=True)
    if grader.paid and planned.requests and not arguments.yes and arguments.limit_cost is None:
        raise SfllavaError("nothing sent: pass --yes, or --limit-cost DOLLARS with --price")
    batch = BatchClient(wait=arguments.wait) if arguments.batch else None
    done = judge(folder, grader, limit_cost=arguments.limit_cost, batch=batch, **sources)
    print(done)
    if done.judged and find_spec("pandas"):
        from sfllava.analysis.judge_scores import format_judge_scores, judge_scores, load_verdicts

        print(format_judge_scores(judge_scores(load_verdicts(folder, [grader.name]))))
    return 0 if done.complete else 1


def _make_judge(arguments: argparse.Namespace) -> Any:
    kind = find_judge(arguments.judge)
    if arguments.batch and not kind.has_batch_api:
        raise SfllavaError("--batch is for the openai judge")
    return kind.make(
        arguments.judge,
        JudgeOptions(
            model=arguments.model,
            name=arguments.name,
            concurrency=arguments.concurrency,
            seconds=arguments.seconds,
            tries=arguments.tries,
            max_reply_tokens=arguments.max_reply_tokens,
            structured=not arguments.plain,
            price=tuple(arguments.price) if arguments.price else None,
            device=arguments.device,
        ),
    )
