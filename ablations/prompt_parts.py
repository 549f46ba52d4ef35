"""What does each part of the prompt contribute?

The prompt in the package for the model's family, then the same prompt without one of its parts, at the paper's default
setting.
"""

import re

from sfllava.prompts import pack_prompt
from sfllava.settings import Setting
from sfllava.types import SfllavaError

BENCHMARK = "egoschema"
# part -> its pattern; the prompt of a family has only some of these
PARTS = {
    "no opening": r"A person asks about a video\. .*? to the point\.\s*",
    "no word on the frames": r"The frames of a video, in order:\n",
    "no instruction": r"Reply with [^\n.]*\. ?",
    "no start of the reply": r"\s?(The right option is \(|Answer:( \()?)$",
}


def settings(model, task, tokens) -> list[Setting]:
    whole = pack_prompt(model.family, task).text
    cut = {name: re.sub(pattern, "", whole, flags=re.DOTALL) for name, pattern in PARTS.items()}
    cut = {name: text for name, text in cut.items() if text != whole}
    if not cut:
        raise SfllavaError(f"the {model.family} prompt for {task} questions has none of {', '.join(PARTS)}")
    default = Setting()
    return [
        Setting(default.frames, default.aggregation, name, text)
        for name, text in {"whole prompt": whole, **cut}.items()
    ]
