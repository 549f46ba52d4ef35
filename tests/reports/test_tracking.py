"""What trackers get of a run, read back from what their own clients wrote."""

from __future__ import annotations

import importlib.util
import json
import struct
import subprocess
import sys

import pytest
from shell import sfllava
from written_runs import rows_of, write_run

from sfllava import SfllavaError
from sfllava.display.objects import without_folders
from sfllava.display.private import command_line
from sfllava.reports import page, tracking
from sfllava.reports.tracking import IDS, tensorboard, track

for package in ("pandas", "seaborn", "wandb", "mlflow", "tensorboard"):
    pytest.importorskip(package)
PRIVATE = ("whatisinthevideo", "itisacat", "holiday-in-rome", "private-home", "sk-0123456789")


@pytest.fixture
def run(tmp_path):
    """Two settings of 20 videos: 30 and 10 of 40 right; question, answer, video and paths are private."""
    rows = rows_of("8 frames + fast 2x2", 30) + rows_of("no fast", 10)
    for row in rows:
        row["video"] = f"holiday-in-rome/{row['video']}.mp4"
        row["question"], row["answer"] = "whatisinthevideo?", "yes"
        row["prediction"] += " itisacat" * (row["prediction"] == "no")
    facts = {
        "model": "/private-home/me/llava-7b",
        "videos": "/private-home/me/videos",
        "command": ["sfllava", "--videos", "/private-home/me/videos"],
        "question_files": ["/private-home/me/q.csv"],
        "versions": {"sfllava": "0.4.0", "torch": "2.9"},
    }
    rows[0]["error"], rows[0]["prediction"] = "/private-home/me/videos/holiday-in-rome/v0.mp4: no such video", None
    return write_run(tmp_path / "my run", rows, **facts)


def assert_private(folder):
    """No file in a folder has anything private in it."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    assert found
    for path in found:
        data = path.read_bytes()
        assert not [word for word in PRIVATE if word.encode() in data], path


def wandb_records(path):
    """The records of a .wandb file: a log of LevelDB, blocks of 32 KiB with headers of CRC, length and kind."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, at, part, records = path.read_bytes(), 7, b"", []  # behind the head of the file
    while at + 7 <= len(data):
        if 32768 - at % 32768 < 7:
            at += 32768 - at % 32768
            continue
        _, length, kind = struct.unpack_from("<IHB", data, at)
        part += data[at + 7 : at + 7 + length]
        at += 7 + length
        if kind in (1, 4):  # whole, or the last part
            records.append(Record.FromString(part))
            part = b""
    return records


def test_wandb_offline_from_the_command_line(run, tmp_path):
    environment = {"WANDB_MODE": "offline", "WANDB_API_KEY": "sk-0123456789" * 4, "WANDB_DIR": str(tmp_path)}
    command = ("judge", run, "--judge", "match-exact", "--track", "wandb:lab/clips")
    done = sfllava(*command, cwd=tmp_path, **environment)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    said = [line for line in done.stderr.splitlines() if "wandb" in line]
    assert len(said) == 1 and said[0].startswith("wandb: offline; upload it with `wandb sync ")
    assert_private(tmp_path / "wandb")
    (file,) = (tmp_path / "wandb").glob("offline-run-*/*.wandb")
    records = wandb_records(file)
    (about,) = [record.run for record in records if record.WhichOneof("record_type") == "run"][:1]
    assert (about.project, about.display_name, about.run_group, about.host) == ("clips", "my run", "open", "-")
    config = {item.key: json.loads(item.value_json) for item in about.config.update}
    assert (config["benchmark"], config["model"]) == ("open", "llava-7b") and config["versions"]["torch"] == "2.9"
    history = {
        item.key or "/".join(item.nested_key): json.loads(item.value_json)
        for record in records
        for item in record.history.item
    }
    assert history["accuracy/no fast"] == 25 and history["accuracy_low/no fast"] < 25 < history["accuracy_high/no fast"]
    assert history["match-exact-open-judged/no fast"] == 40
    assert len(list(file.parent.glob("files/media/images/figures/budget*.png"))) == 1
    (first,) = json.loads((run / IDS).read_text())["wandb"].values()
    assert sfllava(*command, cwd=tmp_path, **environment).returncode == 0
    assert json.loads((run / IDS).read_text())["wandb"]["lab/clips"] == first == {"id": about.run_id}


def test_mlflow_goes_on_in_the_same_run(run, tmp_path, monkeypatch, capfd):
    from mlflow import MlflowClient

    # a database where there is a driver for it, as there is not with mlflow-skinny alone
    store, database = tmp_path / "store", importlib.util.find_spec("alembic")
    line = track(run, f"mlflow:{store}")
    run_id = json.loads((run / IDS).read_text())["mlflow"][str(store)]["run_id"]
    uri = f"sqlite:///{store / 'mlflow.db'}" if database else store.as_uri()
    assert line == f"mlflow: run {run_id} of experiment sfllava in {uri}"
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    client = MlflowClient(uri)
    found = client.get_run(run_id)
    assert found.info.status == "FINISHED" and found.info.run_name == "my run"
    assert found.data.params["benchmark"] == "open" and found.data.params["model"] == "llava-7b"
    assert found.data.metrics["accuracy/8 frames _ fast 2x2"] == 72.5  # 29 of 40: one failed
    assert found.data.metrics["accuracy_low/no fast"] < 25 and found.data.tags["version.torch"] == "2.9"
    assert {file.path for file in client.list_artifacts(run_id)} == {"settings.csv", "figures"}
    about = json.loads((run / "run.json").read_text())
    about["sessions"].append({"model": "/elsewhere/llava-7b-again"})
    (run / "run.json").write_text(json.dumps(about))
    assert track(run, f"mlflow:{store}") == line
    again = client.get_run(run_id).data
    assert again.params["model"] == "llava-7b" and again.tags["model"] == "llava-7b-again"
    assert_private(store)
    assert capfd.readouterr() == ("", "")


def test_a_call_that_was_cut_off_goes_on_in_the_same_run(run, tmp_path, monkeypatch):
    from mlflow import MlflowClient

    def cut(*_, **__):
        raise KeyboardInterrupt

    def ids(name):
        return json.loads((run / IDS).read_text())[name]

    for name, owner, method in [
        ("mlflow", MlflowClient, "log_batch"), ("tensorboard", tensorboard, "_pixels"), ("wandb", pytest.importorskip("wandb"), "init"),
    ]:  # fmt: skip
        where = "lab" if name == "wandb" else str(tmp_path / name)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(owner, method, cut)
            track(run, f"{name}:{where}")
        first = ids(name)
        assert list(first) == [where]
        if name != "wandb":
            track(run, f"{name}:{where}")
            assert ids(name) == first
    assert [folder.name for folder in (tmp_path / "tensorboard").iterdir()] == ["my run"]


def test_mlflow_as_its_own_variables_say(run, tmp_path, monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"file:{tmp_path / 'files'}")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "clips")
    assert "of experiment clips in file:" in track(run, "mlflow")
    assert list((tmp_path / "files").glob("*/*/metrics/accuracy/no fast"))


def read_events(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    return EventAccumulator(str(folder), size_guidance={"scalars": 0, "images": 0, "tensors": 0}).Reload()


def test_tensorboard_is_read_back(run, tmp_path):
    logs = tmp_path / "logs"
    (logs / "my run").mkdir(parents=True)  # of another run with this name
    assert track(run, f"tensorboard:{logs}") == f"tensorboard: `tensorboard --logdir {logs}`"
    assert track(run, f"tensorboard:{logs}").startswith("tensorboard")
    assert sorted(path.name for path in logs.iterdir()) == ["my run", "my run-2"]
    events = read_events(logs / "my run-2")
    scalars = events.Scalars("accuracy/no fast")
    assert [(one.step, one.value) for one in scalars] == [(80, 25.0)], "the second call replaces the first"
    assert "figures/budget" in events.Tags()["images"]
    assert b"holiday" not in b"".join(path.read_bytes() for path in (logs / "my run-2").iterdir())
    track(run, "tensorboard", examples=True)
    text = b"".join(path.read_bytes() for path in (run / "tensorboard").iterdir())
    assert b"whatisinthevideo" in text and b"holiday-in-rome/v1.mp4" in text and b"private-home" not in text


def test_a_run_of_one_setting_has_the_same_names_in_all_runs(tmp_path):
    """An unfinished run, which has no figures to compare, is sent too."""
    run = write_run(tmp_path / "one", rows_of("only", 30, videos=10), identity={"questions": 40})
    track(run, "tensorboard")
    tags = read_events(run / "tensorboard").Tags()
    assert {"accuracy", "accuracy_low", "tokens", "not_asked"} <= set(tags["scalars"]) and tags["images"] == []


def test_a_tracker_that_fails_is_one_line(run, tmp_path):
    (tmp_path / "file").write_text("")
    command = ("judge", run, "--judge", "match-exact")
    bad = ("--track", f"tensorboard:{tmp_path / 'file'}", "--track", "mlflow:http://me:sk-0123456789@127.0.0.1:9")
    done = sfllava(*command, *bad, MLFLOW_HTTP_REQUEST_MAX_RETRIES="0")
    assert done.returncode == 0 and "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if "not sent" in line]
    assert [line.partition(":")[0] for line in lines] == ["tensorboard", "mlflow"]
    assert all("the same command sends it again" in line for line in lines) and "sk-0123456789" not in done.stderr
    stored = b"".join(file.read_bytes() for file in run.rglob("*") if file.is_file())
    assert b"mlflow:http://127.0.0.1:9" in stored and b"sk-0123456789" not in stored


@pytest.mark.parametrize(
    ("written", "left"),
    [
        ("mlflow:https://me:hunter2@lab:5000", "mlflow:https://lab:5000"),
        ("--track=mlflow:https://me:hunt@er2@lab", "--track=mlflow:https://lab"),
        ("https://me:hunt/er2?#@lab/x and https://me@lab", "https://lab/x and https://lab"),
        ("postgresql://lab/db?user=me&password=hunter2", "postgresql://lab/db?user=me&password=***"),
        ("https://lab:5000/x https://lab/x@v1 a@b", "https://lab:5000/x https://lab/x@v1 a@b"),
    ],
)
def test_no_password_is_stored_or_shown(written, left, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["sfllava", written])
    assert command_line() == ["sfllava", left]
    assert page._run("run", {"session": {"command": ["sfllava", written]}})["command"] == f"sfllava {left}"


def test_what_cannot_be_used_shows_before_anything_runs(run, monkeypatch):
    done = sfllava("evaluate", "open", "--out", "x", "--track", "wandbb")
    assert done.returncode == 2 and "no tracker is called 'wandbb' (did you mean 'wandb'?)" in done.stderr
    found = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "mlflow" else found(name))
    with pytest.raises(SfllavaError, match=r"tracker mlflow needs mlflow: pip install 'sfllava\[track\]'"):
        track(run, "mlflow")
    assert tracking.tracker_names() == ["mlflow", "tensorboard", "wandb"]


@pytest.mark.parametrize(
    ("name", "said"), [("wandb", "tracker wandb needs pandas: pip install"), ("wandbb", "did you mean 'wandb'?")]
)
def test_without_pandas_the_hint_is_one_line(name, said):
    code = (
        "import sys; sys.modules['pandas'] = None; from sfllava.reports.tracking import find_tracker\n"
        "try: find_tracker(sys.argv[1])\nexcept Exception as error: print(type(error).__name__, error)"
    )
    done = subprocess.run([sys.executable, "-c", code, name], capture_output=True, text=True)
    assert done.stdout.startswith("SfllavaError") and said in done.stdout and not done.stderr


def test_folders_are_cut_off():
    for text, left in [
        ("/home/me/clips/a.mp4: no such video", "a.mp4: no such video"),
        ("own:~/methods/mine.py", "own:mine.py"),
        ("C:\\Users\\me\\a.mp4", "a.mp4"),
        ("4x4, 8 of 16/32 frames", "4x4, 8 of 16/32 frames"),
        ("llava-hf/llava-v1.6-vicuna-7b-hf", "llava-hf/llava-v1.6-vicuna-7b-hf"),
        ("https://host/x", "https://host/x"),
        ("/home/jane doe/data/clip.mp4: cannot read 3/4 frames", "clip.mp4: cannot read 3/4 frames"),
        ("file:///home/jane/secret/clip.mp4", "clip.mp4"),
        ("//srv/share/x and \\\\srv\\my share\\y", "x and y"),
        ("'/home/o'brien/a b/clip.mp4' and /c d/e.mp4", "'clip.mp4' and e.mp4"),
        ("/a/b.mp4 has 3/4 of /c/d.mp4", "b.mp4 has 3/4 of d.mp4"),
        ("file:///mnt/Doe, Jane: 1/v/clip.mp4", "clip.mp4"),
    ]:
        assert without_folders({"a": [text]}, ["/mnt/Doe, Jane: 1"]) == {"a": [left]}
