"""Import an output folder of the published code, or a sample log of lmms-eval, as a run folder."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from sfllava.cli import options
from sfllava.cli.parser import group
from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.settings import Setting

ORDER = 13
EXAMPLES = (
    "sfllava import outputs/msvd --benchmark msvd --root DATA --out runs/theirs",
    "sfllava import logs --from lmms-eval --out runs/lmms",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "folder", metavar="PATH",
        help="the folder with merge.jsonl, or its OUTPUT_DIR; for lmms-eval: *_samples_*.jsonl, or a folder with one",
    )  # fmt: skip
    group(parser, "input").add_argument(
        "--from", dest="source", default="published", choices=["published", "lmms-eval"],
        help="where it is from: the published code (default), or lmms-eval with --log_samples",
    )  # fmt: skip
    inputs = group(parser, "input")
    benchmark = inputs.add_argument(
        "--benchmark", metavar="NAME", help="which (lmms-eval: default: found in its samples)"
    )
    options.complete_with(benchmark, options.benchmark_names)
    inputs.add_argument("--questions", metavar="FILE", help="question file (vcgbench: folder; lmms-eval: task data)")
    inputs.add_argument("--root", metavar="DIR", help="folder in which the question file is found, instead")
    group(parser, "output").add_argument("--out", required=True, metavar="DIR", help="run folder to write")
    inputs.add_argument("--config-name", metavar="NAME", help="which CONFIG_NAME, where there are several")
    inputs.add_argument("--judged", metavar="DIR", help="its judge's files: TEMP_DIR, or one judge's folder")
    inputs.add_argument("--judge", metavar="NAME", help="which judge, or what to call it (default: its folder)")
    setting = group(parser, "setting")
    setting.add_argument("--frames", type=int, metavar="N", help="frames that it was run with, to compare with ours")
    setting.add_argument("--aggregation", metavar="NAME", help="aggregation that it was run with, likewise")


def run(arguments: argparse.Namespace) -> int:
    from sfllava.settings import Setting

    a = arguments
    if (a.frames is None) != (a.aggregation is None):
        raise SfllavaError("--frames and --aggregation go together")
    setting = Setting(a.frames, a.aggregation) if a.frames is not None else None
    return _import_log(a, setting) if a.source == "lmms-eval" else _import_published(a, setting)


def _import_published(a: argparse.Namespace, setting: Setting | None) -> int:
    from sfllava.benchmarks import load_benchmark
    from sfllava.published.importing import import_outputs

    if a.benchmark is None:
        raise SfllavaError("needed --benchmark NAME for outputs of the published code")
    benchmark = load_benchmark(a.benchmark, a.questions, root=a.root)
    imported = import_outputs(
        a.folder, benchmark, a.out, setting=setting, config_name=a.config_name, judged=a.judged, judge=a.judge
    )
    print(imported)
    return 0 if imported.outputs.predictions else 1


def _import_log(a: argparse.Namespace, setting: Setting | None) -> int:
    from sfllava.lmms_bridge.importing import import_log

    theirs = {"--root": a.root, "--config-name": a.config_name, "--judged": a.judged, "--judge": a.judge}
    if given := [name for name, value in theirs.items() if value is not None]:
        raise SfllavaError(f"{', '.join(given)}: only for outputs of the published code, not --from lmms-eval")
    imported = import_log(a.folder, a.out, benchmark=a.benchmark, questions=a.questions, setting=setting)
    print(imported)
    return 0 if imported.answered else 1
