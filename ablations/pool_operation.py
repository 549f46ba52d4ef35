"""Should the Slow pathway pool by maximum or by mean, over pairs or over 2x2 windows?"""

from sfllava import Setting, SlowFast

BENCHMARK = "egoschema"
POOLS = {
    "maximum of pairs": "spatial_1d_max_pool",
    "mean of pairs": "spatial_1d_avg_pool",
    "maximum of 2x2": "spatial_2d_max_pool",
    "mean of 2x2": "spatial_2d_avg_pool",
}
SETTINGS = [Setting(50, SlowFast(10, pool, (4, 4)), name) for name, pool in POOLS.items()]
