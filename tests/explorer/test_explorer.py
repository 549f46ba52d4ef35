"""The explorer without a browser: its session, what it sends to the browser, and its buttons pressed from Python."""

from __future__ import annotations

import base64
import io
import json
import re
import threading
import time
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

import sfllava
from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.explorer import Session, clicks
from sfllava.explorer.attention import effects_data
from sfllava.explorer.cards import comparison_of, message_of
from sfllava.explorer.feature_cache import FeatureCache
from sfllava.explorer.session import csv
from sfllava.explorer.widget import STATIC
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


def said(explorer, field):
    explorer.wait()
    return explorer.widget.messages.get(field, {}).get("text", "")


def test_buttons_ask_compare_look_and_leave_out(explorer):
    explorer.ask()
    explorer.wait()
    widget = explorer.widget
    assert not widget.messages and widget.progress == {} and widget.cards[0]["text"] == explorer.answers["answer"][0]
    assert [chip["text"] for chip in widget.cards[0]["chips"]] == [
        "6 frames",
        "Slow 2 × spatial_2d_avg_pool",
        "Fast 2×2",
    ]
    assert "import sfllava" in widget.cards[0]["code"]
    explorer.add()
    widget.fast = "4x4"
    explorer.add()
    explorer.compare()
    explorer.wait()
    assert [card["number"] for card in widget.comparison] == [2, 3] and len(explorer.answers) == len(widget.cards) == 3
    explorer.look()
    explorer.wait()
    words = widget.attention["words"]
    assert widget.attention["answer"] == 3 and len(widget.attention["totals"]["slow"]) == 1 + len(words)
    look = explorer.session.kept_attribution(explorer.chosen())
    for word in (0, -1):
        widget.word = word
        heat = np.frombuffer(base64.b64decode(widget.heat["parts"]["fast"][0]), np.uint8)
        exact = look.heat("fast", None if word < 0 else word)[0].ravel() * 255 / widget.heat["top"]["fast"]
        assert np.abs(heat - np.minimum(exact, 255)).max() <= 1
    widget.word = 0
    assert "word 1 of" in explorer.figures["attention"].layout.title.text
    explorer.leave_out()
    explorer.wait()
    explorer.leave_out("frame 2")
    explorer.wait()
    assert {row["part"] for row in widget.effects["rows"]} == {"slow", "fast", "frame 2"} and not widget.messages
    assert explorer.state["compared"] == [f"6frms-{SMALL}", f"6frms-{OTHER}"] and not explorer.state["busy"]
    assert set(explorer.figures) == {"budget", "frames", "attention"}


def test_bars_of_what_is_left_out_have_an_absolute_scale(session, videos):
    look = session.attribute(session.answer(videos / "a.mp4", Setting(6, SMALL), ASKED))
    for changes, scale in (([0.0001], 1), ([-0.9, 0.2], 1), ([-9.2], 10), ([31], 100), ([-4000], 4000)):
        look.left_out.clear()
        look.left_out.update({f"frame {i}": change for i, change in enumerate(changes)})
        shown = effects_data(look, 1)
        assert shown["scale"] == scale and [row["nats"] for row in shown["rows"]] == sorted(changes)


def test_controls_move_the_budget_before_any_compute(explorer, film, monkeypatch):
    explorer.open(str(film))
    explorer.wait()
    monkeypatch.setattr(explorer.session.model, "encode", lambda *_: pytest.fail("encoded"))
    widget = explorer.widget
    assert explorer.state["budget"]["slow"] == 32 and "slow 32" in widget.budget["text"]
    widget.slow = 4
    assert "slow 64" in widget.budget["text"] and not widget.budget["over"]
    widget.pool, widget.fast = "concat", "8x8"
    widget.slow, widget.frames = 64, 128
    assert widget.budget["over"] and explorer.state["budget"]["over"]
    widget.slow, widget.fast = 0, "0x0"
    assert "leaves no visual tokens" in widget.budget["problem"] and widget.budget["field"] == "setting"
    assert "keep" in explorer.state["problem"]
    widget.fast, widget.prompt = "1x1", "no placeholders"
    assert widget.budget["field"] == "prompt" and "<video>" in widget.budget["problem"]
    widget.prompt = ""
    assert "problem" not in widget.budget
    explorer.wait()


def test_the_budget_is_that_of_the_frames_of_the_video(model, film, tmp_path):
    explorer = sfllava.explore(model, "", ASKED.text, MANY)
    assert explorer.widget.budget["over"] and explorer.state["budget"]["over"]
    explorer.open(str(film))
    explorer.wait()
    text = explorer.widget.budget["text"]
    assert "slow 320" in text and "fast 4,096" in text and not explorer.widget.budget["over"]
    assert explorer.state["budget"]["fast"] == 4096 and "4,416 visual" in explorer.figures["budget"].layout.title.text
    explorer.widget.max_new_tokens = 2
    explorer.ask()
    explorer.wait()
    assert not explorer.widget.messages and explorer.answers["visual_tokens"][0] == 4416
    explorer.open(str(write_video(tmp_path / "long.mp4", moving_square(130))))
    explorer.wait()
    assert explorer.widget.budget["visual"] == 8512 and explorer.widget.budget["over"]


@pytest.mark.parametrize(
    "method", ["slow only", "fast only", "image grid", "thumbnail", "merged", "keyframes", "by name"]
)
def test_every_method_answers(explorer, method):
    explorer.widget.tokens = 200
    explorer.widget.method = method
    explorer.ask()
    explorer.wait()
    assert not explorer.widget.messages and len(explorer.answers) == 1
    explorer.look()
    mapped = method not in ("image grid", "thumbnail")  # 2x3 frames do not divide 8x8 patches
    assert ("cannot be mapped back" in said(explorer, "attention")) != mapped
    assert bool(explorer.widget.attention) == mapped


def test_errors_stand_next_to_their_field(explorer, videos):
    first = explorer.video
    explorer.open("gone.mp4")
    assert (
        "gone.mp4: no such video" in said(explorer, "video")
        and "Traceback" in explorer.widget.messages["video"]["trace"]
    )
    assert [video["path"] for video in explorer.widget.recent] == [first], "what failed is not among the recent ones"
    assert explorer.video == first and explorer.widget.strip["video"] == "a.mp4", "the page still shows what it had"
    explorer.widget.path, explorer.video = "", ""
    explorer.ask()
    assert "give a path" in said(explorer, "video")
    explorer.compare()
    assert "two to four settings" in said(explorer, "compare") and list(explorer.widget.messages) == ["compare"]
    explorer.look()
    assert "no answer yet: ask first" in said(explorer, "attention")
    explorer.open(first)
    explorer.widget.question = " "
    explorer.ask()
    assert "write one first" in said(explorer, "question") and "write one first" in explorer.state["error"]


def send(explorer, buffers=(), **content):
    """What the browser sends."""
    explorer.widget._handle_custom_msg(content, list(buffers))


def test_uploads_come_in_pieces(explorer, videos):
    content = (videos / "b.mp4").read_bytes()
    name = "../../<b>.mp4"
    about = {"action": "upload", "name": name, "size": len(content)}
    send(explorer, [memoryview(content[:2000])], **about, id="reloaded", offset=0)
    send(explorer, [memoryview(content[:1000])], **about, id="1", offset=0)
    send(explorer, [memoryview(content[2000:])], **about, id="reloaded", offset=2000)
    assert "upload" not in explorer.video and not explorer.widget.messages
    send(explorer, [memoryview(content[1000:])], **about, id="1", offset=1000)
    explorer.wait()
    assert Path(explorer.video).read_bytes() == content
    assert explorer.video.endswith("upload-1.mp4") and ".." not in explorer.video
    send(explorer, action="ask", state={"question": "What moved?", "frames": 5, "video": "/etc/passwd"})
    explorer.wait()
    assert not explorer.widget.messages and explorer.answers["question"][0] == "What moved?", (
        "a click brings the controls"
    )
    assert explorer.answers["frames"][0] == 5
    send(explorer, action="upload", name="a.exe", id="2", offset=0, size=0)
    assert "a.exe: needed a video" in said(explorer, "video")
    send(explorer, action="__class__")
    assert len(explorer.answers) == 1, "only what is listed can be called"


def test_an_upload_that_is_refused_opens_nothing(explorer, monkeypatch):
    before = explorer.video
    monkeypatch.setattr(clicks, "MOST_UPLOADED_BYTES", 10)
    piece = {"action": "upload", "name": "a.mp4", "id": "1"}
    send(explorer, [b"12345"], **piece, offset=0, size=12)
    assert "at most 1 GiB" in said(explorer, "video")
    send(explorer, [b"6789012"], **piece, offset=5, size=12)
    send(explorer, [b"123"], **piece, offset=0, size=9)
    send(explorer, [b"789"], **piece, offset=6, size=9)
    assert "a part of the upload was lost" in said(explorer, "video")
    send(explorer, [b"456789"], **piece, offset=3, size=9)
    assert explorer.video == before and "lost" in said(explorer, "video")


def test_the_browser_gets_pictures_videos_and_files(explorer, videos, monkeypatch):
    sent = []
    monkeypatch.setattr(explorer.widget, "send", lambda content, buffers=None: sent.append((content, buffers)))
    send(explorer, action="picture", of="strip", place=2)
    send(explorer, action="picture", of="attention", place=99)
    send(explorer, action="play")
    explorer.ask()
    explorer.wait()
    send(explorer, action="csv")
    kinds = [content["kind"] for content, _ in sent]
    assert kinds == ["picture", "file", "download"] and sent[0][0]["picture"].startswith("data:image/jpeg")
    assert sent[1][0]["type"] == "video/mp4" and sent[1][1] == [(videos / "a.mp4").read_bytes()]
    assert pd.read_csv(io.StringIO(sent[2][0]["text"]))["question"][0] == ASKED.text
    monkeypatch.setattr("sfllava.explorer.videos.MOST_PLAYED_BYTES", 10)
    send(explorer, action="play")
    assert sent[3] == ({"kind": "file", "type": ""}, None), "a large file is not sent; its frames are shown"


def test_a_saved_page_needs_nothing_else(explorer, videos, tmp_path):
    explorer.widget.question = f"</script>{EVIL}"
    explorer.widget.scorer = str(tmp_path / "clip")
    explorer.ask()
    explorer.wait()
    explorer.look()
    explorer.wait()
    page = explorer.save_html(tmp_path / "page.html").read_text()
    assert str(videos) not in page and str(tmp_path) not in page and "a.mp4" in page
    found = re.search('<script type="application/json" id="state">(.*?)</script>', page, re.DOTALL)
    state = json.loads(found[1])
    assert state["cards"][0]["question"] == explorer.widget.question and state["snapshot"] and state["scorer"] == "clip"
    assert set(state["heats"]) == {str(word) for word in range(-1, len(state["attention"]["words"]))}
    assert len(state["large"]) == 12 and "<img" not in page and page.count("</script>") == 2
    assert re.findall(r"(?:src|href)\s*=\s*[\"'](?!data:)", page) == [] and "default-src 'none'" in page
    assert set(re.findall(r"https?://[^\"' ]*", page)) == {"http://www.w3.org/2000/svg"}


def test_stop_is_heard_while_it_answers(explorer, film, monkeypatch):
    plain = explorer.session.model.stream

    def slow(*args, **options):
        for token in plain(*args, **options):
            time.sleep(0.1)
            yield token

    monkeypatch.setattr(explorer.session.model, "stream", slow)
    explorer.open(str(film))
    explorer.wait()
    explorer.widget.question, explorer.widget.reply = LONG.text, "describe"
    explorer.ask()
    assert explorer.widget.busy and explorer.busy
    while not explorer.widget.progress.get("text"):
        time.sleep(0.01)
    explorer.widget.fast = "1x1"  # what waits behind the answer leaves the button alone
    assert explorer.widget.busy
    explorer.stop()
    explorer.wait()
    assert explorer.answers["stopped"][0] and explorer.widget.cards[0]["stopped"] and not explorer.widget.busy


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
    explorer.ask()
    assert gate.reached.wait(60)
    yield gate
    gate.open(explorer)


def test_a_click_asks_what_the_controls_said_then(explorer, busy, videos, film):
    explorer.widget.question, explorer.widget.fast = "Which shape moved?", "4x4"
    explorer.widget.max_new_tokens = 3
    explorer.ask()  # has to wait
    explorer.widget.question, explorer.widget.fast = "What came last?", "1x1"
    explorer.widget.max_new_tokens = 5
    explorer.open(str(film))
    busy.open(explorer)
    first, second = explorer.session.replies
    path = str(videos / "a.mp4")
    assert (first.video, first.setting.name, first.question) == (path, f"6frms-{SMALL}", ASKED)
    assert (second.video, second.setting.name) == (path, f"6frms-{OTHER}")
    assert (second.question.text, second.max_new_tokens) == ("Which shape moved?", 3)
    assert explorer.widget.cards[-1]["question"] == "Which shape moved?" and explorer.video == str(film)


def test_compared_settings_are_asked_one_question(explorer, busy):
    explorer.add()
    explorer.widget.fast = "4x4"
    explorer.add()
    explorer.compare()  # has to wait
    explorer.widget.question = "What came last?"
    explorer.set_compared([])
    busy.open(explorer)
    compared = explorer.session.replies[1:]
    assert [(r.question, r.setting.name) for r in compared] == [(ASKED, f"6frms-{SMALL}"), (ASKED, f"6frms-{OTHER}")]
    assert len(explorer.widget.comparison) == 2


def test_stop_is_heard_by_what_waits_and_not_by_what_is_clicked_later(explorer, busy):
    explorer.widget.question = "Which shape moved?"
    explorer.ask()
    explorer.stop()
    explorer.widget.question = "What came last?"
    explorer.ask()
    assert explorer.widget.busy
    busy.open(explorer)
    first, last = explorer.session.replies
    assert first.stopped and not first.token_ids and first.question == ASKED
    assert not last.stopped and last.token_ids and last.question.text == "What came last?"
    assert not explorer.widget.busy


def test_what_was_stopped_before_it_began_says_so(explorer, busy):
    explorer.widget.question = "Which shape moved?"
    explorer.ask()
    explorer.stop()
    busy.open(explorer)
    assert "Ask was stopped before it began" in said(explorer, "answer") and explorer.state["error"] == ""
    assert len(explorer.answers) == 1 and not explorer.widget.busy


def test_a_look_is_at_the_answer_that_was_chosen(explorer, monkeypatch):
    session = explorer.session
    for fast in ("2x2", "4x4"):
        explorer.widget.fast = fast
        explorer.ask()
        explorer.wait()
    explorer.look()
    explorer.wait()
    gate = Gate(session.model.encode)
    monkeypatch.setattr(session.model, "encode", gate)
    explorer.widget.frames = 9
    explorer.ask()
    assert gate.reached.wait(60)
    explorer.leave_out("frame 2")
    explorer.widget.answer = 0
    explorer.look()
    gate.open(explorer)
    one, two, three = session.replies
    assert set(session.kept_attribution(two).left_out) == {"frame 2"} and session.kept_attribution(three) is None
    assert session.kept_attribution(one) is not None and explorer.widget.answer == 2 and explorer.widget.attention == {}
    assert "the attention of answer 1 is computed" in said(explorer, "attention")
    explorer.widget.answer = 0
    explorer.wait()
    assert explorer.widget.attention["words"] == list(session.kept_attribution(one).words)


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
