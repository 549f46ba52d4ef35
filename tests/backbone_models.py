"""Small models of each family, and real clips for them."""

from __future__ import annotations

from sfllava import Question, Setting, read_video
from sfllava.models.visual_tokens import VisualTokens

BACKBONES = ("llava", "llava_next_video", "llava_onevision", "qwen2_5_vl", "qwen3_vl")
QUESTIONS = [
    Question("what is it?"),
    Question("where does it take place, and what do the people and animals in the frames do there?"),
    Question("how many?"),
]
SLOWFAST = "slowfast-slow_3frms_spatial_1d_max_pool-fast_2x3"


def sampled(shared, clip: int, frames: int):
    return read_video(sorted((shared / "clips").glob("*.mp4"))[clip], frames)


def visual_part(model, video, name: str) -> VisualTokens:
    setting = Setting(len(video.frames), name).for_model(model.info)
    return model.tokens(setting, model.encode(setting.images(video.frames)), video.pts_seconds)
