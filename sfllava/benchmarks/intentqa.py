"""IntentQA (Li et al., 2023): why people do what they do, on videos of NExT-QA.

The authors' repository has no videos. We did not check which of them are in the archive that `nextqa` downloads.
"""

from __future__ import annotations

from sfllava.benchmarks.ig_vlm import LICENCE, ig_vlm_file
from sfllava.benchmarks.remote_files import Downloads, Videos
from sfllava.benchmarks.spec import Spec

SPEC = Spec(
    name="intentqa",
    task="choice",
    questions=("multiple_choice_qa/IntentQA.csv", "IntentQA/val_qa.json", "IntentQA/test_qa.json"),
    videos=("multiple_choice_qa/IntentQA/video", "multiple_choice_qa/NExTQA/video"),
    question_count=2_044,
    video_count=524,
    downloads=Downloads(
        questions=(
            ig_vlm_file(
                "multiple_choice_qa/IntentQA.csv",
                425_921,
                "311b50cdbf1e6aad0f80cd1d2c8f178e07dce5c4143bb0ed808020aaf0beda08",
            ),
        ),
        licence=LICENCE,
        videos=Videos(
            licence="that of NExT-QA's videos",
            place="https://github.com/doc-doc/NExT-QA",
            size="a subset of NExT-QA's videos",
        ),
    ),
)
