"""How each protocol parses replies that test its rules; the expected results were written by hand."""

from __future__ import annotations

import sys

import pytest

import sfllava.evaluators.protocols as package
from sfllava.benchmarks import load_benchmark
from sfllava.evaluators.protocols import load_protocol, protocol_names
from sfllava.evaluators.protocols.base import YES_NO, Protocol
from sfllava.prompts import LETTERS, families, options_text
from sfllava.runs.run_json import choose_prompts
from sfllava.types import Question, SfllavaError

OPTIONS = ("a red ball", "a man", "two dogs", "nothing")
NAMES = ["lmms-eval", "official", "strict", "vlmevalkit"]
OWN = ("choice", "shapesqa")  # no tool has a task of that name


def last(options: int) -> int:
    """A guess that is always the last option."""
    return options - 1


def shown(protocol: str, benchmark: str, question: Question, reply: str | None) -> str:
    """What a protocol reads: the letter or word, "-" for none; then "?" if guessed, "out" if not counted, "+" if right."""
    found = load_protocol(protocol).read(benchmark, question, reply, last)
    assert found.guessed or found.parsed == (found.chosen is not None)
    assert not (found.guessed and found.parsed)
    labels = YES_NO if question.task == "yes_no" else LETTERS
    text = "-" if found.chosen is None else labels[found.chosen]
    return text + "?" * found.guessed + " out" * (not found.counted) + "+" * found.correct


def choice(right: str = "B", options=OPTIONS) -> Question:
    return Question("what is it?", answer=options[LETTERS.index(right)], options=options, task="choice")


def test_the_four_protocols_are_found_by_their_files():
    assert protocol_names() == NAMES
    for name in NAMES:
        protocol = load_protocol(name)
        assert protocol.name == name and protocol.summary
        assert set(protocol.notes) >= set(protocol.rules), "each rule has a note on what it cannot read"
        assert set(protocol.means or ()) <= set(protocol.rules)
    with pytest.raises(
        SfllavaError, match="no protocol is called 'base'; choose from lmms-eval, official, strict, vlm"
    ):
        load_protocol("base")


def test_a_new_file_is_a_new_protocol(tmp_path, monkeypatch):
    (tmp_path / "last_one.py").write_text(
        "from sfllava.evaluators.protocols.base import Protocol, read_index\n"
        "PROTOCOL = Protocol('last-one', 'the last option', {'': lambda q, reply, draw: read_index(q, len(q.options) - 1)})\n"
    )
    monkeypatch.setattr(package, "__path__", [*package.__path__, str(tmp_path)])
    assert "last-one" in protocol_names()
    assert shown("last-one", "choice", choice("D"), "A") == "D+"
    sys.modules.pop("sfllava.evaluators.protocols.last_one")


# The right option is B, "a man", of four. Columns: official Video-MME, lmms-eval Video-MME, lmms-eval LongVideoBench,
# VLMEvalKit Video-MME, and strict.
LETTER_RULES = [
    ("", "- out", "-", "D?", "-", "-"),
    (None, "- out", "-", "D?", "-", "-"),
    ("B", "B+", "B+", "B+", "B+", "B+"),
    ("b", "- out", "-", "D?", "-", "B+"),
    ("(b)", "- out", "-", "D?", "-", "B+"),
    ("(B) a man", "B+", "B+", "B+", "B+", "B+"),
    ("B. a man", "B+", "B+", "B+", "B+", "B+"),
    ("A man", "A", "A", "A", "A", "-"),
    ("a man", "- out", "-", "D?", "-", "-"),
    ("Answer: C", "C", "C", "A", "C", "-"),
    ("Answer: B", "B+", "B+", "A", "B+", "-"),
    ("The best answer is B.", "B+", "B+", "B+", "B+", "B+"),
    ("The correct answer is: B", "B+", "B+", "B+", "B+", "B+"),
    ("The best option is B", "B+", "B+", "B+", "B+", "B+"),
    ("Best option: C", "B+", "C", "C", "B+", "-"),
    ("Best answer: D", "B+", "D", "D", "B+", "-"),
    ("I think D", "D", "D", "D", "D", "-"),
    ("E", "- out", "-", "E", "-", "-"),
    ("F.", "- out", "-", "D?", "-", "-"),
    ("(A) or (C)?", "A", "C", "A", "A", "-"),
    ("Both (B) and (C) are", "B+", "C", "B+", "B+", "-"),
    ("Because he runs", "B+", "B+", "B+", "B+", "-"),
    ("The answer is a Dog, not a Ball", "D", "B+", "D", "D", "-"),
    ("C is wrong, so it must be B", "C", "C", "C", "C", "-"),
    ("it shows nobody at all in the whole of this long video", "- out", "-", "D?", "-", "-"),
]  # fmt: skip


@pytest.mark.parametrize(("reply", "official", "lmms", "longvideobench", "kit", "strict"), LETTER_RULES)
def test_letters(reply, official, lmms, longvideobench, kit, strict):
    question = choice("B")
    assert shown("official", "videomme", question, reply) == official
    assert shown("lmms-eval", "videomme", question, reply) == lmms
    assert shown("lmms-eval", "mlvu", question, reply) == lmms
    assert shown("lmms-eval", "longvideobench", question, reply) == longvideobench
    assert shown("official", "longvideobench", question, reply) == longvideobench
    assert shown("vlmevalkit", "videomme", question, reply) == kit
    for benchmark in ("videomme", "mvbench", "mlvu", *OWN):
        assert shown("strict", benchmark, question, reply) == strict


def test_lmms_eval_does_not_know_mlvu_s_last_two_options():
    question = choice("F", (*OPTIONS, "a cat", "a house"))
    assert shown("lmms-eval", "mlvu_test", question, "F") == "-"
    assert shown("official", "mlvu_test", question, "F") == "F+"
    assert shown("strict", "mlvu_test", question, "F") == "F+"
    assert shown("lmms-eval", "mlvu_test", question, "F, since it is no Apple") == "A"


@pytest.mark.parametrize(
    ("reply", "rank"),
    [
        ("A: no. B: yes. The answer is C", "A"),  # the start goes before the end
        ("it is A: no, B: yes, so C", "C"),  # the end goes before all the rest
        ("the answer is C, as in D. Or not", "D"),  # after a phrase, the last capital
        ("it is (A) and B. and C: maybe", "A"),  # brackets go before stops
        ("it is B. and C: maybe", "B"),
        ("it is C: and D) maybe", "C"),
        ("it is D) and A maybe", "D"),
        ("option A or option B ends", "B"),  # in a tie, the last
        ("maybeCat", "C"),  # anywhere at all
        ("정답은 C 입니다", "C"),
        ("'B.'", "B"),
        ("dog", "-"),
    ],
)
def test_lmms_eval_s_ranking_of_places(reply, rank):
    assert shown("lmms-eval", "videomme", choice("D"), reply).rstrip("+") == rank


# The right option is B, "a man", of four. Columns: official, lmms-eval and VLMEvalKit on MVBench.
MVBENCH_RULES = [
    ("", "-+", "- out", "-+"),
    (None, "-", "- out", "-+"),
    ("B", "B+", "B+", "B+"),
    ("b", "B+", "B+", "B+"),
    ("(B) a man", "B+", "B+", "B+"),
    ("B) a man", "B+", "B+", "B+"),
    ("A man", "A", "A", "A"),
    ("b.", "B+", "B+", "B+"),
    ("B, a man", "-", "B+", "B+"),
    ("Answer: B", "-", "B+", "B+"),
    ("I think D", "-", "D", "D"),
    ("a man", "A", "A", "-+"),  # A by its first word, B by its text: right for either
    ("the man has a dog", "-", "A", "-"),
    ("two dogs", "-", "-", "C"),
    ("A. two dogs", "A", "A", "A"),
    ("(a)(b)", "-+", "A", "-+"),  # accepted for either
    ("(", "-", "-", "-+"),
    (")", "-", "-", "-+"),
    ("E", "-", "E", "-"),
    ("no idea", "-", "-", "-"),
]


@pytest.mark.parametrize(("reply", "official", "lmms", "kit"), MVBENCH_RULES)
def test_mvbench(reply, official, lmms, kit):
    question = choice("B")
    assert shown("official", "mvbench", question, reply) == official
    assert shown("lmms-eval", "mvbench", question, reply) == lmms
    assert shown("vlmevalkit", "mvbench", question, reply) == kit


def test_mvbench_reads_the_first_line_only():
    assert shown("official", "mvbench", choice("B"), "B)\n(A) is wrong") == "B+"


# The right option is B of four. Columns: official and VLMEvalKit on MLVU.
MLVU_RULES = [
    ("", "-", "-"),
    (None, "-", "-"),
    ("B", "B+", "B+"),
    ("B) a man", "B+", "B+"),
    ("(B) a man", "B+", "B+"),
    ("it is (B) or (A)", "B+", "B+"),
    ("B.", "-", "B+"),
    ("(b)", "-", "-"),
    ("A man", "-", "A"),
    (") B", "-", "B+"),
    ("The best answer is B.", "-", "B+"),
    ("two dogs", "-", "C"),
]


@pytest.mark.parametrize(("reply", "official", "kit"), MLVU_RULES)
def test_mlvu(reply, official, kit):
    assert shown("official", "mlvu", choice("B"), reply) == official
    assert shown("vlmevalkit", "mlvu", choice("B"), reply) == kit


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("B", "B"),
        ("**B**: a man", "B"),
        ("A man", "A"),  # a letter among the last four words
        ("A man is walking there", "B"),  # not among them: the option's text
        ("A dog or A cat is there now", "-"),
        ("the answer is because he runs", "B"),  # after "answer is", even as the start of a word
        ("TWO DOGS run", "C"),
        ("two dogs and a man", "-"),
        ("two dogs " * 10, "-"),  # longer than twice all options
        ("(A) or (C)", "-"),
        ("Z", "-"),
        ("Cannot determine the answer: B", "-"),
        ("Failed to obtain answer via API: a man", "B"),
        ("b", "-"),
    ],
)
def test_vlmevalkit_s_exact_matching(reply, read):
    assert shown("vlmevalkit", "choice", choice("D"), reply) == read


FIVE = (*OPTIONS, "a cat")


@pytest.mark.parametrize(
    ("reply", "egoschema", "nextqa"),
    [
        ("B", "B", "B"),
        ("(B) or (C)", "B", "C"),  # the first and the last
        ("B or C", "B", "C"),
        ("A or (B)", "A", "B"),  # NExT-QA looks at brackets first
        ("I say B.", "B", "B"),
        ("USA is it", "A", "A"),
        ("in the end there is a red ball", "E?", "A"),  # EgoSchema's options begin with their letters
        ("in the end, a. a red ball it is", "A", "A"),
        ("a red ball", "E?", "E?"),  # too short for texts
        ("b", "E?", "E?"),
        ("", "E?", "E?"),
        (None, "E?", "E?"),
    ],
)
def test_lmms_eval_guesses_in_egoschema_and_nextqa(reply, egoschema, nextqa):
    question = choice("D", FIVE)
    assert shown("lmms-eval", "egoschema", question, reply) == egoschema
    assert shown("lmms-eval", "nextqa", question, reply) == nextqa


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("b", "B+"), ("B) a man", "B+"), ("because", "B+"), ("a man", "A"), ("Answer: C", "A"), ("(b)", "-"), ("", "-"),
        ("the answer is B: a man", "B+"), ("I think D", "-"), ("USA: it", "A"), ("F", "-"), (None, "- out"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("benchmark", ["nextqa", "egoschema", "intentqa", "nextgqa", *OWN])
def test_official_is_the_published_rule_for_the_paper_s_benchmarks(benchmark, reply, read):
    assert shown("official", benchmark, choice("B", FIVE), reply) == read


CAPTIONS = ("Caption A: The ball: it rolls.", "Caption B: A man is running.")
SENTENCES = ("Sentence 1: up", "Sentence 2: down")


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("B", "B+"), ("B.", "B+"), ("B. a man", "B+"), ("B) a man", "B+"), ("A. a red ball", "A"), ("E", "-"), ("D", "D"),
        ("(B)", "-"), ("b", "-"), ("B: a man", "-"), ("a man", "-"), ("Answer: B", "-"), ("", "-"), (None, "-"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("protocol", ["official", "lmms-eval", "vlmevalkit"])
def test_tempcompass_multiple_choice(protocol, reply, read):
    assert shown(protocol, "tempcompass", choice("B"), reply) == read


@pytest.mark.parametrize(
    ("reply", "read", "strict"),
    [
        ("yes", "yes+", "yes+"), ("Yes, it does.", "yes+", "yes+"), ("NO", "no", "no"), ("Not sure", "no", "-"),
        ("Nobody knows", "no", "-"), ("yesterday", "yes+", "-"), ("I say yes", "-", "-"), ("", "-", "-"), (None, "-", "-"),
        ('"Yes"', "-", "yes+"),
    ],
)  # fmt: skip
def test_tempcompass_yes_no(reply, read, strict):
    question = Question("is it?", answer="yes", task="yes_no")
    for protocol in ("official", "lmms-eval", "vlmevalkit"):
        assert shown(protocol, "tempcompass", question, reply) == read
    assert shown("strict", "tempcompass", question, reply) == strict


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("Caption B", "B+"), ("Caption B.", "B+"), ("B", "B+"), ("B.", "B+"), ("Caption A", "A"), ("A", "A"),
        ("Caption B: A man is running.", "B+"), ("A man is running.", "B+"), ("(B) A man is running.", "B+"),
        ("The ball", "A"),  # the text ends where another colon begins
        ("caption b", "-"), ("Caption B:", "-"), ("A man is running", "-"), ("", "-"), (None, "-"), ("both", "-"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("protocol", ["official", "lmms-eval", "vlmevalkit"])
def test_tempcompass_caption_matching(protocol, reply, read):
    question = Question("which?", answer=CAPTIONS[1], options=CAPTIONS, task="caption_matching")
    assert shown(protocol, "tempcompass", question, reply) == read
    other = Question("which?", answer=SENTENCES[1], options=SENTENCES, task="caption_matching")
    assert shown(protocol, "tempcompass", other, "2") == "B+" and shown(protocol, "tempcompass", other, "up") == "A"


def test_only_the_official_scripts_remove_the_end_of_text():
    assert shown("official", "tempcompass", choice("B"), " B</s>\n") == "B+"
    assert shown("lmms-eval", "tempcompass", choice("B"), " B</s>\n") == "-"
    assert shown("official", "tempcompass", Question("?", answer="no", task="yes_no"), "\nNo</s>") == "no+"


@pytest.mark.parametrize(
    ("reply", "read"),
    [
        ("Caption B: a man", "B+"),
        ("caption b", "B+"),
        ("a MAN is running", "B+"),
        ("Both A and B", "-"),
        ("", "-"),
        (None, "-"),
    ],
)
def test_strict_captions(reply, read):
    question = Question("which?", answer=CAPTIONS[1], options=CAPTIONS, task="caption_matching")
    assert shown("strict", "tempcompass", question, reply) == read


def every_benchmark():
    names = {name for protocol in NAMES for name in load_protocol(protocol).rules if name}
    return sorted({*names, *OWN, "nextgqa", "intentqa"})


def test_how_unparsable_replies_are_treated_by_each_protocol():
    """Where empty replies may count as right, be replaced by a random option, or be left out."""
    right, guessed, out, failed = set(), set(), set(), set()
    for protocol in NAMES:
        for benchmark in every_benchmark():
            for reply in ("", None):
                read = shown(protocol, benchmark, choice("B", FIVE), reply)
                where = (protocol, benchmark)
                right |= {where} if read == "-+" and reply == "" else set()
                failed |= {where} if read == "-+" and reply is None else set()
                guessed |= {where} if "?" in read else set()
                out |= {where} if "out" in read and reply == "" else set()
                assert read in ("-", "-+", "E?", "- out"), (where, reply)
    assert right == {("official", "mvbench"), ("vlmevalkit", "mvbench")}
    assert failed == {("vlmevalkit", "mvbench")}
    assert guessed == {
        ("official", "longvideobench"), ("lmms-eval", "longvideobench"), ("lmms-eval", "egoschema"), ("lmms-eval", "nextqa"),
    }  # fmt: skip
    assert out == {("official", "videomme"), ("lmms-eval", "mvbench")}


def test_no_option_is_read_by_accident_under_strict():
    for reply in ("A man", "A", "a", "I am", "Because", "An apple a day", "a", "A: ", "Dogs", "E", "e)"):
        read = shown("strict", "choice", choice("B"), reply)
        assert read == ("A" if reply.strip(": ") in ("A", "a") else "-"), reply


def test_an_equal_option_is_right_under_strict_alone():
    question = Question("?", answer="up", options=("down", "up", "up"), task="choice")
    assert shown("strict", "choice", question, "C") == "C+" and shown("lmms-eval", "choice", question, "C") == "C"
    known = Question("?", answer="up", options=("down", "up", "up"), answer_index=2, task="choice")
    assert shown("lmms-eval", "choice", known, "C") == "C+" and shown("official", "nextqa", known, "B") == "B"
    assert shown("official", "mlvu", Question("?", answer="left", options=("up", "down"), task="choice"), "A") == "A"


def filled(protocol: str, key: tuple, options=OPTIONS) -> str:
    wording = load_protocol(protocol).wording(*key)
    assert wording is not None
    text = wording.request.replace("{question}", "Why?").replace("{options}", options_text(options, wording.option))
    return f"{text}|{wording.reply}"


def test_requests():
    lines = "A. a red ball\nB. a man\nC. two dogs\nD. nothing"
    brackets = "(A) a red ball\n(B) a man\n(C) two dogs\n(D) nothing"
    select = "Respond with only the letter (A, B, C, or D) of the correct option.\n"
    official = filled("official", ("videomme", "choice"))
    assert official.endswith(f"based on the video. {select}Why?\n{lines}\nThe best answer is:|")
    assert filled("official", ("videomme", "choice", True)) == official
    lmms = filled("lmms-eval", ("videomme", "choice"))
    assert f"based on the video and the subtitles. {select}Why?\n{lines}\n\nAnswer with the option's letter" in lmms
    assert filled("lmms-eval", ("videomme", "choice", True)).endswith(f"Why?\n{lines}\nThe best answer is:|")
    kit = filled("vlmevalkit", ("videomme", "choice"))
    assert kit.startswith("These are the frames of a video. Select the best") and kit.endswith(
        f"Why?\n{lines}\nAnswer: |"
    )
    assert load_protocol("vlmevalkit").wording("videomme", "choice", True).subtitles.startswith("These are the frames")
    directly = "Answer with the option's letter from the given choices directly."
    assert filled("lmms-eval", ("longvideobench", "choice")) == f"Why?\n{lines}\n{directly}\n|"
    assert filled("official", ("mvbench", "choice")).endswith(
        f"\nQuestion: Why?\nOptions:\n{brackets}\nOnly give the best option.|Best option:("
    )
    assert (
        filled("lmms-eval", ("mvbench", "choice"))
        == f"Question:Why?\nOption:\n{brackets}\nOnly give the best option.\n|"
    )
    assert filled("official", ("mlvu", "choice")).endswith(f"\n{brackets}\nOnly give the best option.|Best Option: (")
    for protocol in ("official", "lmms-eval", "vlmevalkit"):
        assert filled(protocol, ("tempcompass", "choice")) == f"Why?\n{lines}\nPlease directly give the best option:|"
        assert filled(protocol, ("tempcompass", "yes_no")) == "Why?\nPlease answer yes or no:|"
        matching = filled(protocol, ("tempcompass", "caption_matching"), CAPTIONS)
        assert matching == "Why?\n" + "\n".join(CAPTIONS) + "\nPlease directly give the best option:|"
    for benchmark in ("nextqa", "egoschema", "intentqa", "choice"):
        assert load_protocol("official").wording(benchmark, "choice") is None
    assert load_protocol("strict").wordings == {}


def test_every_request_is_a_prompt_in_every_chat_format():
    for protocol in map(load_protocol, NAMES):
        for key, wording in protocol.wordings.items():
            yes_no = key.endswith("yes_no")
            question = Question("Why {x}?", options=() if yes_no else OPTIONS, subtitles="[00:01] hello")
            for family in families():
                _, after = wording.prompt(family, protocol.name).pieces(question)
                assert after.count("Why {x}?") == after.count("[00:01] hello") == 1
                assert yes_no or all(after.count(option) >= 1 for option in OPTIONS)
                assert "{question}" not in after and "{options}" not in after and "{label}" not in after


def test_a_run_with_subtitles_has_the_request_for_subtitles(tmp_path):
    (tmp_path / "q.csv").write_text("video_name,question,answer,a0,a1\na,what?,x,x,y\n")
    benchmark = load_benchmark("choice", tmp_path / "q.csv")
    benchmark = type(benchmark)(type(benchmark.spec)("videomme", "choice"), benchmark.questions, None)
    made = {
        subtitles: choose_prompts("vicuna", benchmark, benchmark.questions, None, "lmms-eval", subtitles)["choice"].text
        for subtitles in (False, True)
    }
    assert "given choices directly." in made[False] and "The best answer is:" in made[True]


def test_a_protocol_needs_a_rule_for_all_other_benchmarks():
    protocol = Protocol(
        "p", "s", {"": lambda question, reply, draw: load_protocol("strict").read("x", question, reply, draw)}
    )
    assert protocol.read("anything", choice("A"), "A", last).correct and protocol.note("anything") == ""
