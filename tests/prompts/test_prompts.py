from __future__ import annotations

import pytest

from sfllava import prompts
from sfllava.evaluators.judges.rubric import load_rubric
from sfllava.prompts import Prompt, Wording, families, load_prompt, pack_prompt
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

TASKS = ("open", "choice", "describe")


def test_a_question_stays_text():
    question = Question("is {question} or <video> or {options} or {0} in it?", options=("{question}", "<video>"))
    before, after = Prompt("{question} before <video> then {question}|{options}|{other}").pieces(question)
    assert before == "is {question} or <video> or {options} or {0} in it? before "
    assert after == (" then is {question} or <video> or {options} or {0} in it?|(A) {question}\n(B) <video>|{other}")


@pytest.mark.parametrize("text", ["no {question} video", "{question} <video> and <video>"])
def test_the_video_occurs_once(text):
    with pytest.raises(SfllavaError, match="a prompt needs <video> once"):
        Prompt(text)


def test_a_prompt_asks_the_question():
    with pytest.raises(SfllavaError, match=r"a prompt needs \{question\}"):
        Prompt("USER: <video>")
    with pytest.raises(SfllavaError, match=r"needs \{options\}"):
        Prompt("<video> {question}").pieces(Question("?", options=("a", "b")))


@pytest.mark.parametrize("placeholder", ["{subtitle}", "{Question}", "{ {option} }"])
def test_a_placeholder_that_nothing_fills_in_is_named(tmp_path, placeholder):
    (tmp_path / "p.txt").write_text(f"<video> {{question}} {placeholder}")
    named = placeholder.strip("{ }")
    with pytest.raises(
        SfllavaError, match=rf"p\.txt: nothing fills in \{{{named}\}}; .* are \{{question\}}, \{{options\}}, "
    ):
        load_prompt(tmp_path / "p.txt")
    with pytest.raises(SfllavaError, match=rf"mine: nothing fills in \{{{named}\}}"):
        Setting(8, "concat", "mine", f"<video> {{question}} {placeholder}")
    (tmp_path / "open.txt").write_text(f"grade\n--- user ---\n{{question}} {{answer}} {{prediction}} {placeholder}")
    with pytest.raises(SfllavaError, match=rf"open\.txt: nothing fills in \{{{named}\}}"):
        load_rubric("open", tmp_path)


@pytest.mark.parametrize(
    "braces", ['{"answer": "A"}', "{}", "{a: 1}", "{{name}}", "${HOME}", r"\boxed{answer}", "{a, b}"]
)
def test_braces_that_are_no_placeholder_stay(tmp_path, braces):
    (tmp_path / "p.txt").write_text(f"<video> {{question}} {braces}")
    assert load_prompt(tmp_path / "p.txt").pieces(Question("what?"))[1] == f" what? {braces}"


def test_a_file_is_taken_byte_for_byte(tmp_path):
    text = " \r\nUSER: <video>\n{question}\t é \n\n"
    (tmp_path / "p.txt").write_bytes(text.encode())
    assert load_prompt(tmp_path / "p.txt").text == text
    (tmp_path / "p.txt").write_bytes(b"<video> \xff")
    with pytest.raises(SfllavaError, match=r"p\.txt: the prompt must be UTF-8"):
        load_prompt(tmp_path / "p.txt")
    with pytest.raises(SfllavaError, match=r"q\.txt: cannot read the prompt"):
        load_prompt(tmp_path / "q.txt")


@pytest.mark.parametrize("family", families())
def test_packs(family):
    for task in TASKS:
        question = Question("what is it?", options=("a cat", "a dog") if task == "choice" else ())
        before, after = pack_prompt(family, task).pieces(question)
        assert "what is it?" in after and "{" not in before + after
        assert ("(A) a cat\n(B) a dog" in after) == (task == "choice")
    # the reply starts behind an open bracket, so that its first character is the letter
    assert pack_prompt(family, "choice").text.endswith("(")


def test_a_new_family_is_a_folder_of_templates(tmp_path, monkeypatch):
    monkeypatch.setattr(prompts, "_TEMPLATES", tmp_path)
    (tmp_path / "gemma").mkdir()
    assert families() == []
    (tmp_path / "gemma" / "open.txt").write_text("<video> {question}")
    assert families() == ["gemma"] and pack_prompt("gemma", "open").source == "gemma/open"
    with pytest.raises(SfllavaError, match=r"gemma has no choice\.txt or video\.txt, which choice questions need"):
        pack_prompt("gemma", "choice")


def test_a_new_family_only_needs_its_chat_format(tmp_path, monkeypatch):
    monkeypatch.setattr(prompts, "_TEMPLATES", tmp_path)
    (tmp_path / "gemini").mkdir()
    (tmp_path / "gemini" / "video.txt").write_text("<user><video>\n{request}<model>{reply}")
    question = Question("what?", options=("a", "b"))
    assert pack_prompt("gemini", "choice").pieces(question)[1] == (
        "\nQuestion: what?\nOptions:\n(A) a\n(B) b\n"
        "Reply with the letter of the one option that the video shows to be right.<model> The right option is ("
    )
    captions = Question("which?", options=("Caption 1: a", "Caption 2: b"), task="caption_matching")
    assert "which?\nCaption 1: a\nCaption 2: b\n" in pack_prompt("gemini", "caption_matching").pieces(captions)[1]


@pytest.mark.parametrize("family", families())
def test_subtitles_come_directly_after_the_video(family):
    bare = pack_prompt(family, "open").pieces(Question("what?"))
    before, after = pack_prompt(family, "open").pieces(Question("what?", subtitles="hello\n{question} <video>"))
    block = "Subtitles of the video:\nhello\n{question} <video>\n"
    assert before == bare[0] and after.replace(block, "", 1) == bare[1].replace("{question}", "what?")
    assert after.lstrip("\n").startswith(block)


def test_a_custom_prompt_may_place_the_subtitles():
    prompt = Prompt("<video>{question}\n({subtitles})", "mine")
    assert prompt.pieces(Question("what?", subtitles="a\nb"))[1] == "what?\n(a\nb)"
    assert prompt.pieces(Question("what?"))[1] == "what?\n()"


def test_a_wording_may_change_the_format_of_options():
    wording = Wording("{question}\n{options}\nThe best answer is:", option="{label}. {option}")
    prompt = wording.prompt("vicuna", "test")
    after = prompt.pieces(Question("what?", options=("a {label}", "b")))[1]
    assert after == "\nwhat?\nA. a {label}\nB. b\nThe best answer is: ASSISTANT:"
    assert prompt.identity() != pack_prompt("vicuna", "choice").identity()


def test_packs_speak_their_model_s_format():
    assert pack_prompt("vicuna", "open").text.endswith(" ASSISTANT:")
    assert pack_prompt("chatml", "open").text.endswith("<|im_end|><|im_start|>assistant\n")
    assert (
        pack_prompt("mistral", "open").text.startswith("[INST] ") and "[/INST]" in pack_prompt("mistral", "open").text
    )
    with pytest.raises(
        SfllavaError,
        match="no prompt pack is called 'gpt'; choose from chatml, llama3, llava_qwen, mistral, onevision, qwen, qwen3, tiny, vicuna",
    ):
        pack_prompt("gpt", "open")
