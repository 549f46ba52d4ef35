"""Where do tokens help more, in the Slow pathway or in the Fast pathway?

Every combination of Slow frames and Fast grid at fifty frames; `figures/heat.py` draws it as a heat map.
"""

from sfllava import Setting, SlowFast

BENCHMARK = "egoschema"
SETTINGS = [
    Setting(50, SlowFast(slow, "spatial_1d_max_pool", fast), f"slow {slow} + fast {fast[0]}x{fast[1]}")
    for slow in (4, 8, 10)
    for fast in ((1, 1), (2, 4), (3, 6), (4, 4))
]
