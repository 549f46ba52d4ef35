"""TempCompass (Liu et al., 2024), captioning: write a caption with the one of several facts that the video shows."""

from __future__ import annotations

from sfllava.benchmarks.spec import Headline, Spec
from sfllava.benchmarks.tempcompass import SPEC as TEMPCOMPASS
from sfllava.benchmarks.tempcompass import VIDEO_COUNT, read_tempcompass

SPEC = Spec(
    name="tempcompass_captioning",
    task="captioning",
    questions=TEMPCOMPASS.questions,
    videos=TEMPCOMPASS.videos,
    question_count=2_004,
    video_count=VIDEO_COUNT,
    read=read_tempcompass,
    headline=Headline("mean over dimensions", ("dimension",)),
    rubrics={"": ("captioning",)},
    downloads=TEMPCOMPASS.downloads,
)
