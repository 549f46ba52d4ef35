"""Reproduce the paper's main table and ablations, and report its numbers next to ours."""

from __future__ import annotations

import argparse
import os
import sys
from contextlib import AbstractContextManager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfllava.cli import options, parsed
from sfllava.cli.judging import add_judge, make_judge
from sfllava.cli.parser import group
from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.models.sizes import Sizes
    from sfllava.planning.roofline import Roofline
    from sfllava.published.reproduction.plan import PlannedRun
    from sfllava.published.reproduction.run import Problems

ORDER = 13
EXAMPLES = (
    "sfllava reproduce --root DATA --out runs/paper --dry-run",
    "sfllava reproduce --root DATA --out runs/paper --model 7b=7B_FOLDER --only main --limit 50",
    "sfllava reproduce --root DATA --out runs/paper --model 7b=7B_FOLDER --judge match-contains",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    inputs, output = group(parser, "input"), group(parser, "output")
    inputs.add_argument("--root", required=True, metavar="DIR", help="folder of the benchmarks, published layout")
    output.add_argument("--out", required=True, metavar="DIR", help="folder for the runs and the report")
    group(parser, "model").add_argument(
        "--model", nargs="+", default=[], metavar="SIZE=PATH", help="7b=PATH, 34b=PATH, or both"
    )
    only = inputs.add_argument(
        "--only", nargs="+", default=[], metavar="NAME",
        help="main, ablations, an ablation, a benchmark; a table and a benchmark together select their intersection",
    )  # fmt: skip
    options.complete_with(only, _names)
    output.add_argument("--dry-run", action="store_true", help="print the runs and their cost, and stop")
    group(parser, "setting").add_argument(
        "--prompts", metavar="DIR", help="published wordings, from `sfllava prompts import`"
    )
    options.add_limit(parser, "the first N questions of each benchmark, for a trial")
    options.add_follow_links(parser)
    options.add_decoders(parser)
    options.add_workers(parser)
    options.add_device(parser, "auto, cpu, cuda or cuda:1; with --dry-run also h100 and so on (default: auto)")
    options.add_placement(parser)
    options.add_model_text(parser)
    parser.set_defaults(positions="time", timestamps=False, quantize=None, engine="packed", vllm=[])
    planning = parser.add_argument_group("dry run")
    planning.add_argument("--roofline", metavar="FILE", help="device measurements, from `sfllava plan --measure FILE`")
    planning.add_argument("--new-tokens", type=int, metavar="N", help="expected length of an answer (default: 128)")
    judging = parser.add_argument_group("judge of open-ended answers (default: they are not judged)")
    add_judge(judging, "judge-", required=False)


def run(arguments: argparse.Namespace) -> int:
    from sfllava.published.reproduction.experiments import choose_experiments
    from sfllava.published.reproduction.paper import SIZES
    from sfllava.published.reproduction.plan import plan_runs
    from sfllava.published.reproduction.report import format_results, write_report
    from sfllava.published.reproduction.results import read_results
    from sfllava.published.reproduction.run import Problems

    a = arguments
    models, sizes = _models(a)
    rubrics = _rubrics(a)
    runs = plan_runs(
        choose_experiments(models or SIZES, a.only), a.root, a.out, limit=a.limit, seed=a.seed, prompts=a.prompts,
        follow_links=a.follow_links,
    )  # fmt: skip
    grader = _early_judge(a)
    if a.dry_run:
        return _print_plan(a, runs, models, sizes, grader, rubrics)
    _check_start(a, models)
    problems = Problems()
    try:
        judge_name = _do(a, runs, models, grader, rubrics, problems)
    except KeyboardInterrupt:
        print(write_report(read_results(a.out, runs, problems), a.out), flush=True)
        raise
    results = read_results(a.out, runs, problems, judge_name)
    print(format_results(results))
    print(write_report(results, a.out))
    return 1 if problems.any or not any(map(_is_answered, runs)) else 0


def _names() -> list[str]:
    from sfllava.published.reproduction.experiments import choices

    return choices()


def _models(a: argparse.Namespace) -> tuple[dict[str, str], dict[str, Sizes]]:
    """Return the checkpoint of each model size, and the dimensions of every model, including those only planned."""
    from sfllava.models.known import known_name
    from sfllava.models.sizes import sizes_of
    from sfllava.published.reproduction.paper import SIZES

    models: dict[str, str] = {}
    for pair in a.model:
        size, path = parsed.split_pair(pair, "--model")
        size = size.lower()
        if size not in SIZES:
            raise SfllavaError(f"--model {pair}: the paper's models are {' and '.join(SIZES)}, got {size!r}")
        if size in models or not path:
            raise SfllavaError(f"--model {pair}: needed one checkpoint for {size}")
        models[size] = path
    sizes = {}
    for size in SIZES:
        path = models.get(size, size)
        # a checkpoint that must be downloaded is planned with the published dimensions
        unknown = _is_hub_name(path) and not known_name(path)
        sizes[size] = sizes_of(size if unknown else path, context=a.context)
    return models, sizes


def _is_hub_name(path: str) -> bool:
    return path.count("/") == 1 and not path.startswith((".", "/", "~")) and not Path(path).is_dir()


def _rubrics(a: argparse.Namespace) -> str | None:
    """Return the folder of the judge's wordings: --rubrics, or the one in --prompts if it has one."""
    from sfllava.published.reproduction.plan import JUDGE_WORDINGS

    imported = Path(a.prompts) / JUDGE_WORDINGS if a.prompts else None
    return a.rubrics or (str(imported) if imported and imported.is_dir() else None)


def _early_judge(a: argparse.Namespace) -> Any:
    """Return the judge before hours of inference, unless it loads a model, which needs the memory of the other one."""
    from sfllava.evaluators.judges import find_judge

    if not a.judge:
        if a.judge_model or a.limit_cost is not None:
            raise SfllavaError("--judge-model and --limit-cost need --judge, the kind of judge")
        return None
    if find_judge(a.judge).loads_model and a.judge_model:
        if not (Path(a.judge_model).expanduser().is_dir() or _is_hub_name(a.judge_model) or a.judge_model == "tiny"):
            raise SfllavaError(f"--judge-model {a.judge_model}: no such folder of a model")
        return None
    return make_judge(a, "judge-")


def _check_start(a: argparse.Namespace, models: dict[str, str]) -> None:
    """Raise errors early that would otherwise only occur at the end."""
    from sfllava.evaluators.judges import find_judge
    from sfllava.models.known import KNOWN

    if not models:
        raise SfllavaError("--model: needed 7b=PATH, 34b=PATH or both (a dry run needs none)")
    for size, path in models.items():
        if path in KNOWN and not Path(path).is_dir():
            raise SfllavaError(f"--model {size}={path}: only for planning; needed a checkpoint folder or a Hub name")
    if not (find_spec("pandas") and find_spec("scipy")):
        raise SfllavaError("the report needs pandas and scipy: pip install 'sfllava[judge]'")
    if not a.judge or not find_judge(a.judge).has_batch_api:  # other judges run locally and cost nothing
        return
    if not a.yes and a.limit_cost is None:
        raise SfllavaError(f"nothing started: --judge {a.judge} needs --yes, or --limit-cost DOLLARS with --price")
    if a.limit_cost is not None and not a.price:
        raise SfllavaError("--limit-cost needs --price, the dollars per million prompt and reply tokens")
    if not os.environ.get("OPENAI_API_KEY") or not find_spec("openai"):
        raise SfllavaError(
            f"nothing started: --judge {a.judge} needs OPENAI_API_KEY (any text for a server without keys), and the "
            "package openai: pip install 'sfllava[judge]'"
        )


def _do(
    a: argparse.Namespace, runs: list[PlannedRun], models: dict[str, str], grader: Any, rubrics: str | None,
    problems: Problems,
) -> str | None:  # fmt: skip
    """Answer, then judge; return the name of the judge's verdicts."""
    from sfllava.evaluators.judges.openai_batch import BatchClient
    from sfllava.published.reproduction.run import answer_runs, judge_runs

    def say(what: object) -> None:
        print(what, flush=True)

    def open_model(size: str) -> AbstractContextManager[Any]:
        chosen = {**vars(a), "model": models[size], "dtype": _dtype(a)}
        return parsed.open_runner(argparse.Namespace(**chosen))

    chosen = {name: getattr(a, name) for name in ("limit", "seed", "decoders", "decode_seconds")}
    answer_runs(runs, open_model, problems, say, retry_failed=a.retry_failed, **chosen)
    if not a.judge:
        return None
    grader = grader or make_judge(a, "judge-")
    batch = BatchClient(wait=a.wait) if a.batch else None
    judge_runs(runs, grader, problems, say, rubrics=rubrics, limit_cost=a.limit_cost, batch=batch)
    return grader.name


def _dtype(a: argparse.Namespace) -> str:
    """Return the dtype: float16 on a GPU, as in the published code, regardless of the checkpoint."""
    import torch

    on_gpu = a.device_map or a.device.startswith("cuda") or (a.device == "auto" and torch.cuda.is_available())
    return "float16" if a.dtype == "auto" and on_gpu else a.dtype


def _print_plan(
    a: argparse.Namespace, runs: list[PlannedRun], models: dict[str, str], sizes: dict[str, Sizes], grader: Any,
    rubrics: str | None,
) -> int:  # fmt: skip
    from sfllava.published.reproduction.estimates import estimate_runs

    roofline = _find_roofline(a)
    notes = []
    if roofline is None:
        notes.append(
            "hours and memory need a GPU here, --roofline FILE from `sfllava plan --measure FILE` elsewhere, or "
            "--device h100 (`sfllava list devices`) for estimates from published figures"
        )
    if not a.prompts:
        notes.append("prompts are this package's own; `sfllava prompts import` and --prompts give the published ones")
    if not a.judge:
        notes.append("open-ended answers are not judged without --judge")
    unknown = "no checkpoint given, planned with its published dimensions"
    shown = {size: models.get(size, unknown) for size in dict.fromkeys(one.experiment.size for one in runs)}
    planned = estimate_runs(runs, shown, sizes, roofline, grader, rubrics=rubrics, new_tokens=a.new_tokens, notes=notes)
    print(planned)
    return 1 if planned.problems else 0


def _find_roofline(a: argparse.Namespace) -> Roofline | None:
    """Return the measurements in --roofline, a preset's figures, or measurements of the local GPU; None without any."""
    import torch

    from sfllava.planning.presets import is_preset, preset_roofline
    from sfllava.planning.roofline import load_roofline, measure

    if a.roofline:
        return load_roofline(a.roofline)
    if is_preset(a.device):
        return preset_roofline(a.device, a.dtype)
    if a.device == "cpu" or (a.device == "auto" and not torch.cuda.is_available()):
        return measure(a.device, a.dtype) if a.device == "cpu" else None
    print("measuring the GPU", file=sys.stderr, flush=True)
    return measure(a.device, "float16" if a.dtype == "auto" else a.dtype)


def _is_answered(planned: PlannedRun) -> bool:
    from sfllava.runs.run_folder import read_rows

    return any(row["error"] is None for row in read_rows(planned.folder))
