"""The long family of ShapesQA: videos of 1 to 5 minutes, and questions about what they show for one second.

A video cuts between still scenes. In some seconds there is a coloured sign: its colours, digits and places all differ.
*Search* questions name a sign by its colour, so that the frames that answer a question depend on the question.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from sfllava.benchmarks.shapesqa.scenes import COLOURS, DIGITS, PLACES, draw_scene, random_scene
from sfllava.benchmarks.shapesqa.signs import Sign, ask_digit, ask_place, draw_sign, make_sign
from sfllava.benchmarks.shapesqa.tables import SPLITS, Tables, check_arguments, spread_evenly
from sfllava.sampler.writing import write_video

FPS = 2
SHOWN = FPS  # frames for which a sign is shown
SECONDS = (60, 300)  # the shortest and the longest video
SIGNS = (3, 4, 5)
_CUTS = (10, 40)  # seconds: the shortest and the longest scene
_GAP = 4 * FPS  # least distance between two starts, and from both ends of the video, in frames
_STREAM = 7  # sets the random choices apart from those of the short families
_Film = tuple[list[Sign], list[int], int]  # its signs, the frames at which they start, and its number of frames


def write_long_shapesqa(folder: str | Path, videos: int = 40, seed: int = 0, split: str = "test") -> Path:
    """Render long videos, and write their questions as open-ended and as multiple-choice questions.

    The same arguments give the same videos and questions, in files of the same names and forms as those of
    `write_shapesqa`. Each video has two questions about a digit and two about a place. Right answers are distributed
    evenly: a guess is right in 20 to 25 % of cases. Every question has the span of one second that shows its answer.

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
    rng = np.random.default_rng([seed, SPLITS.index(split), _STREAM])
    tables = Tables(rng, spread_evenly(rng, 4, 4 * videos))
    for i, (signs, starts, total) in enumerate(_make_films(rng, videos)):
        name = f"long_{split}_{seed}_{i:04d}"
        # as in the short families, high quality; frames that repeat cost nearly nothing
        write_video(
            folder / "videos" / f"{name}.mp4", _render(rng, signs, starts, total), FPS, crf="10", preset="veryfast"
        )
        tables.add_video(name, total / FPS, FPS)
        spans = [[[start / FPS, (start + SHOWN) / FPS]] for start in starts]
        for k in (0, 1):
            tables.add_question(name, ask_digit(signs[k]), spans[k])
        for k in (1, 2):
            tables.add_question(name, ask_place(signs[k]), spans[k])
    tables.write(folder)
    return folder


def _make_films(rng: np.random.Generator, videos: int) -> list[_Film]:
    """Return what happens in each video; the first three signs, which are asked about, are distributed evenly."""
    counts, spots = spread_evenly(rng, len(SIGNS), videos), [spread_evenly(rng, 4, videos) for _ in range(2)]
    films: list[_Film] = []
    colours, digits = list(COLOURS), list(DIGITS)
    for i in range(videos):
        # within five videos, each sign has every colour and every digit once
        if i % 5 == 0:
            colours = [str(x) for x in rng.permutation(list(COLOURS))]
            digits = [str(x) for x in rng.permutation(DIGITS)]
        colours, digits = colours[1:] + colours[:1], digits[2:] + digits[:2]
        places = [str(rng.choice(PLACES)) for _ in range(5)]
        places[1:3] = [PLACES[spots[0][i]], PLACES[spots[1][i]]]
        n = SIGNS[counts[i]]
        signs = [make_sign(rng, *values) for values in list(zip(colours, digits, places))[:n]]
        total = FPS * int(rng.integers(SECONDS[0], SECONDS[1] + 1))
        free = total - _GAP * (n + 1) - SHOWN
        starts = _GAP + np.sort(rng.integers(0, free + 1, n)) + _GAP * np.arange(n)
        films.append((signs, rng.permutation(starts).tolist(), total))
    return films


def _render(rng: np.random.Generator, signs: list[Sign], starts: list[int], total: int) -> np.ndarray:
    """Return the frames of a video, (total 112 112 3) uint8."""
    parts: list[np.ndarray] = []
    done = 0
    while done < total:
        length = min(FPS * int(rng.integers(_CUTS[0], _CUTS[1] + 1)), total - done)
        scene = random_scene(rng, 0)
        # without its plain sign: a sign without a colour is what the questions of the short families are about
        scene = replace(scene, things=scene.things[:2])
        parts.append(np.broadcast_to(draw_scene(scene, rng, rng.random()), (length, *scene.background.shape)))
        done += length
    frames = np.concatenate(parts)
    for sign, start in zip(signs, starts):
        for frame in frames[start : start + SHOWN]:
            draw_sign(frame, sign)
    return frames
