"""Small runs of a few videos, which many tests begin with."""

from __future__ import annotations

import os
import sys
import textwrap
from pathlib import Path

from sfllava.runs.evaluate import evaluate as evaluate_function
from sfllava.settings import Setting

SMALL = Setting(6, "slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2")


SETTINGS = [
    SMALL,
    Setting(6, "slowfast-slow_1frms_concat-fast_1x1"),
    Setting(4, "slowfast-slow_0frms_concat-fast_3x3"),
]


HEADER = "video_name,question,answer,question_id\n"


def questions_csv(path: Path, names="abc", each=4) -> Path:
    rows = [
        f"{name},what is {word} in {name}?,{word},{word}\n"
        for name in names
        for word in ("it", "red", "up", "on")[:each]
    ]
    path.write_text(HEADER + "".join(rows))
    return path


def run(model, benchmark, out, settings=SMALL, **options):
    return evaluate_function(model, benchmark, settings, out, max_new_tokens=6, progress=False, **options)


def plain(rows):
    """Rows in the order of keys, without what depends on which videos are answered together."""
    work = ("seconds", "reused_tokens")
    rows = ({k: v for k, v in row.items() if k not in work} for row in rows)
    return sorted(rows, key=lambda row: (row["key"], row["setting"]))


def log_of(path):
    return (path / "log.txt").read_text()


class Own:
    """Methods of a user's own that print one name, whatever they do."""

    def __str__(self):
        return "own"


def twelve_videos(videos, tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    names = [f"{name}{i}" for i in range(4) for name in "abc"]
    for name in names:
        os.link(videos / f"{name[0]}.mp4", folder / f"{name}.mp4")
    return questions_csv(tmp_path / "q.csv", names), folder


def slowly(folder: Path) -> dict[str, str]:
    """An environment in which each video takes half a second more, so that there is a middle to be stopped in."""
    (folder / "slow").mkdir()
    (folder / "slow" / "decord.py").write_text(
        "import time\ndef VideoReader(*a, **k):\n    time.sleep(0.5)\n    raise RuntimeError('left to PyAV')\n"
    )
    return {**os.environ, "PYTHONPATH": str(folder / "slow")}


def command(checkpoint, csv, videos, out, *more):
    return [
        *(sys.executable, "-m", "sfllava.cli", "evaluate", "open", "--questions", str(csv), "--videos", str(videos)),
        *("--model", str(checkpoint), "--out", str(out), "--frames", "6", "4", "--max-new-tokens", "6"),
        *("--aggregation", str(SMALL.aggregation), "slowfast-slow_1frms_concat-fast_1x1", *more),
    ]


def hanging_decord(folder):
    """A decord that spins in native code with the GIL held, as the real one does on some files."""
    (folder / "decord.py").write_text(
        textwrap.dedent("""
        import ctypes
        def VideoReader(*args, **kwargs):
            ctypes.PyDLL(None).sleep(600)  # PyDLL keeps the GIL
        """)
    )
