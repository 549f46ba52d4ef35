"""Judge options that several commands share, and the judge made from them."""

from __future__ import annotations

import argparse
from typing import Any

from sfllava.cli.engine import add_engine
from sfllava.cli.options import add_quantize
from sfllava.cli.parsed import engine_options
from sfllava.evaluators.judges import JudgeOptions, find_judge, judge_kinds, judge_names
from sfllava.types import SfllavaError


def add_judge(parser: argparse._ActionsContainer, prefix: str = "", required: bool = True) -> None:
    """Add the options that select a judge, its model and its limits.

    Args:
        parser: The parser of the command, or a group in it.
        prefix: The prefix of options whose names the command uses otherwise: model, name, seconds and device.
        required: Whether --judge is required.
    """
    kinds = "; ".join(kind.help for kind in judge_kinds())
    parser.add_argument("--judge", required=required, choices=judge_names(), help=kinds)

    def add(name: str, **more: Any) -> None:
        parser.add_argument(f"--{prefix}{name}", dest=f"judge_{name}", **more)

    add("model", default="", metavar="NAME", help="exact name (openai), or folder (local, llava)")
    add("name", default="", metavar="NAME", help="name of the verdicts (default: from judge and model)")
    parser.add_argument("--rubrics", metavar="DIR", help="folder with your own wordings: open.txt, CI.txt, ...")
    parser.add_argument("--yes", action="store_true", help="continue without a cost limit")
    parser.add_argument("--price", type=float, nargs=2, metavar=("IN", "OUT"), help="dollars per million tokens")
    parser.add_argument("--limit-cost", type=float, metavar="DOLLARS", help="maximum cost of this call")
    parser.add_argument("--concurrency", type=int, default=16, metavar="N", help="parallel requests (default: 16)")
    add("seconds", type=float, default=60, metavar="S", help="time limit for one request")
    parser.add_argument("--tries", type=int, default=8, metavar="N", help="maximum requests per verdict (default: 8)")
    parser.add_argument("--max-reply-tokens", type=int, metavar="N", help="raise it for a reasoning model")
    parser.add_argument("--plain", action="store_true", help="do not request output by a JSON schema")
    parser.add_argument("--batch", action="store_true", help="use the provider's Batch API: submit now, collect later")
    parser.add_argument("--wait", action="store_true", help="with --batch: wait until the batch ends")
    add("device", default="auto", metavar="DEVICE", help="for local and llava: auto, cpu, cuda, cuda:1")
    add_quantize(parser, prefix, "for local and llava: ", dest="judge_quantize")
    add_engine(parser, prefix)


def make_judge(arguments: argparse.Namespace, prefix: str = "") -> Any:
    """Return the judge that a command line selects.

    Args:
        arguments: The parsed arguments of `add_judge`.
        prefix: As in `add_judge`.

    Raises:
        SfllavaError: The options do not fit the judge.
    """
    kind = find_judge(arguments.judge)
    if arguments.batch and not kind.has_batch_api:
        raise SfllavaError("--batch is for the openai judge")
    if arguments.judge_quantize and not kind.loads_model:
        raise SfllavaError(f"--{prefix}quantize is for the judges local and llava, not for {arguments.judge}")
    try:
        return kind.make(
            arguments.judge,
            JudgeOptions(
                model=arguments.judge_model,
                name=arguments.judge_name,
                concurrency=arguments.concurrency,
                seconds=arguments.judge_seconds,
                tries=arguments.tries,
                max_reply_tokens=arguments.max_reply_tokens,
                structured=not arguments.plain,
                price=tuple(arguments.price) if arguments.price else None,
                device=arguments.judge_device,
                quantize=arguments.judge_quantize,
                engine=engine_options(arguments, prefix),
            ),
        )
    except SfllavaError as error:
        # a judge does not know the prefix of the options
        raise type(error)(str(error).replace("needs --model", f"needs --{prefix}model")) from error
