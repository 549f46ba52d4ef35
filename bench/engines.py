"""The engines side by side on the same weights and embeddings: transformers one by one, packed, vLLM cold and warm.

1, 4, 12 and 26 questions about a video, and 12 videos with one question each, as seconds and as ratios in one run. The
visual tokens are random embeddings, so that no vision tower runs; an engine is cold where it sees a video for the
first time, and warm where it has the video's prefix. Run it in vLLM's environment (`make bench-vllm`).

Without --checkpoint the weights are random, in one of the shapes below. One by one, only the first questions are
answered, and their time is scaled.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from common import save
from torch import Tensor

from sfllava.models.engines.options import EngineOptions
from sfllava.models.load import load_model
from sfllava.models.tiny.random_checkpoint import write_random_checkpoint
from sfllava.models.video_lm import TransformersVideoLM

QUESTIONS = (1, 4, 12, 26)
VIDEOS = 12
ALONE = 1  # videos and questions about each that are answered one by one
HEADS = {"num_attention_heads": 8, "num_key_value_heads": 8}
SHAPES = {
    # layers, width and inner width of the language model, visual tokens, new tokens
    "small": (HEADS | {"num_hidden_layers": 8, "hidden_size": 512, "intermediate_size": 1376}, 3680, 32),
    "1b": (
        {"num_hidden_layers": 22, "hidden_size": 2048, "intermediate_size": 5504}
        | {"num_attention_heads": 16, "num_key_value_heads": 16},
        3680,
        32,
    ),
    "try": (HEADS | {"num_hidden_layers": 2, "hidden_size": 256, "intermediate_size": 688}, 600, 8),
}
Answers = list[list[tuple[int, ...]]]


def questions_of(n: int) -> list[str]:
    """Return `n` different questions of about the same length."""
    words = ("raft", "river", "woman", "gym", "panda", "grass", "barrels", "ground", "leg", "video", "frames")
    return [f"what is the color of the {words[i % len(words)]} in part {i} of the video?" for i in range(n)]


def endless(model: TransformersVideoLM) -> None:
    """Let all answers be as long as they may."""
    inner: Any = model.language_model
    inner = getattr(inner, "_model", inner) if model.info.engine.name == "vllm" else inner
    inner.eos_ids = set()
    inner.network.generation_config.eos_token_id = None
    if model.info.engine.name == "vllm":
        answering: Any = model._answering
        answering._engine._common["stop_token_ids"] = []


def timed(device: torch.device, run: Callable[[], Answers]) -> tuple[float, Answers]:
    """Return the seconds of a call, and what it returns."""
    if device.type == "cuda":
        torch.cuda.synchronize()
    start = time.perf_counter()
    found = run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, found


def compare(
    packed: TransformersVideoLM, vllm: TransformersVideoLM, videos: list[Tensor], n: int, new: int, repeats: int
) -> dict[str, Any]:
    """Answer `n` questions about each video with all engines; of repeats with warm caches the fastest counts."""
    asked = [(tokens, questions_of(n)) for tokens in videos]

    def answer(model: TransformersVideoLM, prefixes: Any = None) -> Answers:
        found = model.answer_batch(asked, max_new_tokens=new, prefixes=prefixes)
        return [[a.token_ids for a in answers] for answers in found]

    def one_by_one() -> Answers:
        some = [(tokens, questions_of(n)[:ALONE]) for tokens in videos[:ALONE]]
        return [
            [a.token_ids for a in packed.answer(tokens, questions, max_new_tokens=new, share_prefix=False)]
            for tokens, questions in some
        ]

    device = packed.info.device
    alone, told = timed(device, one_by_one)
    count = sum(map(len, told))
    # cold for the packed engine: a new prefix, which stays for the calls that are warm
    ours: list[tuple[float, Answers]] = []
    prefixes = None
    for _ in range(repeats):
        prefixes = packed.new_prefixes(len(videos))
        ours.append(timed(device, lambda p=prefixes: answer(packed, p)))
    again = [timed(device, lambda: answer(packed, prefixes)) for _ in range(repeats)]
    cold, first = timed(device, lambda: answer(vllm))
    warm = [timed(device, lambda: answer(vllm)) for _ in range(repeats)]
    expected = ours[0][1]
    seconds = {
        "one by one": alone * n * len(videos) / count,
        "packed": min(s for s, _ in ours),
        "packed warm": min(s for s, _ in again),
        "vllm cold": cold,
        "vllm warm": min(s for s, _ in warm),
    }
    return {
        "videos": len(videos),
        "questions": n,
        "seconds": {name: round(value, 3) for name, value in seconds.items()},
        "one by one / packed": round(seconds["one by one"] / seconds["packed"], 2),
        "vllm cold / packed": round(seconds["vllm cold"] / seconds["packed"], 2),
        "vllm warm / packed warm": round(seconds["vllm warm"] / seconds["packed warm"], 2),
        "one by one measured": f"{count} of {n * len(videos)} questions",
        "answers that differ": {
            "one by one": sum(a != b for o, t in zip(expected, told) for a, b in zip(o, t)),
            "vllm cold": sum(a != b for o, t in zip(expected, first) for a, b in zip(o, t)),
            "vllm warm": sum(a != b for o, t in zip(expected, warm[0][1]) for a, b in zip(o, t)),
        },
    }


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--shape",
        default="small",
        choices=list(SHAPES),
        help="small: for a CPU; 1b: for a GPU; try: seconds, to see that all works",
    )
    parser.add_argument("--checkpoint", help="a real checkpoint instead, such as a 7B on a GPU")
    parser.add_argument("--dtype", default="auto")
    parser.add_argument("--tensor-parallel", type=int)
    parser.add_argument("--gpu-memory", type=float, default=0.6, help="vLLM's part; the packed engine has the rest")
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--note", default="", help="what else ran on the machine")
    chosen = parser.parse_args()
    text, visual, new = SHAPES[chosen.shape]
    with tempfile.TemporaryDirectory() as folder:
        checkpoint = chosen.checkpoint or write_random_checkpoint(Path(folder) / "random", "original", text=text)
        packed = load_model(checkpoint, dtype=chosen.dtype)
        memory = chosen.gpu_memory if packed.info.device.type == "cuda" else None
        options = EngineOptions("vllm", Path(folder) / "lm", chosen.tensor_parallel, memory)
        start = time.perf_counter()
        vllm = load_model(checkpoint, dtype=chosen.dtype, engine=options)
        loading = time.perf_counter() - start
        for model in (packed, vllm):
            endless(model)
        width, noise = packed.info.shape.language.width, torch.Generator().manual_seed(0)

        def video() -> Tensor:
            return torch.randn(visual, width, generator=noise).mul_(0.3)

        for model in (packed, vllm):  # the first call of each chooses kernels
            model.answer(video()[:200], questions_of(2), max_new_tokens=4)
        rows = []
        for videos, n in [*((1, n) for n in QUESTIONS), (VIDEOS, 1)]:
            rows.append(compare(packed, vllm, [video() for _ in range(videos)], n, new, chosen.repeats))
            print(rows[-1], file=sys.stderr, flush=True)
        save(
            "engines" if chosen.shape != "try" or chosen.checkpoint else "engines-try",
            {
                "engine": str(vllm.info.engine),
                "checkpoint": str(chosen.checkpoint) if chosen.checkpoint else {"shape": chosen.shape, **text},
                "dtype": str(packed.info.dtype),
                "visual_tokens": visual,
                "new_tokens": new,
                "repeats": chosen.repeats,
                "load_vllm_seconds": round(loading, 1),
                **({"note": chosen.note} if chosen.note else {}),
                "rows": rows,
            },
        )


if __name__ == "__main__":
    main()
