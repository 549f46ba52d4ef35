"""The small scorer in the package, and the tiny model on frames that are chosen with it: long videos of ShapesQA."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoTokenizer, CLIPModel

from sfllava import Setting, SlowFast, evaluate, load_model
from sfllava.benchmarks import Benchmark, load_benchmark
from sfllava.benchmarks.shapesqa import write_long_shapesqa
from sfllava.benchmarks.shapesqa.scenes import COLOURS
from sfllava.models.scorer import Scorer, ScorerFolder, similarity
from sfllava.models.tiny import SCORER
from sfllava.models.tiny.stills import CONTENTS, make_stills
from sfllava.runs.selection_source import SelectionSource
from sfllava.sampler.reading import read_video
from sfllava.sampler.selection.selectors import ONE_PER_SECOND

VIDEOS, SEED = 5, 11
WHOLE = SlowFast(0, fast=(8, 8))
Spans = dict[str, list[list[float]]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_long_shapesqa(tmp_path_factory.mktemp("long"), VIDEOS, SEED)


@pytest.fixture(scope="module")
def benchmark(root: Path) -> Benchmark:
    return load_benchmark("open", root / "shapesqa_open.csv", root / "videos")


@pytest.fixture(scope="module")
def spans(root: Path) -> Spans:
    """The spans of each question, by its id."""
    found = json.loads((root / "shapesqa_spans.json").read_text()).values()
    return {name: value for video in found for name, value in video["location"].items()}


@pytest.fixture(scope="module")
def scorer() -> Scorer:
    return Scorer(ScorerFolder(SCORER), "cpu")


def test_it_is_small_and_a_clip_of_transformers(scorer: Scorer) -> None:
    assert sum(path.stat().st_size for path in SCORER.iterdir()) < 4e6
    network = CLIPModel.from_pretrained(SCORER).float().eval()
    tokenizer = AutoTokenizer.from_pretrained(SCORER)
    ids = tokenizer("Which digit is on the red sign?")["input_ids"]
    assert ids[-1] == max(ids) == network.config.text_config.eos_token_id and tokenizer.unk_token_id not in ids
    features = scorer.text_features("Which digit is on the red sign?")
    assert features.shape == (network.config.projection_dim,)
    assert np.isfinite(features).all()


@pytest.mark.parametrize("question", ["Which digit is on the {} sign?", "Where is the {} sign?"])
def test_stills_that_show_what_a_question_names_score_higher(scorer: Scorer, question: str) -> None:
    parts = [make_stills(np.random.default_rng([5, i]), 4, signs=True)[:2] for i in range(16)]
    images = scorer.image_features(np.concatenate([pixels for pixels, _ in parts]))
    patches = np.concatenate([patches for _, patches in parts])
    for colour in COLOURS:
        shown = np.isin(patches, [CONTENTS.index(name) for name in CONTENTS if f"sign {colour} " in name]).any(-1)
        scores = similarity(images, scorer.text_features(question.format(colour)), "cosine")
        assert 3 <= shown.sum() <= 30
        higher = (scores[shown][:, None] > scores[~shown]).mean()
        assert higher > 0.95, (colour, higher)


def test_the_second_that_shows_the_answer_ranks_among_the_first(
    scorer: Scorer, benchmark: Benchmark, spans: Spans
) -> None:
    ranks = []
    for video in {question.video for question in benchmark.questions}:
        read = read_video(benchmark.find_video(video), ONE_PER_SECOND)
        images, seconds = scorer.image_features(read.frames), read.indices / read.fps
        for question in (q for q in benchmark.questions if q.video == video):
            ((start, end),) = spans[question.id]
            scores = similarity(images, scorer.text_features(question.text), "cosine")
            order = np.argsort(-scores)
            ranks.append(int(np.flatnonzero((seconds[order] >= start) & (seconds[order] < end))[0]))
    assert len(ranks) == 4 * VIDEOS
    assert np.mean(np.array(ranks) < 8) > 0.9, ranks


def test_chosen_frames_answer_what_uniform_ones_do_not(root: Path, benchmark: Benchmark, tmp_path: Path) -> None:
    names = ("uniform", "topk", "bolt", "aks")
    settings = [Setting(8, WHOLE, name, selection=name) for name in names]
    source = SelectionSource(str(SCORER), cache=tmp_path / "scores")
    model = load_model("tiny", device="cpu")
    run = evaluate(
        model, benchmark, settings, tmp_path / "run", selection=source, max_new_tokens=6, progress=False
    )  # fmt: skip
    found = {name: run.scores[name]["rules"]["match-exact"]["accuracy"] for name in names}
    assert found["uniform"] < 0.45, found
    assert min(found[name] for name in names[1:]) > 0.8, found
