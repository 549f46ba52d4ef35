"""Predict which span of each video the answer comes from, and score the spans against annotations."""

from __future__ import annotations

import argparse
from typing import Any

from sfllava.cli import options, parsed
from sfllava.cli.parser import group
from sfllava.types import SfllavaError

ORDER = 6
EXAMPLES = (
    "sfllava ground nextgqa --root DATA --spans gsub_test.json --model 7B_FOLDER --out runs/ground",
    "sfllava ground nextgqa --root DATA --spans gsub_test.json --model 7B_FOLDER --tune-on runs/val --out runs/test",
)
MEASURES = {"attention": ("attention",), "leave-out": ("leave-out",), "both": ("attention", "leave-out")}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_benchmark(parser, subtitles=False)
    group(parser, "input").add_argument(
        "--spans", required=True, metavar="FILE", help="annotated spans, like NExT-GQA's gsub_val.json"
    )
    group(parser, "output").add_argument("--out", required=True, metavar="DIR", help="run folder")
    options.add_frames(parser)
    options.add_aggregation(parser)
    options.add_frame_rule(parser, default="published")
    setting = group(parser, "setting")
    setting.add_argument(
        "--measure", default="both", choices=list(MEASURES),
        help="how to score frames: attention, the drop of the answer's log-likelihood without the frame, or both "
        "(default: %(default)s)",
    )  # fmt: skip
    setting.add_argument("--tune-on", metavar="DIR", help="tune window and share on the run of another split")
    setting.add_argument(
        "--tune-by", default="Acc@GQA", metavar="METRIC", help="metric to tune by, such as mIoP (default: Acc@GQA)"
    )
    setting.add_argument("--window", type=int, metavar="N", help="frames in the moving average (default: 3)")
    setting.add_argument("--share", type=float, metavar="X", help="threshold, a fraction of the maximum (default: 0.5)")
    options.add_limit(parser, "ask only the first N annotated questions")
    options.add_failures(parser)
    options.add_model(parser, 128)


def run(arguments: argparse.Namespace) -> int:
    from sfllava.attribution.grounding.annotations import read_annotations
    from sfllava.attribution.grounding.ground import prepare
    from sfllava.attribution.grounding.results import check_tuning, load_grounding, load_tuned, read_rows
    from sfllava.attribution.grounding.span_rule import SpanRule
    from sfllava.attribution.grounding.tuning import check_criterion
    from sfllava.plots.grounding import save_grounding
    from sfllava.settings import Setting

    given = {name: getattr(arguments, name) for name in ("window", "share") if getattr(arguments, name) is not None}
    if arguments.tune_on and given:
        raise SfllavaError("--tune-on tunes the window and the share: give either --tune-on, or --window and --share")
    # check everything that needs no model before loading it
    rule = SpanRule(**given)
    if arguments.engine != "packed":
        raise SfllavaError("grounding needs the layers of the language model: use --engine packed")
    setting = Setting(arguments.frames, arguments.aggregation, frame_rule=arguments.frame_rule)
    check_criterion(arguments.tune_by)
    if arguments.tune_on:
        read_rows(arguments.tune_on)
    annotations, benchmarks = read_annotations(arguments.spans), parsed.load_benchmarks(arguments)
    if len(benchmarks) > 1:
        raise SfllavaError(f"needed one benchmark for {arguments.spans}, got {len(benchmarks)}")
    benchmarks[0].require_videos()
    names = ("limit", "seed", "max_new_tokens", "decoders", "decode_seconds")
    chosen: dict[str, Any] = {name: getattr(arguments, name) for name in names}
    chosen["prompt"] = parsed.own_prompt(arguments)
    model, measures = parsed.load_model(arguments), MEASURES[arguments.measure]
    grounding = prepare(model, benchmarks[0], setting, annotations, arguments.out, measures=measures, **chosen)
    if arguments.tune_on:
        check_tuning(arguments.tune_on, grounding.identity, {item.question.video for item in grounding.asked})
    folder = grounding.run(retry_failed=arguments.retry_failed)
    if arguments.tune_on:
        results = load_tuned(folder, arguments.tune_on, arguments.tune_by)
    else:
        results = load_grounding(folder, rule)
    out = results.write()
    print(results, flush=True)
    files = save_grounding(results, out)
    print(f"\n{out}: grounding.json, grounding.csv, differences.csv, spans.csv, {', '.join(f.name for f in files)}")
    return 0 if results.counts["answered"] else 1
