"""50 decoded frames to the vision tower's pixels: threads of PIL and one normalisation, against frame by frame.

The other way is PIL's resize and transformers' CLIP processor on one frame after the other.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
from common import sample_video, save
from PIL import Image
from transformers import CLIPImageProcessor

from sfllava.models.families.llava_next import pixel_values
from sfllava.sampler.images import resize_frames
from sfllava.sampler.reading import read_video


def main() -> None:
    processor = CLIPImageProcessor(size={"height": 336, "width": 336}, do_center_crop=False)
    with tempfile.TemporaryDirectory() as folder:
        frames = read_video(sample_video(Path(folder)), 50).frames

    def batched() -> tuple[np.ndarray, torch.Tensor]:
        pixels = resize_frames(frames, (336, 336))
        return pixels, pixel_values(torch.from_numpy(pixels))

    def frame_by_frame() -> tuple[np.ndarray, torch.Tensor]:
        pixels = [np.asarray(Image.fromarray(frame).resize((336, 336))) for frame in frames]
        done = [processor(Image.fromarray(p), do_resize=False, return_tensors="pt")["pixel_values"] for p in pixels]
        return np.stack(pixels), torch.cat(done)

    seconds: dict[str, list[float]] = {"batched": [], "frame_by_frame": []}
    results = {}
    for _ in range(7):
        for name, way in (("batched", batched), ("frame_by_frame", frame_by_frame)):
            start = time.perf_counter()
            results[name] = way()
            seconds[name].append(time.perf_counter() - start)
    (pixels, floats), (wanted, wanted_floats) = results["batched"], results["frame_by_frame"]
    median = {name: statistics.median(times) for name, times in seconds.items()}
    save("preprocess", {
        "what": "50 frames of 480x360 to pixel values at 336x336, seconds (median of 7)",
        "uint8_bit_equal": bool((pixels == wanted).all()),
        "largest_float_difference": float((floats - wanted_floats).abs().max()),
        "median": {name: round(t, 4) for name, t in median.items()},
        "ratio": round(median["frame_by_frame"] / median["batched"], 2),
    })  # fmt: skip


if __name__ == "__main__":
    main()
