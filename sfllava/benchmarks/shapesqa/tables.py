"""The files of a rendered benchmark: its questions as two tables, and the spans of their answers."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import numpy as np

from sfllava.benchmarks.shapesqa.scenes import SceneQuestion, choose_options
from sfllava.files import atomic_write, write_json
from sfllava.types import SfllavaError

SPLITS = ("train", "test")


def check_arguments(videos: int, seed: int, split: str) -> None:
    """Raise ValueError if there is no such split, SfllavaError if `videos` is below 1, or `seed` below 0."""
    if split not in SPLITS:
        raise ValueError(f"split must be one of {', '.join(SPLITS)}, got {split!r}")
    if videos < 1 or seed < 0:
        raise SfllavaError(f"needed at least 1 video and a seed of at least 0, got {videos} videos and seed {seed}")


def spread_evenly(rng: np.random.Generator, kinds: int, n: int) -> list[int]:
    """Return `n` numbers below `kinds`, each equally often, in random order."""
    return rng.permutation(np.arange(n) % kinds).tolist()


class Tables:
    """The questions of all videos, open-ended and with options.

    Args:
        rng: the source of the options.
        letters: the position of the right option of each question, in order.
    """

    def __init__(self, rng: np.random.Generator, letters: list[int]) -> None:
        self._rng, self._letters = rng, letters
        self._rows: dict[str, list[dict[str, str]]] = {"open": [], "choice": []}
        self._spans: dict[str, dict[str, Any]] = {}

    def add_video(self, name: str, duration: float, fps: float) -> None:
        """Add a video, with its duration in seconds and its frames per second."""
        self._spans[name] = {"duration": duration, "location": {}, "fps": fps}

    def add_question(self, name: str, question: SceneQuestion, spans: list[list[float]] | None = None) -> None:
        """Add a question about a video, and the [start, end] in seconds that show its answer, if there are any."""
        number = len(self._rows["open"])
        row = {"video_name": name, "question_id": f"{name}_{number}", "question_type": question.type}
        row |= {"question": question.text, "answer": question.answer}
        options = choose_options(question, self._rng, self._letters[number])
        self._rows["open"].append(row)
        self._rows["choice"].append(row | {f"a{k}": option for k, option in enumerate(options)})
        if spans is not None:
            self._spans[name]["location"][row["question_id"]] = spans

    def write(self, folder: Path) -> None:
        """Write shapesqa_open.csv, shapesqa_choice.csv and shapesqa_spans.json into a folder."""
        for form, rows in self._rows.items():
            path = folder / f"shapesqa_{form}.csv"
            with atomic_write(path) as part, part.open("w", newline="", encoding="utf-8") as file:
                writer = csv.DictWriter(file, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
        write_json(folder / "shapesqa_spans.json", self._spans)
