"""The parser of the command line: groups of options, a short usage, examples, and suggestions for typos."""

from __future__ import annotations

import argparse
import difflib
import re
import textwrap
from collections.abc import Sequence
from typing import Any, NoReturn

from sfllava.catalogue import unknown_name

GROUPS = ("input", "setting", "model", "output", "speed and failures")
"""Titles of the groups of a command's options, in the order of its help"""

_HELP = {"run_folder": "run folder"}  # of arguments whose command says nothing else
_EXAMPLE_WIDTH = 74


class CommandParser(argparse.ArgumentParser):
    """A parser whose help fits a terminal of 80 columns, and whose errors suggest what was probably meant."""

    def __init__(self, **more: Any) -> None:
        super().__init__(formatter_class=_Formatter, **more)

    def begin(self) -> None:
        """Make the groups of a command, in their order; arguments in none of them come last."""
        self._positionals.title, self._optionals.title = GROUPS[0], "other options"
        for title in GROUPS[1:]:
            self.add_argument_group(title)
        self._action_groups.append(self._action_groups.pop(1))

    def finish(self, examples: Sequence[str]) -> None:
        """Set the usage to what is required, and the examples that follow the options."""
        made = self._get_formatter()
        required = []
        for action in self._actions:
            action.help = action.help or _HELP.get(action.dest)
            if action.option_strings and action.required:
                value = made._format_args(action, action.dest.upper())
                required.append(f"{action.option_strings[-1]} {value if len(value) < 30 else action.dest.upper()}")
        given = [made._format_args(action, action.dest) for action in self._actions if not action.option_strings]
        self.usage = " ".join(["%(prog)s", *given, *required, "[options]"])
        if examples:
            self.epilog = "\n  ".join(["examples:", *map(_folded, examples)])

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse a command line; an option that there is not is an error of the command that it was given to."""
        found, rest = self.parse_known_args(args, namespace)
        if rest:
            getattr(found, "command_parser", self).refuse(rest[0])
        return found

    def refuse(self, word: str) -> NoReturn:
        """End with an error about a word that has no meaning here."""
        name = word.partition("=")[0]
        if not name.startswith("-"):
            self.error(f"{word!r} is one argument too many")
        close = difflib.get_close_matches(name, self._option_string_actions, n=1, cutoff=0.7)
        meant = f" (did you mean {close[0]}?)" if close else ""
        self.error(f"no option is called {name}{meant}; `{self.prog} --help` lists all")

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            about = unknown_name("", str(value), known).partition(" is called ")[2]
            raise argparse.ArgumentError(action, f"invalid choice: {about}")


def group(parser: argparse._ActionsContainer, title: str) -> argparse._ActionsContainer:
    """Return the group of a parser with this title, made if there is none; for a group, itself."""
    if isinstance(parser, argparse._ArgumentGroup):
        return parser
    found = next((one for one in parser._action_groups if one.title == title), None)
    return found or parser.add_argument_group(title)


def _folded(example: str) -> str:
    """Return an example that fits 80 columns, as a shell takes it."""
    lines = [""]
    for part in re.split(r" (?=--)", example):
        if lines[-1] and len(lines[-1]) + len(part) > _EXAMPLE_WIDTH:
            lines.append(part)
        else:
            lines[-1] = f"{lines[-1]} {part}".strip()
    return " \\\n      ".join(lines)


class _Formatter(argparse.HelpFormatter):
    """Keeps the lines of examples, and names the value of an option once."""

    def __init__(self, prog: str) -> None:
        super().__init__(prog, max_help_position=28)

    def add_argument(self, action: argparse.Action) -> None:
        super().add_argument(action)
        if isinstance(action, argparse._SubParsersAction):  # its names are indented once more
            self._action_max_length += self._indent_increment

    def _split_lines(self, text: str, width: int) -> list[str]:
        # names such as lmms-eval stay in one piece
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        if text.startswith("examples:"):
            return text
        return super()._fill_text(text, width, indent)

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings or action.nargs == 0:
            return super()._format_action_invocation(action)
        return f"{', '.join(action.option_strings)} {self._format_args(action, action.dest.upper())}"
