"""How far can Slow frames be pooled?

All patches, half as many tokens (pairs) and a quarter (2x2 windows), with ten Slow frames and with five. The paper's
numbers are those for 24x24, 12x24 and 12x12 tokens per frame (arXiv 2407.15841; None: out of memory).
"""

from sfllava import Setting, SlowFast

BENCHMARK = "egoschema"
POOLS = {"all patches": "concat", "half": "spatial_1d_max_pool", "a quarter": "spatial_2d_max_pool"}
SETTINGS = [
    Setting(50, SlowFast(slow, pool, (4, 4)), f"slow {slow}, {name}")
    for slow in (10, 5)
    for name, pool in POOLS.items()
]
PAPER = {
    "slow 10, all patches": {"activitynet": {"7B": 54.0, "34B": None}, "egoschema": {"7B": 53.2, "34B": None}},
    "slow 10, half": {"activitynet": {"7B": 55.5, "34B": 59.2}, "egoschema": {"7B": 47.2, "34B": 55.8}},
    "slow 10, a quarter": {"activitynet": {"7B": 54.7, "34B": 58.5}, "egoschema": {"7B": 39.0, "34B": 50.8}},
    "slow 5, all patches": {"activitynet": {"7B": 54.5, "34B": 58.3}, "egoschema": {"7B": 44.4, "34B": 54.4}},
    "slow 5, half": {"activitynet": {"7B": 53.9, "34B": 57.2}, "egoschema": {"7B": 39.4, "34B": 51.2}},
    "slow 5, a quarter": {"activitynet": {"7B": 51.4, "34B": 55.6}, "egoschema": {"7B": 36.4, "34B": 47.8}},
}
