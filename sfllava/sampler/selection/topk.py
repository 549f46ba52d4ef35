"""The candidates with the highest scores."""

from __future__ import annotations

import numpy as np

from sfllava.sampler.selection.selectors import Selector, best


def choose(scores: np.ndarray, n: int, seed: int = 0) -> np.ndarray:
    """Return the positions of the n highest scores, in the order of time."""
    return best(scores, n)


SELECTOR = Selector(choose, "the candidates that are most similar to the question", ranks=True)
