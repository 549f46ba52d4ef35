"""Which runs may be ranked together: those with the same questions, judge, protocol and way of answering."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sfllava.files import RunError
from sfllava.runs.run_folder import asked_questions, read_run
from sfllava.runs.verdicts import read_judge_info

_NAMES = {
    "benchmark": "benchmark", "questions": "questions", "judge": "judge", "protocol": "protocol",
    "answers": "way of answering", "subtitles": "subtitles",
}  # fmt: skip


@dataclass(frozen=True)
class Conditions:
    """What must be equal for two runs to be ranked together.

    Attributes:
        benchmark: The name of the benchmark.
        questions: The SHA-256 of the questions that were asked.
        count: Their number.
        judge: How open answers are scored, in words.
        protocol: The tool whose prompts were used; empty for the package's own or the user's.
        answers: "generate", or "logits" where the letter was read from one forward pass.
        subtitles: Whether the prompts had subtitles.
        judge_identity: The identity of the judge, as JSON.
    """

    benchmark: str
    questions: str
    count: int = field(compare=False)
    judge: str = field(compare=False)
    protocol: str
    answers: str
    subtitles: bool
    judge_identity: str = ""

    def differing(self, other: Conditions) -> list[str]:
        """Return what differs from other conditions, in words."""
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in _NAMES if name != "judge"}
        pairs["judge"] = (self.judge_identity, other.judge_identity)
        if self.benchmark != other.benchmark:  # then the questions differ too, which goes without saying
            del pairs["questions"]
        return [_NAMES[name] for name in _NAMES if name in pairs and pairs[name][0] != pairs[name][1]]

    def __str__(self) -> str:
        parts = [f"{self.count:,} questions of {self.benchmark}", self.judge]
        parts += [f"prompts of {self.protocol}"] if self.protocol else []
        parts += ["letters read from one forward pass"] if self.answers == "logits" else []
        parts += ["with subtitles"] if self.subtitles else []
        return ", ".join(parts)


def group_runs(runs: Iterable[str | Path], judge: str | None = None) -> list[tuple[Conditions, list[Path]]]:
    """Put runs into groups that may be ranked together, in the order of the runs.

    Args:
        runs: The run folders.
        judge: The judge whose verdicts decide open questions; None for the offline rules.

    Raises:
        RunError: There is no run, or a run.json cannot be read.
    """
    groups: dict[Conditions, list[Path]] = {}
    for run in map(Path, runs):
        groups.setdefault(_conditions(run, judge), []).append(run)
    if not groups:
        raise RunError("needed a run folder, got none")
    return list(groups.items())


def _conditions(run: Path, judge: str | None) -> Conditions:
    about = read_run(run)
    identity, sessions = about["identity"], about["sessions"]
    benchmark, count, digest = asked_questions(run)
    verdicts: dict[str, Any] = read_judge_info(run, judge)["identity"] if judge else {}
    return Conditions(
        benchmark,
        digest,
        count,
        _judge_in_words(judge, verdicts),
        str((sessions[-1] if sessions else {}).get("protocol") or ""),
        str(identity.get("read") or "generate"),
        bool(identity.get("subtitles")),
        json.dumps(verdicts, sort_keys=True),
    )


def _judge_in_words(judge: str | None, identity: dict[str, Any]) -> str:
    if judge is None:
        return "scored offline by the strict rules"
    model = identity.get("model")
    return f"judged by {judge}" + (f" ({model})" if isinstance(model, str) and model not in judge else "")
