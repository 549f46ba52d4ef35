"""Exact wordings out of a checkout, by parsing. The checkout here is written for the test; its sentences are our own."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shell import sfllava

from sfllava.evaluators.judges.base import JudgeRequest
from sfllava.evaluators.judges.rubric import load_rubric
from sfllava.prompts import load_prompt, pack_prompt
from sfllava.published.judge_wordings import RUBRICS
from sfllava.published.templates import Gap, Unreadable, fill, parse_file, read_template, render
from sfllava.published.wordings import read_wordings, write_pack
from sfllava.types import Question, SfllavaError

INFERENCE = '''
import somewhere_that_is_not_installed
open("ran", "w").write("this file was run")  # it must not be


def lettered(candidates, version="other"):
    out = ""
    for i, candidate in enumerate(candidates):
        letter = chr(ord("A") + i)
        if version == "lines":
            out += f"({letter}) {candidate}\\n"
        else:
            out += f"{letter}: {candidate}; "
    return out, "letters"


def choose(conv_mode, question, candidates):
    if conv_mode == "multiple_choice_allvideo_v4":
        prompt = "Pick one. HUMAN: <image>\\nAsked: %s\\nFrom:\\n%sLetter only, 100%% sure.\\nMACHINE: ("
        choices, _ = lettered(candidates, version="lines")
        prompt = prompt % (question, choices)
    elif conv_mode == "multiple_choice_allvideo_34b_v4":
        prompt = "<|a|><image>" + "\\nAsked: %s\\n"
        prompt = prompt + "%s<|b|>("
        choices, _ = lettered(candidates, version="lines")
        return prompt % (question, choices)
    elif conv_mode == "in_a_row":
        prompt = "<image> %s %s"
        choices, _ = lettered(candidates)
        prompt = prompt % (question, choices)
    return prompt


def ask(conv_mode, question):
    if conv_mode == "image_seq_v3":
        """Of the small model."""
        prompt = "HUMAN: <image>\\nSay what {so to say} shows, caf\\u00e9 or not: %s \\nMACHINE: It shows"
        prompt = prompt % question
    elif conv_mode == "by_f_string":
        prompt = f"<image>\\n{question}?"
    elif conv_mode == "by_a_call":
        prompt = make("<image>") % question
    elif conv_mode == "twice":
        prompt = "<image><image> %s" % question
    elif conv_mode == "no_question":
        prompt = "<image>"
    elif conv_mode == "of_marks":
        prompt = "<image> {question} %s" % question
    elif conv_mode == "../out":
        prompt = "<image> %s" % question
    elif conv_mode == "a_model_s":
        prompt = "<image> %s %s" % (question, model)
    else:
        prompt = templates[conv_mode].render("<image>", question)
    return prompt
'''
RULES = ("correctness", "detailed_orientation", "context", "temporal")
JUDGE = f"""
def rules(mode):
    system_prompt = {{
        "default": "Grade the reply. " "Be fair.",
        "consistency": "Do the two replies agree?",
        **{{}},
        {", ".join(f'"{rule}": "Grade the {rule}."' for rule in RULES)},
    }}
    user_prompt = {{
        "default": "Q: %s\\nA: %s\\nSaid: %s\\n" "Write {{'pred': 'yes', 'score': 3}}, 50%% is 2.5.",
        "consistency": "Q: %s and %s\\nA: %s\\nSaid: %s and %s",
        {", ".join(f'"{rule}": "{rule} of %s, %s: %s"' for rule in RULES)},
        "short": "only %s",
    }}
    return system_prompt[mode], user_prompt[mode]
"""
USE = """
def use(mode, user_prompt, question, question1, question2, answer, pred, pred1, pred2):
    if mode == "consistency":
        return user_prompt % (question1, question2, answer, pred1, pred2)
    return user_prompt % (question, answer, pred)
"""
OPEN = """
def grade(client, question, answer, pred):
    return client.create(messages=[
        {"role": "system", "content": "You grade. " "Yes or no."},
        {"role": "user", "content": "Grade:\\n" f"Q: {question}\\n" f"A: {answer}\\nSaid: {pred}\\n" "Reply {'pred': 'no'}."},
    ])
"""


@pytest.fixture
def checkout(tmp_path):
    folder = tmp_path / "checkout"
    (folder / "eval").mkdir(parents=True)
    (folder / "prompt.py").write_text(INFERENCE)
    for name, text in (("eval_prompt", JUDGE), ("eval_generative_qa", USE), ("eval_video_qa", OPEN)):
        (folder / "eval" / f"{name}.py").write_text(text)
    return folder


def test_a_pack_from_a_checkout(checkout, tmp_path):
    out = sfllava("prompts", "import", checkout, "--out", "pack", cwd=tmp_path)
    assert out.returncode == 0, out.stderr
    pack = tmp_path / "pack"
    question = Question("is 50%s {options} <image>?", options=("a %s", "b"))
    before, after = load_prompt(pack / "multiple_choice_allvideo_v4/choice.txt").pieces(question)
    assert before == "Pick one. HUMAN: "
    # what the look-alike itself makes of it, which is filled in once, not twice
    assert after == ("\nAsked: is 50%s {options} <image>?\nFrom:\n(A) a %s\n(B) b\nLetter only, 100% sure.\nMACHINE: (")
    assert (pack / "multiple_choice_allvideo_34b_v4/choice.txt").read_text() == (
        "<|a|><video>\nAsked: {question}\n{options}\n<|b|>("
    )
    for task in ("open", "describe"):
        text = (pack / f"image_seq_v3/{task}.txt").read_bytes().decode()
        assert text == "HUMAN: <video>\nSay what {so to say} shows, café or not: {question} \nMACHINE: It shows"
    assert (pack / "by_f_string/open.txt").read_text() == "<video>\n{question}?"
    judge = {path.name: path.read_text() for path in (pack / "judge").iterdir()}
    assert judge["open.txt"] == (
        "You grade. Yes or no.\n--- user ---\nGrade:\nQ: {question}\nA: {answer}\nSaid: {prediction}\nReply {'pred': 'no'}."
    )
    assert judge["default.txt"].endswith(
        "\n--- user ---\nQ: {question}\nA: {answer}\nSaid: {prediction}\nWrite {'pred': 'yes', 'score': 3}, 50% is 2.5."
    )
    assert judge["CO.txt"].endswith(
        "\n--- user ---\nQ: {question} and {question2}\nA: {answer}\nSaid: {prediction} and {prediction2}"
    )
    for mode, rubric in RUBRICS.items():
        if mode in RULES:
            text = f"Grade the {mode}.\n--- user ---\n{mode} of {{question}}, {{answer}}: {{prediction}}"
            assert judge[f"{rubric}.txt"] == text
    ask = JudgeRequest(load_rubric("open", pack / "judge"), ("why?",), "so", ("{answer}",))
    assert ask.messages() == (
        "You grade. Yes or no.", "Grade:\nQ: why?\nA: so\nSaid: {answer}\nReply {'pred': 'no'}."
    )  # fmt: skip
    assert not (tmp_path / "ran").exists() and not (checkout / "ran").exists()
    about = json.loads((pack / "pack.json").read_text())
    assert about["checkout"] == str(checkout) and len(about["sha256"]) == 4
    assert about["wordings"]["image_seq_v3/open.txt"].startswith("prompt.py, line ")
    assert set(about["wordings"]) == {p.relative_to(pack).as_posix() for p in pack.rglob("*.txt")}


def test_it_says_what_it_did_not_find(checkout, tmp_path):
    out = sfllava("prompts", "import", checkout, "--out", "pack", cwd=tmp_path)
    for reason in (
        "in_a_row (line {}): its options are written otherwise than (A) text, one a line",
        "by_a_call (line {}): line {}: a Call expression is not text with variables in it",
        "twice (line {}): it needs <image> once",
        "no_question (line {}): prompt.py, line {}: a prompt needs {question}",
        "of_marks (line {}): its own text has {question} in it",
        "../out (line {}): '../out' cannot be the name of a folder",
        "a_model_s (line {}): it has the variable model; known are question",
        "image_seq_34b_v3/open.txt",
        "short of user_prompt (line {}): no variables are known for its 1 places",
        "system_prompt, line {}: needed the name of a mode",
    ):
        parts = reason.split("{}")
        assert any(
            all(part in line for part in parts) for line in out.stdout.splitlines() if line.startswith("  not found: ")
        ), (reason, out.stdout)
    assert not list(tmp_path.rglob("out")) and "wordings\n" in out.stdout


def test_parts_of_a_checkout(checkout, tmp_path):
    (checkout / "eval" / "eval_generative_qa.py").unlink()
    (checkout / "eval" / "eval_video_qa.py").write_text("def broken(:\n")
    pack = read_wordings(checkout)
    files = {wording.file for wording in pack.wordings}
    assert "image_seq_v3/open.txt" in files and "judge/CI.txt" not in files
    missing = "\n".join(pack.missing)
    assert "eval/eval_video_qa.py: not readable as Python" in missing and "judge/open.txt" in missing
    assert "judge/CI.txt: its system part alone was found" in missing
    assert "are named in eval/eval_generative_qa.py, which cannot be read: No such file" in missing
    for path in checkout.rglob("*.py"):
        path.unlink()
    out = sfllava("prompts", "import", checkout, "--out", "pack", cwd=tmp_path)
    assert out.returncode == 1 and "0 wordings" in out.stdout and not (tmp_path / "pack").exists()
    with pytest.raises(SfllavaError, match="gone: needed the folder of a checkout"):
        read_wordings(tmp_path / "gone")


def test_a_pack_is_not_overwritten_with_another(checkout, tmp_path):
    write_pack(read_wordings(checkout), tmp_path / "pack")
    write_pack(read_wordings(checkout), tmp_path / "pack")
    (checkout / "prompt.py").write_text(INFERENCE.replace("It shows", "There is"))
    with pytest.raises(
        SfllavaError, match=r"has other texts already: image_seq_v3/open\.txt, image_seq_v3/describe\.txt"
    ):
        write_pack(read_wordings(checkout), tmp_path / "pack")
    assert "It shows" in (tmp_path / "pack/image_seq_v3/open.txt").read_text()


def test_the_command_line_asks_with_what_was_imported(checkout, videos, tmp_path):
    """`ask` and `evaluate` take the file, `run` the folder; the package's own wording stays the default."""
    write_pack(read_wordings(checkout), tmp_path / "pack")
    tiny = (
        "--model",
        "tiny",
        "--frames",
        2,
        "--aggregation",
        "slowfast-slow_1frms_concat-fast_1x1",
        "--max-new-tokens",
        2,
    )
    (tmp_path / "q.csv").write_text("video_name,question,answer\na,what?,x\n")
    prompts = {}
    for name, more in (("own", ()), ("theirs", ("--prompt", "pack/image_seq_v3/open.txt"))):
        out = sfllava(
            "evaluate", "open", "--questions", "q.csv", "--videos", videos, *tiny, *more, "--out", name, cwd=tmp_path
        )
        assert out.returncode == 0, out.stderr
        prompts[name] = json.loads((tmp_path / name / "run.json").read_text())["identity"]["prompt"]
    assert prompts["own"] == pack_prompt("tiny", "open").text
    assert prompts["theirs"] == (tmp_path / "pack/image_seq_v3/open.txt").read_text()


TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)


@settings(max_examples=200, deadline=None)
@given(TEXT, TEXT, TEXT, TEXT, TEXT)
def test_a_template_is_what_python_makes_of_it(tmp_path_factory, a, b, c, question, answer):
    """Written as %, as an f-string or as a sum: the rendered template filled in equals the expression evaluated."""
    percent = [part.replace("%", "%%") for part in (a, b, c)]
    braces = [repr(part.replace("{", "{{").replace("}", "}}"))[1:-1].replace('"', '\\"') for part in (a, b, c)]
    sources = [
        f"{f'{percent[0]}%s{percent[1]}%s{percent[2]}'!r} % (question, answer)",
        f"{a!r} + question + ({b!r} + answer) + {c!r}",
        'f"'
        + braces[0].replace("\\'", "'")
        + "{question}"
        + braces[1].replace("\\'", "'")
        + '" f"{answer}" '
        + repr(c),
    ]
    path = tmp_path_factory.mktemp("source") / "x.py"
    for source in sources:
        path.write_text(f"x = {source}\n", encoding="utf-8", newline="")
        template = read_template(parse_file(path).body[0].value, {})  # type: ignore[attr-defined]
        names = {"question": "{question}", "answer": "{answer}"}
        if any(mark in part for mark in names.values() for part in (a, b, c)):
            continue
        made = eval(source, {"question": question, "answer": answer})  # noqa: S307 written above, by this test
        filled = "".join(
            {"question": question, "answer": answer}[p.name] if isinstance(p, Gap) else p for p in template
        )
        assert filled == made
        assert render(template, names) == a + "{question}" + b + "{answer}" + c


@pytest.mark.parametrize(
    ("template", "values", "message"),
    [
        (("%s %s",), 1, "'%s' has no value"),
        (("%s",), 2, "2 values for 1 places"),
        (("%d",), 1, "'%d' has no value, or is not %s"),
        (("100%",), 0, "'%' has no value"),
        ((Gap("x"),), 1, "the variable x is filled in by %"),
    ],
)
def test_what_percent_cannot_fill(template, values, message):
    with pytest.raises(Unreadable, match=message):
        fill(template, [(Gap("y"),)] * values)


def test_deep_and_strange_sources(tmp_path):
    for source in (
        "if conv_mode == 'x':\n    prompt = " + "+".join(["'<image>'"] * 20_000),
        "(" * 1000,
        "if conv_mode == 'x':\n    prompt = '<image> \\ud800 %s' % question",
        "#" * (1 << 20) + "\n",
        "\0",
    ):
        (tmp_path / "prompt.py").write_text(source)
        pack = read_wordings(tmp_path)
        assert not pack.wordings and any(reason.startswith("prompt.py: ") for reason in pack.missing), source[:40]
