"""Questions of real clips with Slow frames of their own: what they share at the front, and each question alone."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from small_runs import log_of, run

from sfllava.aggregators.slowfast import SlowFast
from sfllava.benchmarks import load_benchmark
from sfllava.models.language_model import LanguageModel
from sfllava.models.video_lm import TransformersVideoLM
from sfllava.runs.run_folder import read_rows
from sfllava.runs.selection_source import SelectionSource
from sfllava.sampler.reading import read_video
from sfllava.sampler.sampling import FrameIndices, sample_indices
from sfllava.settings import Setting

SLOW = ([10, 200], [10, 300], [77, 200], [10, 200])  # of the four questions about a clip
FAST_TOKENS, SLOW_TOKENS = 6 * 4, 144


def setting(order):
    aggregation = SlowFast(2, "spatial_2d_avg_pool", (2, 2), order=order)
    return Setting(6, aggregation, order, selection="listed", selection_for="slow")


@pytest.fixture(scope="module")
def clips(shared):
    return load_benchmark("open", shared / "clips" / "clips_open.csv", shared / "clips")


@pytest.fixture(scope="module")
def slow(clips):
    """The Slow frames of each question, by its key."""
    by_video: dict[str, list[str]] = {}
    for question in clips.questions:
        by_video.setdefault(question.video, []).append(question.key)
    assert set(map(len, by_video.values())) == {4} and len(by_video) == 3
    return {key: frames for keys in by_video.values() for key, frames in zip(keys, SLOW)}


@pytest.fixture
def source(clips, slow, tmp_path):
    listed: dict[str, dict] = {}
    for question in clips.questions:
        listed.setdefault(question.video, {})[question.key] = slow[question.key]
    (tmp_path / "list.json").write_text(json.dumps(listed))
    return SelectionSource(frame_list=tmp_path / "list.json")


@pytest.fixture(scope="module")
def alone(clips, slow, shared, models):
    """The token ids of each question in each order, answered with nothing shared."""
    found = {}
    for question in clips.questions:
        path, own = shared / "clips" / f"{question.video}.mp4", slow[question.key]
        uniform = sample_indices(read_video(path, 1, size=32).total, 6).tolist()
        frames = {}
        for part, indices in (("slow", own), ("fast", uniform)):
            frames[part] = models().encode(read_video(path, FrameIndices(tuple(indices)), size=(336, 336)).frames)
        pathways = SlowFast(2, "spatial_2d_avg_pool", (2, 2), slow_at=(0, 1))
        parts = [pathways.slow_tokens(frames["slow"]), pathways.fast_tokens(frames["fast"])]
        for order, tokens in (("slow-first", parts), ("fast-first", parts[::-1])):
            (answer,) = models().answer(torch.cat(tokens), [question], max_new_tokens=6, share_prefix=False)
            found[question.key, order] = answer.token_ids
    return found


def ids(rows):
    return {(row["key"], row["setting"]): tuple(row["token_ids"]) for row in rows}


def test_answers_are_those_of_each_question_alone(models, clips, source, alone, tmp_path, monkeypatch):
    computed, forward = [], LanguageModel.forward
    monkeypatch.setattr(
        LanguageModel, "forward", lambda self, e, **more: computed.append(e.shape[1]) or forward(self, e, **more)
    )
    done = run(models(), clips, tmp_path / "run", [setting("slow-first"), setting("fast-first")], selection=source)
    rows = list(read_rows(done.path))
    assert ids(rows) == alone and not any(row["error"] for row in rows)
    assert {row["visual_tokens"] for row in rows} == {FAST_TOKENS + 2 * SLOW_TOKENS}
    reused = {(row["key"], row["setting"]): row["reused_tokens"] for row in rows}
    keys = [question.key for question in clips.questions]
    # the first and the last question of a clip share a prefix; of the others one has the first Slow frame of it
    assert [reused[key, "slow-first"] for key in keys] == [0, SLOW_TOKENS, 0, 0] * 3
    assert [reused[key, "fast-first"] for key in keys] == [0, FAST_TOKENS + SLOW_TOKENS, FAST_TOKENS, 0] * 3
    prefills = [n for n in computed if n >= SLOW_TOKENS]
    assert min(prefills) == SLOW_TOKENS, "of a question that has all but its last Slow frame in common with another"
    assert len(prefills) == 2 * 3 * 3, "one for each choice of frames, order and clip"


def test_a_setting_after_another_keeps_its_front(models, clips, source, tmp_path):
    """Uniform Slow frames, then chosen ones: the Fast pathway of the clip is there already."""
    uniform = Setting(6, SlowFast(2, "spatial_2d_avg_pool", (2, 2), order="fast-first"), "uniform")
    done = run(models(), clips, tmp_path / "run", [uniform, setting("fast-first")], selection=source)
    rows = [row for row in read_rows(done.path) if row["setting"] == "fast-first"]
    assert min(row["reused_tokens"] for row in rows) == FAST_TOKENS


@pytest.mark.parametrize("most", [1, 2])
def test_memory_too_small_for_all_choices(models, clips, source, alone, tmp_path, monkeypatch, most):
    answer, groups = TransformersVideoLM.answer_batch, []

    def small(self, videos, **options):
        groups.append(sum(bool(questions) for _, questions in videos))
        if groups[-1] > most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return answer(self, videos, **options)

    monkeypatch.setattr(TransformersVideoLM, "answer_batch", small)
    done = run(models(), clips, tmp_path / "run", setting("fast-first"), selection=source)
    rows = list(read_rows(done.path))
    assert ids(rows) == {key: value for key, value in alone.items() if key[1] == "fast-first"}
    assert max(groups) > most and groups[-1] <= most and "out of memory" in log_of(done.path)


def test_a_choice_that_fails_costs_the_others_nothing(models, clips, source, alone, tmp_path, monkeypatch):
    """The logits of one choice are not finite: its rows say so, and nothing is copied from it."""
    tokens, (first, *_) = TransformersVideoLM.tokens, clips.questions
    spoiled = []

    def spoil(self, own, grid, seconds=None):
        made = tokens(self, own, grid, seconds)
        if not spoiled:
            spoiled.append(own.name)
            last = torch.arange(len(made)) == len(made) - 1  # of a Slow frame, after an equal front
            made = replace(made, embeddings=made.embeddings.masked_fill(last[:, None], torch.nan))
        return made

    monkeypatch.setattr(TransformersVideoLM, "tokens", spoil)
    done = run(models(), clips, tmp_path / "run", setting("fast-first"), selection=source)
    rows = list(read_rows(done.path))
    failed = [row["key"] for row in rows if row["error"]]
    assert first.key in failed and len(failed) == 2 and "not finite" in rows[0]["error"]
    assert all(found == alone[key] for key, found in ids(rows).items() if key[0] not in failed)
