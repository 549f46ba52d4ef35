"""`official`: each benchmark as its own scripts ask, read and average; the paper's benchmarks by the published rule.

Sources, each read in the repository named:
    videomme        README of MME-Benchmarks/Video-MME (06c2315), eval_your_results.py of thanku-all/parse_answer
                    (afd52cf)
    longvideobench  longvideobench_dataset.py of longvideobench/LongVideoBench (fc3c553). It is scored with lmms-eval,
                    whose rule says that it is the paper's
    mlvu, mlvu_test choice_bench.py and test_bench.py of JUNJIE99/MLVU (fd060c1)
    mvbench         video_chat2/mvbench.ipynb of OpenGVLab/Ask-Anything (4dd8210)
    tempcompass     run_qwen2_vl.py, eval_*.py and utils/eval_utils.py of llyx97/TempCompass (e1b4631)
    others          eval/eval_multiple_choice_qa.py of apple/ml-slowfast-llava (bea0f73), with the package's wording

NExT-GQA's scripts compare indices of options and parse no reply, so it is among the others. Where two options are
equal, the first of them counts as the right letter. LongVideoBench's subtitles are between the frames there.
Unchecked: how MLVU's server compares the letters of mlvu_test, and what separates LongVideoBench's texts.
"""

from __future__ import annotations

from sfllava.evaluators.choice import parse_published
from sfllava.evaluators.protocols.base import (
    LEFT_OUT,
    WRONG,
    Draw,
    Protocol,
    Reading,
    read_accepted,
    read_index,
    read_letter,
)
from sfllava.evaluators.protocols.rules import mlvu, mvbench, tempcompass
from sfllava.evaluators.protocols.rules.first_letter import first_letter, read_longvideobench
from sfllava.prompts import Wording
from sfllava.types import Question

# Two commas are missing in the script's list of phrases, so that "Best option: C" keeps its B.
_VIDEOMME_PHRASES = (
    "The best answer is", "The correct answer is", "The answer is", "The answer",
    "The best option is" "The correct option is", "Best answer:" "Best option:",
    "Answer:", "Option:", "The correct answer", "The correct option",
)  # fmt: skip


def _read_videomme(question: Question, reply: str | None, draw: Draw) -> Reading:
    letter = first_letter(reply or "", _VIDEOMME_PHRASES, "ABCD")
    return read_letter(question, letter) if letter else LEFT_OUT


def _read_mlvu(question: Question, reply: str | None, draw: Draw) -> Reading:
    return read_letter(question, mlvu.letter_before_bracket((reply or "").strip()))


def _read_mvbench(question: Question, reply: str | None, draw: Draw) -> Reading:
    if reply is None:
        return WRONG
    # the reply goes on behind the bracket of "Best option:(", and only its first line counts
    return read_accepted(question, mvbench.accepted_by_first_word(question, "(" + reply.strip().split("\n")[0]))


def _read_tempcompass(question: Question, reply: str | None, draw: Draw) -> Reading:
    return tempcompass.read_tempcompass(question, tempcompass.without_end(reply))


def _read_published(question: Question, reply: str | None, draw: Draw) -> Reading:
    if question.task != "choice":
        return _read_tempcompass(question, reply, draw)
    return LEFT_OUT if reply is None else read_index(question, parse_published(reply))


_MLVU = Wording(mlvu.REQUEST, "Best Option: (")
_UNREAD_WRONG = "an unparsable reply is wrong; its script stops at a question that failed, which is wrong here"

PROTOCOL = Protocol(
    name="official",
    summary="as the benchmark's own scripts ask, read and average; others by SlowFast-LLaVA's published rule",
    rules={
        "": _read_published,
        "videomme": _read_videomme,
        "longvideobench": read_longvideobench,
        "mlvu": _read_mlvu,
        "mlvu_test": _read_mlvu,
        "mvbench": _read_mvbench,
        "tempcompass": _read_tempcompass,
    },
    wordings={
        "videomme": Wording(
            "Select the best answer to the following multiple-choice question based on the video. Respond with only "
            "the letter (A, B, C, or D) of the correct option.\n{question}\n{options}\nThe best answer is:",
            option="{label}. {option}",
            subtitles="This video's subtitles are listed below:\n{subtitles}\n",
        ),
        "longvideobench": Wording(
            "Question: {question}\n{options}\nAnswer with the option's letter from the given choices directly.",
            option="{label}. {option}",
            subtitles="{subtitles}\n",
        ),
        "mlvu": _MLVU,
        "mlvu_test": _MLVU,
        "mvbench": mvbench.WORDING,
        **tempcompass.WORDINGS,
    },
    means={"mlvu": ("type",), "mlvu_test": ("type",), "tempcompass": ("form",)},
    notes={
        "": "SlowFast-LLaVA's published rule: an unparsable reply is wrong, a question that failed is left out",
        "videomme": "a question without a parsable reply is left out",
        "longvideobench": "a random option is taken for a question without a parsable reply",
        "mlvu": _UNREAD_WRONG,
        "mlvu_test": f"{_UNREAD_WRONG}; the server's comparison of letters is assumed",
        "mvbench": "an empty reply counts as right; its script stops at a question that failed, which is wrong here",
        "tempcompass": "its judge is off: a reply that no rule matches is wrong, and so is a question that failed",
    },
)
