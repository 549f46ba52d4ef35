"""The model in the package, end to end on real mp4 files: its accuracy falls when the chain is put together wrongly."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from sfllava import Setting, load_model
from sfllava.aggregators.slowfast import SlowFast
from sfllava.benchmarks import load_benchmark
from sfllava.benchmarks.shapesqa import write_long_shapesqa, write_shapesqa
from sfllava.evaluators import find_evaluator
from sfllava.models.video_lm import TransformersVideoLM
from sfllava.runs.evaluate import evaluate
from sfllava.sampler import sampling
from sfllava.sampler.reading import read_video
from sfllava.sampler.sampling import Sample
from sfllava.types import Question

VIDEOS, SEED = 24, 7
SLOWFAST = Setting(32, "slowfast-slow_2frms_concat-fast_2x2")
# accuracy in percent that each family must keep, open and multiple choice together; by chance it would be 23
RULES = {"open": "match-exact", "choice": "choice-strict"}
LEAST = {"detail": 90.0, "moment": 85.0, "top": 80.0}


def top_half(grid: torch.Tensor) -> torch.Tensor:
    """A slow pool of one's own: the patches of the upper half (T h w D) -> (T*h/2*w, D)."""
    return grid[:, : grid.shape[1] // 2].flatten(0, 2)


# which setting answers which family: what is in the upper half is asked of the upper half alone
SETTINGS = {
    "detail": SLOWFAST,
    "moment": Setting(32, "slowfast-slow_0frms_concat-fast_4x4"),
    "top": Setting(32, SlowFast(2, top_half, (0, 0))),
}


@dataclass(frozen=True)
class Film:
    path: Path
    questions: dict[str, list[Question]]


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_shapesqa(tmp_path_factory.mktemp("shapesqa"), VIDEOS, SEED)


@pytest.fixture(scope="module")
def films(root: Path) -> list[Film]:
    return films_of(root)


def films_of(root: Path) -> list[Film]:
    """The videos of a written ShapesQA, each with its questions by family."""
    videos: dict[str, dict[str, list[Question]]] = {}
    forms = [load_benchmark(form, root / f"shapesqa_{form}.csv", root / "videos") for form in RULES]
    for question in (question for form in forms for question in form.questions):
        families = videos.setdefault(question.video, {family: [] for family in LEAST})
        families[question.type.split("-")[0]].append(question)
        if question.type == "detail-place" and question.answer.startswith("top"):
            families["top"].append(question)
    return [Film(forms[0].find_video(video), families) for video, families in videos.items()]


@pytest.fixture(scope="module")
def tiny() -> TransformersVideoLM:
    return load_model("tiny", device="cpu")


def is_right(question: Question, prediction: str) -> bool:
    evaluator = find_evaluator(question.task)
    assert evaluator is not None
    return evaluator.grade(question, prediction)[RULES[question.task]].correct


def accuracy(model: TransformersVideoLM, films: list[Film]) -> dict[str, float]:
    """Percent right by family, by the strict rules."""
    verdicts: dict[str, list[bool]] = {family: [] for family in LEAST}
    for film in films:
        grid = model.encode(read_video(film.path, SLOWFAST.frames).frames)
        for family, questions in film.questions.items():
            if questions:
                for answer in model.answer(SETTINGS[family].tokens(grid), questions, max_new_tokens=6):
                    verdicts[family].append(is_right(answer.question, answer.text))
    return {family: 100 * float(np.mean(right)) for family, right in verdicts.items()}


def reversed_frames(model: TransformersVideoLM, patch: pytest.MonkeyPatch) -> None:
    encode = model.encode
    patch.setattr(model, "encode", lambda frames: encode(frames).flip(0))


def shifted_index(model: TransformersVideoLM, patch: pytest.MonkeyPatch) -> None:
    published = sampling.RULES["published"]
    patch.setitem(sampling.RULES, "published", lambda total, n: (published(total, n) + 1).clip(max=total - 1))


def transposed_grid(model: TransformersVideoLM, patch: pytest.MonkeyPatch) -> None:
    encode = model.encode
    patch.setattr(model, "encode", lambda frames: encode(frames).transpose(1, 2))


def transposed_pixels(model: TransformersVideoLM, patch: pytest.MonkeyPatch) -> None:
    encode = model.encode
    patch.setattr(model, "encode", lambda frames: encode(np.ascontiguousarray(frames.transpose(0, 2, 1, 3))))


def dropped_bos(model: TransformersVideoLM, patch: pytest.MonkeyPatch) -> None:
    patch.setattr(model.info.tokenizer, "bos_id", None)


def video_behind_question(model: TransformersVideoLM, patch: pytest.MonkeyPatch) -> None:
    prompt_ids = model.info.prompt_ids

    def wrong(question: Question, prompt: object = None) -> tuple[list[int], list[int]]:
        before, after = prompt_ids(question, None)
        return before + after[:-2], after[-2:]

    patch.setattr(model.info, "prompt_ids", wrong)


def bgr(model: TransformersVideoLM, patch: pytest.MonkeyPatch) -> None:
    encode = model.encode
    patch.setattr(model, "encode", lambda frames: encode(np.ascontiguousarray(frames[..., ::-1])))


MUTATIONS: dict[Callable[[TransformersVideoLM, pytest.MonkeyPatch], None], tuple[str, ...]] = {
    reversed_frames: ("moment",),
    shifted_index: ("moment",),
    transposed_grid: ("top",),
    transposed_pixels: ("detail",),
    dropped_bos: ("detail", "moment"),
    video_behind_question: ("moment",),
    bgr: ("detail", "moment"),
}


def test_answers_well(tiny: TransformersVideoLM, films: list[Film]) -> None:
    found = accuracy(tiny, films)
    assert all(found[family] >= LEAST[family] for family in LEAST), found


@pytest.mark.slow
@pytest.mark.parametrize("mutation", list(MUTATIONS), ids=lambda mutation: mutation.__name__)
def test_accuracy_falls_when_the_chain_is_wrong(
    tiny: TransformersVideoLM, films: list[Film], mutation: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    mutation(tiny, monkeypatch)
    found = accuracy(tiny, films)
    assert all(found[family] < LEAST[family] for family in MUTATIONS[mutation]), found


def test_evaluate_gives_the_same(tiny: TransformersVideoLM, films: list[Film], root: Path, tmp_path: Path) -> None:
    benchmark = load_benchmark("shapesqa", root=root)
    run = evaluate(tiny, benchmark, SLOWFAST, tmp_path / "run", limit=40, max_new_tokens=6, progress=False)
    scores = run.scores[SLOWFAST.name]
    assert scores["answered"] == 40
    assert scores["rules"]["match-exact"]["accuracy"] >= 0.9, scores


def test_a_model_that_sees_nothing_guesses(tiny: TransformersVideoLM, films: list[Film]) -> None:
    questions = [q for film in films for family in ("detail", "moment") for q in film.questions[family]]
    width = tiny.language_model.network.config.text_config.hidden_size
    answers = tiny.answer(torch.zeros(0, width), questions, max_new_tokens=6)
    assert np.mean([is_right(answer.question, answer.text) for answer in answers]) < 0.35


def test_reads_the_sign_that_a_question_names_among_frames_with_others(
    tiny: TransformersVideoLM, tmp_path: Path
) -> None:
    root = write_long_shapesqa(tmp_path / "long", 5, SEED)
    spans = json.loads((root / "shapesqa_spans.json").read_text())
    right: dict[str, list[bool]] = {"all frames with signs": [], "uniform frames": []}
    for form in RULES:
        benchmark = load_benchmark(form, root / f"shapesqa_{form}.csv", root / "videos")
        for video in sorted({question.video for question in benchmark.questions}):
            questions = [question for question in benchmark.questions if question.video == video]
            read = read_video(benchmark.find_video(video), Sample(20_000, "fps:1"))
            starts = {start for ((start, _),) in spans[video]["location"].values()}
            shown = [i for i, k in enumerate(read.indices) if any(0 <= k / spans[video]["fps"] - s < 1 for s in starts)]
            uniform = np.linspace(0, len(read.frames) - 1, 8).astype(int)
            chosen = np.sort([*shown, *uniform[: 8 - len(shown)]])
            for name, indices in zip(right, (chosen, uniform), strict=True):
                tokens = tiny.encode(read.frames[indices]).flatten(0, 2)
                for answer in tiny.answer(tokens, questions, max_new_tokens=6):
                    right[name].append(is_right(answer.question, answer.text))
    found = {name: 100 * float(np.mean(values)) for name, values in right.items()}
    assert len(right["uniform frames"]) == 40
    assert found["all frames with signs"] >= 90 and found["uniform frames"] <= 45, found
