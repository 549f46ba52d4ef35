"""Run a notebook for many parameters, several at a time (papermill)."""

from __future__ import annotations

import argparse

from sfllava.cli import options, parsed
from sfllava.cli.parser import group

ORDER = 10
EXAMPLES = (
    "sfllava batch ask --out out -p video=clip.mp4 --grid frames=8,16,32",
    "sfllava batch evaluate --out out -p model=7B_FOLDER --grid frames=25,50 --jobs 2 --devices 0,1",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    options.add_notebook(parser)
    group(parser, "output").add_argument("--out", required=True, metavar="DIR", help="gets one folder per run")
    options.add_parameters(parser)
    group(parser, "input").add_argument(
        "--grid", action="append", default=[], metavar="NAME=A,B",
        help="a parameter with several values; all combinations are run",
    )  # fmt: skip
    speed = group(parser, "speed and failures")
    speed.add_argument("--jobs", type=int, default=1, metavar="N", help="notebooks at a time (default: 1)")
    speed.add_argument("--devices", metavar="0,1", help="the GPU of each job, as in CUDA_VISIBLE_DEVICES")


def run(arguments: argparse.Namespace) -> int:
    from sfllava.notebooks import grid, run_batch

    fixed = parsed.read_parameters(arguments)
    pairs = dict(parsed.split_pair(pair, "--grid") for pair in arguments.grid)
    varied = {name: [parsed.read_value(value) for value in values.split(",")] for name, values in pairs.items()}
    runs = [fixed | values for values in grid(varied)]
    devices = arguments.devices.split(",") if arguments.devices else ()
    states = run_batch(arguments.notebook, arguments.out, runs, jobs=arguments.jobs, devices=devices)
    for name, state in states.items():
        print(f"{name}: {state}")
    return 0 if all(state == "done" for state in states.values()) else 1
