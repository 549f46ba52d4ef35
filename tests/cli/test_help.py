"""Help and usage, as a user reads them in a terminal of 80 columns."""

from __future__ import annotations

import argparse
import shlex

import pytest

from sfllava.cli import main, make_parser
from sfllava.cli.parser import GROUPS

PARSER = make_parser()
(COMMANDS,) = (a.choices for a in PARSER._actions if isinstance(a, argparse._SubParsersAction))


def examples(command):
    text = (COMMANDS[command].epilog or "").removeprefix("examples:\n")
    return [line.strip() for line in text.replace(" \\\n", " ").splitlines()]


@pytest.mark.parametrize("name", COMMANDS)
def test_help_is_complete_and_fits(name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    command = COMMANDS[name]
    silent = [action.dest for action in command._actions if not action.help]
    assert not silent, f"without help: {silent}"
    text = command.format_help()
    assert max(map(len, text.splitlines())) <= 80
    assert "['" not in text and "%(" not in text
    usage = command.format_usage()
    assert len(usage.splitlines()) <= 2 and usage.rstrip().endswith("[options]"), usage


@pytest.mark.parametrize("name", COMMANDS)
def test_examples_are_command_lines(name):
    assert examples(name), "without examples"
    for example in examples(name):
        words = shlex.split(example.partition(" > ")[0])
        assert words[:2] == ["sfllava", name]
        assert PARSER.parse_args(words[1:]).run == COMMANDS[name]._defaults["run"]


def test_options_are_grouped():
    titles = [one.title for one in COMMANDS["evaluate"]._action_groups if one._group_actions]
    assert titles == [*GROUPS, "other options"]


@pytest.mark.parametrize(
    ("arguments", "wanted"),
    [
        (["evalute", "nextqa"], "invalid choice: 'evalute' (did you mean 'evaluate'?)"),
        (["list", "ablation"], "invalid choice: 'ablation' (did you mean 'ablations'?)"),
        (
            ["ask", "a.mp4", "q", "--agregation", "concat"],
            "no option is called --agregation (did you mean --aggregation?)",
        ),
        (["check", "nextqa", "--rot=x"], "no option is called --rot (did you mean --root?)"),
        (["ask", "a.mp4", "q", "--engine", "packd"], "invalid choice: 'packd' (did you mean 'packed'?)"),
        (["check", "nextqa", "msvd"], "'msvd' is one argument too many"),
    ],
)
def test_a_typo_on_the_command_line_gets_a_suggestion(arguments, wanted, capsys):
    with pytest.raises(SystemExit) as end:
        main(arguments)
    said = capsys.readouterr().err
    assert end.value.code == 2 and wanted in said
    assert len(said.splitlines()) <= 3
