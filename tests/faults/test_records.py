"""Files of a run, a judge, a checkpoint or the published code: read correctly, or an error that names the file."""

from __future__ import annotations

import json
import os
import random
import sys
from pathlib import Path

import torch
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from fault_table import record
from proofs import prove
from shell import sfllava
from test_parsers import PLAIN

from sfllava.benchmarks import load_benchmark
from sfllava.evaluators.judges.rubric import load_rubric
from sfllava.files import RunError
from sfllava.models.checkpoint import CheckpointError
from sfllava.models.layouts import read_checkpoint
from sfllava.models.load import load_model
from sfllava.models.tiny.random_checkpoint import write_random_checkpoint
from sfllava.published.config import ExperimentError, read_experiment
from sfllava.published.importing import import_outputs
from sfllava.published.literal import parse_value
from sfllava.published.wordings import read_wordings
from sfllava.runs.judge_items import read_items
from sfllava.runs.run_folder import RunFolder, read_rows, read_run
from sfllava.runs.scoring import score_rows
from sfllava.runs.verdicts import VerdictFile, read_judge_info, waiting_contents
from sfllava.sampler.writing import write_video
from sfllava.types import Question, SfllavaError

# a line of a file: valid, almost valid, or arbitrary
DEEP = st.sampled_from(
    ["[" * 10**5, '{"a":' * 10**4, "9" * 5000, "NaN", '"\\ud800"', "{}", "null", "", "\0", "\ufeff{}"]
)
LINES = st.binary(max_size=60) | (DEEP | st.text(max_size=40)).map(lambda text: text.encode("utf-8", "surrogatepass"))
ROW = {
    "key": "open/0", "setting": "s", "video": "v", "id": "", "type": "", "question": "q", "answer": "a", "options": [],
    "prediction": "p", "token_ids": [], "visual_tokens": 1, "seconds": {}, "error": None,
}  # fmt: skip
IDENTITY = {"benchmark": "open", "questions": 1, "settings": [{"name": "s"}]}
VERDICT = {"rubric": "open", "content": "c", "correct": True, "score": 4.5, "reply": "", "cost": None, "tokens": [1, 1]}


def near(row: dict) -> st.SearchStrategy[bytes]:
    """Return strategies for the row as JSON, without some fields and with values of another type."""
    changed = st.dictionaries(st.sampled_from(sorted(row)), PLAIN, max_size=2)
    gone = st.sets(st.sampled_from(sorted(row)), max_size=1)
    made = st.tuples(changed, gone).map(lambda t: {k: v for k, v in (row | t[0]).items() if k not in t[1]})
    return made.map(lambda r: json.dumps(r).encode())


def lines_of(row: dict) -> st.SearchStrategy[tuple]:
    """Return a strategy for lines, and for whether the last line is complete."""
    good = st.just(json.dumps(row).encode())
    lines = st.lists(good | near(row) | LINES.map(lambda line: line.replace(b"\n", b" ")), max_size=5)
    return st.tuples(lines, st.booleans())


def test_rows_of_a_run(tmp_path):
    """A row is read, scored and judged; any other line is an error that names the line; half a line is not a row."""
    question = Question("q", key="open/0", video="v", answer="a")
    (tmp_path / "run.json").write_text(json.dumps({"identity": IDENTITY, "sessions": []}))
    file = tmp_path / "predictions.jsonl"

    def check(drawn) -> None:
        lines, ended = drawn
        whole = b"".join(line + b"\n" for line in lines)
        file.write_bytes(whole + (b"" if ended else b'{"key": "open/0", "setti'))
        try:
            rows = list(read_rows(tmp_path))
        except RunError as error:
            assert str(error).startswith(f"{file}, line ")
        else:
            assert [json.dumps(row) for row in rows] == [json.dumps(json.loads(line)) for line in lines]
        for use in (lambda: score_rows([question], ["s"], read_rows(tmp_path)), lambda: read_items(tmp_path)):
            try:
                use()
            except SfllavaError as error:
                assert str(error)
        try:
            with RunFolder(tmp_path, IDENTITY, {}) as run:
                assert [row["key"] for row in run.rows()] == [json.loads(line)["key"] for line in lines]
        except RunError as error:
            assert str(file) in str(error)
        assert file.read_bytes().startswith(whole), "a row was lost"
        (tmp_path / "run.json").write_text(json.dumps({"identity": IDENTITY, "sessions": []}))

    prove(
        "rows of a run with arbitrary content",
        "the rows, or an error with file and line; none lost",
        lines_of(ROW),
        check,
    )


def test_verdicts_of_a_judge(tmp_path):
    (tmp_path / "verdicts-j.json").write_text('{"identity": {}, "sessions": [], "batches": []}')
    file = tmp_path / "verdicts-j.jsonl"

    def check(drawn) -> None:
        lines, ended = drawn
        file.write_bytes(b"".join(line + b"\n" for line in lines) + (b"" if ended else b'{"key": "open/0", "ru'))
        try:
            with VerdictFile(tmp_path, "j", {}, {}, []) as verdicts:
                assert list(verdicts.rows()) == []  # they belong to no prediction of this run: set aside
        except RunError as error:
            assert str(file) in str(error)
            assert file.read_bytes().startswith(b"".join(line + b"\n" for line in lines)), "a verdict was lost"
        else:
            kept = [json.loads(line) for line in lines]
            aside = tmp_path / "aside-verdicts-j.jsonl"
            paid = [row for row in kept if not row["error"]]
            assert len(aside.read_bytes().splitlines() if aside.exists() else []) == len(paid)
            aside.unlink(missing_ok=True)

    prove(
        "verdicts with arbitrary content",
        "the rows, or an error with file and line; none lost",
        lines_of(ROW | VERDICT),
        check,
    )


def test_json_files_of_a_run_and_a_judge(tmp_path):
    batch = {"token": "t", "id": None, "status": "new", "collected": False, "contents": ["c"]}

    def check(drawn) -> None:
        run, about = drawn
        (tmp_path / "run.json").write_bytes(run)
        (tmp_path / "verdicts-j.json").write_bytes(about)
        for name, use in (
            ("run.json", lambda: read_run(tmp_path)),
            ("run.json", lambda: RunFolder(tmp_path, {}, {}).__enter__().__exit__()),
            ("verdicts-j.json", lambda: waiting_contents(read_judge_info(tmp_path, "j", needed=True))),
        ):
            try:
                use()
            except RunError as error:
                assert name in str(error) or "holds another run" in str(error)

    runs = LINES | PLAIN.map(lambda v: json.dumps(v).encode()) | near({"identity": IDENTITY, "sessions": []})
    entries = st.lists(st.just(batch) | near(batch).map(json.loads), max_size=3)
    abouts = entries.map(lambda b: json.dumps({"identity": {}, "sessions": [], "batches": b}).encode())
    prove(
        "run.json and a judge's JSON file",
        "read, or an error that names the file",
        st.tuples(runs, LINES | runs | abouts),
        check,
    )


KEYS = ["SCRIPT", "CONFIG_NAME", "DATA_DIR", "NUM_FRAMES", "TEMPORAL_AGGREGATION", "<<", "OTHER"]
TAGS = ["!!int", "!!float", "!!bool", "!!null", "!!timestamp", "!!binary", "!!set", "!!omap", "!!str", "!x", "!!python/name:os.system",
        "!!python/object/apply:os.mkdir [RAN]", "!!python/object/new:os.mkdir {args: [RAN]}", "!!python/module:this"]  # fmt: skip
VALUES = ['""', "x", "'[1, 2]'", "[a, b]", "0x" + "f" * 5000, "9" * 5000, "1:2:3", "2001-99-99", "&a x", "*a", "&b [*b]", "{a: b}", "|\n  x",
          "1e999", ".nan", "~", "0b", "0o", "_", "'\\0'", "- - -", "? x", "`"]  # fmt: skip


def test_experiment_files(tmp_path, monkeypatch):
    """YAML with arbitrary content: an experiment, or an error that names the file; no tag ever runs."""
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "e.yaml"

    def check(content) -> None:
        path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass"))
        try:
            read = read_experiment(path)
        except ExperimentError as error:
            assert str(path) in str(error) and "\n" not in str(error)
        else:
            assert read.scripts
        assert [file.name for file in tmp_path.iterdir()] == ["e.yaml"], "a tag was run"

    line = st.builds(
        "{}: {} {}".format,
        st.sampled_from(KEYS),
        st.sampled_from(["", *TAGS]),
        st.sampled_from(VALUES) | st.text(max_size=10),
    )
    whole = st.lists(line, max_size=6).map(lambda lines: "\n".join(["SCRIPT: s", "CONFIG_NAME: c", *lines]))
    near_ = st.text(alphabet="SCRIPTONFG_AME:[]{}#&*!|>-\"' \n\t,01")
    prove(
        "experiment file (YAML)",
        "read, or an error that names the file; no tag run",
        st.text() | st.binary() | near_ | whole,
        check,
    )


def test_values_of_published_files():
    """JSON or a Python literal, or a ValueError; a written value is read back unchanged."""

    def check(drawn) -> None:
        text, value = drawn
        try:
            parse_value(text)
        except ValueError as error:
            assert str(error)
        assert parse_value(json.dumps(value)) == parse_value(repr(value)) == value

    texts = st.text() | st.text(alphabet="{}[]()'\":,-+ \\x0123nulltrue") | DEEP
    finite = st.recursive(
        st.none()
        | st.booleans()
        | st.integers(-(10**12), 10**12)
        | st.floats(allow_nan=False, allow_infinity=False)
        | st.text(),
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
        max_leaves=12,
    )
    values = st.lists(finite, max_size=3) | st.dictionaries(st.text(), finite, max_size=3)
    prove("value in a published file", "the value, or ValueError with the reason", st.tuples(texts, values), check)


def test_outputs_of_the_published_code(tmp_path_factory):
    """Each line is imported, or reported as repeated or bad; none stops the import, and no question is lost."""
    base = tmp_path_factory.mktemp("outputs")
    (base / "q.csv").write_text(
        "video_name,question_id,question,answer\na,1,what?,cat\na,2,where?,home\na,3,who?,man\n"
    )
    benchmark = load_benchmark("open", base / "q.csv")
    good = [{"id": q.id, "question": q.text, "answer": q.answer, "pred": "x"} for q in benchmark.questions[:2]]

    def check(drawn) -> None:
        lines, seed = drawn
        folder = tmp_path_factory.mktemp("out")
        lines = [*(line.replace(b"\n", b" ") for line in lines), *(json.dumps(row).encode() for row in good)]
        random.Random(seed).shuffle(lines)
        (folder / "merge.jsonl").write_bytes(b"\n".join(lines))
        found = import_outputs(folder, benchmark, folder / "run")
        filled = sum(bool(line.strip()) for line in lines)
        assert found.outputs.rows == filled
        rows = list(read_rows(folder / "run"))
        assert len(rows) == 3 and all((row["prediction"] is None) == bool(row["error"]) for row in rows)
        used = sum(row["prediction"] is not None for row in rows)
        assert filled == used + len(found.outputs.bad) + len(found.outputs.repeated)

    lines = st.lists(
        LINES | near(good[0] | {"candidates": ["x"]}) | PLAIN.map(lambda v: json.dumps(v).encode()), max_size=6
    )
    drawn = st.tuples(lines, st.integers(0, 999))
    prove(
        "merge.jsonl with arbitrary content",
        "each line imported, or reported as repeated or bad",
        drawn,
        check,
        few=30,
        full=500,
    )


def test_prompt_files_of_the_published_code(tmp_path):
    def check(content) -> None:
        data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        (tmp_path / "prompt.py").write_bytes(data)
        pack = read_wordings(tmp_path)
        assert not pack.wordings and pack.missing

    prove("prompt.py with arbitrary content", "reported as unreadable, never run", st.text() | st.binary(), check)


def test_rubric_files(tmp_path):
    def check(content: bytes) -> None:
        (tmp_path / "open.txt").write_bytes(content)
        load_rubric.cache_clear()
        try:
            load_rubric("open", tmp_path)
        except SfllavaError as error:
            assert "open.txt" in str(error)

    parts = st.sampled_from([b"--- user ---\n", b"{question}", b"{answer}", b"{prediction}", b"{", b"x", b"\xff"])
    prove(
        "rubric file",
        "read, or an error that names the file",
        st.binary() | st.lists(parts, max_size=7).map(b"".join),
        check,
    )
    load_rubric.cache_clear()


def test_configs_of_checkpoints(tmp_path):
    """Any JSON as config.json or as an index of weights: read, or CheckpointError."""
    torch.save({"model.norm.weight": torch.zeros(2)}, tmp_path / "pytorch_model.bin")
    (tmp_path / "tower").mkdir()

    def check(drawn) -> None:
        config, index, tower = drawn
        (tmp_path / "config.json").write_bytes(config)
        (tmp_path / "tower" / "config.json").write_bytes(tower)
        if index is not None:
            (tmp_path / "pytorch_model.bin.index.json").write_bytes(index)
        try:
            read_checkpoint(tmp_path)
        except CheckpointError as error:
            assert str(error)
        (tmp_path / "pytorch_model.bin.index.json").unlink(missing_ok=True)

    name = (
        st.sampled_from(
            ["", ".", "..", "tower", "x" * 5000, "a\0b", "/", "openai/clip-vit-large-patch14-336", "config.json"]
        )
        | PLAIN
    )
    original = st.fixed_dictionaries(
        {"mm_vision_tower": name},
        optional=dict.fromkeys(("mm_projector_type", "mm_vision_select_feature", "torch_dtype", "model_type", "rope_theta"), PLAIN)
        | {"vocab_size": st.just(9) | PLAIN, "unfreeze_mm_vision_tower": st.just(True) | PLAIN},
    )  # fmt: skip
    ours = st.fixed_dictionaries(
        {"model_type": st.just("llava_next")}, optional={"text_config": PLAIN, "vision_config": PLAIN}
    )
    configs = (original | ours | PLAIN).map(lambda v: json.dumps(v).encode()) | LINES
    files = st.dictionaries(st.text(max_size=5), name, max_size=3).map(lambda v: json.dumps({"weight_map": v}).encode())
    towers = st.fixed_dictionaries({"vision_config": PLAIN}).map(lambda v: json.dumps(v).encode()) | LINES
    prove(
        "config.json of a checkpoint",
        "read, or CheckpointError",
        st.tuples(configs, st.none() | files | LINES, towers),
        check,
    )


def test_weights_of_any_content(tmp_path):
    """Damaged or fake weight files: loaded, or CheckpointError; nothing in them is run."""
    folder = write_random_checkpoint(tmp_path / "c", "original", "vicuna")
    file = next(path for path in sorted(folder.iterdir()) if path.suffix in (".bin", ".safetensors"))
    whole = file.read_bytes()

    def check(drawn) -> None:
        place, flips, length, content = drawn
        data = bytearray(whole[: int(len(whole) * length)])
        for i, flip in enumerate(flips):
            if data:
                data[(int(place * 4000) + 7 * i) % len(data)] ^= flip
        for written in (bytes(data), content):
            file.write_bytes(written)
            try:
                load_model(folder)
            except CheckpointError as error:
                assert str(error)

    drawn = st.tuples(
        st.floats(0, 1),
        st.lists(st.integers(1, 255), max_size=5),
        st.sampled_from([1, 1, 0.99, 0.5, 0.01]),
        st.binary() | st.just(b"\x80\x02."),
    )
    prove("weight file, damaged or fake", "loaded, or CheckpointError", drawn, check, few=10, full=200)


def test_folder_names_that_are_not_utf8(tmp_path):
    """A path with a byte that is not UTF-8, as on an old disk, works like any other path."""
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    try:
        folder.mkdir()
    except OSError:
        return  # the file system does not allow such names
    from conftest import moving_square

    write_video(folder / "a.mp4", moving_square(8))
    (folder / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "q.csv").write_text("video_name,question,answer\na,q,x\nbad,q,x\n")
    where = ("open", "--questions", "q.csv", "--videos", folder)
    checked = sfllava("check", *where, cwd=tmp_path)
    assert checked.returncode == 1 and "missing 0, unreadable 1" in checked.stdout, checked.stderr
    tiny = ("--model", "tiny", "--frames", 2, "--aggregation", "concat", "--max-new-tokens", 2)
    for _ in range(2):
        done = sfllava("evaluate", *where, *tiny, "--out", folder / "run", cwd=tmp_path)
        assert done.returncode == 0 and "1 answered, 1 failed" in done.stdout, done.stderr
    failed = {row["video"]: bool(row["error"]) for row in read_rows(folder / "run")}
    right = sum(failed.get(video) == bad for video, bad in (("a", False), ("bad", True)))
    record("folder whose name is not UTF-8", 2, right, 2 - len(failed), "one row per question, from the command line")
    assert right == 2
