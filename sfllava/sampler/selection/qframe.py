"""Q-Frame: the candidates with the highest noisy scores (arXiv 2506.22139, rule read in xiaomi-research/q-frame).

With p = softmax(scores / tau) and Gumbel noise g_i = -log(-log(u_i)), u_i uniform in 0..1, candidates are ranked by
log p_i + g_i. The published code keeps the best 4, the next 8 and the next 32 of 128 candidates at falling resolutions
and does not seed the noise. Here the n best are kept, and the noise is seeded. The aggregation `tiers` gives the best
ones more tokens.

Its scores are dot products of LongCLIP's features, without normalisation: their differences have to be large beside
the noise.
"""

from __future__ import annotations

import numpy as np

from sfllava.sampler.sampling import Sample
from sfllava.sampler.selection.selectors import Selector, best

CANDIDATES = Sample(128, "fps:1")
_TINY = 1e-10  # as published: keeps the logarithms finite


def choose(scores: np.ndarray, n: int, seed: int = 0, tau: float = 0.8) -> np.ndarray:
    """Return the positions of the n highest noisy scores, in the order of time."""
    logits = scores / tau
    uniform = np.random.default_rng(seed).random(len(scores))
    # the softmax's sum is the same for all candidates, so that it does not change their order
    return best(logits - np.log(-np.log(uniform + _TINY) + _TINY), n)


SELECTOR = Selector(
    choose,
    "the best noisy scores (Q-Frame)",
    {"tau": 0.8, "seed": 0},
    similarity="dot",
    candidates=CANDIDATES,
    ranks=True,
)
