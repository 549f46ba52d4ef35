"""Runs of multiple-choice questions whose replies are made messy by known rules, for `sfllava protocols`."""

from __future__ import annotations

import json
from pathlib import Path

from sfllava.prompts import LETTERS

MESSY = (
    lambda letter, other, option: letter,
    lambda letter, other, option: f"({letter.lower()}) {option}",
    lambda letter, other, option: f"Answer: {letter}",
    lambda letter, other, option: f"The best answer is {letter}.",
    lambda letter, other, option: f"Best option: {letter}",
    lambda letter, other, option: f"I think {letter}",
    lambda letter, other, option: option,
    lambda letter, other, option: f"A {option} one",
    lambda letter, other, option: "",
    lambda letter, other, option: f"Either ({other}) or ({letter})",
)
"""(letter of the intended option, another letter, text of the option) -> reply; row i uses rule i % 10"""


def make_messy(rows: list[dict], failed: tuple[int, ...] = ()) -> list[dict]:
    """Rewrite the replies of rows, which are single letters, with each rule in turn; rows with the given numbers fail."""
    made = []
    for i, row in enumerate(rows):
        letter = row["prediction"]
        other = LETTERS[(LETTERS.index(letter) + 1) % len(row["options"])]
        reply = MESSY[i % len(MESSY)](letter, other, row["options"][LETTERS.index(letter)])
        made.append(row | ({"prediction": None, "error": "no such video"} if i in failed else {"prediction": reply}))
    return made


def copy_messy(run: Path, out: Path, failed: tuple[int, ...] = ()) -> Path:
    """Copy a run folder whose replies are single letters, with messy replies instead."""
    out.mkdir(parents=True)
    (out / "run.json").write_bytes((run / "run.json").read_bytes())
    rows = [json.loads(line) for line in (run / "predictions.jsonl").read_text().splitlines()]
    (out / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in make_messy(rows, failed)))
    return out
