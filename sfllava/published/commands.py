"""The subcommands of `sfllava` for those who come from the published code: run, import, prompts import."""

from __future__ import annotations

import argparse
from collections.abc import Callable

Command = Callable[[str, Callable[[argparse.Namespace], int], str], argparse.ArgumentParser]


def add_commands(command: Command) -> None:
    """Add the subcommands; `command(name, run, text)` makes one."""
    run = command("run", _run, "Run an experiment file of the published code.")
    run.add_argument("--config", required=True, metavar="FILE", help="its YAML file, as it is")
    run.add_argument("--dry-run", action="store_true", help="say what would be done, and stop")
    run.add_argument("--root", default=".", metavar="DIR", help="where its relative paths start (default: this folder)")
    run.add_argument("--prompts", metavar="DIR", help="exact wordings, from `sfllava prompts import`")
    run.add_argument("--follow-links", action="store_true", help="follow symlinks that leave a folder of videos")
    run.add_argument("--limit", type=int, metavar="N", help="the first N questions of each benchmark, to try it")
    run.add_argument("--decoders", type=int, default=2, metavar="N", help="decoding processes (default: 2)")
    run.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
    run.add_argument("--dtype", default="auto", choices=["auto", "float32", "float16", "bfloat16"])
    run.add_argument("--device-map", metavar="MAP", help="auto: spread a model over several GPUs")
    run.add_argument("--vision-tower", metavar="DIR", help="folder of the checkpoint's mm_vision_tower")

    imports = command("import", _import, "Read an output folder of the published code into a run folder.")
    imports.add_argument("folder", help="the folder with merge.jsonl, or its OUTPUT_DIR")
    imports.add_argument("--benchmark", required=True, metavar="NAME")
    imports.add_argument("--questions", metavar="FILE", help="question file (vcgbench: its folder)")
    imports.add_argument("--root", metavar="DIR", help="folder in which it is found, instead")
    imports.add_argument("--out", required=True, metavar="DIR", help="run folder to write")
    imports.add_argument("--config-name", metavar="NAME", help="which CONFIG_NAME, where there are several")
    imports.add_argument("--judged", metavar="DIR", help="its judge's files: TEMP_DIR, or one judge's folder")
    imports.add_argument("--judge", metavar="NAME", help="which judge, or what to call it (default: its folder)")
    imports.add_argument("--frames", type=int, metavar="N", help="the setting it was run with, to compare with ours")
    imports.add_argument("--aggregation", metavar="NAME", help="likewise")

    prompts = command("prompts", _prompts_import, "Take exact prompts out of your checkout of the published code.")
    prompts.add_argument("action", choices=["import"], help="import: parse the checkout, run nothing of it")
    prompts.add_argument("path", help="the checkout's folder")
    prompts.add_argument("--out", required=True, metavar="FOLDER", help="where the prompt pack goes")


def _run(a: argparse.Namespace) -> int:
    from sfllava.published.plan import plan_experiment
    from sfllava.published.run import load_choice, run_plan

    plan = plan_experiment(a.config, root=a.root, prompts=a.prompts, follow_links=a.follow_links)
    print(plan, flush=True)
    if a.dry_run:
        return 1 if plan.problems else 0
    nothing = False
    for run in run_plan(
        plan,
        lambda choice: load_choice(choice, a.device, a.dtype, a.device_map, a.vision_tower),
        limit=a.limit,
        decoders=a.decoders,
    ):
        print(run, flush=True)
        nothing = nothing or not any(scores["answered"] for scores in run.scores.values())
    return 1 if nothing else 0


def _import(a: argparse.Namespace) -> int:
    from sfllava.benchmarks import load_benchmark
    from sfllava.published.importing import import_outputs
    from sfllava.settings import Setting
    from sfllava.types import SfllavaError

    if (a.frames is None) != (a.aggregation is None):
        raise SfllavaError("--frames and --aggregation go together")
    setting = Setting(a.frames, a.aggregation) if a.frames is not None else None
    benchmark = load_benchmark(a.benchmark, a.questions, root=a.root)
    found = import_outputs(
        a.folder,
        benchmark,
        a.out,
        setting=setting,
        config_name=a.config_name,
        judged=a.judged,
        judge=a.judge,
    )
    print(found)
    return 0 if found.outputs.predictions else 1


def _prompts_import(a: argparse.Namespace) -> int:
    from sfllava.published.wordings import read_wordings, write_pack

    pack = read_wordings(a.path)
    if pack.wordings:
        write_pack(pack, a.out)
    print(pack)
    return 0 if pack.wordings else 1
