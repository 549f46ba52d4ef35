"""One video with 12 questions, each with frames of its own: a run against doing everything for each question.

For each question, the other way decodes the candidates, scores them, chooses frames, decodes and encodes those,
prefills, and generates with transformers' `generate`; scorer and model are loaded once. A run is timed from the check
of its settings to its scores, with an empty folder of frame scores (`run`) and with a filled one (`scores_on_disk`).
The model is that of `questions.py`; the scorer is a CLIP with 256 patches of the same width and depth. float32.

The two ways are timed in turn. Other work may run on the machine: compare ratios, not seconds. Seconds of the
processor, decoding processes included, depend less on other work.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
from pathlib import Path

import numpy as np
from common import sample_video, save
from questions import QUESTIONS, TEXT, VISION

from sfllava.aggregators.slowfast import SlowFast
from sfllava.benchmarks import Benchmark, load_benchmark
from sfllava.models.load import load_model
from sfllava.models.scorer import Scorer, ScorerFolder, similarity
from sfllava.models.tiny.random_checkpoint import write_random_checkpoint
from sfllava.models.video_lm import TransformersVideoLM
from sfllava.runs.evaluate import evaluate
from sfllava.runs.run_folder import read_rows
from sfllava.runs.selection_source import SelectionSource
from sfllava.sampler.reading import read_video
from sfllava.sampler.sampling import sample_indices
from sfllava.settings import Setting
from sfllava.types import Question

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from scorers import write_scorer

FAST_FIRST = SlowFast(order="fast-first")
SETTINGS = {
    "slow chosen, slow first": Setting(selection="topk", selection_for="slow"),
    "slow chosen, fast first": Setting(aggregation=FAST_FIRST, selection="topk", selection_for="slow"),
    "all chosen": Setting(selection="topk"),
}


class Clock:
    """Seconds of each `with` block, by the clock and of the processor."""

    def __init__(self) -> None:
        self.wall: list[float] = []
        self.processor: list[float] = []

    def __enter__(self) -> None:
        self._start = os.times()

    def __exit__(self, *_: object) -> None:
        spent = [after - before for before, after in zip(self._start, os.times())]
        self.wall.append(round(spent[4], 2))
        self.processor.append(round(sum(spent[:4]), 2))


def ratios(seconds: dict[str, list[float]]) -> dict[str, float]:
    """How many times longer everything for each question takes, by medians."""
    longest = statistics.median(seconds["each_question"])
    return {way: round(longest / statistics.median(seconds[way]), 2) for way in ("run", "scores_on_disk")}


class PlainWay:
    """Everything for each question."""

    def __init__(self, model: TransformersVideoLM, scorer: Path, video: Path, new_tokens: int) -> None:
        self.model, self.scorer = model, Scorer(ScorerFolder(scorer), "cpu")
        self.video, self.new_tokens = video, new_tokens

    def answer(self, setting: Setting, question: Question) -> tuple[int, ...]:
        rule = setting.frame_selection
        candidates = read_video(self.video, rule.selector.candidates, size=self.scorer.folder.frame_size)
        features = self.scorer.image_features(candidates.frames)
        scores = similarity(features, self.scorer.text_features(question.text), rule.selector.similarity)

        def choose(n: int) -> list[int]:
            return candidates.indices[rule.choose(scores, n)].tolist()

        if setting.selection_for == "slow":
            bound = setting.with_chosen(sample_indices(candidates.total, setting.frames).tolist(), choose(10))
        else:
            bound = setting.with_chosen(choose(setting.frames))
        side = self.model.info.image_size
        frames = read_video(self.video, bound.sample, size=(side, side))
        tokens = self.model.tokens(bound, self.model.encode(frames.frames), frames.pts_seconds)
        assert len(tokens) == setting.token_count()
        return self.model.answer(tokens, [question], max_new_tokens=self.new_tokens, share_prefix=False)[0].token_ids


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--new-tokens", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=60, help="of the video, one candidate each")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = load_model(write_random_checkpoint(folder / "model", text=TEXT, vision=VISION))
        words = dict.fromkeys(word for question in QUESTIONS for word in question.rstrip("?").split())
        scorer = write_scorer(folder / "scorer", size=224, patch_size=14, words=list(words), **VISION)
        video = sample_video(folder, a.seconds)
        csv = [f'{video.stem},"{question}",x,{i}' for i, question in enumerate(QUESTIONS)]
        (folder / "q.csv").write_text("\n".join(["video_name,question,answer,question_id", *csv]) + "\n")
        benchmark = load_benchmark("open", folder / "q.csv", folder)
        plain = PlainWay(model, scorer, video, a.new_tokens)
        results = {
            name: compare(model, benchmark, plain, setting, scorer, folder, a) for name, setting in SETTINGS.items()
        }
        save("selection", {
            "what": "12 questions on one video, each with its own frames, video file to answers, seconds",
            "visual_tokens": Setting().token_count(), "candidates": a.seconds, "new_tokens": a.new_tokens,
            "repeats": a.repeats, "settings": results,
        })  # fmt: skip


def compare(
    model: TransformersVideoLM, benchmark: Benchmark, plain: PlainWay, setting: Setting, scorer: Path, folder: Path,
    a: argparse.Namespace,
) -> dict:  # fmt: skip
    """Time both ways in turn at one setting; check that they generate the same tokens."""
    clocks: dict[str, Clock] = {way: Clock() for way in ("run", "scores_on_disk", "each_question")}
    rows: list[dict] = []
    for _ in range(a.repeats):
        work = Path(tempfile.mkdtemp(dir=folder))
        source = SelectionSource(str(scorer), cache=work / "scores")
        for way in ("run", "scores_on_disk"):
            with clocks[way]:
                done = evaluate(
                    model, benchmark, setting, work / way, selection=source, max_new_tokens=a.new_tokens, progress=False
                )
            rows = list(read_rows(done.path))
        with clocks["each_question"]:
            said = {question.key: plain.answer(setting, question) for question in benchmark.questions}
        assert {row["key"]: tuple(row["token_ids"]) for row in rows} == said, "the two ways do not say the same"
    return {
        "token_ids_equal": True,
        "choices_of_frames": len({str(row["selected"]["frames"]) for row in rows}),
        "reused_tokens": sorted(row["reused_tokens"] for row in rows),
        "encode_seconds": round(float(np.sum([row["seconds"]["encode"] for row in rows])), 3),
        "seconds": {way: clock.wall for way, clock in clocks.items()},
        "processor_seconds": {way: clock.processor for way, clock in clocks.items()},
        "ratio": ratios({way: clock.wall for way, clock in clocks.items()}),
        "processor_ratio": ratios({way: clock.processor for way, clock in clocks.items()}),
    }


if __name__ == "__main__":
    main()
