"""Scenes of shapes, drawn with numpy: the content of ShapesQA and the training data of the tiny model.

A scene has small things that are always visible (a square, a cross and a sign with a digit, each in a cell of 14
pixels) and flashes: a disc of one colour that covers most of the frame for a moment. No two flashes of a scene have the
same colour.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

SIDE, CELL = 112, 14  # pixels
CELLS = SIDE // CELL
COLOURS = {
    "red": (215, 35, 35),
    "green": (35, 175, 60),
    "blue": (40, 80, 225),
    "yellow": (235, 215, 45),
    "purple": (190, 50, 195),
}
PLACES = ("top left", "top right", "bottom left", "bottom right")
COUNTS = ("one", "two", "three", "four")
MARKS = ("square", "cross")
# 3 x 5 bitmaps, one number per row with the left pixel as its highest bit; drawn at twice that size
_BITMAPS = {
    "1": (2, 6, 2, 2, 7),
    "2": (7, 1, 7, 4, 7),
    "3": (7, 1, 3, 1, 7),
    "4": (5, 5, 7, 1, 1),
    "7": (7, 1, 2, 2, 4),
}
DIGITS = tuple(_BITMAPS)
_Y, _X = np.mgrid[0:SIDE, 0:SIDE].astype(np.float32)


@dataclass(frozen=True)
class Thing:
    """A small thing.

    Args:
        name: square, cross or sign.
        value: its colour, or the digit on the sign.
        cell: its (row, column) cell.
        jitter: pixels (down, right) from the cell's top left corner.
    """

    name: str
    value: str
    cell: tuple[int, int]
    jitter: tuple[int, int] = (0, 0)

    @property
    def place(self) -> str:
        """The quarter of the frame that it is in, in words."""
        half = CELLS // 2
        return PLACES[2 * (self.cell[0] >= half) + (self.cell[1] >= half)]


@dataclass(frozen=True)
class Scene:
    """What a video shows.

    Args:
        things: the things that are always visible.
        flashes: the colours of the flashes, in order.
        background: (SIDE SIDE 3) float32.
        clutter: (N 6), for each distractor: left, top, size, grey, and how many pixels it drifts to the right and down
            during the video.
    """

    things: tuple[Thing, ...]
    flashes: tuple[str, ...]
    background: np.ndarray
    clutter: np.ndarray = field(repr=False)


@dataclass(frozen=True)
class SceneQuestion:
    """A question about a scene.

    Args:
        type: its kind, such as `detail-colour`.
        text: the question.
        answer: the right answer.
        others: the possible wrong answers.
    """

    type: str
    text: str
    answer: str
    others: tuple[str, ...]


def make_scene(
    rng: np.random.Generator,
    colours: tuple[str, str],
    digit: str,
    places: tuple[str, str, str],
    flashes: tuple[str, ...],
) -> Scene:
    """Make a scene; what the arguments leave open is random.

    Args:
        rng: the source of randomness.
        colours: the colours of the square and the cross.
        digit: the digit on the sign.
        places: the places of the square, the cross and the sign.
        flashes: the colours of the flashes, in order.

    Returns:
        The scene.
    """
    half, taken, things = CELLS // 2, set(), []
    for name, value, place in zip((*MARKS, "sign"), (*colours, digit), places):
        down, right = divmod(PLACES.index(place), 2)
        while (cell := (int(rng.integers(half)) + half * down, int(rng.integers(half)) + half * right)) in taken:
            continue
        taken.add(cell)
        # a mark has 10 x 10 pixels and a sign 10 x 12: with its jitter each stays in its cell
        things.append(Thing(name, value, cell, (int(rng.integers(3)), int(rng.integers(5)))))
    level, tint = rng.uniform(60, 150), rng.uniform(-12, 12, 3)
    slope = rng.uniform(-0.25, 0.25, 2)
    ramp = level + slope[0] * (_X - SIDE / 2) + slope[1] * (_Y - SIDE / 2)
    n = int(rng.integers(2, 5))
    clutter = np.stack(
        [
            rng.uniform(-10, SIDE, n),
            rng.uniform(-10, SIDE, n),
            rng.uniform(10, 32, n),
            rng.uniform(40, 190, n),
            rng.uniform(-40, 40, n),
            rng.uniform(-40, 40, n),
        ],
        axis=1,
    )
    return Scene(tuple(things), flashes, (ramp[..., None] + tint).astype(np.float32), clutter)


def random_scene(rng: np.random.Generator, flashes: int) -> Scene:
    """Make a scene that is random except for the number of flashes.

    Args:
        rng: the source of randomness.
        flashes: how many.

    Returns:
        The scene.
    """
    names = list(COLOURS)
    return make_scene(
        rng,
        (str(rng.choice(names)), str(rng.choice(names))),
        str(rng.choice(DIGITS)),
        (str(rng.choice(PLACES)), str(rng.choice(PLACES)), str(rng.choice(PLACES))),
        tuple(map(str, rng.permutation(names)[:flashes])),
    )


def draw_scene(
    scene: Scene, rng: np.random.Generator, when: float, flash: str | None = None, radius: float = 60
) -> np.ndarray:
    """Draw one frame of a scene.

    Args:
        scene: the scene.
        rng: the source of the noise, and of where a flash is.
        when: the time, from 0 (first frame) to 1.
        flash: the colour that flashes at this time, None if none does.
        radius: the radius of the flash, in pixels.

    Returns:
        (112 112 3) uint8.
    """
    image = scene.background.copy()
    for i, (left, top, size, grey, right, down) in enumerate(scene.clutter):
        x, y = left + when * right, top + when * down
        if i % 2:
            image[max(0, int(y)) : max(0, int(y + size)), max(0, int(x)) : max(0, int(x + size))] = grey
        else:
            image[(_X - x - size / 2) ** 2 + (_Y - y - size / 2) ** 2 < size * size / 4] = grey
    for thing in scene.things:
        draw_thing(image, thing)
    if flash:
        x, y = SIDE / 2 + rng.uniform(-6, 6, 2)
        image[(_X - x) ** 2 + (_Y - y) ** 2 < radius * radius] = COLOURS[flash]
    image += rng.normal(0, 2, (SIDE, SIDE, 1)).astype(np.float32)
    return image.clip(0, 255).astype(np.uint8)


def draw_thing(image: np.ndarray, thing: Thing) -> None:
    """Draw a small thing into an image (112 112 3), which is changed in place."""
    y, x = (CELL * c + j for c, j in zip(thing.cell, thing.jitter))
    if thing.name == "sign":
        image[y : y + 12, x : x + 10] = 245
        bits = np.array([[row >> 2 & 1, row >> 1 & 1, row & 1] for row in _BITMAPS[thing.value]], bool)
        image[y + 1 : y + 11, x + 2 : x + 8][np.kron(bits, np.ones((2, 2), bool))] = 10
    elif thing.name == "square":
        image[y : y + 10, x : x + 10] = COLOURS[thing.value]
    else:
        image[y : y + 10, x + 3 : x + 7] = COLOURS[thing.value]
        image[y + 3 : y + 7, x : x + 10] = COLOURS[thing.value]


def ask_detail(scene: Scene) -> list[SceneQuestion]:
    """Return all detail questions: the colours of the marks, the digit, and where each thing is.

    Args:
        scene: the scene.

    Returns:
        Two questions per thing.
    """
    questions = []
    for thing in scene.things:
        if thing.name == "sign":
            questions.append(_question("detail-digit", "Which digit is on the sign?", thing.value, DIGITS))
        else:
            text = f"What colour is the small {thing.name}?"
            questions.append(_question("detail-colour", text, thing.value, tuple(COLOURS)))
        name = thing.name if thing.name == "sign" else f"small {thing.name}"
        questions.append(_question("detail-place", f"Where is the {name}?", thing.place, PLACES))
    return questions


def ask_moment(scene: Scene) -> list[SceneQuestion]:
    """Return all moment questions: how many colours flashed, and which, or which came first and last.

    Args:
        scene: the scene.

    Returns:
        Three questions, two of a scene with one flash, none of a scene without flashes.
    """
    count, colours = len(scene.flashes), tuple(COLOURS)
    if not count:
        return []
    questions = [_question("moment-count", "How many colours flashed?", COUNTS[count - 1], COUNTS)]
    if count == 1:
        return [*questions, _question("moment-flash", "Which colour flashed?", scene.flashes[0], colours)]
    # the other colours that flashed come first among the wrong options, so that a reply must know their order
    first = (*scene.flashes, *(c for c in colours if c not in scene.flashes))
    last = (*scene.flashes[::-1], *(c for c in colours if c not in scene.flashes))
    return [
        *questions,
        _question("moment-order", "Which colour flashed first?", scene.flashes[0], first),
        _question("moment-order", "Which colour flashed last?", scene.flashes[-1], last),
    ]


def _question(kind: str, text: str, answer: str, possible: tuple[str, ...]) -> SceneQuestion:
    return SceneQuestion(kind, text, answer, tuple(p for p in possible if p != answer))


def choose_options(question: SceneQuestion, rng: np.random.Generator, right: int) -> tuple[str, ...]:
    """Choose four options for a question.

    Args:
        question: the question; for one about the order of flashes, colours that did flash are preferred.
        rng: the source of randomness.
        right: the position of the right answer.

    Returns:
        The options.
    """
    others = list(question.others)
    if question.type != "moment-order":
        others = [others[i] for i in rng.permutation(len(others))]
    options = [others[i] for i in rng.permutation(3)]
    options.insert(right, question.answer)
    return tuple(options)


def describe(scene: Scene) -> str:
    """Return a scene in words.

    Args:
        scene: the scene.

    Returns:
        One line.
    """
    marks = [f"a {t.value} {t.name} {t.place}" for t in scene.things if t.name != "sign"]
    sign = next(t for t in scene.things if t.name == "sign")
    flashes = " then ".join(scene.flashes)
    return ", ".join(
        [*marks, f"a sign with {sign.value} {sign.place}", f"flashes: {flashes}" if flashes else "no flash"]
    )
