"""A sample video, and the folder of results, for all benchmarks."""

from __future__ import annotations

import json
import os
import platform
from datetime import date
from pathlib import Path

import numpy as np
import torch

from sfllava.models.host import versions
from sfllava.sampler.writing import write_video

RESULTS = Path(__file__).parent / "results"


def sample_video(folder: Path, seconds: int = 20) -> Path:
    """Write a 480x360 video of moving noise at 15 frames per second, as costly to decode as a real clip."""
    noise = np.random.default_rng(0).integers(0, 255, (45, 60, 3), np.uint8).repeat(8, 0).repeat(8, 1)
    frames = np.stack([np.roll(noise, (3 * i, 5 * i), axis=(0, 1)) for i in range(15 * seconds)])
    return write_video(folder / "noise.mp4", frames, fps=15)


def save(name: str, result: dict) -> None:
    """Print a result, and write it to bench/results with the date and the machine."""
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else None
    machine = {"cores": os.cpu_count(), "threads": torch.get_num_threads(), "arch": platform.machine(), "gpu": gpu}
    text = json.dumps(
        {"date": date.today().isoformat(), "machine": machine, "versions": versions(), **result}, indent=1
    )
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{name}-{date.today().isoformat()}.json").write_text(text + "\n")
    print(text)
