"""The explorer in a real browser: a JupyterLab server here, Debian's chromium, the notebook as a user has it.

Screenshots go to the folder SFLLAVA_SCREENSHOTS, or to the test's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import numpy as np
import pytest
from scorers import write_scorer

from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.sampler.reading import read_video
from sfllava.sampler.writing import write_video

from conftest import ROOT  # isort: skip

CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
TOKEN = "a-token-of-this-test"
PATIENCE = 120_000  # milliseconds: a busy machine is no failure
expect = playwright.expect
expect.set_options(timeout=PATIENCE)
# the small model describes faster than anyone can press Stop
SLOWLY = """import time

plain = llava.stream
llava.stream = lambda tokens, question, **options: (
    time.sleep(0.4 * (question.task == "describe")) or token for token in plain(tokens, question, **options)
)"""


@pytest.fixture(scope="module")
def shots(tmp_path_factory):
    folder = Path(os.environ.get("SFLLAVA_SCREENSHOTS") or tmp_path_factory.mktemp("screenshots"))
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="module")
def lab(tmp_path_factory):
    """The address of a JupyterLab server whose folder has the notebook."""
    home = tmp_path_factory.mktemp("lab")
    work = home / "work"
    work.mkdir()
    notebook = json.loads((ROOT / "notebooks/explore.ipynb").read_text())
    extra = {"cell_type": "code", "execution_count": None, "id": "slowly", "metadata": {}, "outputs": []}
    notebook["cells"].append({**extra, "source": SLOWLY})
    (work / "explore.ipynb").write_text(json.dumps(notebook))
    # Lab asks about news at its first start
    settings = home / "settings" / "@jupyterlab" / "apputils-extension"
    settings.mkdir(parents=True)
    (settings / "notification.jupyterlab-settings").write_text('{"fetchNews": "false", "checkForUpdates": false}')
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {
        **os.environ,
        "PYTHONPATH": str(ROOT),
        "HOME": str(home),
        "JUPYTER_CONFIG_DIR": str(home / "config"),
        "JUPYTER_RUNTIME_DIR": str(home / "runtime"),
        "JUPYTERLAB_SETTINGS_DIR": str(home / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(home / "workspaces"),
        "IPYTHONDIR": str(home / "ipython"),
    }
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--ip=127.0.0.1", f"--port={port}"]
    command += [
        "--allow-root",
        "--LabApp.expose_app_in_browser=True",
        f"--IdentityProvider.token={TOKEN}",
        f"--ServerApp.root_dir={work}",
    ]
    with (home / "log.txt").open("w") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log, cwd=work)
        try:
            url = f"http://127.0.0.1:{port}"
            for _ in range(240):
                assert server.poll() is None, (home / "log.txt").read_text()[-2000:]
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{url}/api?token={TOKEN}", timeout=2).read()
                    break
                time.sleep(0.5)
            else:
                pytest.fail("JupyterLab did not start: " + (home / "log.txt").read_text()[-2000:])
            yield url
        finally:
            server.terminate()
            server.wait(30)


@pytest.fixture(scope="module")
def page(lab):
    """Lab in the light theme, after the notebook has run: the tests may run in any order, or in two processes."""
    with playwright.sync_playwright() as play:
        browser = play.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(viewport={"width": 1280, "height": 800})
        context.set_default_timeout(PATIENCE)
        page = context.new_page()
        page.goto(f"{lab}/doc/tree/explore.ipynb?token={TOKEN}")
        expect(page.locator(".jp-Notebook .jp-Cell").first).to_be_visible()
        theme(page, "JupyterLab Light")
        expect(page.get_by_role("button", name="| Idle")).to_be_visible()  # without a kernel Lab would ask for one
        command(page, "notebook:run-all-cells")
        expect(page.locator(".sfllava").first).to_be_visible()
        yield page
        browser.close()


def command(page, name: str, arguments: dict | None = None) -> None:
    """Run one of Lab's commands; what it returns stays there."""
    page.evaluate("([name, a]) => { window.jupyterapp.commands.execute(name, a); }", [name, arguments or {}])


def theme(page, name: str) -> None:
    command(page, "apputils:change-theme", {"theme": name})
    kind = "false" if "Dark" in name else "true"
    expect(page.locator(f"body[data-jp-theme-light={kind}]")).to_be_attached()


def shoot(page, shots: Path, name: str) -> None:
    page.mouse.move(0, 0)
    page.set_viewport_size({"width": page.viewport_size["width"], "height": 1400})  # the whole page is in sight
    page.wait_for_timeout(300)  # colours of a theme fade
    page.locator(".sfllava").first.screenshot(path=shots / f"{name}.png")
    page.set_viewport_size({"width": page.viewport_size["width"], "height": 800})


def resize(page, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    page.wait_for_timeout(300)


def slide(page, label: str, presses: int, key: str = "ArrowRight") -> None:
    """Move a slider as the keyboard does."""
    handle = page.locator(".sfllava").get_by_role("slider", name=label, exact=True)
    handle.focus()
    for _ in range(presses):
        handle.press(key)


def choose(page, label: str, value: str) -> None:
    page.locator(".sfllava").get_by_label(label, exact=True).select_option(label=value)


def button(page, name: str):
    return page.locator(".sfllava").get_by_role("button", name=name, exact=True)


def tab(page, name: str) -> None:
    page.locator(".sfllava").get_by_role("tab", name=name).click()


def misplaced(page) -> list[str]:
    """What is wider than the page, or overlaps its neighbour on the film."""
    return page.evaluate(
        """() => { const root = document.querySelector('.sfllava'); const edge = root.getBoundingClientRect().right + 1;
        const wide = [...root.querySelectorAll('button, input, select, textarea, .sf-card, .sf-bar, .sf-film, .sf-axis')]
          .filter(e => e.offsetParent && e.getBoundingClientRect().right > edge).map(e => e.outerHTML.slice(0, 120));
        const thumbs = [...root.querySelectorAll('.sf-film img')].map(e => e.getBoundingClientRect());
        return wide.concat(thumbs.filter((r, i) => i && r.left < thumbs[i - 1].right - 0.5).map(r => `thumb at ${r.left}`)); }"""
    )


@pytest.mark.filterwarnings("ignore")
def test_a_session_in_the_browser(page, shots):
    root = page.locator(".sfllava").first
    budget, film = root.locator(".sf-budget"), root.locator(".sf-film [role=option]")
    expect(budget).to_contain_text("Slow 320Fast 800")
    expect(root).to_contain_text("Start here")
    shoot(page, shots, "1-empty-1280-light")

    # a rendered video: its frames on one axis, side by side, the slow ones marked, all on one screen
    button(page, "Render samples").click()
    expect(root).to_contain_text("test_0_0000.mp4: 50 of 64 frames")
    expect(root).to_contain_text("10 also in Slow")
    expect(film).to_have_count(50)
    assert root.locator(".sf-film .sf-slow").count() == 10 and misplaced(page) == []
    box = root.bounding_box()
    assert box["height"] < 690, f"{box['height']} px are more than one screen of JupyterLab at 1280x800"
    sliders = [slider.bounding_box()["width"] for slider in root.locator("input[type=range]").all()]
    assert min(sliders) > 200, sliders

    # over a frame it is enlarged; the arrows move; tokens are drawn over the frame
    film.nth(20).hover()
    expect(root.locator(".sf-pop")).to_contain_text("Frame 20: ")
    film.nth(4).click()
    root.locator(".sf-film").press("ArrowRight")
    expect(root.locator(".sf-about")).to_contain_text("Frame 5: 0.")
    button(page, "Slow tokens").click()
    expect(root.locator(".sf-about")).to_contain_text("32 Slow tokens")
    assert root.locator(".sf-over-frame line").count() > 8
    button(page, "Frame").click()

    # sliders move the budget, and above the context it is red before any compute
    slide(page, "Slow frames", 2, "ArrowLeft")
    expect(budget).to_contain_text("Slow 256Fast 800")
    expect(root).to_contain_text("8 also in Slow")
    choose(page, "Slow pool", "concat")
    choose(page, "Fast grid", "8 × 8")
    slide(page, "Slow frames", 1, "End")
    slide(page, "Frames", 1, "End")
    # 64 frames of the slider's 128: the video has no more
    expect(budget).to_contain_text("8,192 visual tokens")
    expect(budget.locator(".sf-state")).to_contain_text("Above the context of 8,192")
    red = budget.locator(".sf-state").evaluate("e => getComputedStyle(e).color")
    r, g, b = map(int, re.findall(r"\d+", red)[:3])
    assert r > 150 and g < 100 and b < 100, f"{red} is not red"
    expect(button(page, "Ask")).to_be_disabled()
    choose(page, "Slow pool", "spatial_1d_max_pool")
    choose(page, "Fast grid", "2 × 2")
    root.get_by_label("Frames, exactly", exact=True).fill("50")
    root.get_by_label("Slow frames, exactly").fill("10")
    root.get_by_label("Slow frames, exactly").press("Enter")
    expect(budget).to_contain_text("Slow 320Fast 200")

    # ask, by Enter
    question = root.get_by_label("Question", exact=True)
    question.press("Enter")
    card = root.locator(".sf-list .sf-card").first
    expect(card).to_contain_text("visual tokens, ")
    assert card.locator(".sf-answer").inner_text() in ("red", "green", "blue", "yellow", "purple")
    assert card.locator(".sf-chip").all_inner_texts() == ["50 frames", "Slow 10 × spatial_1d_max_pool", "Fast 2×2"]
    shoot(page, shots, "2-asked-1280-light")

    # the answer streams, and Escape stops it
    question.fill("Describe the <b>video</b>.")
    choose(page, "Reply", "description")
    button(page, "Ask").click()
    running = root.locator(".sf-running .sf-answer")
    expect(running).to_have_text(re.compile(r"^a \w+ \w+"))
    first = running.inner_text()
    expect(running).not_to_have_text(first)
    assert running.inner_text().startswith(first), "it goes on word by word"
    question.press("Escape")
    expect(root.locator(".sf-card[data-number='2']")).to_contain_text("(stopped)")
    expect(root.locator(".sf-card[data-number='2']")).to_contain_text("Describe the <b>video</b>.")
    assert not root.locator("b", has_text="video").count()

    # compare
    question.fill("Which colour flashed last?")
    choose(page, "Reply", "short answer")
    tab(page, "Compare")
    choose(page, "Fast grid", "0 × 0")
    button(page, "Add this setting").click()
    expect(root.locator(".sf-setting")).to_have_count(1)
    choose(page, "Fast grid", "2 × 2")
    button(page, "Add this setting").click()
    button(page, "Compare").click()
    expect(root.locator(".sf-compared .sf-card")).to_have_count(2)
    expect(root.locator(".sf-compared .sf-differs")).to_have_text("Fast 2×2")
    colours = "red|green|blue|yellow|purple"
    said = root.locator(".sf-compared .sf-answer").all_inner_texts()
    assert re.fullmatch(colours, said[0].strip()) and re.fullmatch(rf"(({colours}) ?)+", said[1].strip()), said
    expect(button(page, "Stop")).to_be_disabled()
    shoot(page, shots, "3-compared-1280-light")

    # attention: a map over the frame, bars over time, words, and what is left out on an absolute scale
    tab(page, "Attention")
    button(page, "Show attention").click()
    expect(root.locator(".sf-words button").first).to_have_text("all words")
    expect(root.locator(".sf-attention-lane > div")).to_have_count(50)
    expect(root.locator(".sf-legend").last).to_contain_text("frames of answer 4; highest bar ")
    root.locator(".sf-words button").nth(1).click()
    expect(root.locator(".sf-words button").nth(1)).to_have_attribute("aria-pressed", "true")
    brightest = root.locator(".sf-attention-lane > div").evaluate_all(
        "all => { const high = e => [...e.children].reduce((sum, c) => sum + parseFloat(c.style.height), 0);"
        " return all.map(high).indexOf(Math.max(...all.map(high))); }"
    )
    film.nth(brightest).click()
    painted = "e => e.getContext('2d').getImageData(0, 0, e.width, e.height).data.some(v => v)"
    assert root.locator("canvas").evaluate(painted)
    button(page, "Measure").click()
    expect(root.locator(".sf-effects tbody tr")).to_have_count(2)
    ends = root.locator(".sf-ends span").all_inner_texts()
    values = [
        abs(float(text.replace("−", "-"))) for text in root.locator(".sf-effects tbody .sf-figure").all_inner_texts()
    ]
    whole = root.locator(".sf-effect").first.bounding_box()["width"] / 2
    for bar, value in zip(root.locator(".sf-effect i").all(), values):
        assert bar.evaluate("e => e.getBoundingClientRect().width") == pytest.approx(
            whole * value / float(ends[2]), abs=1
        )
    shoot(page, shots, "4-attention-1280-light")

    # dark, and at other widths
    theme(page, "JupyterLab Dark")
    ink = root.locator(".sf-question").first.evaluate("e => getComputedStyle(e).color")
    assert min(map(int, re.findall(r"\d+", ink)[:3])) > 150, f"{ink} is dark on dark"
    for width in (1280, 1600, 800):
        resize(page, width)
        for number, name in ((4, "Attention"), (3, "Compare"), (2, "Answers")):
            tab(page, name)
            assert misplaced(page) == []
            if "SFLLAVA_SCREENSHOTS" in os.environ:
                shoot(page, shots, f"{number}-{name.lower()}-{width}-dark")
    theme(page, "JupyterLab Light")
    for width in (800, 1600):
        resize(page, width)
        for number, name in ((4, "Attention"), (3, "Compare"), (2, "Answers")):
            tab(page, name)
            if "SFLLAVA_SCREENSHOTS" in os.environ:
                shoot(page, shots, f"{number}-{name.lower()}-{width}-light")
    resize(page, 1280)

    # the video plays
    button(page, "Play").click()
    film_is_on = (
        "() => { const v = document.querySelector('.sfllava video'); return !v.hidden && v.currentTime > 0.2; }"
    )
    page.wait_for_function(film_is_on)
    button(page, "Pause").click()

    # files: the answers, and a page that needs nothing else
    with page.expect_download() as got:
        button(page, "Download as CSV").click()
    assert "Which colour flashed last" in Path(got.value.path()).read_text()
    with page.expect_download() as got:
        button(page, "Save page").click()
    saved = page.context.new_page()
    wanted = []
    saved.on("request", lambda request: wanted.append(request.url))
    saved.set_viewport_size({"width": 1280, "height": 800})
    saved.route("**/*", lambda route: route.fulfill(path=got.value.path(), content_type="text/html"))
    saved.goto("http://saved.invalid/")
    expect(saved.locator(".sf-list .sf-card")).to_have_count(4)
    saved.get_by_role("tab", name="Attention").click()
    saved.locator(".sf-words button").first.click()
    assert saved.locator("canvas").evaluate(painted) and saved.locator(".sf-film img").count() == 50
    assert {address for address in wanted if not address.startswith("data:")} <= {"http://saved.invalid/"}
    saved.screenshot(path=shots / "5-saved.png")
    saved.close()

    # errors: one line next to the field, the trace behind a fold
    root.get_by_label("Video path").fill("gone.mp4")
    button(page, "Open").click()
    wrong = root.locator(".sf-slot[data-field=video]")
    expect(wrong).to_contain_text("gone.mp4: no such video")
    assert not wrong.locator("pre").is_visible()
    wrong.locator("summary").click()
    expect(wrong.locator("pre")).to_contain_text("Traceback")
    assert "gone.mp4" not in root.get_by_label("Recent videos").inner_text()

    # by keyboard: every control is reached, shows it, and says its name
    root.get_by_label("Video path").focus()
    name = """() => { const e = document.activeElement;
      if (!document.querySelector('.sfllava').contains(e)) return '';
      if (parseFloat(getComputedStyle(e).outlineWidth) < 2) return 'no visible focus: ' + e.outerHTML.slice(0, 80);
      return e.getAttribute('aria-label') || e.labels?.[0]?.innerText || e.innerText; }"""
    seen = set()
    for _ in range(60):
        seen.add(page.evaluate(name))
        page.keyboard.press("Tab")
    wanted = {
        "Video path", "Open", "Upload", "Render samples", "Recent videos", "Frames", "Slow frames", "Slow pool",
        "Fast grid", "Method", "Selection", "Prompt", "Question", "Options", "Reply", "New tokens", "Ask", "Answers",
        "Compare", "Attention",
    }  # fmt: skip
    assert wanted <= seen, f"Tab does not reach {wanted - seen}"
    assert not [text for text in seen if text.startswith("no visible focus")]


@pytest.fixture(scope="module")
def minute(tmp_path_factory):
    """A folder with a video of a minute, in which something happens every few seconds, and a scorer."""
    folder = tmp_path_factory.mktemp("minute")
    files = sorted((write_shapesqa(folder / "shapes", videos=8) / "videos").glob("*.mp4"))
    frames = np.concatenate([read_video(path, 64).frames for path in files])
    write_video(folder / "minute.mp4", frames, fps=8)
    write_scorer(folder / "clip", size=64)
    return folder


@pytest.mark.filterwarnings("ignore")
def test_frames_chosen_for_a_question_in_the_browser(page, shots, minute):
    root = page.locator(".sfllava").first
    root.get_by_label("Video path").fill(str(minute / "minute.mp4"))
    root.get_by_label("Video path").press("Enter")
    expect(root).to_contain_text("minute.mp4: 50 of 512 frames")
    for label, value in (("Frames, exactly", "16"), ("Slow frames, exactly", "4")):
        root.get_by_label(label, exact=True).fill(value)
        root.get_by_label(label, exact=True).press("Enter")
    choose(page, "Fast grid", "2 × 2")
    root.get_by_label("Question", exact=True).fill("what is the color of the first shape")
    choose(page, "Selection", "topk")
    wrong = root.locator(".sf-slot[data-field=selection]")
    expect(wrong).to_contain_text("topk needs a scorer: the folder or hub name of a CLIP or SigLIP")
    expect(button(page, "Ask")).to_be_disabled()
    root.get_by_label("Scorer").fill(str(minute / "clip"))
    root.get_by_label("Scorer").press("Enter")
    expect(root).to_contain_text("topk: 16 frames of 64 candidates for this question")
    expect(button(page, "Ask")).to_be_enabled()
    strip = root.locator(".sf-strip")
    expect(strip).to_contain_text("scores of 64 candidates")
    expect(strip.locator(".sf-film img")).to_have_count(16)
    expect(strip.locator(".sf-scores i")).to_have_count(16)
    assert misplaced(page) == [], "frames that are close in time stand side by side"
    button(page, "Ask").click()
    expect(root.locator(".sf-cost").first).to_contain_text("select ")
    shoot(page, shots, "6-chosen-1280-light")
    before = strip.inner_text()
    root.get_by_label("Question", exact=True).fill("what moves up")
    choose(page, "Selection", "bolt")
    root.get_by_label("Rule options").fill("power=2.5")
    root.get_by_label("Rule options").press("Enter")
    choose(page, "Selection for", "Slow frames")
    expect(root).to_contain_text(re.compile(r"bolt:power=2.5: \d frames? of 64 candidates for this question"))
    expect(strip.locator(".sf-scores i.sf-slow").first).to_be_attached()
    assert strip.inner_text() != before
    button(page, "Ask").click()
    expect(root.locator(".sf-card[data-number]").first).to_contain_text("bolt:power=2.5 for slow")
    root.locator(".sf-card[data-number]").first.get_by_role("button", name="Attention").click()
    expect(root.locator(".sf-words button").first).to_have_text("all words")
    theme(page, "JupyterLab Dark")
    resize(page, 800)
    assert misplaced(page) == []
    shoot(page, shots, "7-chosen-800-dark")
    theme(page, "JupyterLab Light")
    resize(page, 1280)
