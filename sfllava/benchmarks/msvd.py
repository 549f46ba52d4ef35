"""MSVD-QA (Xu et al., 2017): 2 to 60 s of web video, one-word answers.

The address and the size of the videos are from public download scripts and were not tested.
"""

from __future__ import annotations

from sfllava.benchmarks.ig_vlm import LICENCE, ig_vlm_file
from sfllava.benchmarks.remote_files import Downloads, RemoteFile, Videos
from sfllava.benchmarks.spec import Spec

SPEC = Spec(
    name="msvd",
    task="open",
    questions=("open_ended_qa/MSVD_QA.csv", "MSVD_Zero_Shot_QA/val_q.json", "MSVD_Zero_Shot_QA/test_q.json"),
    videos=("video_qa/MSVD_Zero_Shot_QA/videos",),
    question_count=6_415,
    video_count=245,
    downloads=Downloads(
        questions=(
            ig_vlm_file(
                "open_ended_qa/MSVD_QA.csv", 518_766, "3ea184b5c4d22a56d98b6283c02a9e711be9242d26c69783f139888e51c30326"
            ),
        ),
        licence=LICENCE,
        videos=Videos(
            licence="clips of YouTube videos, which belong to their owners; no licence is stated (unchecked)",
            place="https://www.cs.utexas.edu/users/ml/clamp/videoDescription/",
            size="1.7 GB, 1,970 clips",
            files=(
                RemoteFile(
                    "video_qa/MSVD_Zero_Shot_QA/YouTubeClips.tar",
                    "https://www.cs.utexas.edu/users/ml/clamp/videoDescription/YouTubeClips.tar",
                    unpack="video_qa/MSVD_Zero_Shot_QA/videos",
                ),
            ),
        ),
    ),
)
