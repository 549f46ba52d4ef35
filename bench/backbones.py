"""12 questions on one video with each family of backbones: one shared prefix against the per-question way.

As bench/questions.py, with a small model of random weights per family in the real grid (24x24, 27x27 or 12x12 patches).
Qwen's models are compared with a plain loop at the same positions, since transformers' `generate` goes on at others.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path
from typing import Any

from common import sample_video, save
from questions import QUESTIONS

from sfllava.models.families import family_names
from sfllava.models.load import load_model
from sfllava.models.tiny.random_backbones import write_random_backbone
from sfllava.models.tiny.random_checkpoint import write_random_checkpoint
from sfllava.models.visual_tokens import VisualTokens
from sfllava.sampler.reading import read_video
from sfllava.settings import Setting

TEXT = {"hidden_size": 256, "intermediate_size": 688, "num_hidden_layers": 6}
HEADS = {"num_attention_heads": 4, "head_dim": 64}
LARGE = {"hidden_size": 256, "intermediate_size": 1024}


def checkpoint(folder: Path, family: str) -> Path:
    """Write a model with 6 layers of width 256 in both parts."""
    if family == "llava_next":
        return write_random_checkpoint(folder, text=TEXT, vision=LARGE | {"num_hidden_layers": 6})
    vision = LARGE | ({"depth": 6} if family.startswith("qwen") else {"num_hidden_layers": 6})
    more: dict[str, Any] = {}
    if family.startswith("qwen"):
        more = {"rope_parameters": {"rope_type": "default", "rope_theta": 1e6, "mrope_section": [8, 12, 12]}}
        more |= {"max_position_embeddings": 32768}
        vision |= {"intermediate_size": 684} if family == "qwen2_5_vl" else {}
        more |= HEADS if family == "qwen3_vl" else {"num_attention_heads": 4}
    return write_random_backbone(folder, family, text=TEXT | more, vision=vision)


def measure(family: str, video: Path, folder: Path, new: int, repeats: int) -> dict[str, Any]:
    """Time both ways in turn; the token ids must be equal."""
    model, setting = load_model(checkpoint(folder, family)), Setting()
    side = model.info.image_size

    def tokens() -> VisualTokens:
        frames = read_video(video, setting.frames, size=(side, side))
        return model.tokens(setting, model.encode(frames.frames), frames.pts_seconds)

    def one_by_one() -> list:
        return [model.answer(tokens(), [q], max_new_tokens=new, share_prefix=False)[0] for q in QUESTIONS]

    ways = {"shared": lambda: model.answer(tokens(), QUESTIONS, max_new_tokens=new), "one by one": one_by_one}
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(repeats):
        said = {}
        for name, way in ways.items():
            start = time.perf_counter()
            said[name] = [answer.token_ids for answer in way()]
            best[name] = min(best[name], time.perf_counter() - start)
        assert said["shared"] == said["one by one"], "the two ways do not say the same"
    visual = tokens()
    return {
        "grid": "{}x{}".format(*model.info.grid), "visual tokens": visual.count, "rows": len(visual),
        "seconds": {name: round(seconds, 2) for name, seconds in best.items()},
        "ratio": round(best["one by one"] / best["shared"], 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--new-tokens", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--families", nargs="+", default=family_names())
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        video = sample_video(Path(name))
        found = {family: measure(family, video, Path(name) / family, a.new_tokens, a.repeats) for family in a.families}
    save("backbones", {
        "what": "12 questions on one video, decode to answer, default setting, seconds (the better of the repeats)",
        "new_tokens": a.new_tokens, "repeats": a.repeats, "token_ids_equal": True, "families": found,
    })  # fmt: skip


if __name__ == "__main__":
    main()
