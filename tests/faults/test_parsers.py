"""Names, prompts, replies and question files with arbitrary content: read unchanged, or refused with a reason."""

from __future__ import annotations

import csv
import io
import json
import re
import string
import sys
from pathlib import Path

import pytest
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).parent))
from proofs import prove

from sfllava.aggregators.naming import parse_aggregation
from sfllava.aggregators.pools import POOLS, SLOW_POOLS
from sfllava.benchmarks import BenchmarkError, load_benchmark
from sfllava.evaluators.choice import judge_choice, parse_published, parse_strict
from sfllava.evaluators.judges.base import JudgeRequest
from sfllava.evaluators.judges.openai import OpenAIJudge
from sfllava.evaluators.judges.openai_errors import as_completion
from sfllava.evaluators.judges.reply import read_reply
from sfllava.evaluators.judges.rubric import load_rubric
from sfllava.evaluators.match import judge_match, normalise
from sfllava.prompts import LETTERS, VIDEO, Prompt, load_prompt, options_text
from sfllava.types import Question, SfllavaError

COUNT = st.integers(0, 10**7).map(str) | st.sampled_from(["٣", "1٣", "²", "01", "-1", "1.0", "", "9" * 5000])
POOL = st.sampled_from([*SLOW_POOLS, *POOLS]) | st.text(string.ascii_lowercase + "_0", max_size=8)
NAMES = st.one_of(
    st.builds("slowfast-slow_{}frms_{}-fast_{}x{}".format, COUNT, POOL, COUNT, COUNT),
    st.builds("image_grid-{}x{}".format, COUNT, COUNT),
    st.builds("image_grid-{}x{}-tiles_{}x{}".format, COUNT, COUNT, COUNT, COUNT),
    st.builds("thumbnail-{}x{}-sampled_{}".format, COUNT, COUNT, COUNT),
    st.builds("merged-{}{}".format, COUNT, st.sampled_from(["", "\n", " "])),
    st.builds("keyframes-{}frms_{}".format, COUNT, POOL),
    POOL,
    st.text(max_size=60),
)
PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)


def test_names_of_aggregations():
    def check(name: str) -> None:
        try:
            parsed = parse_aggregation(name)
        except SfllavaError as error:
            assert str(error)
        else:
            assert str(parsed) == name and parse_aggregation(str(parsed)) == parsed

    prove("name of an aggregation", "parsed and printed back unchanged, or SfllavaError", NAMES, check)


TEXT = st.text() | st.text(alphabet="{}<>video question options\\\n%$", max_size=40)
OPTIONS = st.lists(TEXT, max_size=30).map(tuple)


def test_prompts_keep_the_text_of_questions(tmp_path):
    """Whatever a question contains, braces and placeholders included: its text and the prompt's, and nothing else."""

    def check(drawn) -> None:
        parts, text, options = drawn
        a, b, c, d = (re.sub(r"<video>|\{\w+\}", "", part) for part in parts)
        wording = f"{a}\0{VIDEO}{b}\1{{question}}{c}\2{{options}}{d}"
        (tmp_path / "p.txt").write_bytes(wording.encode("utf-8"))
        prompt = load_prompt(tmp_path / "p.txt")
        assert prompt.text == wording
        question = Question(text, options=options)
        if len(options) > len(LETTERS):
            with pytest.raises(SfllavaError, match="at most 26 options"):
                prompt.pieces(question)
            return
        listed = "\n".join(f"({letter}) {option}" for letter, option in zip(LETTERS, options))
        assert options_text(options) == listed
        assert prompt.pieces(question) == (f"{a}\0", f"{b}\1{text}{c}\2{listed}{d}")

    parts = st.tuples(*[st.text(st.characters(codec="utf-8"), max_size=20)] * 4)
    prove(
        "prompt with any text",
        "the text unchanged, braces and placeholders included",
        st.tuples(parts, TEXT, OPTIONS),
        check,
    )


def test_prompt_files_of_any_content(tmp_path):
    def check(content) -> None:
        data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")
        (tmp_path / "p.txt").write_bytes(data)
        try:
            prompt = load_prompt(tmp_path / "p.txt")
        except SfllavaError as error:
            assert "p.txt" in str(error)
            return
        assert prompt.text.encode() == data and isinstance(prompt, Prompt)
        # options must not be dropped silently
        if "{options}" not in prompt.text:
            with pytest.raises(SfllavaError, match=r"p\.txt: .*needs \{options\}"):
                prompt.pieces(Question("q", options=("x", "y")))

    marks = st.lists(st.sampled_from([VIDEO, "{question}", "{options}", "{", "}", "x\n"]), max_size=6).map("".join)
    prove(
        "prompt file", "read byte for byte, or SfllavaError that names the file", st.binary() | st.text() | marks, check
    )


def test_replies_to_choices():
    """Any text is parsed as one option or none; a reply that plainly names an option is parsed as that option."""
    plain = [
        "{})",
        "({})",
        "({}) {}",
        "{}. {}",
        "{}",
        "Answer: ({})",
        "The answer is ({})",
        "{}: {}",
        "**{}**",
        "{}\n{}",
    ]

    def check(drawn) -> None:
        text, at, form, option = drawn
        published, strict = parse_published(text), parse_strict(text, 5)
        assert published in (None, 0, 1, 2, 3, 4) and strict in (None, 0, 1, 2, 3, 4)
        question = Question("?", options=("v", "w", "x", "y", "z"), answer="vwxyz"[at], answer_index=at, task="choice")
        verdicts = judge_choice(question, text)
        assert [verdicts[name].correct for name in ("choice-published", "choice-strict")] == [
            published == at,
            strict == at,
        ]
        right = form.format(LETTERS[at], option)
        assert parse_strict(right, 5) == at, right
        if form in ("{})", "({})", "({}) {}", "{}: {}"):  # forms that the published rule supports
            assert parse_published(right) == at, right
        assert judge_choice(question, right)["choice-strict"].correct

    word = st.text(string.ascii_lowercase + " ", max_size=12)
    letters = st.text(alphabet="ABCDEabcdeFz()[].:,*\n answer isoption-", max_size=40)
    drawn = st.tuples(st.text() | letters, st.integers(0, 4), st.sampled_from(plain), word)
    prove(
        "reply to a multiple-choice question", "an option or none; a plain letter is read as that letter", drawn, check
    )


def test_matching_words():
    def check(drawn) -> None:
        answer, said = drawn
        verdicts = judge_match(Question("?", answer=answer), said)
        exact, contains = verdicts["match-exact"], verdicts["match-contains"]
        assert (exact.parsed, contains.parsed) == (bool(normalise(said)),) * 2
        assert contains.correct or not exact.correct, "equal, but not contained"
        same = judge_match(Question("?", answer=answer), answer)
        assert same["match-exact"].correct == bool(normalise(answer))
        assert judge_match(Question("?", answer=answer), f"so {answer} so")["match-contains"].correct == bool(normalise(answer))  # fmt: skip

    prove("open answer to match", "a verdict; a text matches itself", st.tuples(st.text(), st.text()), check)


TRAPS = st.sampled_from(
    [
        '{"score": 5}', "{'score': 3}", '{"score": 1e999}', '{"score": NaN}', "{'score': -0}", '{"score": "4/5"}',
        '{"correct": "yes", "score": 4}', "{'pred': 'no', 'score': 0}", '{"score": [5]}', '{"score": {"score": 2}}',
        "{'score': __import__('os').abort()}", '{"score": "٤"}', '{"a":' * 300, "[" * 3000, '{"score": 5, "score": 0}',
        "{score: 0_4}", "{'score': 5e-1}", "\ud800", "<think>", "</think>", "```json\n", '{"correct": null, "score": 5}',
        '{"score": ' + "9" * 5000 + "}",
    ]
)  # fmt: skip


def test_replies_of_judges():
    """Any text gives a score from 0 to 5 or a ValueError; a well-formed reply within other text is parsed exactly."""

    def check(drawn) -> None:
        text, decides, score, correct = drawn
        if isinstance(text, bytes):
            text = text.decode("utf-8", "replace")
        try:
            said, found = read_reply(text, decides)
        except ValueError as error:
            assert str(error)
        else:
            assert 0 <= found <= 5 and isinstance(found, float) and (isinstance(said, bool) or not decides)
        reply = {"correct": "yes" if correct else "no", "score": score}
        wanted = (correct, score)
        assert read_reply(json.dumps(reply), True) == read_reply(f"As I see it: {reply!r}.", True) == wanted

    near = st.text(alphabet="{}[]\"':,score.0123456789 \\\n", max_size=200)
    text = st.one_of(st.text(), near, st.binary(), st.lists(TRAPS | near, max_size=4).map("".join))
    drawn = st.tuples(text, st.booleans(), st.floats(0, 5), st.booleans())
    prove("reply of a judge", "a score from 0 to 5, or ValueError with the reason", drawn, check, few=100)


def test_answers_of_a_judge_server():
    """Any JSON gives a verdict, which may be a failed one, or a ValueError."""
    judge = OpenAIJudge("some-model")
    ask = JudgeRequest(load_rubric("open"), ("q?",), "a", ("p",))

    def check(drawn) -> None:
        content, choice, message, more = drawn
        for value in (content, {**more, "choices": [{**choice, "message": {**message, "content": content}}]}):
            try:
                verdict = judge.read(ask, as_completion(value))
            except ValueError:
                continue
            assert (verdict.error is None) == (verdict.score is not None and verdict.correct is not None)
            assert verdict.score is None or 0 <= verdict.score <= 5

    known = st.sampled_from(
        ["model", "usage", "refusal", "finish_reason", "choices", "message", "content", "prompt_tokens"]
    )
    some_ = st.dictionaries(known, PLAIN | st.dictionaries(known, PLAIN, max_size=3), max_size=4)
    drawn = st.tuples(PLAIN | TRAPS, some_, some_, some_)
    prove("answer of a judge's server", "a verdict, a failed verdict, or ValueError", drawn, check)


CELL = st.text(st.characters(codec="utf-8"), max_size=30) | st.text(alphabet='",\n\r;\t \0{}x', max_size=12)
FILLED = CELL.map(lambda text: text + "x")
VIDEOS = CELL.map(lambda text: "v" + text.replace("..", "").replace("\0", ""))


def test_well_formed_question_files(tmp_path):
    """With quotes, commas, line ends and byte order marks: one question per record, unchanged."""
    path = tmp_path / "q.csv"

    def check(drawn) -> None:
        records, quoting, end, bom = drawn
        out = io.StringIO(newline="")
        write = csv.writer(out, quoting=quoting, lineterminator=end)
        write.writerow(["question_id", "video_name", "question", "answer"])
        if (quoting, end) == (csv.QUOTE_MINIMAL, "\n"):  # with these, Python's writer does not quote a lone \r
            records = [tuple(cell.replace("\r", " ") for cell in record_) for record_ in records]
        for i, record_ in enumerate(records):
            write.writerow([str(i), *record_])
        path.write_bytes(bom + out.getvalue().encode("utf-8"))
        read = load_benchmark("open", path).questions
        assert [(q.id, q.video, q.text, q.answer) for q in read] == [(str(i), *r) for i, r in enumerate(records)]

    records = st.lists(st.tuples(VIDEOS, FILLED, CELL), min_size=1, max_size=6)
    ends = st.sampled_from(["\n", "\r\n"])
    quoting = st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL])
    drawn = st.tuples(records, quoting, ends, st.sampled_from([b"", b"\xef\xbb\xbf"]))
    prove("question file, well-formed", "every record unchanged", drawn, check)


HEADERS = st.sampled_from(
    ["video_name", "question", "answer", "a0", "a1", "a²", "a" + "9" * 5000, "answer_number", "candidates", "question_id", "", "x\0", "start", "end"]
)  # fmt: skip
BROKEN = st.sampled_from(
    ['"', '""', '"\n', "a,b", "x" * 200_000, "\0", "\ufeff", "²", "9" * 5000, "..", "/etc/x", "\r", "", " ", "0", "1"]
)


def test_question_files_of_any_content(tmp_path):
    """Bytes, ragged rows, odd encodings, repeated columns, huge fields: questions, or an error that names the file."""

    def check(drawn) -> None:
        suffix, content, encoding = drawn
        if isinstance(content, list):
            content = "\n".join(",".join(row) for row in content)
        data = content if isinstance(content, bytes) else content.encode(encoding, "surrogatepass")
        path = tmp_path / f"q{suffix}"
        path.write_bytes(data)
        for name in ("open", "choice"):
            try:
                questions = load_benchmark(name, path).questions
            except BenchmarkError as error:
                assert str(path) in str(error), "the file is not named"
                continue
            assert questions and len({q.key for q in questions}) == len(questions)
            if suffix == ".json":
                assert len(questions) == len(json.loads(data.decode("utf-8-sig")))

    header = st.lists(HEADERS, max_size=7) | st.just(["video_name", "question", "answer", "a0", "a1", "answer_number"])
    table = st.tuples(header, st.lists(st.lists(BROKEN | CELL, max_size=7), max_size=5)).map(lambda t: [t[0], *t[1]])
    fields = st.dictionaries(HEADERS, PLAIN | st.sampled_from(["x", "²", "0", ["x", "y"], "9" * 5000]), max_size=7)
    whole = {"video_name": "v", "question": "q", "answer": "x", "candidates": ["x", "y"]}
    rows = st.lists(fields | fields.map(lambda more: whole | more), max_size=4)
    files = st.one_of(
        st.tuples(st.just(".csv"), st.binary() | st.text() | table, st.sampled_from(["utf-8", "utf-16", "utf-8-sig"])),
        st.tuples(
            st.just(".json"), rows.map(json.dumps) | PLAIN.map(json.dumps) | st.just("[" * 10**5), st.just("utf-8")
        ),
    )
    prove("question file with arbitrary content", "questions, or an error that names the file", files, check, few=150)
