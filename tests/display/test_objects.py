"""What a notebook shows of each object: short, escaped, and without folders or arrays."""

from __future__ import annotations

import base64
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from small_runs import SETTINGS
from small_runs import run as run_small

from sfllava.attribution.attribution import attribute
from sfllava.display.objects import strip
from sfllava.prompts import Prompt
from sfllava.runs.ask import ask
from sfllava.sampler.reading import read_video
from sfllava.settings import Setting
from sfllava.types import Answer, Question

HOSTILE = '<script>alert(1)</script> & "quotes" <img src=x onerror=alert(1)>'
VOID = {"img", "line", "circle", "rect", "br"}


class Balanced(HTMLParser):
    """Collects tags, and fails where one is not closed."""

    def __init__(self) -> None:
        super().__init__()
        self.open, self.seen = [], []

    def handle_starttag(self, tag, attributes):
        self.seen.append(tag)
        if tag not in VOID:
            self.open.append(tag)
        assert not [name for name, _ in attributes if name.startswith("on")]

    def handle_startendtag(self, tag, attributes):
        self.seen.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def shown(thing, most=60_000):
    """The HTML of an object as text, checked: well-formed, small, no scripts, no folders."""
    html = thing._repr_html_()
    parser = Balanced()
    parser.feed(html)
    assert not parser.open and "script" not in parser.seen and len(html) < most + 6000, len(html)
    assert "/tmp" not in html and len(repr(thing)) < 400 and "array" not in repr(thing) and "tensor" not in repr(thing)
    return re.sub(r"<style>.*?</style>|data:image[^\"]*", "", html, flags=re.DOTALL)


@pytest.fixture(scope="module")
def asked(models, videos):
    return ask(models(), videos / "a.mp4", ["what is it?", HOSTILE], SETTINGS[0], max_new_tokens=4)


def test_a_video_shows_frames_with_their_times(videos):
    video = read_video(videos / "a.mp4", 50)
    html = shown(video)
    assert html.count("<figure") == 12 and "a.mp4" in html and re.search(r"<figcaption>0\.0 s<", html)
    assert "20 of 20 frames" in html
    assert re.fullmatch(r"Video\('.*a\.mp4', 20 of 20 frames, 96x128, '\w+'\)", repr(video))
    images = shown(replace(video, pts_seconds=np.full(20, np.nan), damage="cut off <here>", path="/x/<b>.mp4"))
    assert "frame 0" in images and "cut off &lt;here&gt;" in images and "&lt;b&gt;.mp4" in images


def test_frames_of_noise_stay_small():
    noise = np.random.default_rng(0).integers(0, 256, (12, 336, 600, 3), np.uint8)
    html = strip(noise, [str(i) for i in range(12)], [1])
    images = [base64.b64decode(data) for data in re.findall(r"base64,([^\"]*)", html)]
    assert len(html) < 60_000 and len(images) == 12 and all(data[:2] == b"\xff\xd8" for data in images)
    assert html.count('class="slow"') == 1


def test_a_setting_shows_what_it_varies_and_its_tokens():
    html = shown(Setting())
    assert "50 frames" in html and "10 of them slow" in html and "3,680 visual tokens" in html
    html = shown(Setting(8, "native", f"own {HOSTILE}", prompt=f"<video> {{question}} {HOSTILE}"))
    assert "depend on the model" in html and "&lt;script&gt;" in html and "own prompt" in html
    assert repr(Setting(8, "concat", "x")) == "Setting(8, 'concat', label='x')"


def test_answers(asked):
    html = shown(asked)
    assert "what is it?" in html and "&lt;script&gt;" in html and html.count("<details>") == 2
    assert html.count('class="slow"') == 2 and "visual tokens" in html
    letters = Answer(Question("what?"), "A", (1, 2), 8, 20, {"A": 0.75, "<B>": 0.25})
    html = shown(letters)
    assert "75.0 %" in html and "&lt;B&gt;" in html and "<code>1 2</code>" in html
    assert "no answer: logits" in shown(replace(letters, error="logits were not finite"))
    assert shown(Question(HOSTILE, options=("yes", "<no>"), answer="yes", type="x")).count("<details>") == 1


def test_a_benchmark_and_a_model(benchmark, models):
    html = shown(benchmark)
    assert "12 questions" in html and "3 videos" in html and "what is it in a?" in html and html.count("<tr>") == 4
    assert repr(benchmark).startswith("Benchmark('open', 12 questions, ")
    html = shown(models())
    assert "llava_next" in html and "positions" in html and "24 × 24 patches" in html and "float32" in html


def test_a_run_shows_intervals_as_bars(benchmark, models, tmp_path):
    run = run_small(models(), benchmark, tmp_path / "my run", SETTINGS[:2])
    html = shown(run)
    assert html.count("<svg") == 2 and "finished" in html and "my run" in html and SETTINGS[1].name in html
    assert repr(run).endswith("my run', 2 settings, 24 of 24 questions answered)")
    failed = {
        name: {**each, "failed": 2, "reasons": {f"/tmp/x.mp4: {HOSTILE}": 2}} for name, each in run.scores.items()
    }
    assert "4 failed" in (html := shown(replace(run, scores=failed))) and "&lt;script&gt;" in html
    gone = replace(run, path=tmp_path / "gone")  # without the folder there are no intervals, but the scores
    assert "<svg" not in (html := shown(gone)) and "match-exact, %" in html


def test_attention(asked, models):
    found = attribute(models(), asked.video, asked.setting, Question("what is it?"), asked.answers[0].token_ids,
                      prompt=Prompt("<video> {question}", "own"))  # fmt: skip
    html = shown(found)
    assert html.count("<figure") == len(asked.video.frames) and html.count('class="slow"') == 3
    assert "slow" in html and "fast" in html and "nats" in html


def test_progress_in_a_notebook_without_widgets_warns_of_nothing(monkeypatch, recwarn):
    import sys

    from sfllava.display.progress import progress_bar

    for name in [name for name in sys.modules if name.split(".")[0] == "tqdm"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "ipywidgets", None)
    monkeypatch.setitem(sys.modules, "ipykernel.zmqshell", sys)
    with progress_bar(2, "question") as bar:
        bar.update(2)
    assert not recwarn.list
