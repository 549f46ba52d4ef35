"""How much does the rule that selects the frames change the score?

The rules are those of the published SlowFast-LLaVA code, lmms-eval, VLMEvalKit and MVBench, and one frame every four
seconds, which are 45 frames of EgoSchema's three minutes.
"""

from sfllava import Setting, SlowFast

BENCHMARK = "egoschema"
FRAMES = 50
RULES = ("published", "lmms-eval", "vlmevalkit", "mvbench", f"fps:0.25,max:{FRAMES}")
SETTINGS = [Setting(FRAMES, SlowFast(10, "spatial_1d_max_pool", (4, 4)), rule, frame_rule=rule) for rule in RULES]
