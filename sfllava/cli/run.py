"""Run an experiment file of the published code."""

from __future__ import annotations

import argparse
from functools import partial

from sfllava.cli import options
from sfllava.cli.parser import group
from sfllava.cli.scored import scores_text

ORDER = 12
EXAMPLES = (
    "sfllava run --config cfgs/slowfast_llava_7b.yaml --dry-run",
    "sfllava run --config cfgs/slowfast_llava_7b.yaml --root CHECKOUT --prompts prompts --limit 20",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    inputs = group(parser, "input")
    inputs.add_argument("--config", required=True, metavar="FILE", help="its YAML file, as it is")
    group(parser, "output").add_argument("--dry-run", action="store_true", help="print what would be done, and stop")
    inputs.add_argument(
        "--root", default=".", metavar="DIR", help="where its relative paths start (default: this folder)"
    )
    group(parser, "setting").add_argument(
        "--prompts", metavar="DIR", help="exact wordings, from `sfllava prompts import`"
    )
    options.add_follow_links(parser)
    inputs.add_argument("--limit", type=int, metavar="N", help="the first N questions of each benchmark, to try it")
    options.add_decoders(parser)
    options.add_device(parser)
    options.add_placement(parser)
    options.add_quantize(parser)


def run(arguments: argparse.Namespace) -> int:
    from sfllava.published.plan import plan_experiment
    from sfllava.published.run import load_choice, run_plan

    a = arguments
    plan = plan_experiment(a.config, root=a.root, prompts=a.prompts, follow_links=a.follow_links)
    print(plan, flush=True)
    if a.dry_run:
        return 1 if plan.problems else 0
    load = partial(
        load_choice, device=a.device, dtype=a.dtype, device_map=a.device_map, vision_tower=a.vision_tower,
        quantize=a.quantize,
    )  # fmt: skip
    answered = []
    for result in run_plan(plan, load, limit=a.limit, decoders=a.decoders):
        print(scores_text(result), flush=True)
        answered.append(any(scores["answered"] for scores in result.scores.values()))
    return 0 if all(answered) else 1
