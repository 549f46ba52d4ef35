"""What the tests of the explorer ask, and with which settings."""

from __future__ import annotations

from sfllava.settings import Setting
from sfllava.types import Question

SMALL = "slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2"
OTHER = "slowfast-slow_2frms_spatial_2d_avg_pool-fast_4x4"
ASKED = Question("Which colour flashed?")
DESCRIBE = "<video>\n{question}\nDescription:"
MANY = Setting(128, "slowfast-slow_5frms_concat-fast_8x8")  # 8,512 tokens, and 4,416 of a video of 64 frames
LONG = Question("Describe the video.", task="describe")
EVIL = "<img src=x onerror=alert(1)> & <b>what</b>?"
