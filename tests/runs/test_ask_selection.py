"""Questions about one video outside of a run, each with its own frames."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scorers import write_colours, write_scorer
from shell import sfllava
from small_runs import questions_csv, run

from sfllava.aggregators.slowfast import SlowFast
from sfllava.benchmarks import load_benchmark
from sfllava.models.scorer import Scorer
from sfllava.models.video_lm import TransformersVideoLM
from sfllava.runs.ask import ask
from sfllava.runs.run_folder import read_rows
from sfllava.runs.selection_source import SelectionSource
from sfllava.sampler.reading import read_video
from sfllava.settings import Setting
from sfllava.types import Clip, Question, SfllavaError

AGGREGATION = SlowFast(2, "spatial_2d_avg_pool", (2, 2))


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return write_scorer(tmp_path_factory.mktemp("scorer") / "clip")


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    return write_colours(tmp_path_factory.mktemp("long"))


@pytest.fixture
def source(scorer, tmp_path):
    return SelectionSource(str(scorer), cache=tmp_path / "scores")


@pytest.mark.parametrize("selection, pathway", [("topk", "all"), ("bolt", "slow"), ("qframe", "both")])
def test_frames_and_answers_are_those_of_a_run(models, videos, source, tmp_path, monkeypatch, selection, pathway):
    """Also the noise of Q-Frame: the video is named as the benchmark names it, and its file has a suffix."""
    benchmark = load_benchmark("open", questions_csv(tmp_path / "q.csv", "a"), videos)
    setting = Setting(6, AGGREGATION, selection=selection, selection_for=pathway)
    rows = list(read_rows(run(models(), benchmark, tmp_path / "run", setting, selection=source).path))
    encoded = []
    encode = TransformersVideoLM.encode
    monkeypatch.setattr(
        TransformersVideoLM, "encode", lambda self, frames: encoded.append(len(frames)) or encode(self, frames)
    )
    texts = [row["question"] for row in rows]
    found = ask(models(), videos / "a.mp4", texts, setting, max_new_tokens=6, selection=source)
    assert [a.question.text for a in found.answers] == texts and len(texts) == 4
    for row, answer, selected in zip(rows, found.answers, found.selected, strict=True):
        assert list(answer.token_ids) == row["token_ids"] and answer.visual_tokens == row["visual_tokens"]
        times = selected.pop("seconds")
        assert selected == row["selected"] and times == [i / 4 for i in selected["frames"]]
    assert len({str(selected["frames"]) for selected in found.selected}) > 1
    assert encoded == [len(found.video.frames)], "each frame once"
    assert {i for s in found.selected for i in s["frames"]} <= set(found.video.indices.tolist())
    if pathway != "all":
        assert found.slow_indices == sorted({i for selected in found.selected for i in selected["frames"]})


def test_scores_on_disk_need_no_scorer(models, videos, source, monkeypatch):
    setting = Setting(3, AGGREGATION, selection="topk")
    first = ask(models(), videos / "a.mp4", "what is red?", setting, max_new_tokens=2, selection=source)
    monkeypatch.setattr(Scorer, "__init__", lambda *_: pytest.fail("a scorer was loaded"))
    again = ask(models(), videos / "a.mp4", "what is red?", setting, max_new_tokens=2, selection=source)
    assert again.selected == first.selected and again.answers == first.answers


def test_questions_with_other_options_have_their_own_frames(models, videos, scorer, tmp_path):
    asked = [Question("what color is it?", options=options, task="choice") for options in (("red", "up"), ("a", "b"))]
    setting = Setting(2, "concat", selection="topk")
    source = SelectionSource(str(scorer), "options", tmp_path / "scores")
    together = ask(models(), videos / "a.mp4", asked, setting, max_new_tokens=2, selection=source)
    alone = [ask(models(), videos / "a.mp4", [q], setting, max_new_tokens=2, selection=source) for q in asked]
    assert together.selected == [one.selected[0] for one in alone]
    assert together.selected[0]["scores"] != together.selected[1]["scores"]
    assert [a.token_ids for a in together.answers] == [one.answers[0].token_ids for one in alone]


def test_a_clip_gives_its_own_frames(models, videos, source):
    question = Question("what is red?", clip=Clip(5.0, 12.0))
    found = ask(
        models(),
        videos / "a.mp4",
        [question],
        Setting(3, "concat", selection="topk"),
        max_new_tokens=2,
        selection=source,
    )
    frames = found.selected[0]["frames"]
    assert len(frames) == 3 and all(20 <= i <= 48 for i in frames) and found.selected[0]["candidates"] == 8
    plain = read_video(videos / "a.mp4", 96)
    assert np.array_equal(found.video.indices, frames) and len(plain.frames) == 96


def test_a_list_of_frames_names_the_file(models, videos, tmp_path):
    """By the file's name, with or without suffix, or in the order of the questions."""
    setting, asked = Setting(3, AGGREGATION, selection="listed"), ["what is it?", "what is up?"]
    by_name = {"a": {asked[0]: [4, 90], asked[1]: [1.0, 2.5]}}
    for name, value in (("named", by_name), ("rows", [[4, 90], [4, 10]])):
        (tmp_path / f"{name}.json").write_text(json.dumps(value))
        source = SelectionSource(frame_list=tmp_path / f"{name}.json")
        found = ask(models(), videos / "a.mp4", asked, setting, max_new_tokens=2, selection=source)
        assert [selected["frames"] for selected in found.selected] == [[4, 90], [4, 10]]


def test_what_is_impossible_is_one_line(models, videos, source, tmp_path):
    path, topk = videos / "a.mp4", Setting(3, AGGREGATION, selection="topk")
    (tmp_path / "other.json").write_text('{"z": {"what?": [1]}}')
    (tmp_path / "far.json").write_text('{"a": {"what?": [1, 900]}}')
    listed = Setting(3, AGGREGATION, selection="listed")
    for wanted, video, setting, chosen_with in (
        ("needs a scorer: pass --scorer", path, topk, None),
        ("no such video", videos / "gone.mp4", topk, source),
        ("pass its path, not its frames", read_video(path, 3), topk, source),
        ("are for other questions", path, listed, SelectionSource(frame_list=tmp_path / "other.json")),
        ("needs frame 900, and video a.mp4 has frames 0 to 95", path, listed,
         SelectionSource(frame_list=tmp_path / "far.json")),
    ):  # fmt: skip
        with pytest.raises(SfllavaError, match=wanted) as error:
            ask(models(), video, "what?", setting, selection=chosen_with)
        assert "\n" not in str(error.value)


def test_from_the_command_line(checkpoints, videos, scorer, tmp_path):
    words = ("ask", videos / "a.mp4", "what is red?", "what is up?", "--model", checkpoints(), "--frames", 3)
    words += ("--aggregation", str(AGGREGATION), "--max-new-tokens", 2, "--selection", "bolt:power=2.5")
    failed = sfllava(*words, "--quiet")
    assert failed.returncode == 1 and "selection bolt:power=2.5 needs a scorer: pass --scorer" in failed.stderr
    assert len(failed.stderr.strip().splitlines()) == 1
    words += ("--scorer", scorer, "--score-cache", tmp_path / "scores", "--selection-for", "slow")
    told = sfllava(*words, "--json")
    assert told.returncode == 0, told.stderr
    answers = json.loads(told.stdout)["answers"]
    said = sfllava(*words).stdout.splitlines()
    for answer, line in zip(answers, said[2::3], strict=True):
        selected = answer["selected"]
        facts = zip(selected["frames"], selected["seconds"], selected["scores"], strict=True)
        assert line == "  Slow frames (score): " + ", ".join(f"{i} at {t:.1f} s ({s:.3f})" for i, t, s in facts)
    assert all(len(answer["selected"]["frames"]) == 2 for answer in answers)
