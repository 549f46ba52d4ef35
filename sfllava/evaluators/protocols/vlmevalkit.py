"""`vlmevalkit`: as open-compass/VLMEvalKit (e8e78f0, August 2026) asks, reads and averages, with its judge off.

Sources: vlmeval/dataset/{videomme,longvideobench,mlvu,mvbench,tempcompass}.py, their parts in vlmeval/dataset/utils,
multiple_choice.py there, and vlmeval/utils/matching_util.py.

With `exact_matching` for a judge, a reply that no rule reads becomes the option Z, which is wrong. With a judge that
fails three times it becomes a random option; that is not reproduced here. Predictions go through a table on disk, from
which an empty reply comes back as a missing value.

Otherwise than there: texts of one message are put together as its LLaVA models do, and system texts come before the
request. "These are the frames of a video." is missing where a run of Video-MME shows subtitles and a question has none.
LongVideoBench's subtitles are between the frames there.
Unchecked: what becomes of a question without a reply in MLVU and TempCompass, whose scripts would stop at one.
"""

from __future__ import annotations

import re

from sfllava.evaluators.protocols.base import WRONG, Draw, Protocol, Reading, read_accepted, read_letter
from sfllava.evaluators.protocols.rules import mlvu, mvbench, tempcompass
from sfllava.evaluators.protocols.rules.first_letter import first_letter
from sfllava.prompts import LETTERS, Wording
from sfllava.types import Question

# Two commas are missing here as well.
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
    """Return the letter that VLMEvalKit's exact matching infers: of a letter, or of an option's text.

    One option's letter alone must be a word of the reply, in capitals, and among the last four where it first occurs.
    Otherwise the letter behind "answer is" counts, even where it begins a word ("the answer is because" is B), and then
    the one option whose text the reply contains, if the reply is at most twice as long as all options together.
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
    if not reply:  # the score of a missing reply is no number, which its table counts as right
        return Reading(True, False)
    return _accepted(question, reply, mvbench.accepted_by_first_word(question, reply.strip()))


def _read_mlvu(question: Question, reply: str | None, draw: Draw) -> Reading:
    if reply is None:
        return WRONG
    letter = mlvu.letter_before_bracket(reply)
    return _accepted(question, reply, [LETTERS.index(letter)] if letter else [])


def _accepted(question: Question, reply: str, accepted: list[int]) -> Reading:
    """Read a reply by a rule that accepts some options; for the others, exact matching has the last word."""
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
_WRONG = "its judge is off: an unparsable reply is wrong, and so is a question that failed"

PROTOCOL = Protocol(
    name="vlmevalkit",
    summary="as VLMEvalKit asks, reads and averages with exact matching instead of a judge",
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
        "": f"no data set of VLMEvalKit: its exact matching of options; {_WRONG}",
        "videomme": _WRONG,
        "longvideobench": _WRONG,
        "mlvu": f"all questions are pooled; {_WRONG}",
        "mvbench": "its judge is off: an unparsable reply is wrong; an empty one counts as right, as does a failure",
        "tempcompass": f"all questions are pooled; {_WRONG}",
    },
)
