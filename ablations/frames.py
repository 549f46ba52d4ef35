"""How many frames does the Fast pathway need?

From 10 to 225 Fast frames of 4x4 tokens each, with and without ten Slow frames.
"""

from sfllava import Setting, SlowFast

BENCHMARK = "egoschema"
FRAMES = (10, 25, 50, 75, 100, 150, 225)
SETTINGS = [
    *(Setting(n, SlowFast(10, "spatial_1d_max_pool", (4, 4)), f"slow 10 + fast {n}") for n in FRAMES),
    *(Setting(n, SlowFast(0, fast=(4, 4)), f"fast {n}") for n in FRAMES),
]
