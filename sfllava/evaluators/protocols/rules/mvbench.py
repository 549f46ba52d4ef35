"""MVBench's request, and its rule: compare the first word of a reply with the label of the right option.

Sources: video_chat2/mvbench.ipynb of OpenGVLab/Ask-Anything (4dd8210), `check_ans`, and the same in VLMEvalKit.
"""

from __future__ import annotations

from sfllava.prompts import LETTERS, Wording
from sfllava.types import Question

LETTERED_OPTIONS = "Question: {question}\nOptions:\n{options}\nOnly give the best option."
WORDING = Wording(
    "Carefully watch the video and pay attention to the cause and sequence of events, the detail and movement of "
    "objects, and the action and pose of persons. Based on your observations, select the best option that accurately "
    f"addresses the question.\n{LETTERED_OPTIONS}",
    "Best option:(",
)


def accepted_by_first_word(question: Question, reply: str) -> list[int]:
    """Return the options that the rule would accept, were they right.

    An option is accepted if its label, such as "(a)", contains the reply's first word, full stops aside, or is
    contained in it. So an empty reply or a bracket alone is accepted for every option.
    """
    word = reply.lower().split(" ")[0]
    labels = [f"({letter})" for letter in LETTERS[: len(question.options)].lower()]
    return [i for i, label in enumerate(labels) if word.replace(".", "") in label or label in word]
