"""How many frames does the Slow pathway need?

From 1 to 12 Slow frames, each pooled to half its patches, with and without 50 Fast frames. The paper's numbers are from
arXiv 2407.15841.
"""

from sfllava import Setting, SlowFast

BENCHMARK = "egoschema"
SLOW = (1, 2, 4, 6, 8, 10, 12)
SETTINGS = [
    *(Setting(50, SlowFast(n, "spatial_1d_max_pool", (4, 4)), f"slow {n} + fast 50") for n in SLOW),
    *(Setting(50, SlowFast(n, "spatial_1d_max_pool", (0, 0)), f"slow {n}") for n in SLOW),
]
PAPER = {
    "slow 12": {"activitynet": {"7B": 54.1, "34B": 58.8}, "egoschema": {"7B": 46.6, "34B": 54.6}},
    "slow 10 + fast 50": {"activitynet": {"7B": 55.5, "34B": 59.2}, "egoschema": {"7B": 47.2, "34B": 55.8}},
}
