"""One change, one file: what is added to a copy of the tree is used from the command line, with nothing else edited."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys

import numpy as np
import pytest
from conftest import ROOT
from scorers import write_colours, write_scorer

from sfllava.models.scorer import Scorer, ScorerFolder, similarity
from sfllava.runs.run_folder import read_rows, read_run
from sfllava.runs.verdicts import read_verdicts
from sfllava.sampler.reading import read_video
from sfllava.settings import Setting

FILES = {
    "sfllava/aggregators/every_patch.py": '''
"""Every n-th patch of all frames."""

from __future__ import annotations

from dataclasses import dataclass

from sfllava.aggregators.methods import COUNT, Method


@dataclass(frozen=True)
class EveryPatch:
    step: int

    def __call__(self, grid):
        return grid.flatten(0, 2)[:: self.step]

    def __str__(self):
        return f"every_patch-{self.step}"


METHOD = Method(rf"every_patch-{COUNT}", "every_patch-{STEP}", lambda step: EveryPatch(int(step)))
''',
    "sfllava/sampler/selection/lowest.py": '''
"""The candidates that are least similar to the question."""

import numpy as np

from sfllava.sampler.selection.selectors import Selector


def choose(scores, n, seed=0, skip=0.0):
    return np.sort(np.argsort(scores, kind="stable")[int(skip) : int(skip) + n])


SELECTOR = Selector(choose, "the least similar candidates", {"skip": 0.0})
''',
    "sfllava/models/families/reversed_next.py": '''
"""LLaVA-NeXT whose video runs backwards."""

from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from sfllava.models.llava import LlavaEncoder, LlavaFamily


class Reversed(LlavaEncoder):
    def __call__(self, frames):
        return super().__call__(frames.flip(0))


class ReversedFamily(LlavaFamily):
    def configure(self, config, folder, options):
        return super().configure({**config, "model_type": "llava_next"}, folder, options)


FAMILY = ReversedFamily(LlavaNextForConditionalGeneration, LlavaNextConfig, (), make_encoder=Reversed)
''',
    "sfllava/benchmarks/mine.py": '''
"""Questions of one's own."""

from sfllava.benchmarks.spec import Spec

SPEC = Spec(name="mine", task="open", questions=("mine.csv",), videos=("mine",), rubrics={"": ("kindness",)})
''',
    "sfllava/evaluators/judges/rubrics/kindness.txt": """
needs: question, answer, prediction
reply: correct, score 1 to 10
--- system ---
Be kind.
--- user ---
{question} {answer} {prediction}
""",
    "sfllava/evaluators/judges/generous.py": '''
"""A judge that finds everything right."""

from sfllava.evaluators.judges.base import JudgeKind
from sfllava.types import Verdict


class Generous:
    name, model, concurrency, batch, paid, price = "generous", "generous", 1, 64, False, None
    identity = {"judge": "generous"}

    def check(self, rubric):
        pass

    def tokens(self, request):
        return 0, 0

    async def grade(self, requests):
        return [Verdict(True, score=5.0, judge=self.name, model=self.model) for _ in requests]

    async def close(self):
        pass


JUDGE = JudgeKind(("generous",), "generous: everything is right", lambda name, options: Generous())
''',
    "ablations/steps.py": '''
"""How many patches may be left out?"""

from sfllava import Setting

BENCHMARK = "mine"
SETTINGS = [Setting(4, f"every_patch-{step}", f"every {step}") for step in (4, 9)]
''',
    "figures/rows.py": '''
"""How many rows each setting has."""

from sfllava.plots import Chart, Panel, Series


def draw(results):
    counts = results["name"].value_counts()
    names = list(map(str, counts.index))
    return Chart([Panel("setting", "rows", [Series("rows", names, [float(n) for n in counts], mark="bars")])])
''',
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory, checkpoints, videos):
    """A copy of the tree with one new file of each kind, and a folder with a checkpoint, questions and videos."""
    folder = tmp_path_factory.mktemp("one-file")
    for part in ("sfllava", "ablations", "figures", "notebooks"):
        shutil.copytree(ROOT / part, folder / "tree" / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", folder / "tree")
    for name, text in FILES.items():
        (folder / "tree" / name).write_text(text.lstrip())
    shutil.copytree(checkpoints(), folder / "model")
    config = json.loads((folder / "model/config.json").read_text())
    (folder / "model/config.json").write_text(json.dumps({**config, "model_type": "reversed_next"}))
    (folder / "mine").symlink_to(videos)
    (folder / "mine.csv").write_text("video_name,question,answer\n" + "".join(f"{v},what?,it\n" for v in "abc"))
    return folder


COMMANDS = """
import contextlib, io, json, sys
from sfllava.cli import main

said = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stdout(io.StringIO()) as out:
        status = main(words)
    assert status == 0, words
    said.append(out.getvalue())
"""


def python(folder, code, *arguments):
    """What a new Python, in which the package is that of the tree, prints as JSON."""
    environment = {**os.environ, "PYTHONPATH": str(folder / "tree")}
    line = [sys.executable, "-c", code, *arguments]
    done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def lines(*commands):
    return json.dumps([list(map(str, words)) for words in commands])


def test_each_kind_of_part_is_one_new_file(tree):
    """A method, a family and a benchmark in an ablation, a judge of its run by a rubric, and a figure of both settings."""
    model = ("--model", "model", "--root", ".", "--max-new-tokens", "4", "--rows-only")
    commands = lines(
        ("ablate", "steps", *model, "--out", "run"),
        ("judge", "run", "--judge", "generous"),
        ("verdicts", "run"),
        ("figures", "run", "--only", "rows", "--out", "drawn"),
    )
    _, judged, agreed, made = python(tree, f"{COMMANDS}print(json.dumps(said))", commands)
    run = tree / "run"
    settings = {setting["name"]: setting for setting in read_run(run)["identity"]["settings"]}
    assert [setting["aggregation"] for setting in settings.values()] == ["every_patch-4", "every_patch-9"]
    rows = list(read_rows(run))
    assert len(rows) == 6 and not any(row["error"] for row in rows) and {row["video"] for row in rows} == {*"abc"}
    assert all(row["visual_tokens"] == settings[row["setting"]]["budget"] for row in rows)
    assert read_run(run)["sessions"][0]["layout"] == "transformers"
    assert "6 judged" in judged
    verdicts = list(read_verdicts(run / "verdicts-generous.jsonl"))
    assert all(verdict["correct"] and verdict["rubric"] == "kindness" for verdict in verdicts)
    assert "kindness 100.0 % [" in agreed
    assert "rows.svg" in made and (tree / "drawn/rows.png").stat().st_size > 1000


EXPLORE = """
import sfllava

path, scorer, cache = sys.argv[2:]
source = sfllava.SelectionSource(scorer, cache=cache)
aggregation = "slowfast-slow_2frms_concat-fast_2x2"
explorer = sfllava.explore(sfllava.load_model("tiny"), path, "what is red", sfllava.Setting(3, aggregation), selection=source)
explorer.widget.selection = "lowest"
explorer.widget.rule_options = "skip=1"
explorer.wait()
explorer.ask()
explorer.wait()
names = [trace.name for trace in explorer.figures["frames"].data]
told = explorer.widget.messages["selection"]["text"]
state = {**explorer.state, "names": names, "said": told, "asked": len(explorer.answers)}
print(json.dumps([*said, state]))
"""


def test_a_selector_is_one_new_file(tree):
    """A run with it, a question with it, a plan of it, and the explorer, whose strip shows what it chose."""
    videos, scorer = write_colours(tree / "colours", "a"), write_scorer(tree / "clip")
    (tree / "colours.csv").write_text("video_name,question,answer\na,what is red,it\n")
    chosen = ("--selection", "lowest:skip=1", "--scorer", "clip", "--score-cache", "scores", "--frames", "3")
    shape = ("--aggregation", "slowfast-slow_2frms_concat-fast_2x2", "--model", "tiny", "--max-new-tokens", "2")
    files = ("--questions", "colours.csv", "--videos", "colours")
    commands = lines(
        ("evaluate", "open", *files, *chosen, *shape, "--out", "chosen"),
        ("ask", "colours/a.mp4", "what is red", *chosen, *shape, "--json"),
    )
    _, asked, state = python(tree, COMMANDS + EXPLORE, commands, "colours/a.mp4", "clip", "scores")
    (row,) = read_rows(tree / "chosen")
    selected = row["selected"]
    loaded = Scorer(ScorerFolder(scorer), "cpu")
    frames = read_video(videos / "a.mp4", Setting(99, frame_rule="fps:1").sample, size=32).frames
    scores = similarity(loaded.image_features(frames), loaded.text_features("what is red"), "cosine")
    assert (
        selected["frames"] == sorted(4 * i for i in np.argsort(scores)[1:4].tolist()) and selected["candidates"] == 24
    )
    (answer,) = json.loads(asked)["answers"]
    assert answer["selected"]["frames"] == selected["frames"] and answer["token_ids"] == row["token_ids"]
    assert state["selection"] == "lowest:skip=1" and state["chosen"]["frames"] == selected["frames"]
    assert state["error"] == "" and state["asked"] == 1 and "the least similar candidates" in state["said"]
    assert {"score: 24 candidates", "chosen: 3 frames"} <= set(state["names"])
