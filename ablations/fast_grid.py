"""How many tokens does a frame need in the Fast pathway?

Fifty frames at grids from 1x1 to 8x8, with ten Slow frames. The paper's numbers are from arXiv 2407.15841
(None: out of memory).
"""

from sfllava import Setting, SlowFast

BENCHMARK = "egoschema"
GRIDS = ((1, 1), (2, 4), (3, 6), (4, 4), (6, 6), (4, 8), (8, 8))
SETTINGS = [
    Setting(50, SlowFast(10, "spatial_1d_max_pool", (rows, columns)), f"fast {rows}x{columns}")
    for rows, columns in GRIDS
]
PAPER = {
    "fast 1x1": {"activitynet": {"7B": 54.4, "34B": 58.9}, "egoschema": {"7B": 47.1, "34B": 56.0}},
    "fast 2x4": {"activitynet": {"7B": 54.7, "34B": 58.6}, "egoschema": {"7B": 47.4, "34B": 55.2}},
    "fast 3x6": {"activitynet": {"7B": 54.9, "34B": 58.5}, "egoschema": {"7B": 46.6, "34B": 55.3}},
    "fast 4x4": {"activitynet": {"7B": 55.5, "34B": 59.2}, "egoschema": {"7B": 47.2, "34B": 55.8}},
    "fast 6x6": {"activitynet": {"7B": 55.2, "34B": None}, "egoschema": {"7B": 46.2, "34B": None}},
    "fast 4x8": {"activitynet": {"7B": 55.0, "34B": None}, "egoschema": {"7B": 46.8, "34B": None}},
    "fast 8x8": {"activitynet": {"7B": 54.9, "34B": None}, "egoschema": {"7B": 48.6, "34B": None}},
}
