"""`lmms-eval`: as the tasks of EvolvingLMMs-Lab/lmms-eval (75571cf, August 2026; version 0.7.2) ask, read and average.

Sources, in lmms_eval/tasks: the yaml files and utils.py of videomme, longvideobench, mlvu, mvbench, tempcompass,
egoschema and nextqa; each with its default arguments.

Versions up to 0.7.1 (March 2026) read Video-MME by the phrases and the first letter that `official` knows, and MLVU by
the character before the first bracket; 0.7.2 replaced both by `ranked_letter`.

Otherwise than there: MLVU's tasks that a run does not have count as 0 there, and leave the mean here. With subtitles,
Video-MME's request says "No subtitles available" where there are none. LongVideoBench's task for videos shows none.
Unchecked: that MVBench's 20 tasks are averaged, since the tool reports each by itself; that EgoSchema's options begin
with their letters in its file.
"""

from __future__ import annotations

import re

from sfllava.evaluators.protocols.base import (
    LEFT_OUT,
    Draw,
    Protocol,
    Reading,
    guess,
    read_letter,
)
from sfllava.evaluators.protocols.rules import tempcompass
from sfllava.evaluators.protocols.rules.first_letter import read_longvideobench
from sfllava.evaluators.protocols.rules.mmmu import egoschema_letter, nextqa_letter
from sfllava.evaluators.protocols.rules.ranked_letter import ranked_letter
from sfllava.prompts import LETTERS, Wording
from sfllava.types import Question

_MARKS = (";", "/", "[", "]", '"', "{", "}", "(", ")", "=", "+", "\\", "_", "-", ">", "<", "@", "`", ",", "?", "!")


def _read_ranked(question: Question, reply: str | None, draw: Draw) -> Reading:
    return read_letter(question, ranked_letter(reply or "", "ABCD"))


def _read_mvbench(question: Question, reply: str | None, draw: Draw) -> Reading:
    return read_letter(question, mvbench_letter(reply)) if reply else LEFT_OUT


def mvbench_letter(reply: str) -> str | None:
    """Return the first letter from A to E, small or capital, that stands alone; "a man" is A.

    Marks are removed before: next to a space without a trace, elsewhere they leave a space.
    """
    if line := re.match(r"([A-E])\.\s*.+$", reply.strip(), re.IGNORECASE):
        return line[1].upper()
    text = reply.replace("\n", " ").replace("\t", " ").strip()
    number = re.search(r"\d,\d", text) is not None
    plain = text
    for mark in _MARKS:
        beside_space = f"{mark} " in text or f" {mark}" in text
        plain = plain.replace(mark, "" if beside_space or number else " ")
    plain = re.sub(r"\.(?!\d)", "", plain)
    found = re.search(r"\b[A-E]\b", plain, re.IGNORECASE)
    return found[0].upper() if found else None


def _read_tempcompass(question: Question, reply: str | None, draw: Draw) -> Reading:
    return tempcompass.read_tempcompass(question, reply)


def _read_egoschema(question: Question, reply: str | None, draw: Draw) -> Reading:
    letter = egoschema_letter(reply or "", question.options)
    return read_letter(question, letter) if letter else guess(question, draw)


def _read_nextqa(question: Question, reply: str | None, draw: Draw) -> Reading:
    letter = nextqa_letter(reply or "", question.options)
    return read_letter(question, letter) if letter else guess(question, draw)


def _read_other(question: Question, reply: str | None, draw: Draw) -> Reading:
    if question.task != "choice":
        return tempcompass.read_tempcompass(question, reply)
    return read_letter(question, ranked_letter(reply or "", LETTERS[: len(question.options)]))


_DIRECTLY = "Answer with the option's letter from the given choices directly."
_VIDEOMME = (
    "Select the best answer to the following multiple-choice question based on the video and the subtitles. Respond "
    "with only the letter (A, B, C, or D) of the correct option.\n{question}\n{options}\n"
)
_LETTER_LINE = "{label}. {option}"
_WRONG = "an unparsable reply is wrong, and so is a question that failed"
_GUESSED = "a random option is taken for a question without a parsable reply"

PROTOCOL = Protocol(
    name="lmms-eval",
    summary="as the tasks of lmms-eval ask, read and average; others by its shared extraction of letters",
    rules={
        "": _read_other,
        "videomme": _read_ranked,
        "longvideobench": read_longvideobench,
        "mlvu": _read_ranked,
        "mlvu_test": _read_ranked,
        "mvbench": _read_mvbench,
        "tempcompass": _read_tempcompass,
        "egoschema": _read_egoschema,
        "nextqa": _read_nextqa,
    },
    wordings={
        "videomme": Wording(f"{_VIDEOMME}\n{_DIRECTLY}", option=_LETTER_LINE),
        "videomme/subtitles": Wording(
            f"{_VIDEOMME}The best answer is:",
            option=_LETTER_LINE,
            subtitles="This video's subtitles are listed below: \n{subtitles}\n",
        ),
        "longvideobench": Wording(f"{{question}}\n{{options}}\n{_DIRECTLY}\n", option=_LETTER_LINE),
        # as its question column has them, with a line break behind the options
        "mlvu": Wording("{question}\n{options}\n\nOnly give the best option.\nBest option: ("),
        "mlvu_test": Wording("{question}\n{options}\n"),
        "mvbench": Wording("Question:{question}\nOption:\n{options}\nOnly give the best option.\n"),
        "egoschema": Wording(f"{{question}}\n{{options}}\n{_DIRECTLY}", option=_LETTER_LINE),
        "nextqa": Wording("{question}\n{options}", option=_LETTER_LINE),
        **tempcompass.WORDINGS,
    },
    means={"mlvu": ("type",), "mlvu_test": ("type",), "mvbench": ("type",), "tempcompass": ("form",)},
    notes={
        "": f"no task of lmms-eval: its shared extraction of letters; {_WRONG}",
        "videomme": _WRONG,
        "longvideobench": _GUESSED,
        "mlvu": f"only A to D are read; {_WRONG}",
        "mlvu_test": f"only A to D are read, of A to F; {_WRONG}",
        "mvbench": "an empty reply is left out, and so is a question that failed; an unparsable reply is wrong",
        "tempcompass": f"its judge is off: {_WRONG}",
        "egoschema": _GUESSED,
        "nextqa": _GUESSED,
    },
)
