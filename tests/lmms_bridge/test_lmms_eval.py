"""lmms-eval itself, in a separate environment, runs local tasks on real clips with our model, offline.

The environment has lmms-eval and the few packages in requirements.txt. Everything else, such as torch, comes from the
environment of the tests by a .pth file: the same versions give the same answers, and 1.5 GB and minutes are saved.
"""

from __future__ import annotations

import csv
import json
import os
import sqlite3
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest
from conftest import CLIPS, ROOT
from shell import sfllava

from sfllava.analysis.loading import load_results
from sfllava.lmms_bridge.answering import NO_ANSWER, task_prompt
from sfllava.models.load import load_model
from sfllava.runs.ask import ask
from sfllava.runs.run_folder import read_rows, read_run
from sfllava.settings import Setting
from sfllava.types import Question

pytestmark = pytest.mark.slow
AGGREGATION = "slowfast-slow_2frms_spatial_1d_max_pool-fast_4x4"
ARGUMENTS = f"pretrained=tiny,frames=8,aggregation={AGGREGATION}"
TASK = """
task: {task}
dataset_path: json
dataset_kwargs: {{data_files: {{test: {data}}}}}
test_split: test
output_type: generate_until
doc_to_visual: !function utils.{visuals}
doc_to_text: !function utils.text
doc_to_target: !function utils.target
process_results: !function utils.results
generation_kwargs: {{max_new_tokens: {length}, temperature: 0, do_sample: false}}
metric_list: [{{metric: right, aggregation: mean, higher_is_better: true}}]
"""
UTILS = """
import os

from PIL import Image

from sfllava.models.video_lm import TransformersVideoLM


def visuals(doc):
    return [doc["file"]]


def images(doc):
    return [Image.new("RGB", (8, 8))] * 2


def text(doc, lmms_eval_specific_kwargs=None):
    return doc["text"]


def target(doc):
    return doc["target"]


def results(doc, results):
    return {"right": float(results[0] == doc["target"])}


def encode(self, frames, *rest, real=TransformersVideoLM.encode):
    with open(os.environ["ENCODED"], "a") as file:
        print(len(frames), file=file)
    return real(self, frames, *rest)


if TransformersVideoLM.encode.__name__ != "encode" or not hasattr(TransformersVideoLM, "counted"):
    TransformersVideoLM.encode, TransformersVideoLM.counted = encode, True
"""


@pytest.fixture(scope="module")
def lmms_eval(tmp_path_factory):
    """lmms_eval(tasks, out, **environment) -> a finished process of lmms-eval."""
    folder = tmp_path_factory.mktemp("lmms-eval")
    python = folder / "env" / "bin" / "python"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder / "env"], check=True)
    (own,) = (folder / "env").glob("lib/*/site-packages")
    # a folder in a .pth file comes after the folder of the environment
    (own / "tests.pth").write_text(sysconfig.get_path("purelib") + "\n")
    pip = [sys.executable, "-m", "pip", "--python", str(python), "install", "--quiet", "--no-deps"]
    needed = Path(__file__).with_name("requirements.txt")
    try:
        subprocess.run(
            [*pip, "--only-binary", ":all:", "-r", needed], check=True, capture_output=True, text=True, timeout=240
        )
    except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
        last = (str(error.stderr or "").strip() or str(error)).splitlines()[-1]
        pytest.skip(f"lmms-eval cannot be installed here: {last}")
    # the installed package, with its entry point
    subprocess.run([*pip, "--no-build-isolation", "-e", ROOT], check=True, capture_output=True, text=True)

    def run(tasks: Path, names: str, out: Path, **more: str):
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        environment |= {"HF_HUB_OFFLINE": "1", "HF_HOME": str(folder / "hf"), "ENCODED": str(out / "encoded")} | more
        out.mkdir(exist_ok=True)
        command = [python, "-m", "lmms_eval", "--model", "sfllava", "--model_args", ARGUMENTS, "--tasks", names]
        command += ["--include_path", tasks, "--output_path", out, "--log_samples", "--use_cache", out / "cache"]
        return subprocess.run(list(map(str, command)), capture_output=True, text=True, env=environment, timeout=600)

    return run


def write_task(folder, task, documents, length, visuals="visuals"):
    data = folder / f"{task}.jsonl"
    data.write_text("".join(json.dumps(document) + "\n" for document in documents))
    (folder / f"{task}.yaml").write_text(TASK.format(task=task, data=data, length=length, visuals=visuals))
    (folder / "utils.py").write_text(UTILS)


@pytest.fixture(scope="module")
def documents(shared):
    """Documents about the three clips with options, not grouped by clip; and others without options."""
    with (shared / "clips" / "clips_choice.csv").open() as file:
        rows = list(csv.DictReader(file))
    choice = []
    for row in rows[::2] + rows[1::2]:
        options = [row[f"a{i}"] for i in range(5)]
        listed = "\n".join(f"{letter}. {option}" for letter, option in zip("ABCDE", options))
        text, target = f"{row['question']}?\n{listed}\nAnswer:", "ABCDE"[options.index(row["answer"])]
        choice.append({"file": str(shared / "clips" / f"{row['video_name']}.mp4"), "text": text, "target": target})
    texts = ("How many objects are there?\nAnswer:", "What colour is the object that moves?\nAnswer:")
    plain = [{"file": str(shared / "clips" / f"{c}.mp4"), "text": t, "target": "none"} for c in CLIPS for t in texts]
    return choice, plain


def ask_alone(documents, length):
    """The answers of `ask` to each document alone."""
    model = load_model("tiny")
    prompt, setting = task_prompt(model.info.family), Setting(8, AGGREGATION)
    return [
        ask(model, each["file"], [Question(each["text"])], setting, prompt=prompt, max_new_tokens=length).answers[0]
        for each in documents
    ]


def answers(out, task):
    (log,) = out.rglob(f"*_samples_{task}.jsonl")
    return [json.loads(line) for line in log.read_text().splitlines()], log


def test_tasks_run_with_our_model_and_are_imported(lmms_eval, documents, tmp_path):
    choice, plain = documents
    wanted = {"clips_choice": ask_alone(choice, 12), "clips_plain": ask_alone(plain, 3)}
    for document, answer in zip(plain[::2], wanted["clips_plain"][::2]):  # the reference answers of three of the six
        document["target"] = answer.text
    broken = tmp_path / "broken.mp4"
    broken.write_bytes(Path(choice[0]["file"]).read_bytes()[:5000])
    plain = [*plain, {"file": str(broken), "text": "What is it?", "target": "one"}]
    tasks, out = tmp_path / "tasks", tmp_path / "out"
    tasks.mkdir()
    write_task(tasks, "clips_choice", choice, length=12)
    write_task(tasks, "clips_plain", plain, length=3)
    done = lmms_eval(tasks, "clips_choice,clips_plain", out)
    assert done.returncode == 0 and "|clips_choice" in done.stdout, done.stdout[-3000:] + done.stderr[-3000:]

    # each video is encoded once, for both tasks and all questions; the answers are those of `ask`, one by one
    assert (out / "encoded").read_text().splitlines() == ["8"] * 3
    for task, found in wanted.items():
        samples, _ = answers(out, task)
        assert [each["filtered_resps"] for each in samples[:6]] == [answer.text or NO_ANSWER for answer in found]
        lengths = [each["token_counts"][0]["output_tokens"] for each in samples[:6]]
        assert lengths == [len(answer.token_ids) for answer in found]
        assert [each["input"] for each in samples[:6]] == [answer.question.text for answer in found]
    assert len({answer.text for answer in wanted["clips_plain"]}) > 1

    # the unreadable video is named and counted, and stays in every denominator
    assert f"{broken}: 1 request without an answer: " in done.stderr
    assert "1 of 13 requests have no answer" in done.stderr
    samples, log = answers(out, "clips_plain")
    assert samples[-1]["filtered_resps"] == "-" and len(samples) == 7
    with sqlite3.connect(out / "cache" / "cache.db") as cache:  # a second run asks only this request again
        assert cache.execute("SELECT COUNT(*) FROM responses").fetchone() == (12,)
    right = [sample["right"] for sample in samples]
    (results,) = out.rglob("*_results.json")
    scores = json.loads(results.read_text())["results"]
    assert right == [1.0, 0.0] * 3 + [0.0] and scores["clips_plain"]["right,none"] == pytest.approx(3 / 7)

    # import: the run folder has the same answers and scores
    back = sfllava("import", log, "--from", "lmms-eval", "--out", tmp_path / "run")
    assert back.returncode == 0 and "7 samples of task clips_plain about 4 videos, as open" in back.stdout, back.stderr
    rows = list(read_rows(tmp_path / "run"))
    assert [row["prediction"] for row in rows[:-1]] == [sample["filtered_resps"] for sample in samples[:-1]]
    assert "broken.mp4" in rows[-1]["error"] and rows[-1]["prediction"] is None
    assert load_results(tmp_path / "run")["correct"].tolist() == [bool(each) for each in right]
    identity = read_run(tmp_path / "run")["identity"]
    assert identity["settings"][0] == {"name": f"8frms-{AGGREGATION}", "frames": 8, "aggregation": AGGREGATION}
    assert identity["imported"]["source"] == "lmms-eval"
    back = sfllava("import", answers(out, "clips_choice")[1], "--from", "lmms-eval", "--out", tmp_path / "choice")
    assert "6 samples of task clips_choice about 3 videos, as choice" in back.stdout, back.stderr
    assert [row["answer"] for row in read_rows(tmp_path / "choice")][:2] == ["paddling a raft", "a leg exercise"]


def test_images_are_refused_with_one_line(lmms_eval, documents, tmp_path):
    write_task(tmp_path, "clips_images", documents[0][:1], length=3, visuals="images")
    done = lmms_eval(tmp_path, "clips_images", tmp_path / "out")
    line = "task clips_images, document 0: sfllava answers questions about one video: needed one path of a video, got "
    assert f"{line}Image, Image" in done.stdout + done.stderr
    assert not list((tmp_path / "out").rglob("*_results.json")) and not (tmp_path / "out" / "encoded").exists()
