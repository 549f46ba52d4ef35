"""Which pathway should see frames chosen for the question: none, the Slow one, or both?

All settings have equally many tokens: 8 Slow frames, so that AKS, which halves their number with each segment, has as
many as the others, and 48 Fast frames. Fast frames are uniform or chosen by BOLT, which gives the number that is asked
for even of short videos. With the Fast pathway first, all questions about a video share its tokens where only Slow
frames are chosen. Needs --scorer, a CLIP or SigLIP.
"""

from dataclasses import replace

from sfllava import Setting, SlowFast

BENCHMARK = "videomme"
AGGREGATION = SlowFast(8, "spatial_1d_max_pool", (4, 4))
CHOICES = {
    "uniform both": ("uniform", "all"),
    "slow by topk, fast uniform": ("topk", "slow"),
    "slow by BOLT, fast uniform": ("bolt", "slow"),
    "slow by AKS, fast uniform": ("aks", "slow"),
    "each pathway by BOLT": ("bolt", "both"),
    "all frames by BOLT": ("bolt", "all"),
}
FAST_FIRST = replace(AGGREGATION, order="fast-first")
SETTINGS = [
    Setting(48, AGGREGATION, label, selection=selection, selection_for=pathway)
    for label, (selection, pathway) in CHOICES.items()
] + [
    Setting(48, FAST_FIRST, "uniform both, Fast first"),
    Setting(48, FAST_FIRST, "slow by BOLT, fast uniform, Fast first", selection="bolt", selection_for="slow"),
]
