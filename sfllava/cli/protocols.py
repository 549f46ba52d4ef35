"""Score the replies of a run as other evaluation tools do: accuracy under each tool, and where they differ."""

from __future__ import annotations

import argparse
from pathlib import Path

from sfllava.cli import options
from sfllava.cli.parser import group
from sfllava.types import SfllavaError

ORDER = 7.5
EXAMPLES = (
    "sfllava protocols runs/videomme",
    "sfllava protocols runs/videomme --protocol strict lmms-eval --csv differing.csv --out protocols",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run_folder", metavar="RUN", help="run folder")
    setting, output = group(parser, "setting"), group(parser, "output")
    names = setting.add_argument("--protocol", nargs="+", default=[], metavar="NAME", help="only these (default: all)")
    options.complete_with(names, options.protocols)
    setting.add_argument("--setting", metavar="NAME", help="only this setting of the run (default: all)")
    setting.add_argument("--seed", type=int, default=0, metavar="N", help="seed of random options (default: 0)")
    output.add_argument(
        "--list", type=int, default=20, metavar="N", help="number of differing replies to list (default: %(default)s)"
    )
    output.add_argument("--csv", metavar="FILE", help="write all differing replies to FILE")
    output.add_argument("--out", metavar="DIR", help="write the figure and the tables to DIR")


def run(arguments: argparse.Namespace) -> int:
    from sfllava.analysis import protocol_tables as tables
    from sfllava.analysis.protocols import read_by_protocols
    from sfllava.files import as_csv, folder_of_parts, write_file

    if arguments.list < 0:
        raise SfllavaError(f"--list must be at least 0, got {arguments.list}")
    readings = read_by_protocols(arguments.run_folder, arguments.protocol, arguments.setting, arguments.seed)
    accuracy, pairs = tables.protocol_accuracy(readings), tables.protocol_pairs(readings)
    differing = tables.read_differently(readings)
    print(tables.format_protocols(readings, accuracy, pairs, differing, arguments.list))
    if arguments.csv:
        write_file(Path(arguments.csv), as_csv(differing).encode())
    if arguments.out:
        from sfllava.plots.protocols import protocols_figure
        from sfllava.plots.static import save

        figure = protocols_figure(accuracy)
        with folder_of_parts(Path(arguments.out)) as parts:
            for name, table in {"protocols": accuracy, "protocol_pairs": pairs, "differing": differing}.items():
                write_file(parts / f"{name}.csv", as_csv(table).encode())
            for kind in ("svg", "pdf", "png"):
                save(figure, parts / f"protocols.{kind}")
    return 0
