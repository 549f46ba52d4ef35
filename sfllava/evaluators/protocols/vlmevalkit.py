"""`vlmevalkit`: open-compass/VLMEvalKit (e8e78f0, August 2026), with its judge off.

Sources: vlmeval/dataset/{videomme,longvideobench,mlvu,mvbench,tempcompass}.py, their helpers and multiple_choice.py in
vlmeval/dataset/utils, and vlmeval/utils/matching_util.py.

With `exact_matching` as the judge, a reply that no rule can parse becomes option Z, which is wrong. With a judge that
fails three times, it becomes a random option; this is not reproduced here. VLMEvalKit saves predictions in a table on
disk, and an empty reply is a missing value when the table is read.

Differences from VLMEvalKit: the texts of a message are joined as its LLaVA models do, and system texts come before the
question. "These are the frames of a video." is missing if a Video-MME run has subtitles but a question has none.
VLMEvalKit puts LongVideoBench's subtitles between the frames.
Unchecked: what happens to a question without a reply in MLVU and TempCompass, whose scripts would stop.
"""

from __future__ import annotations

import re

from sfllava.evaluators.protocols.base import WRONG, Draw, Protocol, Reading, read_accepted, read_letter
from sfllava.evaluators.protocols.rules import mlvu, mvbench, tempcompass
from sfllava.evaluators.protocols.rules.first_letter import first_letter
from sfllava.prompts import LETTERS, Wording
from sfllava.types import Question

# Two commas are missing in this list as well; see official.py.
_PHRASES = (
    "The best answer is", "The correct answer is", "The answer is", "The answer",
    "The best option is" "The correct option is", "Best answer:" "Best option:", "Answer:", "Option:",
)  # fmt: skip
_REFUSALS = (
    "Sorry, I can't help with images of people yet.", "I can't process this file.",
    "I'm sorry, but without the image provided", "Cannot determine the answer",
)  # fmt: skip
_NO_API = "Failed to obtain answer via API"
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([ABCD])", re.IGNORECASE)
_LAST_WORDS = 4


def infer_letter(question: Question, reply: str) -> str | None:
    """Return the letter that VLMEvalKit's exact matching infers from a letter or from the text of an option.

    1. The letter of exactly one option occurs as a capital word, first among the last four words of the reply.
    2. Otherwise, the letter after "answer is", even if it begins a word ("the answer is because" is B).
    3. Otherwise, the only option whose text the reply contains, if the reply is at most twice as long as all options.
    """
    letters = LETTERS[: len(question.options)]
    if any(refusal in reply for refusal in _REFUSALS) and _NO_API not in reply:
        return None
    if _NO_API not in reply:
        words = re.sub(r"[.()\[\],:;!*#{}]", " ", reply).split()
        named = [x for x in letters if x in words]
        if len(named) == 1 and words.index(named[0]) >= len(words) - _LAST_WORDS:
            return named[0]
        if not named and "Z" in words:
            return None
        behind = _ANSWER_IS.search(reply)
        if behind and behind[1].upper() in letters:
            return behind[1].upper()
    if len(reply) > 2 * sum(map(len, question.options)):
        return None
    repeated = [x for x, option in zip(letters, question.options) if option.lower() in reply.lower()]
    return repeated[0] if len(repeated) == 1 else None


def _read_videomme(question: Question, reply: str | None, draw: Draw) -> Reading:
    return read_letter(question, first_letter(reply or "", _PHRASES, "ABCD"))


def _read_longvideobench(question: Question, reply: str | None, draw: Draw) -> Reading:
    return read_letter(question, first_letter(reply or "", _PHRASES, "ABCDE"))


def _read_mvbench(question: Question, reply: str | None, draw: Draw) -> Reading:
    if not reply:  # the score of a missing reply is NaN, which its table counts as right
        return Reading(True, False)
    return _accepted(question, reply, mvbench.accepted_by_first_word(question, reply.strip()))


def _read_mlvu(question: Question, reply: str | None, draw: Draw) -> Reading:
    if reply is None:
        return WRONG
    letter = mlvu.letter_before_bracket(reply)
    return _accepted(question, reply, [LETTERS.index(letter)] if letter else [])


def _accepted(question: Question, reply: str, accepted: list[int]) -> Reading:
    """Grade a reply: right if the rule or exact matching accepts the right option."""
    inferred = infer_letter(question, reply)
    return read_accepted(question, {*accepted, *([LETTERS.index(inferred)] if inferred else [])})


def _read_tempcompass(question: Question, reply: str | None, draw: Draw) -> Reading:
    return tempcompass.read_tempcompass(question, reply)


def _read_other(question: Question, reply: str | None, draw: Draw) -> Reading:
    if question.task != "choice":
        return tempcompass.read_tempcompass(question, reply)
    return WRONG if reply is None else read_letter(question, infer_letter(question, reply))


_SELECT = (
    "Select the best answer to the following multiple-choice question based on the video. Respond with only the letter "
    "(A, B, C, or D) of the correct option.\nQuestion: {question}\n{options}\nAnswer: "
)
_LETTER_LINE = "{label}. {option}"
_WRONG = "its judge is off: unparsable replies and failed questions are wrong"

PROTOCOL = Protocol(
    name="vlmevalkit",
    summary="VLMEvalKit with exact matching instead of a judge",
    rules={
        "": _read_other,
        "videomme": _read_videomme,
        "longvideobench": _read_longvideobench,
        "mlvu": _read_mlvu,
        "mvbench": _read_mvbench,
        "tempcompass": _read_tempcompass,
    },
    wordings={
        "videomme": Wording(f"These are the frames of a video. {_SELECT}", option=_LETTER_LINE),
        "videomme/subtitles": Wording(
            _SELECT,
            option=_LETTER_LINE,
            subtitles="These are the frames of a video. This video's subtitles are listed below:\n{subtitles}\n",
        ),
        "longvideobench": Wording(
            "{question}\n{options}\nAnswer with the option's letter from the given choices directly.",
            option=_LETTER_LINE,
            subtitles="{subtitles}\n",
        ),
        "mlvu": Wording(mlvu.REQUEST),
        "mvbench": mvbench.WORDING,
        **tempcompass.WORDINGS,
    },
    notes={
        "": f"not a data set of VLMEvalKit, so its exact matching of options is used; {_WRONG}",
        "videomme": _WRONG,
        "longvideobench": _WRONG,
        "mlvu": f"mean over all questions; {_WRONG}",
        "mvbench": "its judge is off: empty replies and failed questions are right; other unparsable replies are wrong",
        "tempcompass": f"mean over all questions; {_WRONG}",
    },
)
