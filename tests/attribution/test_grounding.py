"""Grounding end to end: the small model on ShapesQA, where the times of the flashes are known."""

from __future__ import annotations

import csv
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest

from sfllava.attribution.attribution import attribute
from sfllava.attribution.grounding import ground as ground_module
from sfllava.attribution.grounding import ground_video as video_module
from sfllava.attribution.grounding.annotations import read_annotations
from sfllava.attribution.grounding.frame_scores import attention_scores, check_scores, leave_out_scores
from sfllava.attribution.grounding.ground import prepare
from sfllava.attribution.grounding.results import load_grounding, load_tuned, read_rows
from sfllava.attribution.grounding.span_rule import SpanRule
from sfllava.attribution.leave_out import leave_out
from sfllava.benchmarks import load_benchmark
from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.cli import main
from sfllava.models.load import load_model
from sfllava.plots.grounding import timeline
from sfllava.plots.static import save
from sfllava.runs.run_folder import read_rows as read_predictions
from sfllava.sampler.reading import read_video
from sfllava.settings import Setting
from sfllava.types import SfllavaError

# answers all moment questions (see the model card), and samples each two-frame flash once
FAST = Setting(32, "slowfast-slow_0frms_concat-fast_2x2")


@pytest.fixture(scope="module")
def tiny():
    return load_model("tiny", device="cpu")


@pytest.fixture(scope="module")
def splits(tmp_path_factory):
    root = tmp_path_factory.mktemp("shapesqa")
    return {split: write_shapesqa(root / split, n, 1, split) for split, n in (("train", 4), ("test", 10))}


def prepared(model, folder, out, setting=FAST, **options):
    benchmark = load_benchmark("choice", folder / "shapesqa_choice.csv", folder / "videos")
    annotations = read_annotations(folder / "shapesqa_spans.json")
    return prepare(model, benchmark, setting, annotations, out, max_new_tokens=6, **options)


@pytest.fixture(scope="module")
def runs(tiny, splits, tmp_path_factory):
    out = tmp_path_factory.mktemp("runs")
    return {split: prepared(tiny, folder, out / split).run(progress=False) for split, folder in splits.items()}


def command(folder, out, *more):
    files = ("--questions", folder / "shapesqa_choice.csv", "--videos", folder / "videos")
    setting = ("--frames", FAST.frames, "--aggregation", "slowfast-slow_0frms_concat-fast_2x2", "--max-new-tokens", 6)
    spans = () if "--spans" in more else ("--spans", folder / "shapesqa_spans.json")
    return [str(a) for a in ("ground", "choice", *files, "--model", "tiny", *setting, *spans, "--out", out, *more)]


def test_leaving_frames_out_finds_the_flashes_better_than_both_baselines(runs):
    results = load_tuned(runs["test"], runs["train"])
    assert results.rules["leave-out"].window == 1, "a flash is in one sampled frame"
    values = results.table.set_index(["predictor", "metric"])["value"]
    assert values["leave-out", "Acc@QA"] >= 90 and values["leave-out", "mIoU"] > 50 and values["leave-out", "mIoP"] > 60
    assert values["whole video", "mIoU"] == pytest.approx(100 * 0.25 / 8)
    gaps = results.differences.set_index(["predictor", "baseline", "metric"])
    for baseline in ("whole video", "centre half"):
        for which in ("Acc@GQA", "mIoP", "mIoU"):
            gap = gaps.loc[("leave-out", baseline, which)]
            assert gap["low"] > 0 and gap["significant"], (baseline, which, gap)
    # a property of this model, not a requirement: it attends to the flash the least
    assert values["attention", "mIoU"] < values["leave-out", "mIoU"]


def test_each_question_has_its_scores_and_spans(runs, splits):
    rows = read_rows(runs["test"])
    spans = json.loads((splits["test"] / "shapesqa_spans.json").read_text())
    with (splits["test"] / "shapesqa_choice.csv").open(newline="") as file:
        asked = {row["question_id"]: row for row in csv.DictReader(file)}
    wanted = {(video, qid) for video, entry in spans.items() for qid in entry["location"]}
    assert {(row["video"], row["qid"]) for row in rows} == wanted and len(rows) == len(wanted)
    for row in rows:
        assert row["spans"] == spans[row["video"]]["location"][row["qid"]] and row["duration"] == 8
        assert len(row["frame_edges"]) == 33 and all(len(scores) == 32 for scores in row["frame_scores"].values())
        assert row["frame_edges"][0] == 0 and row["frame_edges"][-1] == 8
        letter = "ABCD"[[asked[row["qid"]][f"a{i}"] for i in range(4)].index(asked[row["qid"]]["answer"])]
        assert row["right"] == (row["prediction"].strip() == letter)


def test_scores_are_those_of_attribution(tiny, runs, splits):
    """The first row, computed again from a single question."""
    row = read_rows(runs["test"])[0]
    benchmark = load_benchmark("choice", splits["test"] / "shapesqa_choice.csv", splits["test"] / "videos")
    question = next(q for q in benchmark.questions if q.key == row["key"])
    video = read_video(benchmark.find_video(question.video), 32, size=(112, 112))
    grid = tiny.encode(video.frames)
    found = attribute(tiny, video, FAST, question, grid=grid, max_new_tokens=6)
    assert found.text == row["prediction"]
    totals = found.totals()["fast"]
    np.testing.assert_allclose(row["frame_scores"]["attention"], totals / totals.mean() - 1, atol=1e-4)
    falls = dict(leave_out(tiny, found, grid, [f"frame {i}" for i in range(32)]))
    np.testing.assert_allclose(row["frame_scores"]["leave-out"], [-falls[f"frame {i}"] for i in range(32)], atol=1e-3)


def test_token_sources_count_equally_and_a_frame_without_tokens_has_no_score(tiny, splits):
    path = min((splits["test"] / "videos").glob("*.mp4"))
    video = read_video(path, 6, size=(112, 112))
    both = Setting(6, "slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2")
    grid = tiny.encode(video.frames)
    found = attribute(tiny, video, both, "Which colour flashed?", grid=grid)
    slow, fast = found.totals()["slow"], found.totals()["fast"]
    shown = np.flatnonzero(slow)
    assert len(shown) == 2
    wanted = fast / fast.mean() - 1
    wanted[shown] = (wanted[shown] + slow[shown] / slow[shown].mean() - 1) / 2
    np.testing.assert_allclose(attention_scores(found), wanted, atol=1e-6)
    slow_only = Setting(6, "slowfast-slow_2frms_spatial_2d_avg_pool-fast_0x0")
    found = attribute(tiny, video, slow_only, "What colour is the small square?", grid=grid)
    (scores,) = leave_out_scores(tiny, [found], grid)
    hidden = [i for i in range(6) if i not in shown]
    assert not scores[hidden].any() and not attention_scores(found)[hidden].any() and scores[shown].all()


def test_an_interrupted_run_resumes(runs, splits, tmp_path, monkeypatch, capsys):
    done = []
    original = ground_module.ground_video

    def stops(*arguments):
        if len(done) == 2:
            raise KeyboardInterrupt
        done.append(original(*arguments))
        return done[-1]

    monkeypatch.setattr(ground_module, "ground_video", stops)
    assert main(command(splits["train"], tmp_path / "run", "--measure", "attention")) == 130
    assert "run the same command again" in capsys.readouterr().err
    assert len(list(read_predictions(tmp_path / "run"))) == sum(len(one.rows) for one in done) > 0
    assert main(command(splits["test"], tmp_path / "other", "--tune-on", tmp_path / "run")) == 1
    assert "the run is not finished, with" in capsys.readouterr().err
    with (tmp_path / "run" / "predictions.jsonl").open("a") as file:
        file.write('{"key": "half a row')
    monkeypatch.setattr(ground_module, "ground_video", original)
    assert main(command(splits["train"], tmp_path / "run", "--measure", "attention")) == 0
    found, wanted = ({r["key"]: r for r in read_rows(run)} for run in (tmp_path / "run", runs["train"]))
    assert found.keys() == wanted.keys() and len(read_rows(tmp_path / "run")) == len(wanted)
    for key, row in found.items():
        assert row["prediction"] == wanted[key]["prediction"] and row["frame_edges"] == wanted[key]["frame_edges"]
        scores = (one["frame_scores"]["attention"] for one in (row, wanted[key]))
        np.testing.assert_allclose(*scores, atol=1e-4)
        assert list(row["frame_scores"]) == ["attention"]


def test_the_command_writes_tables_and_figures(runs, splits, tmp_path, capsys):
    shutil.copytree(runs["test"], tmp_path / "run")
    assert main(command(splits["test"], tmp_path / "run", "--tune-on", runs["train"], "--tune-by", "mIoU")) == 0
    shown = capsys.readouterr().out
    questions = len(read_rows(runs["test"]))
    assert (
        f"{questions} annotated questions about 10 videos: {questions} answered, 0 failed; all are in the metrics"
        in shown
    )
    assert f"leave-out: window 1, share 0.1 (tuned by mIoU on {len(read_rows(runs['train']))} questions" in shown
    for word in ("Acc@GQA", "IoU@0.5", "whole video", "centre half"):
        assert word in shown
    told = json.loads((tmp_path / "run" / "grounding.json").read_text())
    assert told["rules"]["leave-out"] == {"window": 1, "share": 0.1} and told["tuned"]["by"] == "mIoU"
    with (tmp_path / "run" / "grounding.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == 4 * 8 and {row["missing"] for row in table} == {"0"}
    with (tmp_path / "run" / "spans.csv").open(newline="") as file:
        spans = [row for row in csv.DictReader(file) if row["predictor"] == "leave-out"]
    shares = [float(row["iou"]) for row in spans]
    wanted = next(r for r in table if (r["predictor"], r["metric"]) == ("leave-out", "mIoU"))
    assert len(spans) == questions and float(wanted["value"]) == pytest.approx(100 * np.mean(shares))
    for name in ("grounding", "grounding-example"):
        for kind in ("svg", "pdf", "png"):
            assert (tmp_path / "run" / f"{name}.{kind}").stat().st_size > 2000
    assert "leave-out, mIoU: " in (tmp_path / "run" / "grounding.html").read_text()


def test_dollar_signs_in_a_question_and_a_reply_are_drawn(runs, tmp_path):
    results = load_grounding(runs["test"], SpanRule(1, 0.5))
    row = results.rows[0] | {"question": r"Is it $5 or $\frac{6?", "prediction": r"about $\oops$"}
    figure = timeline(replace(results, rows=[row, *results.rows[1:]]), row["key"])
    assert r"$5 or $\frac{6?" in figure.get_suptitle()
    assert save(figure, tmp_path / "figure.svg").stat().st_size > 2000


def test_failures_and_missing_predictions_count(tiny, runs, splits, tmp_path, capsys):
    """A missing video, a broken video and a span without a question all count as 0."""
    folder = tmp_path / "broken"
    shutil.copytree(splits["train"], folder)
    first, second = sorted((folder / "videos").glob("*.mp4"))[:2]
    first.unlink()
    second.write_bytes(b"no video")
    spans = json.loads((folder / "shapesqa_spans.json").read_text())
    spans[first.stem]["location"]["never asked"] = [[0, 1]]
    spans["other video"] = {"duration": 5, "location": {"x": [[1, 2]]}}
    (folder / "shapesqa_spans.json").write_text(json.dumps(spans))
    assert main(command(folder, tmp_path / "run", "--measure", "leave-out")) == 0
    shown = capsys.readouterr().out
    lost = len(spans[first.stem]["location"]) - 1
    broken = len(spans[second.stem]["location"])
    good = sum(len(spans[path.stem]["location"]) for path in (folder / "videos").glob("*.mp4")) - broken
    total = good + broken + lost + 2
    assert (
        f"{total} annotated questions about 5 videos: {good} answered, {lost + broken + 2} failed; all are in the metrics"
        in shown
    )
    assert "failed 2 x: the question file has no question with this id" in shown
    assert f"leave-out: no span for {lost + broken + 2} questions, which count as 0" in shown
    results = load_grounding(tmp_path / "run", SpanRule(1, 0.5))
    values = results.table.set_index(["predictor", "metric"])
    whole = load_grounding(runs["train"], SpanRule(1, 0.5)).table.set_index(["predictor", "metric"])
    assert values.loc[("leave-out", "mIoU"), "questions"] == total
    assert values.loc[("leave-out", "mIoU"), "value"] < 0.8 * whole.loc[("leave-out", "mIoU"), "value"]
    again = prepared(tiny, folder, tmp_path / "run", measures=("leave-out",)).run(retry_failed=True, progress=False)
    assert len(read_rows(again)) == total
    limited = prepared(tiny, folder, tmp_path / "limited", measures=("leave-out",), limit=2)
    assert len(limited.asked) == 2 and all(item.asked for item in limited.asked)


def test_open_questions_are_grounded_too(tiny, splits, tmp_path):
    benchmark = load_benchmark("shapesqa", root=splits["train"])
    annotations = read_annotations(splits["train"] / "shapesqa_spans.json")
    made = prepare(tiny, benchmark, FAST, annotations, tmp_path, limit=3, measures=("attention",), max_new_tokens=6)
    rows = read_rows(made.run(progress=False))
    assert [row["right"] for row in rows] == [row["prediction"] == row["answer"] for row in rows] and rows[0]["right"]
    assert all(list(row["frame_scores"]) == ["attention"] for row in rows)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (("--spans", "gone.json"), "gone.json: cannot read the file of spans"),
        (("--spans", "late.json"), "question 'q': needed a span inside the video, 0 to 4, got 6 to 7"),
        (("--spans", "foreign.json"), "foreign.json: has no span for any of the"),
        (("--window", 2), "window must be an odd number of frames"),
        (("--share", 0), "share must be above 0"),
        (("--tune-by", "Acc@QA"), "needed a metric of spans to tune by, Acc@GQA, mIoP"),
        (("--tune-on", "TRAIN", "--share", 0.5), "give either --tune-on, or --window and --share"),
        (("--tune-on", "gone"), "gone/run.json: not the run.json of a run"),
        (("--tune-on", "EVALUATED"), "needed the folder of a grounding run"),
        (("--tune-on", "TEST"), "rules must be tuned on other videos than the reported ones, but 10 are in both"),
        (("--tune-on", "TRAIN", "--frames", 16), "needed the same model, setting and prompt to tune on: "),
        (("--aggregation", "temporal_global_pool"), "leave-out needs visual tokens that each come from one frame"),
        (("--limit", 0), "limit must be at least 1, got 0"),
        (("--frames", 5000), "do not fit the context"),
        (("--decoders", 0), "decoders and decode_seconds must be above 0"),
    ],
)
def test_bad_input_is_one_line(tiny, runs, splits, tmp_path, monkeypatch, capsys, more, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "late.json").write_text(json.dumps({"v": {"duration": 4, "location": {"q": [[6, 7]]}}}))
    (tmp_path / "foreign.json").write_text(json.dumps({"v": {"duration": 9, "location": {"q": [[6, 7]]}}}))
    shutil.copytree(runs["train"], tmp_path / "evaluated")
    run = json.loads((tmp_path / "evaluated" / "run.json").read_text())
    del run["identity"]["grounding"]
    (tmp_path / "evaluated" / "run.json").write_text(json.dumps(run))
    names = {"TRAIN": runs["train"], "TEST": runs["test"], "EVALUATED": tmp_path / "evaluated"}
    arguments = command(splits["test"], tmp_path / "run", *(names.get(word, word) for word in more))
    assert main(arguments) == 1
    told = capsys.readouterr().err.strip().splitlines()
    assert len(told) == 1 and message in told[0], told
    assert not (tmp_path / "run").exists()


def test_a_different_command_cannot_resume_the_folder(tiny, runs, splits, tmp_path):
    shutil.copytree(runs["train"], tmp_path / "run")
    with pytest.raises(SfllavaError, match="this folder holds another run") as error:
        prepared(tiny, splits["train"], tmp_path / "run", measures=("leave-out",))
    assert "measures" in str(error.value)


def test_inconsistent_rows(runs, tmp_path):
    shutil.copytree(runs["train"], tmp_path / "run")
    path = tmp_path / "run" / "predictions.jsonl"
    lines = path.read_text().splitlines(keepends=True)
    row = json.loads(lines[1])
    row["frame_edges"].pop()
    path.write_text("".join([lines[0], json.dumps(row) + "\n", *lines[2:]]))
    with pytest.raises(
        SfllavaError, match=r"predictions\.jsonl, line 2: wrong length of frame_scores, frame_edges or spans"
    ):
        read_rows(tmp_path / "run")


def test_unknown_measures_are_named(tiny):
    with pytest.raises(SfllavaError, match=r"needed one or more of the measures attention, leave-out, got \['guess'\]"):
        check_scores(FAST, tiny.info, ["guess"])
    check_scores(Setting(6, "merged-80").for_model(tiny.info), tiny.info, ["attention"])


def test_an_answer_that_cannot_be_scored_still_counts(tiny, splits, tmp_path, monkeypatch):
    """One reply breaks leave-out, and one has attention that is not finite; both are right, and the others have scores."""
    leave_out_of, attention_of = video_module.leave_out_scores, video_module.attention_scores
    whole = read_rows(prepared(tiny, splits["train"], tmp_path / "whole", limit=4).run(progress=False))
    broken, odd = whole[0]["key"], whole[1]["key"]
    assert whole[0]["video"] == whole[1]["video"] and whole[0]["right"] and whole[1]["right"]

    def breaks(model, attributions, *arguments, **options):
        if any(each.question.key == broken for each in attributions):
            raise RuntimeError("CUDA error: out of luck")
        return leave_out_of(model, attributions, *arguments, **options)

    def not_finite(attribution):
        return attention_of(attribution) * (np.nan if attribution.question.key == odd else 1)

    monkeypatch.setattr(video_module, "leave_out_scores", breaks)
    monkeypatch.setattr(video_module, "attention_scores", not_finite)
    run = prepared(tiny, splits["train"], tmp_path / "run", limit=4)
    rows = {row["key"]: row for row in read_rows(run.run(progress=False))}
    assert [(r["prediction"], r["right"], r["error"]) for r in rows.values()] == [
        (r["prediction"], r["right"], None) for r in whole
    ]
    assert rows[broken]["score_errors"] == {"leave-out": "RuntimeError: CUDA error: out of luck"}
    assert rows[odd]["score_errors"] == {"attention": "32 of 32 frame scores are not finite"}
    assert [list(r["frame_scores"]) for r in rows.values()][:2] == [["attention"], ["leave-out"]]
    for row in whole[2:]:
        assert "score_errors" not in rows[row["key"]]
        for measure, scores in row["frame_scores"].items():
            np.testing.assert_allclose(rows[row["key"]]["frame_scores"][measure], scores, atol=1e-3)
    results = load_grounding(tmp_path / "run", SpanRule(1, 0.5))
    values = results.table.set_index(["predictor", "metric"])
    assert values.loc[("leave-out", "Acc@QA"), "value"] == 100 * np.mean([row["right"] for row in whole])
    assert set(values["questions"]) == {4} and values.loc[("leave-out", "mIoU"), "missing"] == 1
    assert "not scored 1 x: attention: 32 of 32 frame scores are not finite" in str(results)
    spans = results.spans.set_index(["predictor", "qid"])
    assert spans.loc[("leave-out", rows[broken]["qid"]), "iou"] == 0
    assert "out of luck" in spans.loc[("leave-out", rows[broken]["qid"]), "error"]
    monkeypatch.undo()
    run = prepared(tiny, splits["train"], tmp_path / "run", limit=4)
    again = {row["key"]: row for row in read_rows(run.run(retry_failed=True, progress=False))}
    assert again.keys() == rows.keys() and not any("score_errors" in row for row in again.values())


def test_scoring_that_fails_for_every_video_stops_the_run(tiny, splits, tmp_path, monkeypatch):
    def breaks(*_, **__):
        raise RuntimeError("CUDA error: device-side assert")

    monkeypatch.setattr(video_module, "attribute_all", breaks)
    with pytest.raises(SfllavaError, match=r"3 videos in a row failed with the same error.*device-side assert"):
        prepared(tiny, splits["train"], tmp_path / "run").run(progress=False)
    assert list(read_predictions(tmp_path / "run")) == []


def test_chosen_frames_are_not_grounded(tiny, splits, tmp_path):
    """Before anything is written; neither is the attention of frames that are not chosen yet."""
    chosen = Setting(8, "slowfast-slow_0frms_concat-fast_2x2", selection="topk")
    with pytest.raises(
        SfllavaError, match="use selection uniform here, and `sfllava evaluate --selection` for"
    ) as error:
        prepared(tiny, splits["test"], tmp_path / "out", chosen)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()
    video = read_video(min((splits["test"] / "videos").glob("*.mp4")), 8, size=(112, 112))
    with pytest.raises(SfllavaError, match="needs frames chosen for the question: use the explorer, or uniform frames"):
        attribute(tiny, video, chosen, "what?")
