"""ShapesQA: rendered videos with questions that need spatial resolution, and others that need many frames.

*Detail* questions ask about small things that are always visible; *moment* questions about flashes of a few frames.
*Search* questions, in `long.py`, ask about what a long video shows for a second. Unlike other benchmarks, ShapesQA is
rendered: call `write_shapesqa` or `write_long_shapesqa`, then load that folder as root.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfllava.benchmarks.shapesqa.long import write_long_shapesqa
from sfllava.benchmarks.shapesqa.scenes import (
    COLOURS,
    COUNTS,
    DIGITS,
    PLACES,
    SIDE,
    Scene,
    SceneQuestion,
    ask_detail,
    ask_moment,
    draw_scene,
    make_scene,
)
from sfllava.benchmarks.shapesqa.tables import SPLITS, Tables, check_arguments, spread_evenly
from sfllava.benchmarks.spec import Spec
from sfllava.sampler.writing import write_video

__all__ = ["write_long_shapesqa", "write_shapesqa"]

SPEC = Spec(name="shapesqa", task="open", questions=("shapesqa_open.csv",), videos=("videos",))
FRAMES, FLASH, GAP = 64, 2, 4  # frames per video, frames per flash, least distance between two starts
FPS = 8


@dataclass(frozen=True)
class _Script:
    """What happens in one video: its scene, and the frames at which the flashes start."""

    scene: Scene
    starts: tuple[int, ...]


def write_shapesqa(folder: str | Path, videos: int = 40, seed: int = 0, split: str = "test") -> Path:
    """Render videos, and write their questions as open-ended and as multiple-choice questions.

    The same arguments give the same videos and questions. Each video has two or three questions of each kind (detail
    and moment). Right answers are distributed evenly: a guess is right in 20 to 25 % of cases. The spans that
    show the answer to each moment question are also written, in the format of NExT-GQA's `gsub_{val,test}.json`.

    Args:
        folder: where to write videos/, shapesqa_open.csv, shapesqa_choice.csv and shapesqa_spans.json.
        videos: the number of videos.
        seed: the seed of the random choices.
        split: `train` or `test`; the splits share no random choices.

    Returns:
        The folder.

    Raises:
        ValueError: there is no such split.
        SfllavaError: `videos` is below 1, or `seed` below 0.
        RunError: a file cannot be written.
    """
    check_arguments(videos, seed, split)
    folder = Path(folder)
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, SPLITS.index(split)])
    tables = Tables(rng, spread_evenly(rng, 4, 8 * videos))
    for i, script in enumerate(_make_scripts(rng, videos)):
        name = f"{split}_{seed}_{i:04d}"
        # high quality, since chroma has half the resolution and the marks are only 10 pixels wide
        write_video(folder / "videos" / f"{name}.mp4", _render(script, rng), FPS, crf="10", preset="veryfast")
        tables.add_video(name, FRAMES / FPS, FPS)
        for question in _choose_questions(script.scene, i):
            spans = _spans_of(question, script) if question.type.startswith("moment") else None
            tables.add_question(name, question, spans)
    tables.write(folder)
    return folder


def _spans_of(question: SceneQuestion, script: _Script) -> list[list[float]]:
    """Return start and end, in seconds, of the flash that a moment question is about, or of all if it counts them."""
    flashes = script.scene.flashes
    asked = [flashes.index(question.answer)] if question.answer in flashes else range(len(flashes))
    return [[script.starts[k] / FPS, (script.starts[k] + FLASH) / FPS] for k in asked]


def _make_scripts(rng: np.random.Generator, videos: int) -> list[_Script]:
    colours, places = list(COLOURS), list(PLACES)
    marks, spots = ([spread_evenly(rng, k, videos) for _ in range(n)] for k, n in ((len(colours), 2), (len(places), 3)))
    firsts = spread_evenly(rng, len(colours), videos)
    digits, counts = spread_evenly(rng, len(DIGITS), videos), spread_evenly(rng, len(COUNTS), videos)
    scripts = []
    for i in range(videos):
        n = counts[i] + 1
        later = [k for k in rng.permutation(len(colours)) if k != firsts[i]]
        scene = make_scene(
            rng,
            (colours[marks[0][i]], colours[marks[1][i]]),
            DIGITS[digits[i]],
            (places[spots[0][i]], places[spots[1][i]], places[spots[2][i]]),
            tuple(colours[k] for k in (firsts[i], *later[: n - 1])),
        )
        scripts.append(_Script(scene, _choose_starts(rng, n, at_start=i // 4 % 2 == 0)))
    return scripts


def _choose_starts(rng: np.random.Generator, n: int, at_start: bool) -> tuple[int, ...]:
    """Return the frames at which `n` flashes start, at least GAP apart; `at_start` puts the first at frame 0."""
    free = FRAMES - FLASH - GAP * (n - 1)
    starts = np.sort(rng.integers(0, free + 1, n)) + GAP * np.arange(n)
    if at_start:
        starts[0] = 0
    return tuple(starts.tolist())


def _render(script: _Script, rng: np.random.Generator) -> np.ndarray:
    """Return the frames of a video, (FRAMES SIDE SIDE 3) uint8."""
    frames = np.empty((FRAMES, SIDE, SIDE, 3), np.uint8)
    for t in range(FRAMES):
        k = next((k for k, start in enumerate(script.starts) if start <= t < start + FLASH), None)
        frames[t] = draw_scene(script.scene, rng, t / FRAMES, None if k is None else script.scene.flashes[k])
    return frames


def _choose_questions(scene: Scene, i: int) -> list[SceneQuestion]:
    """Return as many detail questions as moment questions; the choice of detail questions rotates between videos."""
    moment, detail = ask_moment(scene), ask_detail(scene)
    kinds = [[a for a in detail if a.type == kind] for kind in ("detail-colour", "detail-digit", "detail-place")]
    chosen = [kind[i % len(kind)] for kind in kinds]
    if len(moment) < len(chosen):
        chosen.pop(i // 2 % len(chosen))
    return chosen + moment
