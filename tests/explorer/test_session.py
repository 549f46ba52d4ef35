"""The explorer's session: answers, what is kept between them, budgets, figures, and what is shown of them."""

from __future__ import annotations

import io
import re

import numpy as np
import pandas as pd
import pytest
import torch
from explorer_questions import ASKED, DESCRIBE, EVIL, LONG, MANY, OTHER, SMALL

import sfllava
from sfllava.explorer import Session
from sfllava.explorer.attention import effects_data
from sfllava.explorer.cards import comparison_of, message_of
from sfllava.explorer.feature_cache import FeatureCache
from sfllava.explorer.session import csv
from sfllava.explorer.widget import STATIC
from sfllava.models.base import ContextError
from sfllava.planning.budget import context_budget
from sfllava.plots.attribution import show_attention
from sfllava.plots.budget import show_budget
from sfllava.plots.frames import show_frames
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError


@pytest.fixture
def session(tiny):
    return Session(tiny, FeatureCache(tiny))


def test_replies_are_plain_answers_and_compute_only_what_is_new(tiny, session, videos):
    path = videos / "a.mp4"
    first = session.answer(path, Setting(6, SMALL), ASKED)
    again = session.answer(path, Setting(6, OTHER), ASKED)
    assert (first.decoded_frames, first.encoded_frames, first.reused_tokens) == (6, 6, 0)
    assert (again.decoded_frames, again.encoded_frames, again.reused_tokens) == (0, 0, 32), "the Slow pathway is kept"
    for reply in (first, again):
        plain = sfllava.ask(tiny, path, [ASKED], reply.setting).answers[0]
        assert (reply.text, reply.token_ids) == (plain.text, plain.token_ids)
    assert list(session.table["answer"]) == [first.text, again.text] and set(first.seconds) == {
        "decode", "encode", "prefill", "generate",
    }  # fmt: skip


def test_a_stopped_answer_is_kept_as_far_as_it_was_said(session, film):
    setting = Setting(6, SMALL)
    whole = session.answer(film, setting, LONG)
    assert len(whole.token_ids) > 4 and not whole.stopped
    left = iter([True] * 3 + [False] * 9)
    said = list(session.ask(film, setting, LONG, going=lambda: next(left)))
    stopped = session.replies[-1]
    assert stopped.stopped and stopped.token_ids == whole.token_ids[:3] and said[-1] == stopped.text
    assert session.answer(film, setting, LONG).token_ids == whole.token_ids, "nothing stays behind"


def test_above_the_context_nothing_is_encoded(tiny, session, film, monkeypatch):
    monkeypatch.setattr(tiny, "encode", lambda *_: pytest.fail("encoded"))
    over = Setting(128, "slowfast-slow_64frms_concat-fast_8x8")
    for ask in (lambda: session.answer(film, over, ASKED), lambda: sfllava.ask(tiny, film, ASKED.text, over)):
        with pytest.raises(ContextError, match="8192 visual"):
            ask()


def test_a_short_video_is_asked_where_its_own_frames_fit(tiny, session, film):
    budget = context_budget(MANY, tiny, ASKED, total=64)
    assert context_budget(MANY, tiny, ASKED).over and (budget.slow, budget.fast, budget.over) == (320, 4096, False)
    asked, reply = sfllava.ask(tiny, film, [ASKED], MANY, max_new_tokens=2), session.answer(film, MANY, ASKED, 2)
    assert asked.visual_tokens == reply.visual_tokens == budget.visual == MANY.token_count(*tiny.info.grid, 64) == 4416
    assert asked.answers[0].token_ids == reply.token_ids and (reply.decoded_frames, reply.encoded_frames) == (64, 63)
    assert budget.encode_flops == tiny.info.shape.encode_flops(64)


@pytest.mark.parametrize("frames", [1, 50, 200])
@pytest.mark.parametrize(
    "name", [SMALL, "concat", "slowfast-slow_0frms_concat-fast_4x4", "image_grid-2x3", "merged-64"]
)
def test_a_budget_counts_what_is_prefilled(tiny, frames, name):
    setting = Setting(frames, name)
    budget = context_budget(setting, tiny, ASKED)
    text = sum(map(len, tiny.info.prompt_ids(ASKED)))
    assert budget.visual == setting.token_count(*tiny.info.grid) and budget.text == text
    assert budget.rest == tiny.info.context - budget.visual - text and budget.over == (budget.rest < 1)
    assert sum(budget.parts.values()) == max(tiny.info.context, budget.visual + text)
    assert budget.prefill_flops == tiny.info.shape.prefill_flops(budget.visual + text)
    assert budget.encode_flops == tiny.info.shape.encode_flops(1 if name.startswith("image") else frames)
    assert budget.kv_bytes == tiny.info.shape.kv_bytes(budget.visual + text, 4), "float32 on CPU"
    try:
        tiny.info.check_context(budget.visual, budget.text)
        fits = True
    except ContextError:
        fits = False
    assert fits != budget.over


def test_slow_and_fast_of_a_budget(tiny):
    budget = context_budget(Setting(50, "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4"), tiny)
    assert (budget.slow, budget.fast, budget.other) == (10 * 32, 50 * 16, 0)
    budget = context_budget(Setting(10, "slowfast-slow_4frms_concat-fast_0x0"), tiny)
    assert (budget.slow, budget.fast) == (256, 0)


def test_text_from_outside_is_escaped(session, videos, tmp_path):
    path = tmp_path / "<i>a.mp4"
    path.write_bytes((videos / "a.mp4").read_bytes())
    reply = session.answer(path, Setting(6, SMALL), Question(EVIL))
    look = session.attribute(reply)
    made = [show_attention(look).layout.title.text, show_frames(look.video, reply.setting, look.grid).to_json()]
    for text in made:
        assert "<img" not in text and "<i>" not in text and "<b>what" not in text
    assert "&lt;img" in made[0]
    # the page itself sets texts as texts; a browser test asks a question with tags in it
    for file in STATIC.iterdir():
        assert not re.search(
            "innerHTML|outerHTML|insertAdjacent|document.write|eval|Function|https?:(?!//www.w3)", file.read_text()
        )


def test_an_error_is_one_line_with_its_trace():
    try:
        raise SfllavaError("first\nsecond")
    except SfllavaError as error:
        said = message_of(error)
    assert said["text"] == "first second" and said["kind"] == "error" and "Traceback" in said["trace"]
    assert message_of(ValueError("x"))["text"] == "ValueError: x"


def test_differences_are_marked(session, film):
    one = session.answer(film, Setting(6, SMALL), ASKED)
    two = session.answer(film, Setting(6, OTHER), LONG)
    first, other = comparison_of([one, two], 1)
    assert first["words"] == [[one.text, "same"]] and [chip["differs"] for chip in first["chips"]] == [False] * 3
    assert [chip["text"] for chip in other["chips"] if chip["differs"]] == ["Fast 4×4"]
    kept = " ".join(text for text, kind in other["words"] if kind != "gone")
    assert kept == two.text and other["verdict"] == "other words" and {"new"} <= {kind for _, kind in other["words"]}
    same = comparison_of([one, one], 1)[1]
    assert same["verdict"] == "same words" and same["words"] == [[one.text, "same"]]


def test_the_cell_repeats_an_answer(session, film, capsys):
    question = Question('What "is" \\ it?', options=("a 'b'", "c"), task="choice")
    for setting, asked in (
        (Setting(6, SMALL, prompt=DESCRIBE), ASKED),
        (Setting(5, "concat"), question),
        (Setting(6, SMALL), LONG),
    ):
        reply = session.answer(film, setting, asked, 7)
        exec(session.cell(reply), {})  # noqa: S102
        assert capsys.readouterr().out.strip() == reply.text


def test_csv_reads_back(session, videos):
    reply = session.answer(videos / "a.mp4", Setting(6, SMALL), Question('commas, "quotes"\nand lines'))
    table = pd.read_csv(io.StringIO(csv(session.table)), keep_default_na=False)
    assert table["question"][0] == reply.question.text and table["token_ids"][0] == str(list(reply.token_ids))


def test_figures_show_what_the_setting_does(tiny, session, videos):
    setting = Setting(6, SMALL)
    video = session.video(videos / "a.mp4", 6)
    figure = show_frames(video, setting, tiny.info.grid)
    slow = next(trace for trace in figure.data if trace.name == "slow: 2 frames")
    assert np.allclose(slow.x, video.pts_seconds[[0, 3]]), "the Slow pathway takes frames 0 and 3 of 6"
    titles = [note.text for note in figure.layout.annotations]
    assert titles == ["Slow: 32 tokens, 16 a frame; 2 of its 2 frames", "Fast: 24 tokens, 4 a frame; 6 of its 6 frames"]
    assert len(figure.layout.images) == 6 + 2 + 6
    fast = [trace for trace in figure.data if trace.mode == "lines"][-1]
    first = {(a, b) for a, b in zip(fast.x, fast.y) if a is not None and a <= 8}
    assert {a for a, _ in first} == {0, 4, 8} and {b for _, b in first} == {0, 4, 8}, "2x2 cells of 8x8 patches"
    assert "encode the video first" in show_frames(video, Setting(6, "merged-64"), tiny.info.grid).layout.title.text
    over = show_budget(Setting(128, "slowfast-slow_64frms_concat-fast_8x8"), tiny)
    assert over.layout.title.font.color == "#d62728" and "4,100 too many" in over.layout.title.text.replace("<br>", " ")
    look = session.attribute(session.answer(videos / "a.mp4", setting, ASKED))
    for word in (None, 0):
        shown = show_attention(look, word)
        bars = {trace.name: np.asarray(trace.y) for trace in shown.data if trace.type == "bar"}
        assert {name: values.tolist() for name, values in bars.items()} == {
            name: values.tolist() for name, values in look.totals(word).items()
        }
        heat = [trace for trace in shown.data if trace.type == "heatmap"]
        assert np.nansum(heat[1].z) == pytest.approx(bars["fast"].sum(), rel=1e-4)


def test_bars_of_what_is_left_out_have_an_absolute_scale(session, videos):
    look = session.attribute(session.answer(videos / "a.mp4", Setting(6, SMALL), ASKED))
    for changes, scale in (([0.0001], 1), ([-0.9, 0.2], 1), ([-9.2], 10), ([31], 100), ([-4000], 4000)):
        look.left_out.clear()
        look.left_out.update({f"frame {i}": change for i, change in enumerate(changes)})
        shown = effects_data(look, 1)
        assert shown["scale"] == scale and [row["nats"] for row in shown["rows"]] == sorted(changes)


def test_attention_counts_towards_the_memory(session, videos):
    replies = [session.answer(videos / "a.mp4", Setting(6, name), ASKED) for name in (SMALL, OTHER, "concat")]
    first = session.attribute(replies[0])
    alone = session.features.size
    session.attribute(replies[1])
    assert session.features.size - alone > session.kept_attribution(replies[1]).video.frames.nbytes
    session.features.limit = session.features.size - 1
    session.attribute(replies[1])
    assert session.kept_attribution(replies[0]) is None and session.kept_attribution(replies[1]) is not None, (
        "the oldest goes first"
    )
    for _ in range(2):
        for reply in replies:
            session.attribute(reply)
            assert session.features.size <= session.features.limit
    again = session.attribute(replies[0])
    assert again is not first and torch.equal(again.attention, first.attention)
    session.features.limit = 1
    kept = session.attribute(replies[0])
    assert session.kept_attribution(replies[0]) is kept and [session.kept_attribution(r) for r in replies[1:]] == [
        None,
        None,
    ]
