"""The stills that the tiny model and its scorer are trained on, with what each patch shows."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sfllava.benchmarks.shapesqa.scenes import (
    CELL,
    CELLS,
    COLOURS,
    DIGITS,
    MARKS,
    SIDE,
    Scene,
    SceneQuestion,
    ask_detail,
    ask_moment,
    draw_scene,
    random_scene,
)
from sfllava.benchmarks.shapesqa.signs import BOARD, ask_digit, ask_place, draw_sign, random_signs

CONTENTS = (
    "nothing",
    *(f"{name} {colour}" for name in (*MARKS, "flash") for colour in COLOURS),
    *(f"sign {digit}" for digit in DIGITS),
    *(f"board {colour}" for colour in COLOURS),
    *(f"sign {colour} {digit}" for colour in COLOURS for digit in DIGITS),
)


@dataclass(frozen=True)
class Pools:
    """The questions that may be asked about stills, and their scene, which may be described."""

    detail: list[SceneQuestion]
    moment: list[SceneQuestion]
    scene: Scene | None


def make_stills(
    rng: np.random.Generator, stills: int, signs: bool, part: bool = False
) -> tuple[np.ndarray, np.ndarray, Pools]:
    """Draw stills.

    Args:
        rng: the source of randomness.
        stills: how many.
        signs: whether they show coloured signs; the others are of one scene, and may show flashes.
        part: whether the model will see few patches of them, so that questions are about flashes only.

    Returns:
        The stills (K H W 3) uint8, the contents of their patches (K cells), and the questions about them.
    """
    if signs:
        return _stills_with_signs(rng, stills)
    scene, shown = _scene(rng, stills, least=1 if part else 0)
    start, span = rng.random(), rng.random()
    radius = rng.uniform(45, 75)
    light = rng.uniform(0.85, 1.15)
    pixels, patches = [], []
    for i, k in enumerate(shown):
        when = (start * (1 - span)) + span * i / stills
        still = draw_scene(scene, rng, when, None if k is None else scene.flashes[k], radius)
        pixels.append(_augment(still, rng, light))
        patches.append(_patches(scene, k, radius))
    detail = ask_detail(scene) if None in shown and not part else []
    return np.stack(pixels), np.stack(patches), Pools(detail, ask_moment(scene), scene)


def _stills_with_signs(rng: np.random.Generator, stills: int) -> tuple[np.ndarray, np.ndarray, Pools]:
    """Return stills (K H W 3) with at most one coloured sign each, the content of their patches, and the questions.

    There are different signs, each in one or more stills, which need not follow each other. Some stills have no sign,
    unless there is just one. Half of the stills have another scene than the one before.
    """
    n = int(rng.integers(1, min(5, stills) + 1))
    signs = random_signs(rng, n)
    # each sign at least once; the other stills show none, or a sign again
    shown: list[int | None] = [
        *range(n),
        *(None if rng.random() < 0.6 else int(rng.integers(n)) for _ in range(n, stills)),
    ]
    shown = [shown[i] for i in rng.permutation(stills)]
    pixels, patches = [], []
    scene, light = _marks(rng), rng.uniform(0.85, 1.15)
    for k in shown:
        if rng.random() < 0.5:
            scene = _marks(rng)
        still, found = draw_scene(scene, rng, rng.random()), _patches(scene, None, 0).reshape(CELLS, CELLS)
        if k is not None:
            draw_sign(still, signs[k])
            row, column = signs[k].cell
            around = BOARD // 2
            found[row - around : row + around + 1, column - around : column + around + 1] = CONTENTS.index(
                f"board {signs[k].colour}"
            )
            found[row, column] = CONTENTS.index(f"sign {signs[k].colour} {signs[k].digit}")
        pixels.append(_augment(still, rng, light))
        patches.append(found.ravel())
    questions = [ask(sign) for sign in signs for ask in (ask_digit, ask_place)]
    return np.stack(pixels), np.stack(patches), Pools(questions, [], None)


def _marks(rng: np.random.Generator) -> Scene:
    """Return a random scene without its plain sign."""
    scene = random_scene(rng, 0)
    return replace(scene, things=scene.things[:2])


def _scene(rng: np.random.Generator, stills: int, least: int) -> tuple[Scene, list[int | None]]:
    """Return a scene, and which of its flashes each still shows, if any; a flash is in one still or in two."""
    shown: list[int | None] = [None] * stills
    n = int(rng.integers(least, min(4, stills) + 1)) if stills > 1 else int(rng.random() < 0.25)
    starts = sorted(rng.permutation(stills)[:n].tolist())
    for k, start in enumerate(starts):
        end = starts[k + 1] if k + 1 < n else stills
        for i in range(start, min(end, start + 1 + int(rng.random() < 0.3))):
            shown[i] = k
    return random_scene(rng, n), shown


def _patches(scene: Scene, flash: int | None, radius: float) -> np.ndarray:
    """Return the content of each patch of a still, as an index of CONTENTS; -1 at the edge of a flash."""
    found = np.zeros((CELLS, CELLS), np.int64)
    for thing in scene.things:
        found[thing.cell] = CONTENTS.index(f"{thing.name} {thing.value}")
    if flash is not None:
        y, x = np.mgrid[0:CELLS, 0:CELLS] * CELL + CELL / 2 - SIDE / 2
        distance = np.hypot(x, y)
        found[distance < radius + 16] = -1
        found[distance < radius - 16] = CONTENTS.index(f"flash {scene.flashes[flash]}")
    return found.ravel()


def _augment(still: np.ndarray, rng: np.random.Generator, light: float) -> np.ndarray:
    """Change the brightness, add noise, and sometimes halve the resolution of colour as a video codec does."""
    image = still.astype(np.float32) * light
    if rng.random() < 0.5:
        grey = image.mean(-1, keepdims=True)
        colour = (image - grey).reshape(SIDE // 2, 2, SIDE // 2, 2, 3).mean((1, 3))
        image = grey + colour.repeat(2, 0).repeat(2, 1)
    image += rng.normal(0, rng.uniform(0, 5), (SIDE, SIDE, 1)).astype(np.float32)
    return image.clip(0, 255).astype(np.uint8)
