"""Experiment files of the published code: read strictly, planned in words, and run."""

from __future__ import annotations

import json
import re

import pytest
import yaml
from conftest import CLIPS
from hypothesis import given, settings
from hypothesis import strategies as st
from published_layout import BENCHMARKS, dump, write_csv_root, write_experiment, write_playground
from shell import sfllava

from sfllava.models.load import load_model
from sfllava.models.tiny.random_checkpoint import write_random_checkpoint
from sfllava.prompts import pack_prompt
from sfllava.published.config import DEFAULTS, ExperimentError, read_experiment
from sfllava.published.plan import ModelChoice, plan_experiment
from sfllava.published.run import load_choice, run_plan
from sfllava.runs.evaluate import evaluate
from sfllava.runs.run_folder import read_rows
from sfllava.types import SfllavaError


@pytest.fixture
def small(videos, tmp_path):
    """A folder in which an experiment on one question of MSVD and one of EgoSchema finds all it names."""
    gt, data = tmp_path / "playground" / "gt_qa_files", tmp_path / "playground" / "data"
    for folder in (gt / "MSVD_Zero_Shot_QA", gt / "EgoSchema", data / "video_qa/MSVD_Zero_Shot_QA"):
        folder.mkdir(parents=True)
    dump(gt / "MSVD_Zero_Shot_QA/val_q.json", [{"video_name": "a", "question_id": "1", "question": "what?"}])
    dump(gt / "MSVD_Zero_Shot_QA/val_a.json", [{"answer": "x", "type": 0, "question_id": "1"}])
    choice = {"task_name": "EgoSchema", "video_name": "b.mp4", "question_id": "q", "question": "which?"}
    dump(gt / "EgoSchema/val_qa.json", [{**choice, "answer_number": 1, "candidates": ["x", "y"], "answer": "y"}])
    (data / "video_qa/MSVD_Zero_Shot_QA/videos").symlink_to(videos)
    (data / "multiple_choice_qa/EgoSchema").mkdir(parents=True)
    (data / "multiple_choice_qa/EgoSchema/video").symlink_to(videos)
    return tmp_path


def experiment(root, **changes):
    values = {
        "SCRIPT": ["bash scripts/run_eval_msvd.sh", "bash scripts/run_eval_egoschema.sh"],
        "DATA_DIR": ["playground/data/video_qa", "playground/data/multiple_choice_qa"],
        "CONV_MODE": ["image_seq_v3", "multiple_choice_allvideo_v4"],
        "MODEL_PATH": "tiny",
        "NUM_FRAMES": 4,
        "TEMPORAL_AGGREGATION": "slowfast-slow_2frms_concat-fast_2x2",
    }
    return write_experiment(root / "cfgs" / "mine-4_frms.yaml", **(values | changes))


def test_a_published_experiment_runs_unchanged(shared, tmp_path):
    """Its own layout, keys and paths; only the questions are few and the checkpoint is small and random."""
    clips = [shared / "clips" / f"{CLIPS[1]}.mp4"]
    write_playground(tmp_path, shared / "qa", clips, count=1)
    write_random_checkpoint(tmp_path / "liuhaotian" / "llava-v1.6-vicuna-7b", "original", "vicuna")
    name = "slowfast_llava_7b-resize-slow_10frms_spatial_1d_max_pool_fast_4x4-50_frms"
    config = write_experiment(tmp_path / "cfgs" / f"{name}.yaml")
    before = config.read_bytes()
    out = sfllava("run", "--config", f"cfgs/{name}.yaml", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    assert config.read_bytes() == before
    assert out.stdout.startswith(f"cfgs/{name}.yaml: 8 runs\n")
    for i, benchmark in enumerate(BENCHMARKS, 1):
        run = tmp_path / "outputs" / "artifacts" / name / benchmark
        rows = list(read_rows(run))
        assert len(rows) == (4 if benchmark == "vcgbench" else 1)
        assert all(row["error"] is None and row["visual_tokens"] == 3680 for row in rows), rows
        scores = json.loads((run / "scores.json").read_text())
        assert [s["questions"] for s in scores.values()] == [len(rows)]
        identity = json.loads((run / "run.json").read_text())["identity"]
        assert identity["max_new_tokens"] == 128 and identity["model"]["context"] == 8192
        assert identity["model"]["rope"]["type"] == "dynamic" and identity["model"]["rope"]["factor"] == 2.0
        assert re.search(rf"^  {i}\.  {benchmark} +{len(rows)}  ", out.stdout, re.MULTILINE)
    assert "CUDA_VISIBLE_DEVICES 0,1: not used" in out.stdout and "wording is this package's own" in out.stdout
    assert "TEMP_DIR outputs/eval_save_dir: not used" in out.stdout and "SAVE_DIR" in out.stdout


def test_all_eight_benchmarks_from_question_file_to_scores(shared, server, tmp_path):
    clips = [shared / "clips" / f"{name}.mp4" for name in CLIPS]
    write_csv_root(tmp_path, shared / "qa", clips, count=3)
    small = ("--model", "tiny", "--frames", 6, "--aggregation", "slowfast-slow_2frms_concat-fast_2x2")
    out = sfllava(
        "evaluate",
        ",".join(BENCHMARKS),
        "--root",
        tmp_path,
        *small,
        "--max-new-tokens",
        4,
        "--out",
        "runs",
        cwd=tmp_path,
    )
    assert out.returncode == 0, out.stderr
    for benchmark in BENCHMARKS:
        rows = list(read_rows(tmp_path / "runs" / benchmark))
        assert len(rows) == (12 if benchmark == "vcgbench" else 3)
        assert {row["video"].removeprefix("v_") for row in rows} == set(CLIPS)
        assert all(row["error"] is None and row["visual_tokens"] == 2 * 64 + 6 * 4 for row in rows)
        (scores,) = json.loads((tmp_path / "runs" / benchmark / "scores.json").read_text()).values()
        assert scores["answered"] == len(rows)
        wanted = {"vcgbench": set(), **{key: {"choice-published", "choice-strict"} for key in BENCHMARKS[4:7]}}
        assert set(scores["rules"]) == wanted.get(benchmark, {"match-exact", "match-contains"})
    pairs = [row for row in read_rows(tmp_path / "runs" / "vcgbench") if row["type"] == "consistency"]
    assert sorted(row["key"] for row in pairs) == [f"vcgbench/consistency/{i}/{j}" for i in range(3) for j in (1, 2)]
    server()
    for benchmark in (*BENCHMARKS[:4], "vcgbench"):
        run = tmp_path / "runs" / benchmark
        done = sfllava("judge", run, "--judge", "openai", "--model", "judge-2026-01-01", "--yes", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
        printed = sfllava("verdicts", run, cwd=tmp_path).stdout
        if benchmark == "vcgbench":
            means = dict(re.findall(r"^  (\w+) +score (\d\.\d\d) \[", printed, re.MULTILINE))
            five = [float(means[name]) for name in ("CI", "DO", "CU", "TU", "CO")]
            assert len(means) == 6 and float(means["average"]) == pytest.approx(sum(five) / 5, abs=0.011), printed
        else:
            assert re.search(r"^  open +\d+\.\d % \[.*score .*;\s+3 judged", printed, re.MULTILINE), printed


def test_a_dry_run_says_what_would_be_done(small):
    config = experiment(small, MODEL_PATH="tiny", SAVE_DIR="absent", NUM_FRAMES="absent")
    out = sfllava("run", "--config", config, "--dry-run", cwd=small)
    assert out.returncode == 0, out.stderr
    assert not (small / "outputs").exists()
    lines = [line.split() for line in out.stdout.splitlines()]
    # what is common is said once, and each benchmark has one line
    assert out.stdout.count("slowfast-slow_2frms_concat-fast_2x2") == out.stdout.count("dynamic RoPE") == 1
    assert "model          tiny, dynamic RoPE, factor 2, inputs up to 8,192 tokens" in out.stdout
    assert "50 frames, slowfast-slow_2frms_concat-fast_2x2" in out.stdout
    assert "run folder     in outputs/artifacts/mine-4_frms" in out.stdout
    (first,), (second,) = (
        [line for line in lines if line[:2] == name] for name in (["1.", "msvd"], ["2.", "egoschema"])
    )
    assert first[2:4] == ["1", "vicuna/open"] and second[2:4] == ["1", "vicuna/choice"]
    assert first[-1] == "msvd" and second[-1] == "egoschema"
    assert "note: not in the file, so as its scripts have it by default: NUM_FRAMES" in out.stdout
    assert "SAVE_DIR" not in out.stdout


def test_a_run_goes_on_and_a_missing_folder_stops_it_before_any_model(small, caplog):
    config = experiment(small)
    plan = plan_experiment(config, root=small)
    (first, second) = run_plan(plan, progress=False)
    assert first.path.name == "msvd" and second.path.name == "egoschema"
    assert "msvd: CONV_MODE asks in the format of vicuna; the format of tiny is tiny" in caplog.text
    assert "vicuna" in plan.steps[0].prompt.source and plan.steps[0].prompt == pack_prompt("vicuna", "open")
    before = (second.path / "predictions.jsonl").read_bytes()
    list(run_plan(plan_experiment(config, root=small), progress=False))
    assert (second.path / "predictions.jsonl").read_bytes() == before
    config = experiment(small, GT_QA_DIR="gone", MODEL_PATH="no/such/model")
    out = sfllava("run", "--config", config, "--dry-run", cwd=small)
    assert out.returncode == 1 and "MISSING  msvd: gone/MSVD_Zero_Shot_QA/val_q.json: cannot read" in out.stdout
    loaded = []
    with pytest.raises(SfllavaError, match=r"cannot run: msvd: .*gone/MSVD_Zero_Shot_QA/val_q\.json.*; egoschema: "):
        list(run_plan(plan_experiment(config, root=small), loaded.append))  # type: ignore[arg-type]
    assert not loaded
    config = experiment(small, MODEL_PATH="no/such/model")
    assert "no such checkpoint folder (MODEL_PATH, line" in plan_experiment(config, root=small).problems[0]


def test_each_model_is_loaded_once(small):
    config = experiment(
        small,
        SCRIPT=[f"bash scripts/run_eval_{name}.sh" for name in ("msvd", "egoschema", "msvd", "egoschema")],
        DATA_DIR=["playground/data/video_qa", "playground/data/multiple_choice_qa"] * 2,
        CONV_MODE=["image_seq_v3", "multiple_choice_allvideo_v4"] * 2,
        CONFIG_NAME=["one", "one", "two", "two"],
        ROPE_SCALING_FACTOR=[1, 2, 2, 1],
    )
    plan = plan_experiment(config, root=small)
    loaded = []

    def load(choice):
        loaded.append(choice)
        return load_choice(choice)

    paths = [
        run.path.relative_to(small / "outputs/artifacts").as_posix() for run in run_plan(plan, load, progress=False)
    ]
    assert loaded == [ModelChoice("tiny", None, 4096), ModelChoice("tiny", 2.0, 8192)]
    assert paths == ["one/msvd", "two/egoschema", "one/egoschema", "two/msvd"]
    rope = json.loads((small / "outputs/artifacts/one/msvd/run.json").read_text())["identity"]["model"]
    assert rope["context"] == 4096 and rope["rope"]["type"] != "dynamic"


@pytest.mark.parametrize("spoilt", ["prompt", "folder", "other"])
def test_what_is_wrong_with_the_last_step_stops_before_any_model(small, spoilt):
    config, plain = experiment(small, ROPE_SCALING_FACTOR=[1, 2]), experiment(small, NUM_FRAMES=5)
    prompts, loaded = None, []
    if spoilt == "prompt":
        prompts = small / "pack"
        for mode, task in (("image_seq_v3", "open"), ("multiple_choice_allvideo_v4", "choice")):
            (prompts / mode).mkdir(parents=True)
            (prompts / mode / f"{task}.txt").write_text("<video> {question} Answer:")
    plan = plan_experiment(config, root=small, prompts=prompts)
    message = r"choice\.txt: a prompt for questions with options needs \{options\}"
    if spoilt == "folder":
        plan.steps[1].out.mkdir(parents=True)
        (plan.steps[1].out / "predictions.jsonl").touch()
        message = "egoschema: predictions.jsonl without run.json"
    if spoilt == "other":
        other = plan_experiment(plain, root=small).steps[1]
        evaluate(load_model("tiny"), other.benchmark, other.setting, other.out, prompt=other.prompt, progress=False)
        message = "egoschema: this folder holds another run.*not requested now: 5frms-"
        plan = plan_experiment(experiment(small, ROPE_SCALING_FACTOR=[1, 2]), root=small)
    with pytest.raises(SfllavaError, match=message):
        list(run_plan(plan, loaded.append))  # type: ignore[arg-type]
    assert not loaded and not plan.steps[0].out.exists()


def test_a_checkpoint_s_own_scaling_is_not_run_as_another(tmp_path):
    scaled = {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 10000.0}}
    folder = write_random_checkpoint(tmp_path / "scaled", "transformers", "vicuna", text=scaled)
    with pytest.raises(SfllavaError, match="needed dynamic RoPE with ROPE_SCALING_FACTOR 2, but the checkpoint's"):
        load_choice(ModelChoice(str(folder), 2.0, 8192))


@pytest.mark.parametrize(
    ("gpu", "given", "dtype"),
    [
        (True, {}, "float16"),
        (False, {}, "auto"),
        (True, {"device": "cpu"}, "auto"),
        (False, {"device": "cuda:1"}, "float16"),
        (True, {"device": "cpu", "device_map": "auto"}, "float16"),
        (True, {"dtype": "bfloat16"}, "bfloat16"),
    ],
)
def test_on_a_gpu_it_is_float16_as_in_the_published_code(monkeypatch, gpu, given, dtype):
    import torch

    from sfllava.models import load

    asked = []
    real = load.load_model
    monkeypatch.setattr(torch.cuda, "is_available", lambda: gpu)
    monkeypatch.setattr(
        load, "load_model", lambda path, device, dtype, **_: asked.append(dtype) or real("tiny", "cpu", rope_factor=2.0)
    )
    load_choice(ModelChoice("tiny", 2.0, 8192), **given)
    assert asked == [dtype]


@pytest.mark.parametrize("value", ["none", "None", "FALSE", False, None])
def test_no_aggregation_by_any_of_its_names(small, value):
    """The published code takes the first frame for all of these; the shell sees a YAML false as False, null as None."""
    steps = plan_experiment(experiment(small, TEMPORAL_AGGREGATION=value), root=small).steps
    assert {str(step.setting.aggregation) for step in steps} == {"none"}


def test_parts_of_vcgbench(shared, tmp_path):
    write_playground(tmp_path, shared / "qa", [shared / "clips" / f"{CLIPS[0]}.mp4"], count=2)
    config = write_experiment(
        tmp_path / "x.yaml",
        SCRIPT=[f"bash scripts/run_eval_{part}.sh" for part in ("generic", "temporal", "consistency")],
        DATA_DIR="playground/data/video_qa",
        CONV_MODE="image_seq_v3",
        MODEL_PATH="tiny",
    )
    steps = plan_experiment(config, root=tmp_path).steps
    assert [step.out.name for step in steps] == ["vcgbench-generic", "vcgbench-temporal", "vcgbench-consistency"]
    assert [len(step.benchmark.questions) for step in steps if step.benchmark] == [2, 2, 4]


def test_prompts_of_one_s_own(small):
    pack = small / "pack"
    for file, text in {
        "image_seq_v3/open.txt": "look: <video> then say: {question}",
        "my_mode/choice.txt": "<video> {question} {options} pick (",
    }.items():
        (pack / file).parent.mkdir(parents=True)
        (pack / file).write_text(text)
    config = experiment(small, CONV_MODE=["image_seq_v3", "my_mode"])
    plan = plan_experiment(config, root=small, prompts=pack)
    assert [step.prompt.text[:6] for step in plan.steps] == ["look: ", "<video"]
    assert not any("package's own" in note for note in plan.notes)
    with pytest.raises(
        ExperimentError, match=r"line \d+: CONV_MODE: needed multiple_choice_allvideo_v4 or .*'my_mode'"
    ):
        plan_experiment(config, root=small)
    config = experiment(small, CONV_MODE="image_seq_v3")
    with pytest.raises(ExperimentError, match=r"CONV_MODE: image_seq_v3 has no wording for choice questions"):
        plan_experiment(config, root=small, prompts=pack)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"NUM_FRAME": 8}, r"line \d+: no key is called 'NUM_FRAME'; choose from SCRIPT, CONFIG_NAME"),
        ({"NUM_FRAMES": [4, 8, 16]}, r"NUM_FRAMES: needed one value, or 2 as there are SCRIPTs, got a list of 3"),
        ({"NUM_FRAMES": []}, "NUM_FRAMES: needed at least one value, got an empty list"),
        ({"NUM_FRAMES": [4, [8]]}, "NUM_FRAMES: needed text or a number .*, got a list or mapping in it"),
        ({"NUM_FRAMES": {"a": 4}}, "NUM_FRAMES: needed text or a number"),
        ({"NUM_FRAMES": "many"}, "NUM_FRAMES: needed a whole number of at least 1, got 'many'"),
        ({"NUM_FRAMES": 0}, "NUM_FRAMES: needed a whole number of at least 1, got '0'"),
        ({"NUM_FRAMES": 4.0}, "NUM_FRAMES: needed a whole number of at least 1, got '4.0'"),
        ({"NUM_FRAMES": True}, "NUM_FRAMES: needed a whole number of at least 1, got 'True'"),
        ({"NUM_FRAMES": None}, "NUM_FRAMES: needed text or a number, got 'null'"),
        ({"MODEL_PATH": " "}, "MODEL_PATH: needed text or a number, got ' '"),
        ({"ROPE_SCALING_FACTOR": 1.5}, "ROPE_SCALING_FACTOR: needed a whole number of at least 1, got '1.5'"),
        ({"TEMPORAL_AGGREGATION": "fast_4x4"}, r"TEMPORAL_AGGREGATION: no aggregation is called 'fast_4x4'"),
        ({"IMAGE_ASPECT_RATIO": "pad"}, "IMAGE_ASPECT_RATIO: needed resize, the one way there is here; got 'pad'"),
        ({"INPUT_STRUCTURE": "image_grid"}, "INPUT_STRUCTURE: needed image_seq"),
        ({"SCRIPT": ["bash scripts/run_eval_msvd.sh", "rm -rf outputs"]}, "SCRIPT: needed 'bash scripts/NAME', NAME one"),
        ({"SCRIPT": ["NUM_FRAMES=8 bash scripts/run_eval_msvd.sh"] * 2}, "SCRIPT: needed 'bash scripts/NAME'"),
        ({"SCRIPT": ["bash 'scripts/run_eval_msvd.sh"] * 2}, "SCRIPT: needed 'bash scripts/NAME'"),
        ({"SCRIPT": ["bash scripts/run_eval_msvd.sh"] * 2, "CONV_MODE": "image_seq_v3"}, "two of its runs would write"),
        ({"CONV_MODE": "vicuna_v1"}, r"CONV_MODE: needed image_seq_v3 or image_seq_34b_v3 for open questions"),
        ({"CONV_MODE": "multiple_choice_allvideo_v4"}, "CONV_MODE: needed image_seq_v3 or .* for open questions"),
        ({"CONV_MODE": "image_seq_v3"}, "CONV_MODE: needed multiple_choice_allvideo_v4 or .* for choice questions"),
        ({"CONFIG_NAME": "../x"}, "CONFIG_NAME: needed the name of a folder, got '../x'"),
        ({"DATA_DIR": "$HOME/data"}, "DATA_DIR: needed a path written out, got '\\$HOME/data'"),
        ({"MODEL_PATH": "`which model`"}, "MODEL_PATH: needed a path written out"),
    ],
)  # fmt: skip
def test_what_cannot_be_honoured_names_the_line(small, changes, message):
    config = experiment(small, **changes)
    with pytest.raises(ExperimentError, match=message) as caught:
        plan_experiment(config, root=small)
    key = next(key for key in changes)
    lines = config.read_text().splitlines()
    at = next(i for i, line in enumerate(lines, 1) if line.startswith(f"{key}:"))
    line = int(str(caught.value).split("line ")[1].split(":")[0])
    # a list's own line, or that of its item; SCRIPT's for what is wrong with the runs together
    assert at <= line <= at + 3 and str(config) in str(caught.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "x.yaml: needed KEY: value lines, got something else"),
        ("- SCRIPT\n", "line 1: needed KEY: value lines"),
        ("SCRIPT: a\nCONFIG_NAME: auto\nSCRIPT: b\n", "line 3: SCRIPT occurs twice; first on line 1"),
        ("SCRIPT: a\n", "needed CONFIG_NAME; there are SCRIPT"),
        ("CONFIG_NAME: auto\n", "needed SCRIPT; there are CONFIG_NAME"),
        ("CONFIG_NAME: auto\nSCRIPT: [a\nNUM_FRAMES: 8\n", "line 3: not readable as YAML: "),
        ("CONFIG_NAME: auto\n\tSCRIPT: a\n", "line 2: not readable as YAML"),
        ("SCRIPT: a\n---\nSCRIPT: b\n", "line 2: not readable as YAML: but found another document"),
        ("1: a\n", "line 1: no key is called '1'"),
        ("? [a]\n: b\n", "line 1: no key is called a list or mapping"),
        ("base: &b\n  SCRIPT: a\n<<: *b\n", "line 1: no key is called 'base'"),
        ("SCRIPT: !!python/object/apply:os.system [ls]\nCONFIG_NAME: auto\n", "line 1: SCRIPT: needed text or a number"),
        ("!!python/dict {SCRIPT: a}\n", "line 1: needed KEY: value lines"),
        ("SCRIPT: !!python/name:os.system\nCONFIG_NAME: auto\n", "line 1: SCRIPT: not a value of YAML: could not determine"),
        ("SCRIPT: a\nCONFIG_NAME: auto\nNUM_FRAMES: !!int many\n", "line 3: NUM_FRAMES: not a value of YAML"),
        ("SCRIPT: a\nCONFIG_NAME: auto\nNUM_FRAMES: 2024-01-01\n", "line 3: NUM_FRAMES: needed text or a number"),
        ("SCRIPT: &a [*a]\nCONFIG_NAME: auto\n", "line 1: SCRIPT: needed text or a number"),
        ("[" * 5000, "not readable as YAML"),
        ("SCRIPT: \x00\n", "not readable as YAML"),
    ],
)  # fmt: skip
def test_files_that_are_no_experiment(tmp_path, text, message):
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ExperimentError, match=message):
        plan_experiment(tmp_path / "x.yaml", root=tmp_path)


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(ExperimentError, match=r"gone\.yaml: cannot read the experiment file: No such file"):
        read_experiment(tmp_path / "gone.yaml")
    (tmp_path / "x.yaml").write_bytes(b"SCRIPT: caf\xe9\n")
    with pytest.raises(ExperimentError, match="needed UTF-8, got byte 0xe9 at 11"):
        read_experiment(tmp_path / "x.yaml")
    (tmp_path / "x.yaml").write_bytes(b"#" * (1 << 20) + b"\n")
    with pytest.raises(ExperimentError, match="needed an experiment file of at most"):
        read_experiment(tmp_path / "x.yaml")


VALUES = st.one_of(
    st.integers(-(10**9), 10**9),
    st.booleans(),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(codec="utf-8", exclude_categories=["C"], exclude_characters="\x85\u2028\u2029"), min_size=1),
).filter(lambda value: str(value).strip())


@settings(max_examples=200, deadline=None)
@given(
    count=st.integers(1, 4),
    data=st.data(),
    style=st.sampled_from([None, True, False]),
    width=st.sampled_from([20, 80, 10_000]),
)
def test_values_are_what_safe_load_reads(tmp_path_factory, count, data, style, width):
    """However YAML writes them: the text that the shell would see, a list's items one a script."""
    content: dict = {"SCRIPT": data.draw(st.lists(VALUES, min_size=count, max_size=count)), "CONFIG_NAME": "x"}
    for key in data.draw(st.sets(st.sampled_from([k for k in DEFAULTS if k not in content]))):
        content[key] = data.draw(VALUES | st.lists(VALUES, min_size=count, max_size=count))
    path = tmp_path_factory.mktemp("yaml") / "e.yaml"
    path.write_text(
        yaml.safe_dump(content, default_flow_style=style, width=width, allow_unicode=True), encoding="utf-8"
    )
    assert yaml.safe_load(path.read_text(encoding="utf-8")) == content
    read = read_experiment(path)
    assert [script.text for script in read.scripts] == [str(script) for script in content["SCRIPT"]]
    for key, value in content.items():
        if key != "SCRIPT":
            wanted = value if isinstance(value, list) else [value] * count
            assert [read.value(key, i).text for i in range(count)] == [str(each) for each in wanted]
            assert all(1 <= read.value(key, i).line <= path.read_text().count("\n") for i in range(count))
