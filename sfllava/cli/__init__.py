# PYTHON_ARGCOMPLETE_OK
"""The `sfllava` command: one module per subcommand.

A module in this package that has `run` is a subcommand of its name, without a trailing underscore, and with hyphens for
the others. It has:
    its docstring, whose first line is the help text;
    ORDER, its place in `sfllava --help`;
    EXAMPLES, command lines that follow its options in its help;
    add_arguments(parser), which declares its options, those that commands share with `sfllava.cli.options`;
    run(arguments), which returns the exit status.
Modules import what they need inside `run`, so that `--help` and completion need no torch.
"""

from __future__ import annotations

import argparse
import importlib
import io
import logging
import os
import pkgutil
import sys
from collections.abc import Sequence
from typing import Any

from sfllava.cli.parser import CommandParser
from sfllava.types import SfllavaError


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line.

    Args:
        argv: The arguments after the program's name; None takes those of the process.

    Returns:
        The exit status: 0; 1 after an error, with one line on stderr; 2 for wrong usage; 130 when interrupted.
    """
    parser = make_parser()
    if "_ARGCOMPLETE" in os.environ:  # set by the shell's completion function
        import argcomplete

        argcomplete.autocomplete(parser)
    arguments = parser.parse_args(argv)
    for stream in (sys.stdout, sys.stderr):  # a file name that is not valid UTF-8 must not stop the output
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    logging.basicConfig(format="%(levelname)s %(message)s")
    logging.getLogger().handlers[0].setLevel(logging.INFO if arguments.verbose else logging.WARNING)
    try:
        return arguments.run(arguments)
    except SfllavaError as error:
        print(f"sfllava: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sfllava: stopped; run the same command again to continue", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if arguments.verbose:
            raise
        text = " ".join(str(error).split())[:300]
        print(f"sfllava: {type(error).__name__}: {text} (-v shows where)", file=sys.stderr)
        return 1


class _ShowVersion(argparse.Action):
    # reading the version takes a while, which only those who ask for it should wait
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> None:
        from sfllava import __version__

        print(f"sfllava {__version__}")
        parser.exit()


def make_parser() -> CommandParser:
    """Return the parser of the whole command line."""
    parser = CommandParser(
        prog="sfllava", description="SlowFast-LLaVA: ask videos, score benchmarks.",
        usage="%(prog)s COMMAND ... [options]",
        epilog="`sfllava COMMAND --help` shows the options of a command, with examples; `sfllava list` shows the names "
        "of benchmarks, models, methods and more; `sfllava doctor` checks this installation.",
    )  # fmt: skip
    parser.add_argument("--version", action=_ShowVersion, nargs=0, help="show the version and exit")
    subparsers = parser.add_subparsers(required=True, metavar="COMMAND", title="commands", prog="sfllava")
    for name, command in find_commands().items():
        text = command.__doc__.partition("\n")[0]
        subparser = subparsers.add_parser(name, help=text, description=text)
        subparser.begin()
        subparser.add_argument("-v", "--verbose", action="store_true", help="log what is done")
        command.add_arguments(subparser)
        subparser.finish(getattr(command, "EXAMPLES", ()))
        subparser.set_defaults(run=command.run, command_parser=subparser)
    return parser


def find_commands() -> dict[str, Any]:
    """Return the command modules of this package by name, in the order of `sfllava --help`."""
    names = [module.name for module in pkgutil.iter_modules(__path__) if not module.name.startswith("_")]
    modules = {name: importlib.import_module(f"{__name__}.{name}") for name in names}
    found = {name: module for name, module in modules.items() if hasattr(module, "run")}
    commands = {name.rstrip("_").replace("_", "-"): module for name, module in found.items()}
    return dict(sorted(commands.items(), key=lambda item: item[1].ORDER))
