"""`lmms-eval`: the tasks of EvolvingLMMs-Lab/lmms-eval (75571cf, August 2026; version 0.7.2).

Sources, in lmms_eval/tasks: the yaml files and utils.py of videomme, longvideobench, mlvu, mvbench, tempcompass,
egoschema and nextqa; each with its default arguments.

Versions up to 0.7.1 (March 2026) parsed Video-MME by phrases and the first letter, as `official` does, and MLVU by the
character before the first closing bracket; 0.7.2 replaced both by `ranked_letter`.

Differences from lmms-eval: it counts MLVU tasks that are missing from a run as 0; here they are left out of the mean.
With subtitles, its Video-MME prompt says "No subtitles available" if there are none. Its LongVideoBench task for videos
does not show subtitles.
Unchecked: that MVBench's 20 tasks are averaged, since the tool reports each task separately; that EgoSchema's options
begin with their letters in its file.
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
    """Return the first letter from A to E, in either case, that stands alone; "a man" is A.

    Punctuation is removed first: a mark next to a space is deleted, any other mark is replaced by a space.
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
_WRONG = "unparsable replies and failed questions are wrong"
_GUESSED = "unparsable replies and failed questions get a random option"

PROTOCOL = Protocol(
    name="lmms-eval",
    summary="the tasks of lmms-eval; its shared letter extraction for other benchmarks",
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
        # as in its question column, with a line break after the options
        "mlvu": Wording("{question}\n{options}\n\nOnly give the best option.\nBest option: ("),
        "mlvu_test": Wording("{question}\n{options}\n"),
        "mvbench": Wording("Question:{question}\nOption:\n{options}\nOnly give the best option.\n"),
        "egoschema": Wording(f"{{question}}\n{{options}}\n{_DIRECTLY}", option=_LETTER_LINE),
        "nextqa": Wording("{question}\n{options}", option=_LETTER_LINE),
        **tempcompass.WORDINGS,
    },
    means={"mlvu": ("type",), "mlvu_test": ("type",), "mvbench": ("type",), "tempcompass": ("form",)},
    notes={
        "": f"not a task of lmms-eval, so its shared letter extraction is used; {_WRONG}",
        "videomme": _WRONG,
        "longvideobench": _GUESSED,
        "mlvu": f"only A to D are parsed; {_WRONG}",
        "mlvu_test": f"only A to D are parsed, although the options are A to F; {_WRONG}",
        "mvbench": "empty replies and failed questions are left out; other unparsable replies are wrong",
        "tempcompass": f"its judge is off: {_WRONG}",
        "egoschema": _GUESSED,
        "nextqa": _GUESSED,
    },
)
