"""The explorer without a browser: its session, its pages, and its widgets clicked from Python."""

from __future__ import annotations

import io
import threading
import time

import numpy as np
import pandas as pd
import pytest
import torch

import sfllava
from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.explorer import Session, pages
from sfllava.explorer.feature_cache import FeatureCache
from sfllava.explorer.session import csv
from sfllava.models.base import ContextError
from sfllava.models.load import load_model
from sfllava.planning.budget import context_budget
from sfllava.plots.attribution import show_attention
from sfllava.plots.budget import show_budget
from sfllava.plots.frames import show_frames
from sfllava.sampler.writing import write_video
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

from conftest import moving_square  # isort: skip

SMALL = "slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2"
OTHER = "slowfast-slow_2frms_spatial_2d_avg_pool-fast_4x4"
ASKED = Question("Which colour flashed?")
DESCRIBE = "<video>\n{question}\nDescription:"
MANY = Setting(128, "slowfast-slow_5frms_concat-fast_8x8")  # 8,512 tokens, and 4,416 of a video of 64 frames
LONG = Question("Describe the video.", task="describe")
EVIL = "<img src=x onerror=alert(1)> & <b>what</b>?"


@pytest.fixture(scope="module")
def model():
    return load_model("tiny")


@pytest.fixture(scope="module")
def film(tmp_path_factory):
    """A rendered video that the small model can describe."""
    return write_shapesqa(tmp_path_factory.mktemp("shapes"), videos=1) / "videos" / "test_0_0000.mp4"


@pytest.fixture
def session(model):
    return Session(model, FeatureCache(model))


@pytest.fixture
def explorer(model, videos):
    made = sfllava.explore(model, str(videos / "a.mp4"), ASKED.text, Setting(6, SMALL))
    made.wait()
    return made


def test_replies_are_plain_answers_and_compute_only_what_is_new(model, session, videos):
    path = videos / "a.mp4"
    first = session.answer(path, Setting(6, SMALL), ASKED)
    again = session.answer(path, Setting(6, OTHER), ASKED)
    assert (first.decoded_frames, first.encoded_frames, first.reused_tokens) == (6, 6, 0)
    assert (again.decoded_frames, again.encoded_frames, again.reused_tokens) == (0, 0, 32), "the Slow pathway is kept"
    for reply in (first, again):
        plain = sfllava.ask(model, path, [ASKED], reply.setting).answers[0]
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


def test_above_the_context_nothing_is_encoded(model, session, film, monkeypatch):
    monkeypatch.setattr(model, "encode", lambda *_: pytest.fail("encoded"))
    over = Setting(128, "slowfast-slow_64frms_concat-fast_8x8")
    for ask in (lambda: session.answer(film, over, ASKED), lambda: sfllava.ask(model, film, ASKED.text, over)):
        with pytest.raises(ContextError, match="8192 visual"):
            ask()


def test_a_short_video_is_asked_where_its_own_frames_fit(model, session, film):
    budget = context_budget(MANY, model, ASKED, total=64)
    assert context_budget(MANY, model, ASKED).over and (budget.slow, budget.fast, budget.over) == (320, 4096, False)
    asked, reply = sfllava.ask(model, film, [ASKED], MANY, max_new_tokens=2), session.answer(film, MANY, ASKED, 2)
    assert asked.visual_tokens == reply.visual_tokens == budget.visual == MANY.token_count(*model.info.grid, 64) == 4416
    assert asked.answers[0].token_ids == reply.token_ids and (reply.decoded_frames, reply.encoded_frames) == (64, 63)
    assert budget.encode_flops == model.info.shape.encode_flops(64)


@pytest.mark.parametrize("frames", [1, 50, 200])
@pytest.mark.parametrize(
    "name", [SMALL, "concat", "slowfast-slow_0frms_concat-fast_4x4", "image_grid-2x3", "merged-64"]
)
def test_a_budget_counts_what_is_prefilled(model, frames, name):
    setting = Setting(frames, name)
    budget = context_budget(setting, model, ASKED)
    text = sum(map(len, model.info.prompt_ids(ASKED)))
    assert budget.visual == setting.token_count(*model.info.grid) and budget.text == text
    assert budget.rest == model.info.context - budget.visual - text and budget.over == (budget.rest < 1)
    assert sum(budget.parts.values()) == max(model.info.context, budget.visual + text)
    assert budget.prefill_flops == model.info.shape.prefill_flops(budget.visual + text)
    assert budget.encode_flops == model.info.shape.encode_flops(1 if name.startswith("image") else frames)
    assert budget.kv_bytes == model.info.shape.kv_bytes(budget.visual + text, 4), "float32 on CPU"
    try:
        model.info.check_context(budget.visual, budget.text)
        fits = True
    except ContextError:
        fits = False
    assert fits != budget.over


def test_slow_and_fast_of_a_budget(model):
    budget = context_budget(Setting(50, "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4"), model)
    assert (budget.slow, budget.fast, budget.other) == (10 * 32, 50 * 16, 0)
    budget = context_budget(Setting(10, "slowfast-slow_4frms_concat-fast_0x0"), model)
    assert (budget.slow, budget.fast) == (256, 0)


def test_text_from_outside_is_escaped(session, videos, tmp_path):
    path = tmp_path / "<i>a.mp4"
    path.write_bytes((videos / "a.mp4").read_bytes())
    reply = session.answer(path, Setting(6, SMALL), Question(EVIL))
    look = session.attribute(reply)
    budget = context_budget(reply.setting, session.model)
    made = [
        pages.history_page([reply], "x"), pages.comparison_page([reply, reply]), pages.answer_page(EVIL, EVIL, EVIL),
        pages.error_page(SfllavaError(EVIL)), pages.error_page(ValueError(EVIL)), pages.note_page(EVIL),
        pages.effects_page(look), pages.budget_page(budget), show_attention(look).layout.title.text,
        show_frames(look.video, reply.setting, session.model.info.grid).to_json(),
    ]  # fmt: skip
    for page in made:
        assert "<img" not in page and "<i>" not in page and "<b>what" not in page
    assert "&lt;img" in made[0] and "&lt;i&gt;a" in made[0] and "&lt;img" in made[8]


def test_an_error_is_one_line_with_its_trace_behind_a_fold():
    try:
        raise SfllavaError("first\nsecond")
    except SfllavaError as error:
        page = pages.error_page(error)
    line, _, trace = page.partition("<details>")
    assert "first second" in line and "\n" not in line and "Traceback" not in line and "Traceback" in trace


def test_differences_are_marked(session, film):
    one = session.answer(film, Setting(6, SMALL), ASKED)
    two = session.answer(film, Setting(6, OTHER), LONG)
    page = pages.comparison_page([one, two])
    assert "<mark>fast_4x4</mark>" in page and "differs from the first" in page and "<mark>fast_2x2" not in page
    same = pages.comparison_page([one, one])
    assert "same answer as the first" in same and "<mark" not in same


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


def test_figures_show_what_the_setting_does(model, session, videos):
    setting = Setting(6, SMALL)
    video = session.video(videos / "a.mp4", 6)
    figure = show_frames(video, setting, model.info.grid)
    slow = next(trace for trace in figure.data if trace.name == "slow: 2 frames")
    assert np.allclose(slow.x, video.pts_seconds[[0, 3]]), "the Slow pathway takes frames 0 and 3 of 6"
    titles = [note.text for note in figure.layout.annotations]
    assert titles == ["Slow: 32 tokens, 16 a frame; 2 of its 2 frames", "Fast: 24 tokens, 4 a frame; 6 of its 6 frames"]
    assert len(figure.layout.images) == 6 + 2 + 6
    fast = [trace for trace in figure.data if trace.mode == "lines"][-1]
    first = {(a, b) for a, b in zip(fast.x, fast.y) if a is not None and a <= 8}
    assert {a for a, _ in first} == {0, 4, 8} and {b for _, b in first} == {0, 4, 8}, "2x2 cells of 8x8 patches"
    assert "encode the video first" in show_frames(video, Setting(6, "merged-64"), model.info.grid).layout.title.text
    over = show_budget(Setting(128, "slowfast-slow_64frms_concat-fast_8x8"), model)
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


def test_several_settings_start_in_the_comparison(model):
    settings = [Setting(6, SMALL), Setting(6, OTHER)]
    made = sfllava.explore(model, setting=settings)
    assert made.setting.name == settings[0].name and made.state["compared"] == [s.name for s in settings]
    with pytest.raises(SfllavaError, match="up to four to compare, got 5"):
        sfllava.explore(model, setting=[Setting(n, SMALL) for n in range(2, 7)])


def test_widgets_ask_compare_look_and_leave_out(explorer):
    explorer.views.ask.click()
    explorer.wait()
    assert explorer.views.error.value == "" and explorer.answers["answer"][0] in explorer.views.answer.value
    explorer.views.add.click()
    explorer.settings.fast.value = "4x4"
    explorer.views.add.click()
    explorer.views.compare.click()
    explorer.wait()
    assert "<mark>fast_4x4</mark>" in explorer.views.comparison.value and len(explorer.answers) == 3
    explorer.views.attention.look.click()
    explorer.wait()
    assert explorer.views.attention.output.outputs and explorer.views.attention.word.options[0] == ("all words", -1)
    explorer.views.attention.word.value = 0
    assert "word 1 of" in explorer.figures["attention"].layout.title.text
    explorer.views.attention.leave.click()
    explorer.wait()
    assert (
        ">slow</td>" in explorer.views.attention.effects.value
        and ">fast</td>" in explorer.views.attention.effects.value
    )
    explorer.views.attention.part.value = "frame 2"
    explorer.views.attention.leave.click()
    explorer.wait()
    assert ">frame 2</td>" in explorer.views.attention.effects.value and explorer.views.error.value == ""
    assert explorer.state["compared"] == [f"6frms-{SMALL}", f"6frms-{OTHER}"] and not explorer.state["busy"]
    assert set(explorer.figures) == {"budget", "frames", "attention"}
    assert "Download as CSV" in explorer.views.history.value and SMALL[:-3] in explorer.views.cell.value


def test_controls_move_the_budget_before_any_compute(explorer, film, monkeypatch):
    explorer.videos.choose(str(film))
    explorer.wait()
    monkeypatch.setattr(explorer.session.model, "encode", lambda *_: pytest.fail("encoded"))
    assert explorer.state["budget"]["slow"] == 32 and "slow 32" in explorer.views.budget.value
    explorer.settings.slow.value = 4
    assert "slow 64" in explorer.views.budget.value and "sf-over" not in explorer.views.budget.value
    explorer.settings.pool.value, explorer.settings.fast.value = "concat", "8x8"
    explorer.settings.slow.value, explorer.settings.frames.value = 64, 128
    assert "sf-over" in explorer.views.budget.value and explorer.views.ask.disabled and explorer.state["budget"]["over"]
    explorer.settings.slow.value, explorer.settings.fast.value = 0, "0x0"
    assert (
        "leaves no visual tokens" in explorer.views.budget.value
        and explorer.views.ask.disabled
        and "keep" in explorer.state["problem"]
    )
    explorer.settings.fast.value = "1x1"
    assert not explorer.views.ask.disabled
    explorer.wait()


def test_the_budget_is_that_of_the_frames_of_the_video(model, film, tmp_path):
    explorer = sfllava.explore(model, "", ASKED.text, MANY)
    assert "sf-over" in explorer.views.budget.value and explorer.views.ask.disabled and explorer.state["budget"]["over"]
    explorer.videos.choose(str(film))
    explorer.wait()
    assert (
        "slow 320" in explorer.views.budget.value
        and "fast 4,096" in explorer.views.budget.value
        and not explorer.views.ask.disabled
    )
    assert explorer.state["budget"]["fast"] == 4096 and "4,416 visual" in explorer.figures["budget"].layout.title.text
    explorer.questions.longest.value = 2
    explorer.views.ask.click()
    explorer.wait()
    assert explorer.views.error.value == "" and explorer.answers["visual_tokens"][0] == 4416
    explorer.videos.choose(str(write_video(tmp_path / "long.mp4", moving_square(130))))
    explorer.wait()
    assert (
        "8,512 visual" in explorer.views.budget.value
        and "sf-over" in explorer.views.budget.value
        and explorer.views.ask.disabled
    )


@pytest.mark.parametrize(
    "method", ["slow only", "fast only", "image grid", "thumbnail", "merged", "keyframes", "by name"]
)
def test_every_method_answers(explorer, method):
    explorer.settings.tokens.value = 200
    explorer.settings.method.value = method
    explorer.views.ask.click()
    explorer.wait()
    assert explorer.views.error.value == "" and len(explorer.answers) == 1
    explorer.views.attention.look.click()
    explorer.wait()
    mapped = method not in ("image grid", "thumbnail")  # 2x3 frames do not divide 8x8 patches
    assert (
        bool(explorer.views.attention.output.outputs) == mapped
        and ("cannot be mapped back" in explorer.views.error.value) != mapped
    )


def test_errors_and_uploads(explorer, videos):
    explorer.videos.choose("gone.mp4")
    explorer.wait()
    assert "gone.mp4: no such video" in explorer.views.error.value and "<details>" in explorer.views.error.value
    explorer.views.compare.click()
    explorer.wait()
    assert "two to four settings" in explorer.views.error.value
    explorer.views.attention.look.click()
    explorer.wait()
    assert "no answer yet: ask first" in explorer.views.error.value
    content = (videos / "b.mp4").read_bytes()
    explorer.videos._uploaded([{"name": "../../<b>.mp4", "content": memoryview(content)}])
    explorer.wait()
    assert explorer.video.endswith("upload-1.mp4") and ".." not in explorer.video
    explorer.views.ask.click()
    explorer.wait()
    assert explorer.views.error.value == "" and len(explorer.answers) == 1
    explorer.videos._try(lambda: explorer.videos._uploaded([{"name": "a.exe", "content": b""}]))
    assert "a.exe: needed a video" in explorer.views.error.value


def test_stop_is_heard_while_it_answers(explorer, film, monkeypatch):
    plain = explorer.session.model.stream

    def slow(*args, **options):
        for token in plain(*args, **options):
            time.sleep(0.1)
            yield token

    monkeypatch.setattr(explorer.session.model, "stream", slow)
    explorer.videos.choose(str(film))
    explorer.wait()
    explorer.questions.text.value, explorer.questions.kind.value = LONG.text, "describe"
    explorer.views.ask.click()
    assert not explorer.views.stop.disabled and explorer.busy
    while (
        "sf-answer" not in explorer.views.answer.value or "..." not in explorer.views.answer.value.split("sf-small")[1]
    ):
        time.sleep(0.01)
    explorer.settings.fast.value = "1x1"  # what waits behind the answer leaves the button alone
    assert not explorer.views.stop.disabled
    explorer.views.stop.click()
    explorer.wait()
    assert explorer.answers["stopped"][0] and "stopped" in explorer.views.answer.value and explorer.views.stop.disabled


class Gate:
    """An encoder that waits, so that what is clicked meanwhile waits too."""

    def __init__(self, encode):
        self.encode, self.reached, self.opened = encode, threading.Event(), threading.Event()

    def __call__(self, *args):
        self.reached.set()
        assert self.opened.wait(60)
        return self.encode(*args)

    def open(self, explorer):
        self.opened.set()
        explorer.wait()


@pytest.fixture
def busy(explorer, monkeypatch):
    """The gate of an explorer that is asked something, and encodes."""
    gate = Gate(explorer.session.model.encode)
    monkeypatch.setattr(explorer.session.model, "encode", gate)
    explorer.views.ask.click()
    assert gate.reached.wait(60)
    yield gate
    gate.open(explorer)


def test_a_click_asks_what_the_controls_said_then(explorer, busy, videos, film):
    explorer.questions.text.value, explorer.settings.fast.value = "Which shape moved?", "4x4"
    explorer.questions.longest.value = 3
    explorer.views.ask.click()  # has to wait
    explorer.questions.text.value, explorer.settings.fast.value = "What came last?", "1x1"
    explorer.questions.longest.value = 5
    explorer.videos.choose(str(film))
    busy.open(explorer)
    first, second = explorer.session.replies
    path = str(videos / "a.mp4")
    assert (first.video, first.setting.name, first.question) == (path, f"6frms-{SMALL}", ASKED)
    assert (second.video, second.setting.name) == (path, f"6frms-{OTHER}")
    assert (second.question.text, second.max_new_tokens) == ("Which shape moved?", 3)
    assert "Which shape moved?" in explorer.views.answer.value and explorer.video == str(film)


def test_compared_settings_are_asked_one_question(explorer, busy):
    explorer.views.add.click()
    explorer.settings.fast.value = "4x4"
    explorer.views.add.click()
    explorer.views.compare.click()  # has to wait
    explorer.questions.text.value = "What came last?"
    explorer.views.clear.click()
    busy.open(explorer)
    compared = explorer.session.replies[1:]
    assert [(r.question, r.setting.name) for r in compared] == [(ASKED, f"6frms-{SMALL}"), (ASKED, f"6frms-{OTHER}")]
    assert "<mark>fast_4x4</mark>" in explorer.views.comparison.value


def test_stop_is_heard_by_what_waits_and_not_by_what_is_clicked_later(explorer, busy):
    explorer.questions.text.value = "Which shape moved?"
    explorer.views.ask.click()
    explorer.views.stop.click()
    explorer.questions.text.value = "What came last?"
    explorer.views.ask.click()
    assert not explorer.views.stop.disabled
    busy.open(explorer)
    first, last = explorer.session.replies
    assert first.stopped and not first.token_ids and first.question == ASKED
    assert not last.stopped and last.token_ids and last.question.text == "What came last?"
    assert explorer.views.stop.disabled


def test_what_was_stopped_before_it_began_says_so(explorer, busy):
    explorer.questions.text.value = "Which shape moved?"
    explorer.views.ask.click()
    explorer.views.stop.click()
    busy.open(explorer)
    assert "Ask was stopped before it began" in explorer.views.error.value and explorer.state["error"] == ""
    assert len(explorer.answers) == 1 and explorer.views.stop.disabled


def test_a_look_is_at_the_answer_that_was_chosen(explorer, monkeypatch):
    session = explorer.session
    for fast in ("2x2", "4x4"):
        explorer.settings.fast.value = fast
        explorer.views.ask.click()
        explorer.wait()
    explorer.views.attention.look.click()
    explorer.wait()
    gate = Gate(session.model.encode)
    monkeypatch.setattr(session.model, "encode", gate)
    explorer.settings.frames.value = 9
    explorer.views.ask.click()
    assert gate.reached.wait(60)
    explorer.views.attention.part.value = "frame 2"
    explorer.views.attention.leave.click()
    explorer.views.attention.part.value = "frame 0"
    explorer.views.reply.value = 0
    explorer.views.attention.look.click()
    gate.open(explorer)
    one, two, three = session.replies
    assert set(session.kept_attribution(two).left_out) == {"frame 2"} and session.kept_attribution(three) is None
    assert (
        session.kept_attribution(one) is not None
        and explorer.views.reply.value == 2
        and not explorer.views.attention.output.outputs
    )
    assert "where answer 1 looked is computed" in explorer.views.error.value
    explorer.views.reply.value = 0
    explorer.wait()
    assert explorer.views.attention.output.outputs and len(explorer.views.attention.word.options) == 1 + len(
        session.kept_attribution(one).words
    )


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


def test_all_controls_have_labels(explorer):
    import ipywidgets as w

    def walk(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from walk(child)

    controls = [x for x in walk(explorer.box) if not isinstance(x, w.HTML | w.Box | w.Output)]
    assert len(controls) > 25 and all(control.description for control in controls)
