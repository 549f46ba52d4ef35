"""TempCompass's requests, and its rules without the judge that its scripts ask about replies that no rule matches.

Sources: run_qwen2_vl.py, eval_multi-choice.py, eval_yes_no.py and eval_caption_matching.py of llyx97/TempCompass
(e1b4631) with `--disable_llm`, under which an unmatched reply is wrong; lmms-eval and VLMEvalKit have the same.
"""

from __future__ import annotations

from sfllava.evaluators.protocols.base import WRONG, Reading, read_accepted, read_index, read_letter
from sfllava.prompts import Wording
from sfllava.types import Question

_DIRECTLY = "{question}\n{options}\nPlease directly give the best option:"
WORDINGS = {
    "tempcompass/choice": Wording(_DIRECTLY, option="{label}. {option}"),
    "tempcompass/yes_no": Wording("{question}\nPlease answer yes or no:"),
    "tempcompass/caption_matching": Wording(_DIRECTLY, option="{option}"),
}


def read_tempcompass(question: Question, reply: str | None) -> Reading:
    """Read a reply by the rule of its question's task; a question without a reply is wrong."""
    if reply is None:
        return WRONG
    if question.task == "yes_no":
        return read_index(question, _yes_or_no(reply))
    if question.task == "caption_matching":
        return read_accepted(question, [i for i, option in enumerate(question.options) if _is_caption(reply, option)])
    return read_letter(question, _letter(reply))


def without_end(reply: str | None) -> str | None:
    """Return a reply without the end-of-text tag and the white space around, as the official scripts read it."""
    return None if reply is None else reply.replace("</s>", "").strip()


def _letter(reply: str) -> str | None:
    """Return the letter from A to D that a reply consists of, or that it begins with before a full stop or bracket."""
    return reply[0] if reply[:1] in tuple("ABCD") and reply[1:2] in ("", ".", ")") else None


def _yes_or_no(reply: str) -> int | None:
    """Return the index in `YES_NO` of the word that a reply begins with; "Not sure" begins with no."""
    text = reply.lower()
    return 0 if text.startswith("yes") else 1 if text.startswith("no") else None


def _is_caption(reply: str, option: str) -> bool:
    """Return whether a reply is an option, its text, or its label: "Caption A", or "A" alone."""
    label, colon, caption = option.partition(": ")
    names = {label, label.replace("Sentence ", "").replace("Option ", "").replace("Caption ", "")}
    texts = {option, caption.split(": ")[0]} if colon else {option}
    behind_bracket = reply.split(") ")[1] if ") " in reply else reply
    return bool(names & {reply, reply.replace(".", "")} or texts & {reply, behind_bracket})
