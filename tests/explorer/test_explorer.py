"""The explorer without a browser: what it sends to the browser, and its buttons pressed from Python."""

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

import sfllava
from sfllava.explorer import clicks
from sfllava.sampler.writing import write_video
from sfllava.settings import Setting
from sfllava.types import SfllavaError

from conftest import moving_square  # isort: skip

from explorer_questions import ASKED, EVIL, LONG, MANY, OTHER, SMALL


@pytest.fixture
def explorer(tiny, videos):
    made = sfllava.explore(tiny, str(videos / "a.mp4"), ASKED.text, Setting(6, SMALL))
    made.wait()
    return made


def test_several_settings_start_in_the_comparison(tiny):
    settings = [Setting(6, SMALL), Setting(6, OTHER)]
    made = sfllava.explore(tiny, setting=settings)
    assert made.setting.name == settings[0].name and made.state["compared"] == [s.name for s in settings]
    with pytest.raises(SfllavaError, match="up to four to compare, got 5"):
        sfllava.explore(tiny, setting=[Setting(n, SMALL) for n in range(2, 7)])


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


def test_the_budget_is_that_of_the_frames_of_the_video(tiny, film, tmp_path):
    explorer = sfllava.explore(tiny, "", ASKED.text, MANY)
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
