"""One video with 12 questions: one shared prefix against the per-question way, same weights, one run.

The per-question way is what a script around a chat model does: decode, encode, prefill and generate for each
question (PIL, the same vision tower, and transformers' `generate`). A 6-layer Llama with random weights, float32.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import tempfile
import time
from pathlib import Path

from common import sample_video, save

from sfllava.models.load import load_model
from sfllava.models.tiny.random_checkpoint import write_random_checkpoint
from sfllava.models.visual_tokens import VisualTokens
from sfllava.sampler.reading import read_video
from sfllava.settings import Setting

WORDS = ["color", "size", "place", "number", "top", "front", "back", "left", "right", "river", "animal", "gym"]
QUESTIONS = [f"what is the {word} of the raft and the barrels?" for word in WORDS]
TEXT = {"hidden_size": 256, "num_hidden_layers": 6}
VISION = {"hidden_size": 256, "intermediate_size": 1024, "num_hidden_layers": 6}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--new-tokens", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--video", help="a video of your own instead of a made one")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = load_model(write_random_checkpoint(Path(folder) / "model", text=TEXT, vision=VISION))
        video = Path(a.video) if a.video else sample_video(Path(folder))
        setting, side = Setting(), model.info.image_size

        def tokens() -> VisualTokens:
            frames = read_video(video, setting.frames, size=(side, side))
            return model.tokens(setting, model.encode(frames.frames), frames.pts_seconds)

        def shared() -> list:
            return model.answer(tokens(), QUESTIONS, max_new_tokens=a.new_tokens)

        def one_by_one() -> list:
            return [model.answer(tokens(), [q], max_new_tokens=a.new_tokens, share_prefix=False)[0] for q in QUESTIONS]

        seconds: dict[str, list[float]] = {"shared": [], "one_by_one": []}
        for _ in range(a.repeats):
            said = {}
            for name, way in (("shared", shared), ("one_by_one", one_by_one)):
                start = time.perf_counter()
                said[name] = [answer.token_ids for answer in way()]
                seconds[name].append(time.perf_counter() - start)
            assert said["shared"] == said["one_by_one"], "the two ways do not say the same"
        median = {name: statistics.median(times) for name, times in seconds.items()}
        save("questions", {
            "what": "12 questions on one video, decode to answer, seconds (median)",
            "visual_tokens": len(tokens()), "new_tokens": a.new_tokens, "repeats": a.repeats,
            "token_ids_equal": True,
            "seconds": {name: [round(t, 3) for t in times] for name, times in seconds.items()},
            "median": {name: round(t, 3) for name, t in median.items()},
            "ratio": round(median["one_by_one"] / median["shared"], 2),
            "peak_memory_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        })  # fmt: skip


if __name__ == "__main__":
    main()
