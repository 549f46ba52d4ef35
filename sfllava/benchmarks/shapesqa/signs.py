"""Coloured signs: what the long family of ShapesQA shows for a second, and asks about.

A coloured sign is a board of 3 x 3 cells in one colour with a white plate in the middle cell, on which there is a
digit. The plate and its digit have the size of the plain sign's in `scenes.py`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sfllava.benchmarks.shapesqa.scenes import CELL, CELLS, COLOURS, DIGITS, PLACES, SceneQuestion, Thing, draw_thing

BOARD = 3  # cells per side


@dataclass(frozen=True)
class Sign:
    """A coloured sign.

    Args:
        colour: of the board.
        digit: on the plate.
        cell: the (row, column) of the cell in the middle; the board is within one quarter of the frame.
        jitter: pixels (down, right) from where the board's cells are.
    """

    colour: str
    digit: str
    cell: tuple[int, int]
    jitter: tuple[int, int] = (0, 0)

    @property
    def plate(self) -> Thing:
        """The plate, as a plain sign."""
        return Thing("sign", self.digit, self.cell, self.jitter)

    @property
    def place(self) -> str:
        """The quarter of the frame that it is in, in words."""
        return self.plate.place


def make_sign(rng: np.random.Generator, colour: str, digit: str, place: str) -> Sign:
    """Make a sign at a random cell of a quarter of the frame.

    Args:
        rng: the source of randomness.
        colour: of the board.
        digit: on the plate.
        place: the quarter of the frame.

    Returns:
        The sign.
    """
    down, right = divmod(PLACES.index(place), 2)
    half, edge = CELLS // 2, BOARD // 2
    row, column = (half * side + edge + int(rng.integers(half - BOARD + 1)) for side in (down, right))
    return Sign(colour, digit, (row, column), (int(rng.integers(3)), int(rng.integers(5))))


def random_signs(rng: np.random.Generator, n: int) -> list[Sign]:
    """Make signs of different colours, with different digits, at random places.

    Args:
        rng: the source of randomness.
        n: how many, at most 5.

    Returns:
        The signs.
    """
    colours, digits = rng.permutation(list(COLOURS))[:n], rng.permutation(DIGITS)[:n]
    return [make_sign(rng, str(c), str(d), str(rng.choice(PLACES))) for c, d in zip(colours, digits)]


def draw_sign(image: np.ndarray, sign: Sign) -> None:
    """Draw a sign into an image.

    Args:
        image: (112 112 3) uint8, changed in place.
        sign: the sign.
    """
    y, x = (CELL * (c - BOARD // 2) + j for c, j in zip(sign.cell, sign.jitter))
    # a jitter leaves the plate in its cell; the board ends with the last cell
    side = BOARD * CELL
    image[y : y + side - sign.jitter[0], x : x + side - sign.jitter[1]] = COLOURS[sign.colour]
    draw_thing(image, sign.plate)


def ask_digit(sign: Sign) -> SceneQuestion:
    """Return the question which digit is on a sign."""
    others = tuple(digit for digit in DIGITS if digit != sign.digit)
    return SceneQuestion("search-digit", f"Which digit is on the {sign.colour} sign?", sign.digit, others)


def ask_place(sign: Sign) -> SceneQuestion:
    """Return the question where a sign is."""
    others = tuple(place for place in PLACES if place != sign.place)
    return SceneQuestion("search-place", f"Where is the {sign.colour} sign?", sign.place, others)
