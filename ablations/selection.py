"""Which frames should a model see: at equal distances, or chosen for each question?

Each rule at 4, 8, 16 and 32 frames, one in every pathway's place: all frames are pooled alike, so that only the choice
differs. Needs --scorer, a CLIP or SigLIP.
"""

from sfllava import Setting, SlowFast

BENCHMARK = "videomme"
FRAMES = (4, 8, 16, 32)
SELECTIONS = ("uniform", "topk", "bolt", "aks", "qframe")
AGGREGATION = SlowFast(0, fast=(8, 8))
SETTINGS = [
    Setting(frames, AGGREGATION, f"{selection}, {frames} frames", selection=selection)
    for frames in FRAMES
    for selection in SELECTIONS
]
