"""ShapesQA: rendered videos on which spatial resolution and the number of frames matter, each for its own questions.

*Detail* questions ask for small things that stay all along; *moment* questions for flashes of a few frames. Unlike
the other benchmarks it is written here: `write_shapesqa`, then load it with that folder as root.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sfllava.benchmarks.base import Spec
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
    choose_options,
    draw_scene,
    make_scene,
)
from sfllava.files import atomic_write
from sfllava.sampler.writing import write_video
from sfllava.types import SfllavaError

SPEC = Spec(name="shapesqa", task="open", questions=("shapesqa_open.csv",), videos=("videos",))
FRAMES, FLASH, APART = 64, 2, 4  # frames of a video, of a flash, and from one flash's start to the next at least
_SPLITS = ("train", "test")


@dataclass(frozen=True)
class _Film:
    """A scene, and the frames at which its flashes start."""

    scene: Scene
    starts: tuple[int, ...]


def write_shapesqa(folder: str | Path, videos: int = 40, seed: int = 0, split: str = "test") -> Path:
    """Render `videos` videos into folder/videos, with shapesqa_open.csv and shapesqa_choice.csv beside them.

    The same arguments give the same videos and questions. Each video has two or three questions of each family;
    right answers are spread evenly, so that a guess is right in 20 to 25 % of cases.
    """
    if split not in _SPLITS:
        raise ValueError(f"split must be one of {', '.join(_SPLITS)}, got {split!r}")
    if videos < 1 or seed < 0:
        raise SfllavaError(f"needed at least 1 video and a seed of at least 0, got {videos} videos and seed {seed}")
    folder = Path(folder)
    (folder / "videos").mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng([seed, _SPLITS.index(split)])
    tables: dict[str, list[dict[str, str]]] = {"open": [], "choice": []}
    letters = _even(rng, 4, 8 * videos)
    for i, film in enumerate(_films(rng, videos)):
        name = f"{split}_{seed}_{i:04d}"
        # a high quality, since colour has half the resolution of light and the marks are 10 pixels wide
        write_video(folder / "videos" / f"{name}.mp4", _shoot(film, rng), crf="10", preset="veryfast")
        for asked in _choose(film.scene, i):
            row = {"video_name": name, "question_id": f"{name}_{len(tables['open'])}", "question_type": asked.type}
            row |= {"question": asked.text, "answer": asked.answer}
            options = choose_options(asked, rng, letters[len(tables["open"])])
            tables["open"].append(row)
            tables["choice"].append(row | {f"a{k}": option for k, option in enumerate(options)})
    for form, rows in tables.items():
        with (
            atomic_write(folder / f"shapesqa_{form}.csv") as part,
            part.open("w", newline="", encoding="utf-8") as file,
        ):
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            writer.writerows(rows)
    return folder


def _even(rng: np.random.Generator, kinds: int, n: int) -> list[int]:
    """`n` numbers below `kinds`, each as often as the others, in a random order."""
    return rng.permutation(np.arange(n) % kinds).tolist()


def _films(rng: np.random.Generator, videos: int) -> list[_Film]:
    colours, places = list(COLOURS), list(PLACES)
    marks, spots = ([_even(rng, k, videos) for _ in range(n)] for k, n in ((len(colours), 2), (len(places), 3)))
    firsts = _even(rng, len(colours), videos)
    digits, counts = _even(rng, len(DIGITS), videos), _even(rng, len(COUNTS), videos)
    films = []
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
        films.append(_Film(scene, _starts(rng, n, opens=i // 4 % 2 == 0)))
    return films


def _starts(rng: np.random.Generator, n: int, opens: bool) -> tuple[int, ...]:
    """Where `n` flashes start: anywhere, APART from one another; half of the videos open with their first."""
    free = FRAMES - FLASH - APART * (n - 1)
    starts = np.sort(rng.integers(0, free + 1, n)) + APART * np.arange(n)
    if opens:
        starts[0] = 0
    return tuple(starts.tolist())


def _shoot(film: _Film, rng: np.random.Generator) -> np.ndarray:
    """The film's frames (FRAMES SIDE SIDE 3) uint8."""
    frames = np.empty((FRAMES, SIDE, SIDE, 3), np.uint8)
    for t in range(FRAMES):
        k = next((k for k, start in enumerate(film.starts) if start <= t < start + FLASH), None)
        frames[t] = draw_scene(film.scene, rng, t / FRAMES, None if k is None else film.scene.flashes[k])
    return frames


def _choose(scene: Scene, i: int) -> list[SceneQuestion]:
    """As many detail questions as moment questions, the kinds taking turns from video to video."""
    moment, detail = ask_moment(scene), ask_detail(scene)
    kinds = [[a for a in detail if a.type == kind] for kind in ("detail-colour", "detail-digit", "detail-place")]
    chosen = [kind[i % len(kind)] for kind in kinds]
    if len(moment) < len(chosen):
        chosen.pop(i // 2 % len(chosen))
    return chosen + moment
