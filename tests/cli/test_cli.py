from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from shell import sfllava

from sfllava.aggregators.slowfast import slow_indices
from sfllava.cli import main
from sfllava.runs.journal import hold
from sfllava.sampler.sampling import sample_indices

DATA = Path(__file__).parents[1] / "data"
QUESTIONS = [
    "where are the people?",
    "what is the color of the barrels of the raft?",
    "what do they do?",
    "how many animals are there?",
]


def asked(path, checkpoint, *questions):
    out = sfllava("ask", path, *questions, "--model", checkpoint, "--json", "--max-new-tokens", 16)
    assert out.returncode == 0, out.stderr
    return json.loads(out.stdout)


def test_ask_on_a_real_clip_is_the_same_from_both_layouts_and_one_at_a_time(checkpoints, clip):
    together = asked(clip, checkpoints("vicuna", "transformers"), *QUESTIONS)
    token_ids = [a["token_ids"] for a in together["answers"]]
    assert [a["question"] for a in together["answers"]] == QUESTIONS
    assert together["visual_tokens"] == 3680
    indices = sample_indices(376, 50)
    assert together["frame_indices"] == indices.tolist()
    assert together["slow_indices"] == indices[slow_indices(50, 10)].tolist()
    assert set(together["seconds"]) == {"load", "decode", "encode", "answer"}
    other = asked(clip, checkpoints("vicuna", "original"), *QUESTIONS)
    assert [a["token_ids"] for a in other["answers"]] == token_ids
    assert asked(clip, checkpoints(), QUESTIONS[2])["answers"][0]["token_ids"] == token_ids[2]


def test_ask_in_words(checkpoints, videos, tmp_path):
    (tmp_path / "p.txt").write_text("<video> {question} reply:")
    model = ("--model", checkpoints(), "--frames", 8, "--aggregation", "concat", "--max-new-tokens", 4)
    out = sfllava("ask", videos / "a.mp4", "what is {it}?", *model, "--prompt", tmp_path / "p.txt")
    assert out.returncode == 0 and out.stdout.startswith("what is {it}?\n  ")
    assert "8 of 20 frames, 4608 visual tokens" in out.stderr and "encode" in out.stderr


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("ask", "gone.mp4", "what?", "--model", "MODEL"), "gone.mp4: no such video"),
        (("ask", "VIDEO", "what?", "--model", "MODEL", "--frames", 0), "frames must be a whole number of at least 1, got 0"),
        (("ask", "VIDEO", "what?", "--model", "MODEL", "--aggregation", "fast_4x4"), "no aggregation is called 'fast_4x4'"),
        (("ask", "VIDEO", "what?", "--model", "gone"), "gone: no such checkpoint folder"),
        (("ask", "VIDEO", "what?", "--model", "MODEL", "--aggregation", "concat"), "11520 visual and"),
        (("ask", "VIDEO", "what?", "--model", "MODEL", "--prompt", "gone.txt"), "gone.txt: cannot read the prompt"),
        (("ask", "VIDEO", "what?"), "no model given: pass --model PATH (or set SFLLAVA_MODEL)"),
        (("evaluate", "msvdd", "--root", ".", "--model", "MODEL", "--out", "run"), "no benchmark is called 'msvdd'"),
        (("evaluate", "open", "--questions", "gone.csv", "--videos", ".", "--model", "MODEL", "--out", "run"), "gone.csv: cannot"),
        (("evaluate", "msvd,tgif", "--questions", "q.csv", "--model", "MODEL", "--out", "run"), "found under --root"),
        (("evaluate", "open", "--questions", "OPEN", "--model", "MODEL", "--out", "run"), "no folder of videos was given"),
        (("evaluate", "open", "--questions", "OPEN", "--videos", "VIDEOS", "--model", "MODEL", "--out", "OPEN"), "cannot be used as a run folder"),
        (("ask", "VIDEO", "what?", " ", "--model", "gone"), "question 2 of 2 is empty: ' '"),
        (("ask", "https://host/a.mp4", "what?", "--model", "gone"), "https://host/a.mp4: needed a video on this machine, got a URL"),
        (("ask", "VIDEO", "what?", "--model", "https://huggingface.co/a/b"), "needed a checkpoint folder or a hub name such as"),
        (("ask", "VIDEO", "what?", "--model", "MODEL", "--prompt", "http://host/p.txt"), "needed a prompt's file on this machine, got a URL"),
        (("check", "open", "--questions", "https://host/q.csv"), "https://host/q.csv: needed a question file on this machine, got a URL"),
        (("check", "open", "--questions", "OPEN", "--videos", "s3://bucket/videos"), "s3://bucket/videos: needed a folder of videos on this"),
        (("render", "run", "--videos", 0), "needed at least 1 video and a seed of at least 0, got 0 videos and seed 0"),
        (("render", "run", "--videos", -3), "got -3 videos"),
        (("render", "run", "--seed", -1), "got 40 videos and seed -1"),
        (("check", "open", "--questions", "OPEN", "--videos", "gone"), "gone: no such folder of videos"),
        (("ask", "VIDEO", "what?", "--model", "MODEL", "--device", "foo"), "device must be auto, cpu, cuda or cuda:N"),
        (("ask", "VIDEO", "what?", "--model", "MODEL", "--aggregation", "slowfast-slow_1frms_concat-fast_9999x9999"), "visual and"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line_and_a_status(checkpoints, videos, tmp_path, monkeypatch, arguments, message):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "open.csv").write_text("video_name,question,answer\na,q,x\n")
    names = {"MODEL": checkpoints(), "VIDEO": videos / "a.mp4", "VIDEOS": videos, "OPEN": tmp_path / "open.csv"}
    out = sfllava(*(names.get(a, a) for a in arguments), SFLLAVA_MODEL="")
    assert out.returncode == 1 and out.stdout == ""
    told = ("loading ", "asking ")  # what `ask` does before the error
    lines = [line for line in out.stderr.splitlines() if not line.startswith(told)]
    assert len(lines) == 1 and lines[0].startswith("sfllava: "), out.stderr
    assert message in out.stderr
    assert not (tmp_path / "run").exists()


def test_a_model_from_the_environment(checkpoints, videos):
    out = sfllava(
        "ask", videos / "a.mp4", "what?", "--frames", 4, "--max-new-tokens", 2, SFLLAVA_MODEL=str(checkpoints())
    )
    assert out.returncode == 0, out.stderr


def test_ask_says_what_it_does_and_that_frames_repeat(videos):
    arguments = ("ask", videos / "a.mp4", "what?", "--model", "tiny", "--max-new-tokens", 2)
    few = (*arguments, "--aggregation", "slowfast-slow_10frms_spatial_2d_avg_pool-fast_2x2", "--frames", 4)
    out = sfllava(*few)
    loading, asking, seconds, note = out.stderr.splitlines()
    assert loading == "loading tiny ..." and asking.startswith("asking 1 question about ") and "4 of 20" in seconds
    assert note.startswith("note: slowfast-slow_10frms_") and "10 Slow frames and only 4 were sampled" in note
    assert "--frames 10 or more" in note
    quiet, as_json = sfllava(*few, "--quiet"), sfllava(*few, "--json")
    assert quiet.stderr == as_json.stderr == "" and quiet.stdout == out.stdout
    assert "frames repeat" in json.loads(as_json.stdout)["notes"][0]
    enough = sfllava(*arguments, "--frames", 12)
    assert enough.returncode == 0 and "repeat" not in enough.stderr


def test_evaluate_several_benchmarks_under_one_root(checkpoints, videos, tmp_path):
    data = tmp_path / "data" / "multiple_choice_qa"
    for name in ("EgoSchema", "NExTQA"):
        shutil.copytree(videos, data / name / "video")
    (tmp_path / "multiple_choice_qa").mkdir()
    for name in ("EgoSchema", "NExT_QA"):
        (tmp_path / "multiple_choice_qa" / f"{name}.csv").write_text("video_name,question,answer,a0,a1\na,q,x,x,y\n")
    common = ("egoschema,nextqa", "--root", tmp_path)
    out = sfllava("evaluate", *common, "--model", checkpoints(), "--out", tmp_path / "runs", "--frames", 4,
                  "--max-new-tokens", 2)  # fmt: skip
    assert out.returncode == 0, out.stderr
    for name in ("egoschema", "nextqa"):
        assert (tmp_path / "runs" / name / "scores.json").exists() and f"runs/{name}\n" in out.stdout
    checked = sfllava("check", *common)
    assert (
        checked.returncode == 1 and "expected 500: WRONG" in checked.stdout and "found and readable 1" in checked.stdout
    )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--prompt", "open.txt"), "open.txt: a prompt for questions with options needs {options}"),
        (("--read", "logits"), "reading letters from logits needs questions with options"),
        (("--out", "foreign"), "foreign/egoschema: predictions.jsonl without run.json: not a run folder of sfllava"),
        (("--out", "old"), "old/egoschema: this folder holds another run"),
        (("--out", "busy"), "busy/egoschema: another process is writing this run"),
        (("--out", "file"), "file/egoschema: cannot be used as a run folder"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_the_last_benchmark_stops_before_the_first(
    videos, tmp_path, monkeypatch, capsys, options, message
):
    monkeypatch.chdir(tmp_path)
    for place, file, header in (
        ("open_ended_qa", "MSVD_QA.csv", "video_name,question,answer\na,q,x\n"),
        ("multiple_choice_qa", "EgoSchema.csv", "video_name,question,answer,a0,a1\na,q,x,x,y\n"),
    ):
        (tmp_path / place).mkdir()
        (tmp_path / place / file).write_text(header)
    for place in ("video_qa/MSVD_Zero_Shot_QA/videos", "multiple_choice_qa/EgoSchema/video"):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).symlink_to(videos)
    (tmp_path / "open.txt").write_text("<video> {question} Answer:")
    for name in ("foreign", "old", "busy"):
        (tmp_path / name / "egoschema").mkdir(parents=True)
    (tmp_path / "foreign/egoschema/predictions.jsonl").touch()
    shutil.copy(DATA / "run-0.1.0/run.json", tmp_path / "old/egoschema")
    (tmp_path / "file").mkdir()
    (tmp_path / "file/egoschema").touch()
    with hold(tmp_path / "busy/egoschema/.lock", "busy"):
        names = "egoschema,msvd" if options == ("--read", "logits") else "msvd,egoschema"
        common = ["--root", ".", "--model", "tiny", "--frames", "4", "--out", "run"]
        assert main(["evaluate", names, *common, *options]) == 1
    assert message in capsys.readouterr().err
    assert not list(tmp_path.rglob("msvd/*")) and not (tmp_path / "run").exists()


def test_check_on_a_file_of_one_s_own(videos, tmp_path):
    (tmp_path / "q.csv").write_text("video_name,question,answer\na,q,x\n")
    out = sfllava("check", "open", "--questions", tmp_path / "q.csv", "--videos", videos)
    assert out.returncode == 0 and "found and readable 1, missing 0, unreadable 0" in out.stdout


def test_a_run_without_an_answer_fails(checkpoints, videos, tmp_path):
    (tmp_path / "q.csv").write_text("video_name,question,answer\ngone,q,x\n")
    out = sfllava(
        "evaluate",
        "open",
        "--questions",
        tmp_path / "q.csv",
        "--videos",
        videos,
        "--model",
        checkpoints(),
        "--out",
        tmp_path / "run",
    )
    assert out.returncode == 1 and "1 questions, 0 answered, 1 failed" in out.stdout


def test_help_needs_no_torch():
    """What makes --help slow is importing torch: it must not be."""
    code = "import sys\nfrom sfllava.cli import main\ntry:\n    main(['evaluate', '--help'])\nexcept SystemExit: pass\n"
    code += "assert not {'torch', 'transformers', 'numpy', 'decord'} & set(sys.modules), 'heavy imports'"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    assert "--retry-failed" in out.stdout
    assert sfllava("evaluate").returncode == 2
