"""Question files of published benchmarks with random content: every question is kept, or the file is refused."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pyarrow
from hypothesis import strategies as st
from pyarrow import parquet

sys.path.insert(0, str(Path(__file__).parent))
from proofs import prove

from sfllava.benchmarks import BenchmarkError, load_benchmark

LETTERED = {"options": ["A. x", "B. y"], "answer": "B"}
ROWS = {
    "videomme": {"videoID": "v", "question_id": "1", "task_type": "t", "question": "q", "duration": "short",
                 "domain": "d", **LETTERED},
    "longvideobench": {"id": "1", "video_path": "v.mp4", "question": "q", "correct_choice": 1, "duration_group": 15,
                       "question_category": "c", "candidates": ["x", "y"], "subtitle_path": "v.json",
                       "starting_timestamp_for_subtitles": 0.0},
    "mlvu": {"video_name": "v.mp4", "question": "q\n(A) x\n(B) y", "candidates": ["x", "y"], "answer": "B",
             "task_type": "needle", "question_id": "1"},
    "mlvu_test": {"video": "v.mp4", "question": "q", "candidates": ["x", "y"], "answer": "y", "question_type": "t",
                  "question_id": "1"},
    "mvbench": {"video": "v.mp4", "question": "q", "candidates": ["x", "y"], "answer": "y", "start": 1.0, "end": 2.5},
    "mlvu_open": {"video": "v.mp4", "question": "q", "answer": "a text"},
    "nextgqa": {"video_id": "v", "qid": "1", "type": "CW", "question": "q", "answer": "x", "a0": "x", "a1": "y",
                "a2": "z", "a3": "u", "a4": "w"},
    "choice": {"video_name": "v", "question": "q", "answer": "x", "candidates": ["x", "y"], "start": 0, "end": 1,
               "fps": None, "subtitles": "v.srt"},
}  # fmt: skip
FILES = {"mvbench": "action_sequence.json", "mlvu_open": "9_summary.json"}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=12)
    | st.sampled_from(["..", "/x", "A. x", '["x", "y"]', "\0", "9" * 400, 10**400, "nan", "-1", " ", "[" * 9999]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=6,
)  # fmt: skip


def test_rows_of_benchmarks(tmp_path):
    """One field with a random value: as many questions as rows, or a one-line error that names file and row."""

    def check(drawn) -> None:
        name, (field, value), field_too = drawn
        rows = [ROWS[name], ROWS[name] | {field: value, "id": "2", "question_id": "2"}]
        if field_too is not None:
            rows[1].pop(field_too, None)
        path = tmp_path / FILES.get(name, "q.json")
        path.write_text(json.dumps(rows))
        try:
            benchmark = load_benchmark(name, path)
        except BenchmarkError as error:
            assert str(error).startswith(str(path)) and "\n" not in str(error) and len(str(error)) < 2000
            return
        blank = name == "mlvu_open" and len(benchmark.questions) == 1 and "left out: 1" in benchmark.flaws[0]
        assert blank or (len(benchmark.questions) == 2 and len({q.key for q in benchmark.questions}) == 2)
        for q in benchmark.questions if name != "mlvu_open" else ():
            right = q.answer_index is not None and q.options[q.answer_index] == q.answer
            assert right or (q.answer not in q.options and any(q.key in flaw for flaw in benchmark.flaws))

    fields = sorted({field for row in ROWS.values() for field in row})
    drawn = st.tuples(
        st.sampled_from(sorted(ROWS)), st.tuples(st.sampled_from(fields), VALUES), st.none() | st.sampled_from(fields)
    )
    prove("row of a benchmark's question file", "every question kept, or an error that names the row", drawn, check)


def test_json_and_parquet_of_any_content(tmp_path):
    """Random JSON, bytes and tables: questions, or a one-line error that names the file."""

    def check(drawn) -> None:
        name, kind, content = drawn
        path = tmp_path / {"tempcompass": "yes_no", "mvbench": "action_sequence"}.get(name, "q")
        if kind == "json":
            path = path.with_suffix(".json")
            path.write_text(json.dumps(content))
        elif kind == "bytes":
            path = path.with_suffix(".parquet")
            path.write_bytes(content)
        else:
            path = path.with_suffix(".parquet")
            columns = {field: pyarrow.array([value, value]) for field, value in content.items()}
            parquet.write_table(pyarrow.table(columns), path)
        try:
            assert load_benchmark(name, path).questions
        except BenchmarkError as error:
            assert str(tmp_path) in str(error) and "\n" not in str(error)

    names = st.sampled_from([*sorted(ROWS), "tempcompass", "tempcompass_captioning", "mlvu_open", "open"])
    fields = st.sampled_from(
        ["video_name", "question", "answer", "options", "candidates", "video", "dim", "x", "videoID"]
    )
    cells = (
        st.booleans()
        | st.integers(-9, 9)
        | st.floats()
        | st.text(max_size=9)
        | st.lists(st.text(max_size=3), max_size=3)
    )
    nested = st.dictionaries(
        st.text(max_size=3), st.dictionaries(st.text(max_size=3), st.lists(VALUES, max_size=2)), max_size=2
    )
    contents = st.one_of(
        st.tuples(names, st.just("json"), VALUES | nested),
        st.tuples(names, st.just("bytes"), st.binary() | st.binary().map(lambda data: b"PAR1" + data + b"PAR1")),
        st.tuples(names, st.just("table"), st.dictionaries(fields, cells, min_size=1, max_size=6)),
    )
    prove("question file of a benchmark, any content", "questions, or an error that names the file", contents, check)
