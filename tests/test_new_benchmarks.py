"""Every reader with the prompts of every protocol, from the published question files to the tables, on real clips."""

from __future__ import annotations

import json
import shutil

import pytest
from conftest import CLIPS

from sfllava.benchmarks import load_benchmark
from sfllava.cli import main
from sfllava.evaluators.protocols import load_protocol, protocol_names
from sfllava.prompts import pack_prompt
from sfllava.runs.evaluate import evaluate
from sfllava.runs.run_folder import read_rows, read_run
from sfllava.sampler.reading import read_video
from sfllava.sampler.writing import write_video
from sfllava.settings import Setting

SMALL = Setting(8, "slowfast-slow_2frms_spatial_2d_avg_pool-fast_1x1")
PUBLISHED = ["videomme", "longvideobench", "mlvu", "tempcompass", "tempcompass_captioning", "nextgqa"]
JUDGED = ["tempcompass_captioning", "mlvu_open"]


@pytest.fixture(scope="module")
def root(shared, tmp_path_factory):
    """Question files in the original layouts: the published ones if available, otherwise small ones."""
    root = tmp_path_factory.mktemp("root")
    for folder in ("videomme", "longvideobench", "mlvu", "tempcompass", "nextgqa"):
        shutil.copytree(shared / "qa" / folder, root / folder)
    tasks = load_benchmark_tasks()
    row = {"video": "x.mp4", "question": "What is it?", "candidates": ["a dog", "a raft", "a panda"], "answer": "a dog"}
    for i, task in enumerate(tasks):
        bounds = {"start": 1.0, "end": 4.0} if i % 2 else {}
        write(root / "MVBench" / "json" / f"{task}.json", [row | bounds])
    options = {"candidates": ["a", "b", "c", "d", "e", "f"], "answer": "f", "question_type": "count", "duration": 12}
    write(root / "MLVU_Test" / "test-ground-truth" / "test_mcq_gt.json", [row | options | {"question_id": "Q1"}])
    for name, question_type in (("8_sub_scene", "subPlot"), ("9_summary", "summary")):
        spoken = {"question": "What happens?", "answer": "A dog swims.", "question_type": question_type}
        write(root / "MLVU" / "json" / f"{name}.json", [{"video": "x.mp4", "duration": 12} | spoken])
    return root


def load_benchmark_tasks():
    from sfllava.benchmarks import mvbench

    return list(mvbench._TASKS)


def write(path, rows):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(rows))


@pytest.fixture(scope="module")
def clips(shared, tmp_path_factory):
    """The three clips at two small frames per second, since each is decoded dozens of times here."""
    folder = tmp_path_factory.mktemp("clips")
    for name in CLIPS:
        frames = read_video(shared / "clips" / f"{name}.mp4", 24, size=(112, 112)).frames
        write_video(folder / f"{name}.mp4", frames, fps=2)
    return folder


def few(name, root, clips, folder):
    """The benchmark with a few questions; its videos are copies of the three clips."""
    whole = load_benchmark(name, root=root)
    kinds: dict[tuple[str, str], list] = {}
    for question in whole.questions:
        kinds.setdefault((question.task, question.type), []).append(question)
    chosen = [questions[0] for questions in kinds.values()][:12]
    for i, video in enumerate(dict.fromkeys(question.video for question in chosen)):
        path = folder / (video if video.endswith(".mp4") else f"{video}.mp4")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(clips / f"{CLIPS[i % 3]}.mp4", path)
    benchmark = load_benchmark(name, root=root, videos=folder)
    keys = {question.key for question in chosen}
    benchmark.questions = [question for question in benchmark.questions if question.key in keys]
    return benchmark


@pytest.mark.parametrize("name", [*PUBLISHED, "mvbench", "mlvu_test", "mlvu_open"])
def test_every_reader_prompt_and_protocol(name, root, clips, tmp_path, tiny, capsys):
    benchmark = few(name, root, clips, tmp_path / "videos")
    prompts = {}
    for protocol in (None, *protocol_names()):
        out = tmp_path / str(protocol)
        run = evaluate(tiny, benchmark, SMALL, out, protocol=protocol, max_new_tokens=4, progress=False)
        scores, rows = run.scores[SMALL.name], list(read_rows(out))
        assert scores["questions"] == scores["answered"] == len(benchmark.questions) == len(rows), scores["reasons"]
        assert read_run(out)["sessions"][0]["protocol"] == protocol
        prompts[protocol] = read_run(out)["identity"]["prompt"]
        for question in benchmark.questions:  # the prompt contains the question and all its options
            task = question.task
            wording = load_protocol(protocol).wording(name, task) if protocol else None
            prompt = wording.prompt(tiny.info.family, "test") if wording else pack_prompt("tiny", task)
            text = prompt.pieces(question)[1]
            assert question.text in text and all(option in text for option in question.options)
    if name in ("videomme", "mvbench", "mlvu", "tempcompass"):  # these have requests of their own
        assert prompts["official"] != prompts[None] == prompts["strict"]
    capsys.readouterr()
    if name in JUDGED:
        assert main(["protocols", str(tmp_path / "None")]) == 1
        assert "sfllava: " in capsys.readouterr().err
        return
    assert main(["protocols", str(tmp_path / "official"), "--out", str(tmp_path / "tables")]) == 0
    printed = capsys.readouterr().out
    assert all(protocol in printed for protocol in protocol_names())
    assert (tmp_path / "tables" / "protocols.png").stat().st_size > 10_000
