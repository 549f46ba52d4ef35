"""BOLT: inverse transform sampling of the scores (arXiv 2503.21483, rule read in github.com/sming256/BOLT).

With s the scores scaled to 0..1, p = s^power / sum(s^power) and F(j) = p_1 + ... + p_j, the i-th of n frames is the
first j with F(j) >= u_i, where u_1 ... u_n are at equal distances from 1/n to 1 - 1/n. A frame with a high score may be
taken several times. The paper's power is 3, and 2.5 for LongVideoBench.
"""

from __future__ import annotations

import numpy as np

from sfllava.sampler.selection.selectors import Selector, min_max


def choose(scores: np.ndarray, n: int, seed: int = 0, power: float = 3.0) -> np.ndarray:
    """Return n positions in the order of time, which may repeat; equal scores give equal distances."""
    weights = min_max(scores) ** power
    if not weights.sum() > 0:  # all scores are equal: the published rule divides by zero
        weights = np.ones_like(scores)
    reached = np.cumsum(weights / weights.sum())
    # rounding may leave the last sum just below 1
    return np.searchsorted(reached, np.linspace(1 / n, 1 - 1 / n, n)).clip(max=len(scores) - 1)


SELECTOR = Selector(choose, "more frames where the scores are high (BOLT)", {"power": 3.0}, repeats=True)
