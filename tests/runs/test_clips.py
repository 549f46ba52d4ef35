"""Questions about clips, and with subtitles, from the question file to the prompt, on real clips with the tiny model."""

from __future__ import annotations

import csv
from dataclasses import replace

import numpy as np
import pytest
from shell import sfllava

from sfllava.benchmarks import load_benchmark
from sfllava.benchmarks.subtitles import read_subtitles
from sfllava.models.base import ModelInfo
from sfllava.runs import worker
from sfllava.runs.ask import ask
from sfllava.runs.check import check
from sfllava.runs.evaluate import evaluate
from sfllava.runs.identity import job_name, job_of, question_of
from sfllava.runs.jobs import make_row
from sfllava.runs.run_folder import read_rows, read_run
from sfllava.sampler.reading import read_video
from sfllava.settings import Setting
from sfllava.types import Clip, Question, SfllavaError

RAFT, GYM, PANDA = "QzulzuWr0Zw_20_45", "rlQ2kW-FvMk_66_79", "ysTmUTQ5wZE_17_45"
SECONDS = {RAFT: 25.07, GYM: 13.01, PANDA: 27.6}
SMALL = Setting(8, "slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2")
BOUNDS = {
    "c1": (RAFT, 5, 9),
    "c2": (RAFT, 15.5, None),
    "c3": (RAFT, None, 2),
    "c4": (RAFT, 40, 50),
    "c5": (GYM, 10, 60),
    "c6": (PANDA, None, None),
}


@pytest.fixture
def questions(tmp_path):
    """A user's file with bounds: four clips of one video, one of them outside the video, and one that ends after it."""
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["question_id", "video_name", "question", "answer", "a0", "a1", "start", "end", "subtitles"])
        for key, (video, start, end) in BOUNDS.items():
            bounds = ["" if bound is None else bound for bound in (start, end)]
            write.writerow([key, video, "what is it?", "a dog", "a raft", "a dog", *bounds, f"{video}.srt"])
    return tmp_path / "mine.csv"


@pytest.fixture
def decoded(monkeypatch):
    """The decoded video of each job, by the name of the job."""
    found = {}

    class Spy(worker.EncodedVideo):
        def __init__(self, model, job, video):
            found[job.video] = video
            super().__init__(model, job, video)

    monkeypatch.setattr(worker, "EncodedVideo", Spy)
    return found


def test_frames_are_those_of_the_clip(shared, tiny, questions, decoded, tmp_path):
    benchmark = load_benchmark("choice", questions, shared / "clips")
    evaluate(tiny, benchmark, [SMALL, Setting(4, SMALL.aggregation, "four")], tmp_path / "run", max_new_tokens=2,
             progress=False)  # fmt: skip
    assert len(decoded) == 5  # all clips except the one outside its video
    seen = []
    for key, (name, start, end) in BOUNDS.items():
        if key == "c4":
            continue
        clip = None if start is end is None else Clip(start, end)
        video = decoded[f"{name}, {clip}" if clip else name]
        half = 0.5 / video.fps
        assert len(video.indices) >= 8
        assert video.pts_seconds.min() >= (start or 0) - half
        assert video.pts_seconds.max() <= min(end or 99, SECONDS[name]) + half
        seen.append(video.frames)
    # the middle of the first clip is not the middle of the whole video, so the pixels differ too
    assert not any(np.array_equal(seen[0], other) for other in seen[1:])
    rows = {(row["id"], row["setting"]): row for row in read_rows(tmp_path / "run")}
    assert len(rows) == 12 and {row["frames"] for row in rows.values() if not row["error"]} == {4, 8}
    for (key, _), row in rows.items():
        assert bool(row["error"]) == (key == "c4")
    assert rows["c1", SMALL.name]["clip"] == {"start": 5.0, "end": 9.0} and "clip" not in rows["c6", SMALL.name]


def test_on_the_command_line_only_the_clip_outside_its_video_fails(shared, questions, tmp_path):
    where = ("choice", "--questions", questions, "--videos", shared / "clips")
    checked = sfllava("check", *where)
    assert checked.returncode == 1 and "found and readable 3, missing 0" in checked.stdout
    outside = f"outside: {RAFT}: the clip from 40 s to 50 s is outside the video, which has 25.0667 s (1 questions)"
    assert outside in checked.stdout
    assert "truncated: 1 clips that end after their video" in checked.stdout
    options = ("--model", "tiny", "--frames", 8, "--aggregation", SMALL.aggregation, "--max-new-tokens", 2)
    done = sfllava("evaluate", *where, *options, "--out", tmp_path / "run")
    assert done.returncode == 0, done.stderr
    assert "6 questions, 5 answered, 1 failed" in done.stdout and f"failed 1 x: {shared}" in done.stdout
    (failed,) = [row for row in read_rows(tmp_path / "run") if row["error"]]
    assert failed["id"] == "c4" and "clip from 40 s to 50 s is outside the video" in failed["error"]


SRT = """1
00:00:00,000 --> 00:00:01,500
<font color="white">before the raft</font>

2
00:00:05,500 --> 00:00:07,000
we paddle {hard}

3
00:00:07,350 --> 00:00:07,650
too short to be seen

4
00:00:08,000 --> 00:00:30,000
<i>the river</i> bends
"""


def test_the_prompt_has_the_subtitles_of_the_sampled_frames(shared, tiny, questions, decoded, tmp_path, monkeypatch):
    subtitles = tmp_path / "subtitles"
    subtitles.mkdir()
    (subtitles / f"{RAFT}.srt").write_text(SRT)
    (subtitles / f"{PANDA}.srt").write_text("broken")
    texts = {}
    prompt_ids = ModelInfo.prompt_ids

    def spy(self, question, prompt=None):
        ids = prompt_ids(self, question, prompt)
        texts[question.id] = "".join(prompt.pieces(question))
        return ids

    monkeypatch.setattr(ModelInfo, "prompt_ids", spy)
    benchmark = load_benchmark("choice", questions, shared / "clips", subtitles=subtitles)
    evaluate(tiny, benchmark, SMALL, tmp_path / "run", max_new_tokens=2, progress=False, subtitles=True)
    plain = texts["c5"]
    assert texts["c6"] == texts["c4"] == plain and "Subtitles" not in plain

    def shows(*lines):
        return plain.replace("\n", "\n".join(["", "Subtitles of the video:", *lines, ""]), 1)

    assert texts["c1"] == shows("we paddle {hard}", "the river bends")
    assert texts["c2"] == shows("the river bends") and texts["c3"] == shows("before the raft")
    # no sampled frame of 5 to 9 s is between 7.35 and 7.65 s
    seconds = decoded[f"{RAFT}, 5 s to 9 s"].pts_seconds
    covered = [s.text for s in read_subtitles(subtitles / f"{RAFT}.srt") if any(s.start <= t <= s.end for t in seconds)]
    assert covered == ["we paddle {hard}", "the river bends"] and len(seconds) == 8
    rows = {row["id"]: row for row in read_rows(tmp_path / "run")}
    assert rows["c1"]["subtitles"] == 2 and rows["c2"]["subtitles"] == 1 and "subtitle_error" not in rows["c1"]
    # a question whose subtitles are missing is asked without them, and its row has the reason
    assert f"{GYM}.srt: no such subtitle file in {subtitles}" in rows["c5"]["subtitle_error"]
    assert f"{PANDA}.srt: has no subtitles" in rows["c6"]["subtitle_error"]
    assert all(rows[key]["prediction"] is not None and not rows[key]["error"] for key in ("c5", "c6"))
    found = check(benchmark, progress=False)
    assert "subtitles  2 of 3 files" in str(found) and f"unreadable subtitles: {subtitles}/{PANDA}.srt" in str(found)


def test_a_run_lists_flawed_questions(shared, tiny, tmp_path):
    header = "video_id,frame_count,width,height,question,answer,qid,type,a0,a1,a2,a3,a4\n"
    rows = "".join(f"{PANDA},9,4,4,what is {i},{answer},{i},CW,a,b,c,d,e\n" for i, answer in enumerate(("a", "six")))
    (tmp_path / "test.csv").write_text(header + rows)
    benchmark = load_benchmark("nextgqa", tmp_path / "test.csv", shared / "clips")
    result = evaluate(tiny, benchmark, SMALL, tmp_path / "run", max_new_tokens=2, progress=False)
    scores = result.scores[SMALL.name]
    assert scores["questions"] == 2 and scores["answered"] == 2
    (flaw,) = read_run(tmp_path / "run")["sessions"][0]["question_flaws"]
    assert flaw.endswith("every reply is wrong: 1 (nextgqa/1)")


def test_clips_with_close_bounds_are_jobs_of_their_own():
    names = {job_name("v", Clip(start, 1300.0)) for start in (1234.561, 1234.562)}
    names |= {job_name("v", clip) for clip in (None, Clip(fps=3.0), Clip(0.5, 2, 3.0), Clip(0.5, 2))}
    assert len(names) == 6 and job_name("v", Clip()) == "v"
    question = Question("what?", "k", "v", clip=Clip(0.5, 2, 3.0))
    row = make_row(question, "s")
    assert job_of(row) == job_name("v", question.clip) and question_of(row) == replace(question, task="open")


def test_each_question_has_the_subtitles_that_it_names(shared, tiny, tmp_path):
    files = tmp_path / "subtitles"
    files.mkdir()
    for language, text in (("en", "hello"), ("de", "hallo")):
        (files / f"{language}.srt").write_text(f"1\n00:00:00,000 --> 00:01:00,000\n{text}\n")
    with (tmp_path / "mine.csv").open("w", newline="") as file:
        write = csv.writer(file)
        write.writerow(["question_id", "video_name", "question", "answer", "subtitles"])
        write.writerows([[n or "none", RAFT, f"what {n}?", "x", n and f"{n}.srt"] for n in ("", "en", "de", "fr")])
    benchmark = load_benchmark("open", tmp_path / "mine.csv", shared / "clips", subtitles=files)
    asked = []
    answer_batch = type(tiny).answer_batch

    def spy(self, batch, **more):
        asked.extend((q.id, q.subtitles) for _, questions in batch for q in questions)
        return answer_batch(self, batch, **more)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(tiny), "answer_batch", spy)
        run = evaluate(tiny, benchmark, SMALL, tmp_path / "run", max_new_tokens=2, progress=False, subtitles=True)
    assert dict(asked) == {"none": "", "en": "hello", "de": "hallo", "fr": ""}
    assert run.scores[SMALL.name]["without_subtitles"] == 1 and "1 asked without subtitles" in str(run)
    # the missing file is there now: its question is asked again, and no other
    (files / "fr.srt").write_text("1\n00:00:00,000 --> 00:01:00,000\nsalut\n")
    before = {row["id"]: row for row in read_rows(tmp_path / "run")}
    again = evaluate(
        tiny, benchmark, SMALL, tmp_path / "run", max_new_tokens=2, progress=False, subtitles=True, retry_failed=True
    )
    rows = {row["id"]: row for row in read_rows(tmp_path / "run")}
    assert rows["fr"]["subtitles"] == 1 and "without_subtitles" not in again.scores[SMALL.name]
    assert [rows[key] == before[key] for key in ("none", "en", "de", "fr")] == [True, True, True, False]


def test_a_run_with_subtitles_needs_some(shared, tiny, questions, tmp_path):
    (tmp_path / "empty").mkdir()
    benchmark = load_benchmark("choice", questions, shared / "clips", subtitles=tmp_path / "empty")
    with pytest.raises(SfllavaError, match="empty: has none of the 3 subtitles of choice"):
        evaluate(tiny, benchmark, SMALL, tmp_path / "run", subtitles=True)
    assert not (tmp_path / "run").exists()
    for name in ("a\0b.srt", "x" * 300 + ".srt", "../mine.csv"):
        with pytest.raises(SfllavaError, match="no such subtitle file"):
            benchmark.find_subtitles(name)


def test_ask_takes_the_frames_of_the_clip(shared, tiny):
    clip = shared / "clips" / f"{RAFT}.mp4"
    result = ask(tiny, clip, [Question("what?", clip=Clip(5, 9))], SMALL, max_new_tokens=2)
    assert result.video.pts_seconds.min() >= 5 and result.video.pts_seconds.max() <= 9
    with pytest.raises(
        SfllavaError, match="different parts of the video: 5 s to 9 s, all of it; ask them one at a time"
    ):
        ask(tiny, clip, [Question("what?", clip=Clip(5, 9)), Question("who?")], SMALL)


def test_settings_with_different_frame_rules_share_one_run(shared, tiny, questions, tmp_path):
    rules = ("published", "lmms-eval", "vlmevalkit", "mvbench", "fps:1,max:500")
    settings = [Setting(8, SMALL.aggregation, frame_rule=rule) for rule in rules]
    benchmark = load_benchmark("choice", questions, shared / "clips")
    evaluate(tiny, benchmark, settings, tmp_path / "run", max_new_tokens=4, progress=False)
    rows = {(row["id"], row["setting"]): row for row in read_rows(tmp_path / "run")}
    assert rows["c6", settings[4].name]["frames"] == 28 and rows["c1", settings[4].name]["frames"] == 5
    for setting in settings:  # as each setting alone answers, each question on its own
        for question in benchmark.questions:
            row = rows[question.id, setting.name]
            if question.id == "c4":
                assert "is outside the video" in row["error"]
                continue
            video = read_video(
                benchmark.find_video(question.video), setting.sample, size=(336, 336), clip=question.clip
            )
            grid = tiny.encode(video.frames)
            (alone,) = tiny.answer(tiny.tokens(setting, grid, video.pts_seconds), [question], max_new_tokens=4)
            assert (row["token_ids"], row["frames"]) == (list(alone.token_ids), len(video.frames)), row


def test_frames_per_second_that_may_fit_are_not_refused_before_decoding(shared, tiny):
    setting = Setting(8, "concat", frame_rule="fps:0.1,max:500")  # 3 frames here, and 500 would not fit
    result = ask(tiny, shared / "clips" / f"{RAFT}.mp4", "what?", setting, max_new_tokens=2)
    assert len(result.video.frames) == 3 and result.visual_tokens == 3 * tiny.info.grid[0] * tiny.info.grid[1]
