from __future__ import annotations

import json

import pytest

from sfllava.files import RunError
from sfllava.runs.identity import make_identity, rope_facts, upgrade
from sfllava.runs.jobs import make_row
from sfllava.runs.run_folder import RunFolder, read_rows
from sfllava.types import Question

QUESTIONS = [Question("what?", f"q:{i}", "v") for i in range(3)]


def identity(*names, **more):
    return make_identity("open", QUESTIONS, [{"name": name, "frames": 4} for name in names], **more)


def files(path):
    return {file.name: file.read_bytes() for file in path.iterdir()}


def test_added_settings_come_after_those_of_the_run(tmp_path):
    for names in (("a", "b"), ("c", "b", "a")):
        with RunFolder(tmp_path, identity(*names), {"device": "cpu"}):
            pass
    run = json.loads((tmp_path / "run.json").read_text())
    assert [setting["name"] for setting in run["identity"]["settings"]] == ["a", "b", "c"]
    assert [session["device"] for session in run["sessions"]] == ["cpu", "cpu"]


@pytest.mark.parametrize(
    ("other", "shown"),
    [(identity("b"), "not requested now: a$"), (identity("a", prompt="x"), "holds another run.*prompt")],
)
def test_another_identity_is_refused_and_nothing_is_written(tmp_path, other, shown):
    with RunFolder(tmp_path, identity("a"), {}):
        pass
    before = files(tmp_path)
    folder = RunFolder(tmp_path, other, {})
    with pytest.raises(RunError, match=shown):
        folder.check()
    with pytest.raises(RunError, match=shown), folder:
        pass
    assert files(tmp_path) == before


def test_check_writes_nothing(tmp_path):
    RunFolder(tmp_path / "new" / "run", identity("a"), {}).check()
    assert not list(tmp_path.iterdir())
    with RunFolder(tmp_path / "run", identity("a"), {}) as folder:
        folder.append([make_row(QUESTIONS[0], "a", prediction="yes")])
    before = files(tmp_path / "run")
    folder.check()
    assert files(tmp_path / "run") == before


def test_a_folder_that_is_being_written_is_busy(tmp_path):
    folder = RunFolder(tmp_path, identity("a"), {})
    with folder, pytest.raises(RunError, match="another process is writing"):
        RunFolder(tmp_path, identity("a"), {}).check()
    folder.check()


def test_rows_without_run_json_are_no_run(tmp_path):
    (tmp_path / "predictions.jsonl").write_text("")
    with pytest.raises(RunError, match=r"without run\.json"):
        RunFolder(tmp_path, identity("a"), {}).check()


def test_failed_rows_are_dropped_and_the_others_kept(tmp_path):
    good = make_row(QUESTIONS[0], "a", prediction="")
    failed = [make_row(QUESTIONS[1], "a", error="broken"), make_row(QUESTIONS[2], "a")]
    with RunFolder(tmp_path, identity("a"), {}) as folder:
        folder.append([good, *failed])
        (tmp_path / "scores.json").write_text("{}")
        assert folder.drop_failed() == 2
        assert not (tmp_path / "scores.json").exists(), "scores of rows that are gone"
        assert folder.drop_failed() == 0
    assert list(read_rows(tmp_path)) == [good]


@pytest.mark.parametrize(
    "old", [{"rope_type": "linear", "factor": 4, "rope_theta": 10000}, {"type": "linear", "factor": 4.0, "theta": 1e4}]
)
def test_rope_of_any_version_becomes_version_3(old):
    run = {"identity": {"version": 2, "model": {"rope": old | {"more": 1}, "dtype": "x"}}, "sessions": []}
    new = upgrade(run, None)["identity"]  # pyright: ignore[reportArgumentType]
    assert new == {"version": 3, "model": {"rope": {"type": "linear", "factor": 4.0, "theta": 1e4}, "dtype": "x"}}
    assert upgrade({"identity": new}, None) == {"identity": new}  # pyright: ignore[reportArgumentType]


def test_rope_facts_of_plain_models():
    assert rope_facts(None) is None
    assert rope_facts({}) == {"type": "default", "factor": None, "theta": None}
