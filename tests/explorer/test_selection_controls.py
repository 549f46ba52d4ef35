"""Frames chosen for each question in the explorer: its session, its strip, its controls."""

from __future__ import annotations

import json

import numpy as np
import pytest
from scorers import write_colours, write_scorer

import sfllava
from sfllava.explorer import Session
from sfllava.explorer.feature_cache import FeatureCache
from sfllava.models.load import load_model
from sfllava.models.scorer import Scorer
from sfllava.plots.attribution import show_attention
from sfllava.plots.frames import show_frames
from sfllava.runs.selection_source import SelectionSource
from sfllava.sampler.sampling import FrameIndices, sample_indices
from sfllava.settings import Setting
from sfllava.types import Question

SMALL = "slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2"
RED, UP = Question("what is red"), Question("the first shape moves up")


@pytest.fixture(scope="module")
def model():
    return load_model("tiny")


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_colours(tmp_path_factory.mktemp("long"), "a") / "a.mp4"


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return write_scorer(tmp_path_factory.mktemp("scorer") / "clip")


@pytest.fixture
def source(scorer, tmp_path):
    return SelectionSource(str(scorer), cache=tmp_path / "scores")


@pytest.fixture
def session(model):
    return Session(model, FeatureCache(model))


@pytest.fixture
def explorer(model, video, source):
    made = sfllava.explore(model, str(video), RED.text, Setting(6, SMALL, selection="topk"), selection=source)
    made.wait()
    return made


@pytest.mark.parametrize(
    "setting",
    [Setting(6, SMALL, selection="topk"), Setting(6, SMALL, selection="bolt", selection_for="slow"),
     Setting(40, SMALL, selection="bolt"), Setting(4, "image_grid-2x2", selection="aks")],
    ids=["topk", "slow", "repeated", "made"],
)  # fmt: skip
def test_replies_are_plain_answers_and_each_frame_is_encoded_once(model, session, video, source, setting, monkeypatch):
    encoded = []
    encode = model.encode
    monkeypatch.setattr(model, "encode", lambda frames: encoded.append(len(frames)) or encode(frames))
    replies = [session.answer(video, setting, question, 8, source) for question in (RED, UP, RED)]
    used: set[int] = set()
    for reply in replies[:2]:
        new = set(reply.setting.sample.indices) - used
        if setting.frames != 4:
            assert reply.encoded_frames == len(new) and (reply.decoded_frames == len(new) or not used)
        used |= new
    assert (replies[2].encoded_frames, replies[2].decoded_frames) == (0, 0)
    assert sum(encoded) == (2 if setting.frames == 4 else len(used))
    for reply in replies:
        plain = sfllava.ask(model, video, [reply.question], setting, max_new_tokens=8, selection=source)
        assert (reply.text, reply.token_ids) == (plain.answers[0].text, plain.answers[0].token_ids)
        assert reply.selected["frames"] == plain.selected[0]["frames"] and "select" in reply.seconds
    assert replies[0].selected["frames"] != replies[1].selected["frames"]
    assert session.table["selection"][0] == str(setting.selection)
    assert session.table["selected_frames"][1] == replies[1].selected["frames"]


def test_the_scorer_is_loaded_once_and_scores_are_those_of_runs(session, model, video, source, monkeypatch):
    loaded = []
    start = Scorer.__init__
    monkeypatch.setattr(Scorer, "__init__", lambda self, *a: loaded.append(1) or start(self, *a))
    for question in (RED, UP):
        session.answer(video, Setting(6, SMALL, selection="topk"), question, 2, source)
    assert len(loaded) == 1 and len(list(source.cache.rglob("*.npz"))) == 3  # features, and scores of two questions
    other = Session(model, FeatureCache(model))
    other.answer(video, Setting(4, SMALL, selection="bolt"), UP, 2, source)
    assert len(loaded) == 1, "a later session finds the scores on disk"


def test_chosen_frames_are_looked_at(session, video, source):
    reply = session.answer(video, Setting(6, SMALL, selection="topk", selection_for="slow"), RED, 2, source)
    look = session.attribute(reply)
    slow = reply.selected["frames"]
    totals = look.totals()
    seen = {look.video.indices[i] for i in np.flatnonzero(totals["slow"])}
    assert seen <= set(slow) and len(slow) == 2
    assert set(sample_indices(96, 6)) == {look.video.indices[i] for i in np.flatnonzero(totals["fast"])}
    assert look.left_out == {} and show_attention(look).layout.xaxis.title.text == "seconds, not to scale"


def test_the_strip_shows_scores_and_what_was_chosen(session, model, video, source):
    setting = Setting(6, SMALL, selection="topk")
    found = session.choose(video, setting, RED, source)
    frames = session.video(video, found.setting.sample)
    figure = show_frames(frames, found.setting, model.info.grid, found)
    curve = next(trace for trace in figure.data if trace.name == "score: 24 candidates")
    assert np.allclose(curve.x, np.arange(24), atol=1e-6) and np.allclose(curve.y, found.scores)
    marks = next(trace for trace in figure.data if trace.name == "chosen: 6 frames")
    assert np.allclose(sorted(marks.y), sorted(found.scores)[-6:]), "the six highest scores"
    assert np.allclose(marks.x, np.array(found.selected["frames"]) / 4)
    assert list(figure.layout.xaxis.ticktext) == [f"{i / 4:.1f}" for i in found.selected["frames"]]
    assert [picture.x for picture in figure.layout.images[:6]] == list(range(6)), "side by side, whatever their times"
    slow = session.choose(video, Setting(6, SMALL, selection="topk", selection_for="slow"), RED, source)
    shown = session.video(video, slow.setting.sample)
    figure = show_frames(shown, slow.setting, model.info.grid, slow)
    names = {trace.name for trace in figure.data}
    assert {"chosen for Slow: 2 frames", f"sampled: {len(shown.frames)} frames", "slow: 2 frames"} <= names


def test_the_cell_repeats_an_answer(session, video, source, scorer, tmp_path, capsys):
    (tmp_path / "l.json").write_text(json.dumps({"a": {RED.text: [1, 40]}}))
    settings = (
        Setting(6, SMALL, selection="bolt:power=2", selection_for="both"),
        Setting(6, "concat", selection="listed"),
    )
    for setting, chosen_with in zip(settings, (source, SelectionSource(frame_list=tmp_path / "l.json"))):
        reply = session.answer(video, setting, RED, 7, chosen_with)
        code = session.cell(reply)
        exec(code + "print(asked.selected[0]['frames'])", {})  # noqa: S102
        assert capsys.readouterr().out.splitlines() == [reply.text, str(reply.selected["frames"])]


def said(explorer):
    explorer.wait()
    return explorer.widget.messages.get("selection", {}).get("text", "")


def test_controls_choose_frames_for_the_question(explorer):
    widget = explorer.widget
    assert explorer.state["selection"] == "topk" and explorer.figures["frames"].layout.images
    first = explorer.state["chosen"]["frames"]
    assert "topk: 6 frames of 24 candidates for this question" in said(explorer)
    scores = widget.strip["scores"]
    assert len(scores["at"]) == 24 and [scores["index"][i] for i in scores["chosen"]] == first
    assert [frame["index"] for frame in widget.strip["frames"]] == first
    widget.question = UP.text
    explorer.wait()
    second = explorer.state["chosen"]["frames"]
    assert second != first and list(widget.messages) == ["selection"]
    explorer.ask()
    explorer.wait()
    assert explorer.answers["selected_frames"][0] == second and explorer.answers["encoded_frames"][0] == 6
    explorer.add()
    widget.selection = "bolt"
    widget.rule_options, widget.selection_for = "power=2.5", "slow"
    explorer.wait()
    assert explorer.state["chosen"]["for"] == "slow"
    explorer.add()
    explorer.compare()
    explorer.wait()
    assert list(explorer.answers["selection"]) == ["topk", "topk", "bolt:power=2.5"] and explorer.state["error"] == ""
    chips = widget.comparison[1]["chips"]
    assert [chip["text"] for chip in chips if chip["differs"]] == ["bolt:power=2.5 for slow"]
    explorer.look()
    explorer.wait()
    assert widget.attention["words"] and explorer.state["error"] == ""
    assert "selection='bolt:power=2.5', selection_for='slow'" in widget.cards[-1]["code"]
    widget.selection = "uniform"
    assert said(explorer) == "" and explorer.state["chosen"] == {} and widget.rule_options == ""
    assert explorer.state["selection_for"] == "all" and "scores" not in widget.strip


def test_typing_chooses_frames_once(explorer, monkeypatch):
    asked = []
    choose = explorer.session.choose
    monkeypatch.setattr(
        explorer.session, "choose", lambda path, setting, question, source: asked.append(question.text)
        or choose(path, setting, question, source),
    )  # fmt: skip
    for end in range(1, len(UP.text) + 1):
        explorer.widget.question = UP.text[:end]
    explorer.wait()
    assert asked[-1] == UP.text and len(asked) <= 2
    explorer.widget.question = ""
    assert "once there is a question" in said(explorer) and explorer.state["chosen"] == {}


def test_what_is_impossible_is_said_at_the_controls(explorer, checkpoints, tmp_path):
    widget = explorer.widget
    (tmp_path / "z.json").write_text('{"z": {"what?": [1]}}')

    def problem():
        text = said(explorer)
        assert explorer.state["chosen"] == {}, "the frames are uniform"
        assert widget.messages["selection"]["kind"] == "error" and list(widget.messages) == ["selection"]
        return text

    widget.scorer = ""
    assert "topk needs a scorer: the folder or hub name" in problem() and widget.budget["blocked"]
    assert "needs a scorer" in explorer.state["problem"] and "slow 32" in widget.budget["text"]
    widget.scorer = str(checkpoints())
    assert "needed a scorer of type clip or siglip, got 'llava_next'" in problem()
    widget.scorer = str(tmp_path / "<b>none")
    assert "needed a scorer folder" in problem()
    widget.selection = "bolt"
    widget.rule_options = "power=x"
    assert "needed options as OPTION=NUMBER; bolt has power=3" in problem() and widget.budget["blocked"]
    widget.selection = "listed"
    assert widget.rule_options == "" and "listed needs a frame list" in problem()
    widget.frame_list = str(tmp_path / "z.json")
    assert "are for other questions" in problem()
    widget.selection, widget.selection_for, widget.method = "topk", "slow", "merged"
    assert "needs an aggregation with a Slow and a Fast pathway" in problem() and "\n" not in said(explorer)


def test_a_frame_may_be_dropped_from_memory(session, video, source):
    session.features.limit = 1
    setting = Setting(6, SMALL, selection="topk")
    first = session.answer(video, setting, RED, 4, source)
    session.answer(video, setting, UP, 4, source)
    again = session.answer(video, setting, RED, 4, source)
    assert again.token_ids == first.token_ids and isinstance(first.setting.sample, FrameIndices)
