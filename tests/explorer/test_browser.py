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
        context = browser.new_context(viewport={"width": 1280, "height": 3000})
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
    page.locator(".sfllava .js-plotly-plot .main-svg").first.wait_for()  # drawn anew after a change of theme
    page.wait_for_timeout(2000)  # plotly draws behind the kernel's last word
    page.locator(".sfllava").first.screenshot(path=shots / f"{name}.png")


def slide(page, label: str, presses: int, key: str = "ArrowRight") -> None:
    """Move a slider as the keyboard does."""
    handle = page.locator(".sfllava .widget-slider", has=page.get_by_text(label, exact=True)).locator(".noUi-handle")
    handle.focus()
    for _ in range(presses):
        handle.press(key)


def choose(page, label: str, value: str) -> None:
    page.locator(".sfllava .widget-dropdown", has=page.get_by_text(label, exact=True)).locator("select").select_option(
        label=value
    )


def button(page, name: str):
    return page.locator(".sfllava").get_by_role("button", name=name, exact=True)


def wider_than_the_page(page) -> list[str]:
    return page.evaluate(
        """() => { const root = document.querySelector('.sfllava'); const edge = root.getBoundingClientRect().right + 1;
        return [...root.querySelectorAll('button, input, select, textarea, .sf-budget, .sf-answer, .js-plotly-plot')]
          .filter(e => e.offsetParent && e.getBoundingClientRect().right > edge).map(e => e.outerHTML.slice(0, 120)); }"""
    )


@pytest.mark.filterwarnings("ignore")
def test_a_session_in_the_browser(page, shots):
    root = page.locator(".sfllava").first
    expect(root.locator(".sf-budget")).to_contain_text("slow 320, fast 800")

    # a rendered video: the strip, with the slow ones marked, and both pathways' cells
    button(page, "Render samples").click()
    expect(root).to_contain_text("test_0_0000.mp4: 50 of 64 frames")
    expect(root.locator(".js-plotly-plot")).to_contain_text("slow: 10 frames")
    expect(root.locator(".js-plotly-plot")).to_contain_text("Slow: 320 tokens, 32 a frame")
    expect(root.locator(".js-plotly-plot")).to_contain_text("Fast: 800 tokens, 16 a frame")
    assert root.locator(".js-plotly-plot image").count() == 50 + 10 + 10

    # sliders move the budget, and above the context it is red before any compute
    slide(page, "Slow frames", 2, "ArrowLeft")
    expect(root.locator(".sf-budget")).to_contain_text("slow 256, fast 800")
    expect(root.locator(".js-plotly-plot")).to_contain_text("slow: 8 frames")
    choose(page, "Slow pool", "concat")
    choose(page, "Fast grid", "8x8")
    slide(page, "Slow frames", 1, "End")
    slide(page, "Frames", 1, "End")
    # 64 frames of the slider's 128: the video has no more
    expect(root.locator(".sf-budget.sf-over")).to_contain_text("Above the context: 8,192 visual tokens")
    red = root.locator(".sf-budget.sf-over").evaluate("e => getComputedStyle(e).color")
    r, g, b = map(int, re.findall(r"\d+", red)[:3])
    assert r > 150 and g < 100 and b < 100, f"{red} is not red"
    expect(button(page, "Ask")).to_be_disabled()
    shoot(page, shots, "1-above-the-context")
    choose(page, "Slow pool", "spatial_1d_max_pool")
    choose(page, "Fast grid", "2x2")
    slide(page, "Frames", 1, "Home")
    slide(page, "Frames", 49)
    slide(page, "Slow frames", 1, "Home")
    slide(page, "Slow frames", 10)
    expect(root.locator(".sf-budget")).to_contain_text("slow 320, fast 200")
    expect(button(page, "Ask")).to_be_enabled()

    # ask
    button(page, "Ask").click()
    expect(root.locator(".sf-small", has_text="generate")).to_contain_text("visual tokens reused")
    answer = root.locator(".sf-answer").first
    assert answer.inner_text() in ("red", "green", "blue", "yellow", "purple")
    # the strip must have caught up before the picture
    expect(root.locator(".js-plotly-plot")).to_contain_text("Fast: 200 tokens, 4 a frame")
    shoot(page, shots, "2-asked-light")

    # the answer streams, and stops
    question = root.get_by_label("Question")
    question.fill("Describe the <b>video</b>.")
    choose(page, "Reply", "description")
    button(page, "Ask").click()
    expect(answer).to_have_text(re.compile(r"^a \w+ \w+"))
    first = answer.inner_text()
    expect(answer).not_to_have_text(first)
    assert answer.inner_text().startswith(first), "it goes on word by word"
    button(page, "Stop").click()
    expect(root.locator(".sf-small", has_text="generate")).to_contain_text("stopped; ")
    assert (
        root.get_by_text("Describe the <b>video</b>.", exact=True).count()
        and not root.locator("b", has_text="video").count()
    )

    # compare
    question.fill("Which colour flashed last?")
    choose(page, "Reply", "short answer")
    button(page, "Comparison").click()
    choose(page, "Fast grid", "0x0")
    expect(root.locator(".sf-budget")).not_to_contain_text("fast")
    button(page, "Add setting").click()
    expect(root).to_contain_text("Settings to compare (2 to 4): 50frms")
    choose(page, "Fast grid", "2x2")
    expect(root.locator(".sf-budget")).to_contain_text("fast 200")
    button(page, "Add setting").click()
    expect(root).to_contain_text("fast_0x0; 50frms-slowfast-slow_10frms_spatial_1d_max_pool-fast_2x2")
    button(page, "Compare").click()
    expect(root.locator(".sf-side > div")).to_have_count(2)
    expect(root.locator(".sf-side mark").first).to_have_text("fast_2x2")
    shoot(page, shots, "3-compared")

    # where did it look
    button(page, "Where did it look").click()
    button(page, "Look").click()
    attention = root.locator(".js-plotly-plot").nth(1)
    expect(attention).to_contain_text("mean over all words")
    expect(attention).to_contain_text("of the attention, 10 frames")
    expect(attention).to_contain_text("of the attention, 50 frames")
    expect(root).to_contain_text("not which ones made the answer")
    slide(page, "Word", 1)
    expect(attention).to_contain_text("word 1 of")
    button(page, "Measure").click()
    expect(root.locator(".sf-effects tr")).to_have_count(3)  # both pathways, and the heading
    shoot(page, shots, "4-looked-light")
    choose(page, "Leave out", "each frame")
    button(page, "Measure").click()
    expect(root.locator(".sf-effects tr")).to_have_count(53)

    # dark, and narrow
    theme(page, "JupyterLab Dark")
    shoot(page, shots, "5-looked-dark")
    assert attention.bounding_box()["height"] > 400, "the figures are gone in the other theme"
    ink = attention.locator("text").first.evaluate("e => getComputedStyle(e).fill")
    assert min(map(int, re.findall(r"\d+", ink)[:3])) > 150, f"{ink} is dark on dark"
    page.set_viewport_size({"width": 800, "height": 3000})
    page.wait_for_timeout(1000)
    assert wider_than_the_page(page) == []
    shoot(page, shots, "6-looked-narrow-dark")
    theme(page, "JupyterLab Light")
    button(page, "History").click()
    expect(root.locator("a[download='answers.csv']")).to_be_visible()
    expect(root.get_by_label("Notebook cell")).to_have_value(re.compile("Which colour flashed last"))
    assert wider_than_the_page(page) == []
    shoot(page, shots, "7-history-narrow")
    page.set_viewport_size({"width": 1280, "height": 3000})

    # errors: one line, the trace behind a fold
    root.get_by_label("Video path").fill("gone.mp4")
    button(page, "Open").click()
    expect(root.locator(".sf-error")).to_contain_text("gone.mp4: no such video")
    assert not root.locator(".sf-error pre").is_visible()
    root.locator(".sf-error summary").click()
    expect(root.locator(".sf-error pre")).to_contain_text("Traceback")

    # by keyboard: every control is reached, and says its name
    root.get_by_label("Video path").focus()
    name = """() => {
      const e = document.activeElement;
      if (!document.querySelector('.sfllava').contains(e)) return '';
      return (e.closest('.jupyter-widgets')?.innerText || e.innerText).split('\\n')[0].trim();
    }"""
    seen = set()
    for _ in range(60):
        seen.add(page.evaluate(name))
        page.keyboard.press("Tab")
    wanted = {
        "Video path", "Open", "Render samples", "Recent", "Frames", "Slow frames", "Slow pool", "Fast grid", "Method",
        "Selection", "Prompt", "Question", "Options", "Reply", "New tokens", "Ask", "Answer", "Notebook cell",
    }  # fmt: skip
    assert wanted <= seen, f"Tab does not reach {wanted - seen}"


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
    button(page, "Open").click()
    expect(root).to_contain_text("minute.mp4: 50 of 512 frames")
    button(page, "Answer").click()
    slide(page, "Frames", 1, "Home")
    slide(page, "Frames", 15)
    slide(page, "Slow frames", 1, "Home")
    slide(page, "Slow frames", 4)
    choose(page, "Fast grid", "2x2")
    root.get_by_label("Question", exact=True).fill("what is the color of the first shape")
    choose(page, "Selection", "topk")
    expect(root).to_contain_text("topk needs a scorer: the folder or hub name of a CLIP or SigLIP")
    expect(button(page, "Ask")).to_be_disabled()
    shoot(page, shots, "8-no-scorer")
    root.get_by_label("Scorer").fill(str(minute / "clip"))
    root.get_by_label("Scorer").press("Enter")
    expect(root).to_contain_text("topk: 16 frames of 64 candidates for this question")
    expect(button(page, "Ask")).to_be_enabled()
    strip = root.locator(".js-plotly-plot").first
    expect(strip).to_contain_text("score: 64 candidates")
    expect(strip).to_contain_text("chosen: 16 frames")
    expect(strip).to_contain_text("seconds, not to scale")
    assert strip.locator("image").count() == 16 + 4 + 10
    button(page, "Ask").click()
    expect(root.locator(".sf-small", has_text="generate").first).to_contain_text("select ")
    shoot(page, shots, "9-chosen-light")
    before = strip.inner_text()
    root.get_by_label("Question", exact=True).fill("what moves up")
    choose(page, "Selection", "bolt")
    root.get_by_label("Rule options").fill("power=2.5")
    root.get_by_label("Rule options").press("Enter")
    choose(page, "Selection for", "slow")
    expect(root).to_contain_text(re.compile(r"bolt:power=2.5: \d frames? of 64 candidates for this question"))
    expect(strip).to_contain_text("chosen for Slow: ")
    assert strip.inner_text() != before
    shoot(page, shots, "10-chosen-slow")
    button(page, "Ask").click()
    button(page, "Where did it look").click()
    button(page, "Look").click()
    expect(root.locator(".js-plotly-plot").nth(1)).to_contain_text("mean over all words")
    theme(page, "JupyterLab Dark")
    page.set_viewport_size({"width": 800, "height": 3000})
    page.wait_for_timeout(1000)
    assert wider_than_the_page(page) == []
    shoot(page, shots, "11-chosen-narrow-dark")
    page.set_viewport_size({"width": 1280, "height": 3000})
