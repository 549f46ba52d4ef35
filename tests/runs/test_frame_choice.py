"""Runs whose frames are chosen for each question: which frames, that work is shared, what rows say, what goes wrong."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
import torch
from conftest import ROOT
from PIL import Image
from scorers import write_colours, write_scorer
from shell import sfllava
from small_runs import SMALL, log_of, plain, questions_csv, run

from sfllava.aggregators.slowfast import SlowFast
from sfllava.benchmarks import load_benchmark
from sfllava.models.scorer import Scorer, ScorerFolder, similarity
from sfllava.models.video_lm import TransformersVideoLM
from sfllava.runs.frame_choice import _seed
from sfllava.runs.run_folder import read_rows, read_run
from sfllava.runs.score_cache import ScoreCache
from sfllava.runs.selection_source import SelectionSource
from sfllava.sampler.reading import read_video
from sfllava.sampler.sampling import FrameIndices, sample_indices
from sfllava.sampler.selection.selectors import parse_selection
from sfllava.settings import Setting
from sfllava.types import SfllavaError

AGGREGATION = SlowFast(2, "spatial_2d_avg_pool", (2, 2))


@pytest.fixture(scope="module")
def scorer(tmp_path_factory):
    return write_scorer(tmp_path_factory.mktemp("scorer") / "clip")


@pytest.fixture(scope="module")
def long_videos(tmp_path_factory):
    return write_colours(tmp_path_factory.mktemp("long"))


@pytest.fixture
def questions(long_videos, tmp_path):
    return load_benchmark("open", questions_csv(tmp_path / "q.csv", "ab"), long_videos)


@pytest.fixture
def source(scorer, tmp_path):
    return SelectionSource(str(scorer), cache=tmp_path / "scores")


def chosen(rows):
    return {(row["key"], row["setting"]): row["selected"]["frames"] for row in rows}


@pytest.mark.parametrize("kind", ["clip", "siglip"])
def test_a_scorer_compares_as_transformers_does(tmp_path, kind):
    """Features next to transformers' own preprocessing and forward, on frames that are no squares."""
    from transformers import AutoTokenizer, CLIPImageProcessor, CLIPModel, SiglipImageProcessor, SiglipModel

    folder = write_scorer(tmp_path / kind, kind)
    scorer = Scorer(ScorerFolder(folder), "cpu")
    frames = np.random.default_rng(0).integers(0, 256, (5, 60, 91, 3), np.uint8)
    size = {"shortest_edge": 32} if kind == "clip" else {"height": 32, "width": 32}
    processor = {"clip": CLIPImageProcessor, "siglip": SiglipImageProcessor}[kind]
    more = {"crop_size": 32} if kind == "clip" else {}
    pixels = processor(size=size, resample=3, **more)(list(frames), return_tensors="pt")["pixel_values"]
    network = {"clip": CLIPModel, "siglip": SiglipModel}[kind].from_pretrained(folder).eval()
    wanted = network.get_image_features(pixels).pooler_output.detach().numpy()
    assert np.allclose(scorer.image_features(frames), wanted, atol=2e-2 * abs(wanted).max())
    ids = AutoTokenizer.from_pretrained(folder)(
        ["what color is it"], return_tensors="pt", **({"padding": "max_length", "max_length": 16} if kind == "siglip" else {})
    )["input_ids"]  # fmt: skip
    text = network.get_text_features(ids).pooler_output[0].detach().numpy()
    assert np.allclose(scorer.text_features("what color is it"), text, atol=1e-5)
    assert np.isfinite(scorer.text_features("it " * 200)).all()
    cosines = similarity(wanted, text, "cosine")
    assert np.allclose(cosines, [w @ text / np.linalg.norm(w) / np.linalg.norm(text) for w in wanted], atol=1e-5)


def test_frames_answers_and_rows_are_those_of_one_question_at_a_time(
    models, questions, source, scorer, long_videos, tmp_path, monkeypatch
):
    """What a run chooses and answers, next to the plain way: score all, choose, read those frames, encode, answer."""
    encoded = []
    encode = TransformersVideoLM.encode
    monkeypatch.setattr(
        TransformersVideoLM, "encode", lambda self, frames: encoded.append(len(frames)) or encode(self, frames)
    )
    settings = [
        Setting(6, AGGREGATION, selection="topk"),
        Setting(6, AGGREGATION, selection="bolt"),
        Setting(6, AGGREGATION, selection="bolt", selection_for="slow"),
        Setting(6, AGGREGATION, selection="aks", selection_for="both"),
        Setting(6, AGGREGATION),
    ]
    rows = list(read_rows(run(models(), questions, tmp_path / "run", settings, selection=source).path))
    assert len(rows) == 8 * 5 and not any(row["error"] for row in rows)
    # AKS gives int(6 / 2^d) frames of each segment: all others have as many tokens as uniform frames
    tokens = {row["visual_tokens"] for row in rows if "aks" not in row["setting"]}
    assert tokens == {s.token_count() for s in settings} and len(tokens) == 1
    said = {(row["key"], row["setting"]): row for row in rows}
    loaded = Scorer(ScorerFolder(scorer), "cpu")
    used = {name: set(sample_indices(96, 6).tolist()) for name in "ab"}
    for question in questions.questions:
        path = long_videos / f"{question.video}.mp4"
        candidates = read_video(path, Setting(99, frame_rule="fps:1").sample, size=32)
        assert candidates.indices.tolist() == list(range(0, 96, 4))
        text = loaded.text_features(question.text)
        scores = similarity(loaded.image_features(candidates.frames), text, "cosine")
        for setting in settings:
            row = said[question.key, setting.name]
            uniform = sample_indices(96, 6).tolist()
            if not setting.question_aware:
                assert "selected" not in row
                fast, slow = uniform, [uniform[i] for i in (0, 3)]
            else:

                def pick(n, setting=setting, scores=scores):
                    return [4 * i for i in parse_selection(str(setting.selection)).choose(scores, n).tolist()]

                fast = uniform if setting.selection_for == "slow" else pick(6)
                slow = [fast[i] for i in (0, 3)] if setting.selection_for == "all" else pick(2)
                selected = row["selected"]
                assert selected["frames"] == (fast if setting.selection_for == "all" else slow)
                assert selected["scorer"] == ScorerFolder(scorer).fingerprint and selected["text"] == "question"
                wanted = [scores[i // 4] for i in selected["frames"]]
                assert np.allclose(selected["scores"], wanted, atol=1e-4) and selected["candidates"] == 24
            used[question.video] |= {*fast, *slow}
            if question.id == "up":  # the plain way takes a while
                frames = read_video(path, FrameIndices(tuple(range(96))), size=(336, 336)).frames
                parts = AGGREGATION.slow_tokens, AGGREGATION.fast_tokens
                grids = [encode(models(), frames[indices]) for indices in (slow, fast)]
                plainly = torch.cat([part(grid) for part, grid in zip(parts, grids)])
                (alone,) = models().answer(plainly, [question], max_new_tokens=6, share_prefix=False)
                assert tuple(row["token_ids"]) == alone.token_ids and row["visual_tokens"] == len(plainly)
    # each frame that any question uses is encoded once, all together
    assert encoded[:2] == [len(used["a"]), len(used["b"])] and len(encoded) == 2
    identity = read_run(tmp_path / "run")["identity"]
    assert identity["selection"] == {"scorer": ScorerFolder(scorer).fingerprint, "text": "question"}
    assert identity["settings"][2]["selection_for"] == "slow" and "selection" not in identity["settings"][4]
    assert len({str(frames) for frames in chosen(r for r in rows if "selected" in r).values()}) > 4


@pytest.mark.parametrize("rule", ["qframe", "topk"])
def test_tiers_have_the_frames_of_each_rank(models, questions, source, scorer, long_videos, tmp_path, rule):
    """The best frame whole, the next two at half, the next four at a quarter of the sides, in the order of time."""
    setting = Setting(7, "tiers-1_2_4", selection=rule)
    rows = list(read_rows(run(models(), questions, tmp_path / "run", setting, selection=source).path))
    assert {row["visual_tokens"] for row in rows} == {576 + 2 * 144 + 4 * 36} == {setting.token_count()}
    loaded, orders = Scorer(ScorerFolder(scorer), "cpu"), set()
    selection = parse_selection(rule)
    for question, row in zip(questions.questions, sorted(rows, key=lambda row: int(row["key"].split("/")[1]))):
        candidates = read_video(long_videos / f"{question.video}.mp4", selection.selector.candidates, size=32)
        kind = selection.selector.similarity
        scores = similarity(loaded.image_features(candidates.frames), loaded.text_features(question.text), kind)
        best = [set(candidates.indices[selection.choose(scores, n, _seed(question))].tolist()) for n in (1, 3, 7)]
        said = dict(zip(row["selected"]["frames"], row["selected"]["tiers"]))
        assert [{i for i, tier in said.items() if tier <= k} for k in range(3)] == best
        assert list(said) == sorted(said) and best[0] < best[1] < best[2]
        orders.add(tuple(said.values()))
        if question.id == "up":
            grid = models().encode(read_video(long_videos / f"{question.video}.mp4", FrameIndices(tuple(said))).frames)
            frames = []
            for patches, tier in zip(grid, said.values()):
                side = 24 >> tier
                frames.append(patches.reshape(side, 24 // side, side, 24 // side, -1).mean((1, 3)).flatten(0, 1))
            (alone,) = models().answer(torch.cat(frames), [question], max_new_tokens=6, share_prefix=False)
            assert tuple(row["token_ids"]) == alone.token_ids
    assert len(orders) > 1


def test_tiers_need_ranks():
    with pytest.raises(SfllavaError, match="tiers-1_2 needs a selection that ranks frames, such as topk or qframe"):
        Setting(4, "tiers-1_2", selection="bolt")
    with pytest.raises(SfllavaError, match="selection for both needs an aggregation with a Slow and a Fast pathway"):
        Setting(4, "tiers-1_2", selection="topk", selection_for="both")


def test_equal_selections_share_a_prefix(models, questions, tmp_path, monkeypatch):
    """Of four questions of a video, three have the same frames: two prefixes."""
    frames = {q.key: [0, 40, 80] if q.id != "up" else [8, 9] for q in questions.questions}
    listed = {video: {q.key: frames[q.key] for q in questions.questions if q.video == video} for video in "ab"}
    (tmp_path / "list.json").write_text(json.dumps(listed))
    batches = []
    answer = TransformersVideoLM.answer_batch
    monkeypatch.setattr(
        TransformersVideoLM,
        "answer_batch",
        lambda self, videos, **more: batches.append([len(list(q)) for _, q in videos]) or answer(self, videos, **more),
    )
    setting = Setting(3, SMALL.aggregation, "mine", selection="listed")
    source = SelectionSource(frame_list=tmp_path / "list.json")
    rows = list(read_rows(run(models(), questions, tmp_path / "run", setting, selection=source).path))
    assert batches == [[3, 1, 3, 1]]
    assert chosen(rows) == {(key, "mine"): found for key, found in frames.items()}
    assert {len(row["selected"]["frames"]) for row in rows} == {2, 3} == {row["frames"] for row in rows}
    assert "scores" not in rows[0]["selected"]


def test_scores_are_computed_once(models, questions, source, tmp_path, monkeypatch):
    settings = [Setting(4, AGGREGATION, selection=name) for name in ("topk", "qframe")]
    first = run(models(), questions, tmp_path / "one", settings, selection=source)
    files = {path: path.read_bytes() for path in (tmp_path / "scores").rglob("*.npz")}
    assert len(files) == 2 * 2 + 8 * 2  # features and scores for both kinds of candidates

    def fail(*_):
        raise AssertionError("a scorer was loaded")

    with monkeypatch.context() as patched:
        patched.setattr(Scorer, "__init__", fail)
        again = run(models(), questions, tmp_path / "two", settings, selection=source)
    assert plain(read_rows(first.path)) == plain(read_rows(again.path))
    # damaged entries are computed again, and a warning says so
    for i, path in enumerate(files):
        whole = bytearray(files[path])
        whole[whole.rindex(b"PK\x01\x02") + 6] = 255  # a version of the format that nobody reads
        path.write_bytes(whole if i % 2 else whole[: len(whole) // 2])
    third = run(models(), questions, tmp_path / "three", settings, selection=source)
    assert plain(read_rows(first.path)) == plain(read_rows(third.path))
    assert log_of(third.path).count("cannot be read, computed again") == 1
    assert {path: path.read_bytes() for path in (tmp_path / "scores").rglob("*.npz")}.keys() == files.keys()


def test_a_folder_of_scores_that_is_full_costs_nothing(models, questions, source, tmp_path, monkeypatch):
    setting = Setting(4, AGGREGATION, selection="topk")
    whole = run(models(), questions, tmp_path / "one", setting, selection=source)

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(np, "savez", full)
    other = SelectionSource(source.scorer, cache=tmp_path / "full")
    done = run(models(), questions, tmp_path / "two", setting, selection=other)
    assert plain(read_rows(whole.path)) == plain(read_rows(done.path))
    assert log_of(done.path).count("scores cannot be kept: No space left on device") == 1


def test_a_video_that_cannot_be_scored_keeps_its_uniform_settings(models, source, tmp_path):
    """Images have no frame rate, by which candidates are chosen."""
    (tmp_path / "videos/a").mkdir(parents=True)
    for i in range(6):
        Image.new("RGB", (40, 40), (40 * i, 0, 0)).save(tmp_path / f"videos/a/{i}.jpg")
    asked = load_benchmark("open", questions_csv(tmp_path / "q.csv", "a", 2), tmp_path / "videos")
    settings = [Setting(4, AGGREGATION, "uniform"), Setting(4, AGGREGATION, "topk", selection="topk")]
    rows = list(read_rows(run(models(), asked, tmp_path / "run", settings, selection=source).path))
    assert len(rows) == 4 and [row["setting"] for row in rows if not row["error"]] == ["uniform"] * 2
    assert all("has no frame rate" in row["error"] for row in rows if row["setting"] == "topk")


def test_two_writers_of_one_entry(tmp_path):
    """Each reads a whole entry at any time, its own or the other's."""
    script = (
        "import sys, numpy as np; from sfllava.runs.score_cache import ScoreCache; cache = ScoreCache(sys.argv[1])\n"
        "for _ in range(100):\n"
        "    cache.put('ab' * 32, {'scores': np.full(50_000, float(sys.argv[2]))})\n"
        "    assert len(set(cache.get('ab' * 32)['scores'].tolist())) == 1\n"
    )
    words = [sys.executable, "-c", script, str(tmp_path / "c")]
    running = [subprocess.Popen([*words, value], cwd=ROOT, stderr=subprocess.PIPE, text=True) for value in "12"]
    assert [process.communicate()[1] for process in running] == ["", ""]
    assert [path.suffix for path in (tmp_path / "c").rglob("*") if path.is_file()] == [".npz"]
    (tmp_path / "file").write_text("x")
    with pytest.raises(SfllavaError, match="cannot be used as a folder of scores: it is a file"):
        ScoreCache(tmp_path / "file")


def test_frames_outside_a_video_fail_alone(models, questions, tmp_path):
    keys = [q.key for q in questions.questions]
    listed = {"a": {keys[0]: [0, 9000], keys[1]: [5, 3]}, "b": {key: [1] for key in keys[4:]}}
    (tmp_path / "list.json").write_text(json.dumps(listed))
    setting = Setting(3, SMALL.aggregation, selection="listed")
    source = SelectionSource(frame_list=tmp_path / "list.json")
    rows = {r["key"]: r for r in read_rows(run(models(), questions, tmp_path / "r", setting, selection=source).path)}
    assert len(rows) == 8 and [key for key in keys if rows[key]["error"]] == [keys[0], keys[2], keys[3]]
    few = run(models(), questions, tmp_path / "few", replace(setting, frames=1), selection=source)
    assert "needed at most 1 frames of the list, got 2" in str(list(read_rows(few.path)))
    assert "needs frame 9000, and video a has frames 0 to 95" in rows[keys[0]]["error"]
    assert "no frames for question" in rows[keys[2]]["error"] and rows[keys[1]]["selected"]["frames"] == [3, 5]


def test_more_frames_than_candidates(models, questions, source, tmp_path):
    settings = [Setting(30, AGGREGATION, name, selection=name) for name in ("topk", "bolt")]
    done = run(models(), questions, tmp_path / "run", settings, selection=source, limit=1)
    assert [row["frames"] for row in read_rows(done.path)] == [24, 30]
    assert "a: topk: 30 frames of 24 candidates: all are taken" in log_of(done.path)


def test_what_is_missing_is_said_before_anything_is_done(models, questions, checkpoints, scorer, tmp_path):
    needs = Setting(4, AGGREGATION, selection="topk")
    (tmp_path / "f.json").write_text('{"z": {"1": [1]}}')
    for setting, source, wanted in (
        (needs, SelectionSource(), "selection topk needs a scorer: pass --scorer"),
        (needs, SelectionSource(str(checkpoints())), "needed a scorer of type clip or siglip, got 'llava_next'"),
        (needs, SelectionSource(str(tmp_path / "none")), "no such scorer folder; needed a scorer folder or a hub name"),
        (needs, SelectionSource(str(scorer), text="all"), "must be question or options, got 'all'"),
        (Setting(selection="listed"), SelectionSource(), "needs a list of frames: pass --frame-list FILE"),
        (Setting(selection="listed"), SelectionSource(frame_list=tmp_path / "f.json"), "are for other questions"),
    ):
        with pytest.raises(SfllavaError, match=wanted) as error:
            run(models(), questions, tmp_path / "run", setting, selection=source)
        assert "\n" not in str(error.value) and not (tmp_path / "run").exists()
    with pytest.raises(SfllavaError, match="selection for slow needs an aggregation with a Slow and a Fast pathway"):
        Setting(4, "concat", selection="topk", selection_for="slow")


def test_earlier_runs_resume_and_a_new_scorer_does_not(models, questions, source, tmp_path):
    run(models(), questions, tmp_path / "run", Setting(4, AGGREGATION))
    assert "selection" not in read_run(tmp_path / "run")["identity"]
    setting = Setting(4, AGGREGATION, selection="topk")
    run(models(), questions, tmp_path / "run", [Setting(4, AGGREGATION), setting], selection=source)
    assert len(list(read_rows(tmp_path / "run"))) == 16
    run(models(), questions, tmp_path / "chosen", setting, selection=source)
    before = list(read_rows(tmp_path / "chosen"))
    run(models(), questions, tmp_path / "chosen", setting, selection=source)
    assert list(read_rows(tmp_path / "chosen")) == before
    other = SelectionSource(str(write_scorer(tmp_path / "other", seed=9)), cache=source.cache)
    with pytest.raises(SfllavaError, match="scorer"):
        run(models(), questions, tmp_path / "chosen", setting, selection=other)


def test_from_the_command_line(checkpoints, scorer, long_videos, tmp_path):
    csv = questions_csv(tmp_path / "q.csv", "a", 2)
    words = ("evaluate", "open", "--questions", csv, "--videos", long_videos, "--model", checkpoints(), "--frames", 4)
    words += ("--aggregation", str(AGGREGATION), "--max-new-tokens", 2, "--out", tmp_path / "run")
    words += ("--selection", "uniform", "bolt:power=2.5", "--selection-for", "slow")
    failed = sfllava(*words)
    assert failed.returncode == 1 and failed.stderr.strip().endswith("such as openai/clip-vit-large-patch14")
    done = sfllava(*words, "--scorer", scorer, "--score-cache", tmp_path / "scores")
    assert done.returncode == 0, done.stderr
    names = [s["name"] for s in read_run(tmp_path / "run")["identity"]["settings"]]
    assert names == [f"4frms-{AGGREGATION}", f"4frms-bolt:power=2.5-for-slow-{AGGREGATION}"]
    assert len(list(read_rows(tmp_path / "run"))) == 4
