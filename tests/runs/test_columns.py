"""Columns hold what a plain reading of the same lines gives, and the same errors, however odd the lines are."""

from __future__ import annotations

import json
import math

import pytest

from sfllava.files import RunError
from sfllava.runs import columns
from sfllava.runs.coded import Coded, join_blocks
from sfllava.runs.run_folder import PREDICTIONS, read_row_blocks, read_rows

FIELDS = ("key", "setting", "video", "type", "question", "answer", "options", "prediction", "error")


def row(number=0, **more):
    return {
        "key": f"open/{number}", "setting": "a", "video": f"v{number // 3}", "type": "x", "question": "what?",
        "answer": "yes", "options": [], "prediction": "Yes.", "visual_tokens": 8, "seconds": {"a": 0.5, "b": 2},
        "error": None, **more,
    }  # fmt: skip


def write(folder, lines):
    text = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    (folder / PREDICTIONS).write_bytes(text)
    return folder


def plain(folder):
    """The rows as Python's reader has them, with what the columns keep of them."""
    found = []
    for each in read_rows(folder):
        kept = {name: each[name] for name in FIELDS} | {"task": each.get("task"), "groups": each.get("groups") or {}}
        tokens, seconds = each["visual_tokens"], each["seconds"]
        found.append(
            kept
            | {
                "visual_tokens": None if tokens is None else float(tokens),
                "seconds": sum(seconds.values()) if seconds else None,
            }
        )
    return found


def by_columns(folder):
    found = join_blocks(read_row_blocks(folder))
    rows = []
    for i in range(len(found["key"])):
        each = {name: column.at(i) for name, column in found.items() if isinstance(column, Coded)}
        numbers = {name: float(found[name][i]) for name in ("visual_tokens", "seconds")}
        each |= {name: None if math.isnan(value) else value for name, value in numbers.items()}
        rows.append(each | {"options": list(each["options"]), "groups": each["groups"] or {}})
    return rows


def error_of(read, folder):
    with pytest.raises(RunError) as raised:
        list(read(folder))
    return str(raised.value)


ODD = {
    "accents and other scripts": [row(0, question="où est le chat ? 猫 😀", answer="là"), row(1, video="v/猫.mp4")],
    "escapes": [row(0, prediction='a "quoted" \\ \n\t\u0000\u0007 "error": null'), row(1, question='"prediction": null')],
    "lone surrogates": [row(0, video="caf\udce9.mp4"), row(1, error="caf\udce9.mp4: no", prediction=None), row(2)],
    "options": [
        row(0, options=["a", "b"]), row(1, options=["b", "a"]), row(2), row(3, options=[""]), row(4, options=["", ""]),
        row(5, options=["a", "b"]),
    ],
    "options with a separator": [row(0, options=["a\x1fb", "c"]), row(1, options=["a", "b\x1fc"])],
    "seconds": [row(0, seconds={}), row(1, seconds={"c": 1, "a": 2.25}), row(2), row(3, seconds={"null": 0})],
    "failed": [row(0, error="no video", prediction=None, visual_tokens=None, seconds={}), row(1), row(2, error="")],
    "neither prediction nor error": [row(0, prediction=None), row(1, prediction="")],
    "groups": [
        row(0), row(1, groups={"duration": "short"}), row(2, groups={}), row(3, groups=None), row(4, groups=[]),
        row(5, groups={"form": "b", "duration": "short"}), row(6, groups={"duration": "", "form": "b"}),
    ],
    "groups like dates": [row(i, groups={"day": "2026-01-02", "time": "2026-01-02 10:00:00"}) for i in range(3)],
    "groups of another kind": [row(0, groups={"a": 1}), row(1, groups={"a": None}), row(2, groups="x"), row(3)],
    "tasks": [row(0, task="yes_no"), row(1), row(2, task=""), row(3, task=None)],
    "a task that is no text": [row(0, task=1), row(1, task=True), row(2, task=["x"])],
    "fields of an older version": [row(0, id=5, note={"a": [1, "b", None]}), row(1, id="x"), row(2, note="text")],
    "nulls elsewhere": [row(0, cost=None, clip={"start": None}), row(1, cost=1.5), row(2, clip={"error": None})],
    "NaN elsewhere": [row(0, cost=float("nan")), row(1, cost=float("-inf"))],
    "other spaces": [json.dumps(row(i, error=None), separators=(",", ":")).encode() + b"\n" for i in range(3)],
    "lines of another system": [json.dumps(row(i)).encode() + b" \r\n" for i in range(3)],
    "a name twice": [b'{"key": "old", ' + json.dumps(row()).encode()[1:] + b"\n", row(1)],
    "a large number": [row(0, visual_tokens=10**25), row(1, visual_tokens=-1)],
    "a number in another form": [json.dumps(row()).replace('"a": 0.5', '"a": 5E-1').encode() + b"\n", row(1)],
    "a mark at the start": [b"\xef\xbb\xbf" + json.dumps(row()).encode() + b"\n", row(1)],
    "a half-written line": [row(0), row(1), b'{"key": "open/2", "setting'],
    "only a half-written line": [b'{"key": "open/2"}'],
    "no lines": [],
    "a long line": [row(0, question="what? " * 1000), row(1, prediction="[{" * 1000), row(2)],
}  # fmt: skip


@pytest.mark.parametrize("name", ODD)
def test_columns_are_those_of_a_plain_reading(tmp_path, name):
    folder = write(tmp_path, ODD[name])
    assert by_columns(folder) == plain(folder) and len(plain(folder)) == sum(
        not isinstance(line, bytes) or line.endswith(b"\n") for line in ODD[name]
    )


def test_all_kinds_of_rows_in_many_blocks(tmp_path, monkeypatch):
    lines = [line for each in ODD.values() for line in each if not isinstance(line, bytes)]
    folder = write(tmp_path, [line | {"key": f"k{i}"} for i, line in enumerate(lines)])
    whole = by_columns(folder)
    assert whole == plain(folder)
    for size in (1, 300, 5_000):
        monkeypatch.setattr(columns, "_BLOCK_BYTES", size)
        assert by_columns(folder) == whole


def test_usual_rows_are_not_read_one_by_one(tmp_path, monkeypatch):
    failed = {"prediction": None, "error": "no video", "visual_tokens": None, "seconds": {}}
    rows = [row(i, options=["a", "ü"], groups={"g": "h"}, id="1", token_ids=[1, 2]) for i in range(20)]
    folder = write(tmp_path, [each | (failed if i % 7 == 0 else {}) for i, each in enumerate(rows)])
    expected = plain(folder)
    monkeypatch.setattr(columns, "parse_lines", lambda *_: pytest.fail("read row by row"))
    assert by_columns(folder) == expected


def without(*names):
    return {name: value for name, value in row(7).items() if name not in names}


DAMAGED = {
    "no prediction": without("prediction"),
    "no error": without("error"),
    "no error, but one elsewhere": without("error") | {"video": '"error": null'},
    "no key and options": without("key", "options"),
    "no seconds": without("seconds"),
    "null for a text": row(7, video=None),
    "number for a text": row(7, answer=5),
    "text for a number": row(7, visual_tokens="8"),
    "part of a token": row(7, visual_tokens=8.0),
    "true for a number": row(7, visual_tokens=True),
    "true for seconds": row(7, seconds={"a": True}),
    "null for seconds": row(7, seconds={"a": None}),
    "NaN for seconds": row(7, seconds={"a": float("nan")}),
    "infinite seconds": json.dumps(row(7)).replace("0.5", "1e999").encode() + b"\n",
    "a list of seconds": row(7, seconds=[]),
    "null for an option": row(7, options=["a", None]),
    "number for an option": row(7, options=["a", 1]),
    "null for options": row(7, options=None),
    "list for an error": row(7, error=["x"]),
    "an empty line": b"\n",
    "an array": b"[]\n",
    "a number": b"5\n",
    "two objects in a line": json.dumps(row(7)).encode() + json.dumps(row(8)).encode() + b"\n",
    "an object on two lines": json.dumps(row(7)).replace(', "v', ',\n"v').encode() + b"\n",
    "not UTF-8": json.dumps(row(7)).replace("what?", "caf\u00e9").encode("latin-1").replace(b"\\u00e9", b"\xe9")
    + b"\n",
    "a control character": json.dumps(row(7)).replace("what?", "a\x01b").encode() + b"\n",
    "a half-written line in the middle": json.dumps(row(7)).encode()[:60] + b"\n",
    "a comma too many": json.dumps(row(7)).encode()[:-1] + b",}\n",
    "very deep": json.dumps(row(7)).encode()[:-1] + b', "x": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
    "deep": json.dumps(row(7)).encode()[:-1] + b', "x": ' + b'{"a":' * 2_000 + b"1" + b"}" * 2_000 + b"}\n",
    "a repeated row": row(1),
}


@pytest.mark.parametrize("name", DAMAGED)
@pytest.mark.parametrize("size", [1 << 24, 300])
def test_errors_are_those_of_a_plain_reading(tmp_path, monkeypatch, name, size):
    monkeypatch.setattr(columns, "_BLOCK_BYTES", size)
    folder = write(tmp_path, [*(row(i) for i in range(5)), DAMAGED[name], *(row(i) for i in range(8, 12))])
    message = error_of(read_rows, folder)
    assert error_of(read_row_blocks, folder) == message and "line 6: " in message


def test_a_repetition_before_a_damaged_line_is_named_first(tmp_path, monkeypatch):
    monkeypatch.setattr(columns, "_BLOCK_BYTES", 300)
    folder = write(tmp_path, [row(0), row(1), row(0), *(row(i) for i in range(3, 9)), {}])
    assert error_of(read_row_blocks, folder) == error_of(read_rows, folder)
    assert "line 3: a second row for question open/0 at setting a" in error_of(read_row_blocks, folder)


def test_a_run_without_predictions_has_no_rows(tmp_path):
    assert by_columns(tmp_path) == []
