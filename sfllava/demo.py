"""The whole flow without a checkpoint: a rendered video, a small checkpoint with random weights, four questions."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np

from sfllava.asking import ask
from sfllava.models.load import load_model
from sfllava.models.tiny import write_random_checkpoint
from sfllava.sampler import write_video
from sfllava.types import Setting


def main(out: Path) -> None:
    """Write the video and the checkpoint to a folder, and ask."""
    out.mkdir(parents=True, exist_ok=True)
    frames = np.full((64, 240, 320, 3), 40, np.uint8)
    for i in range(64):
        frames[i, 90:150, 4 * i : 4 * i + 60] = (220, 60, 30)
    video = write_video(out / "square.mp4", frames)
    model = load_model(write_random_checkpoint(out / "random-checkpoint"))
    setting = Setting()
    questions = ["What moves?", "What is its colour?", "Which way does it go?", "How many are there?"]
    print(f"video {video}, model {model.path} (random weights: what it says means nothing)")
    print(f"setting {setting.name}: {setting.budget(*model.grid)} visual tokens of {model.context} positions")
    asked = ask(model, video, questions, setting, max_new_tokens=12)
    for answer in asked.answers:
        print(f"  {answer.question.text}  ->  {answer.text!r}")
    print("frames", asked.video.indices.tolist())
    print("slow frames", asked.slow_indices)
    print("seconds", {stage: round(seconds, 2) for stage, seconds in asked.seconds.items()})


if __name__ == "__main__":
    main(Path(sys.argv[1]))
