"""The training data of the tiny model: stills of scenes, questions about them, and the tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfllava.benchmarks.shapesqa.scenes import (
    CELLS,
    COLOURS,
    COUNTS,
    DIGITS,
    MARKS,
    PLACES,
    SIDE,
    choose_options,
    describe,
)
from sfllava.models.tiny.stills import Pools, make_stills
from sfllava.prompts import LETTERS, pack_prompt
from sfllava.types import Question, Task

# Other wordings of the same questions, by their beginning, so that the model understands more than one.
_OTHER_WORDS = {
    "What colour is the small": (
        "What is the colour of the small",
        "What color is the small",
        "Which colour has the small",
    ),
    "Which digit is on the sign?": (
        "What digit is on the sign?",
        "What number does the sign show?",
        "What is on the sign?",
    ),
    "Which digit is on the": ("What digit is on the", "What is on the"),
    "Where is the": ("Where in the frame is the", "In which corner is the"),
    "How many colours flashed?": ("How many flashes were there?", "How many different colours flashed?"),
    "Which colour flashed?": ("What colour was the flash?", "What colour flashed?"),
    "Which colour flashed first?": ("What colour flashed first?", "Which flash came first?"),
    "Which colour flashed last?": ("What colour flashed last?", "Which flash came last?"),
}
_DESCRIBE = ("Describe the video.", "What does the video show?", "What happens in the video?")
BOS, EOS = 1, 2
# the task of each question about a scene
SLOTS: tuple[Task, ...] = ("open", "open", "open", "describe", "choice", "choice", "choice", "choice")


@dataclass(frozen=True)
class BatchSpec:
    """The size of the batch in a training step.

    Attributes:
        stills: the least and the most stills per sequence.
        kept: patches per still, chosen at random; 0 for all.
        scenes: sequences in the batch, each of one scene.
        signs: whether the stills show coloured signs, and the questions are about those.
    """

    stills: tuple[int, int]
    kept: int
    scenes: int
    signs: bool = False

    @property
    def few(self) -> str:
        """How many stills there are per sequence, in words."""
        least, most = self.stills
        return f"{least}" if least == most else f"{least} to {most}"

    def __str__(self) -> str:
        return f"({self.few}{' with signs' if self.signs else ''}, {self.kept or 'all'}, {self.scenes})"


@dataclass(frozen=True)
class Batch:
    """A batch of B scenes with K stills each, and one question per scene and slot.

    Attributes:
        stills: (B K H W 3) uint8.
        kept: (B K n) indices of the patches that the model sees of each still, ascending; None for all.
        has_bos: (B) whether the sequence begins with BOS. One that does not is the middle of another sequence, and its
            reply is empty.
        ids: for each slot, the token ids (B L) of prompt and reply; -1 is padding.
        replies: for each slot, the mask (B L) of the replies' tokens.
        known: for each slot (B L), the answer's token id at the question mark; -1 elsewhere.
        options: for each slot (B L), at each option 1 if it is right, otherwise 0; -1 elsewhere.
        patches: (B K cells) the content of each patch, as an index of CONTENTS; -1 where it is ambiguous.
    """

    stills: np.ndarray
    kept: np.ndarray | None
    has_bos: np.ndarray
    ids: list[np.ndarray]
    replies: list[np.ndarray]
    known: list[np.ndarray]
    options: list[np.ndarray]
    patches: np.ndarray


def write_tokenizer(folder: Path) -> Any:
    """Write a word-level tokenizer for the prompts and replies, and return it."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    texts = [*_OTHER_WORDS, *(t for texts in _OTHER_WORDS.values() for t in texts), *_DESCRIBE, *COLOURS, *COUNTS]
    texts += [
        *DIGITS,
        *PLACES,
        *MARKS,
        "a sign with, flashes: then no flash . ! Answer: Description: ( )",
        " ".join(LETTERS),
        "".join(f"({x})" for x in LETTERS[:8]),
    ]
    # an option's "(A)" is one token, and so are a place and the open bracket before a reply
    split = pre_tokenizers.Split(Regex("|".join([*PLACES, r"\([A-Z]\)", r"\w+", r"[^\w\s]"])), "removed", invert=True)
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # joins words by spaces, with none before a comma
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    options = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(options, indent=1) + "\n")
    return tokenizer


def make_batch(rng: np.random.Generator, tokenizer: Any, spec: BatchSpec) -> Batch:
    """Draw random scenes, and for each of them one question per slot.

    Args:
        rng: the source of randomness.
        tokenizer: from `write_tokenizer`.
        spec: the size of the batch.

    Returns:
        The batch.
    """
    size, stills = spec.scenes, int(rng.integers(spec.stills[0], spec.stills[1] + 1))
    pixels = np.empty((size, stills, SIDE, SIDE, 3), np.uint8)
    patches = np.empty((size, stills, CELLS * CELLS), np.int64)
    has_bos = rng.random(size) > 0.06
    rows: list[list[_Text]] = []
    for b in range(size):
        pixels[b], patches[b], pools = make_stills(rng, stills, spec.signs, bool(spec.kept))
        rows.append([_text(_question(task, pools, rng), has_bos[b], tokenizer) for task in SLOTS])
    kept = None
    if spec.kept:
        kept = np.sort(rng.random(patches.shape).argsort(-1)[..., : spec.kept])
    slots = [[_pad([text[part] for text in slot]) for part in range(4)] for slot in zip(*rows)]
    ids, replies, known, options = ([slot[part] for slot in slots] for part in range(4))
    return Batch(pixels, kept, has_bos, ids, [part == 1 for part in replies], known, options, patches)


def _pad(rows: list[list[int]]) -> np.ndarray:
    padded = np.full((len(rows), max(map(len, rows))), -1)
    for b, row in enumerate(rows):
        padded[b, : len(row)] = row
    return padded


def _question(task: Task, pools: Pools, rng: np.random.Generator) -> tuple[Question, str, str]:
    """Return a question, the reply to it, and the answer that the reply means (empty for a description)."""
    detail, moment = pools.detail, pools.moment
    if task == "describe" and detail and pools.scene:
        return Question(str(rng.choice(_DESCRIBE)), task=task), describe(pools.scene), ""
    pool = detail if detail and (not moment or rng.random() < 0.5) else moment
    asked = pool[int(rng.integers(len(pool)))]
    text = asked.text
    if rng.random() < 0.4:
        text = str(rng.choice(wordings(text)[1:]))
    if task != "choice":
        return Question(text), asked.answer, asked.answer
    if rng.random() < 0.3:  # the question contains the answer, which teaches what an option's letter stands for
        text = f"Which is {asked.answer}?"
    right = int(rng.integers(4))
    options = choose_options(asked, rng, right)
    return Question(text, options=options, task="choice"), LETTERS[right], asked.answer


def wordings(text: str) -> list[str]:
    """Return the wordings of a question, its own first."""
    known = next(k for k in sorted(_OTHER_WORDS, key=len, reverse=True) if text.startswith(k))
    return [words + text[len(known) :] for words in (known, *_OTHER_WORDS[known])]


_Text = tuple[list[int], list[int], list[int], list[int]]


def _text(question: tuple[Question, str, str], has_bos: bool, tokenizer: Any) -> _Text:
    """Return the rows of `Batch.ids`, `replies`, `known` and `options` for one question."""
    asked, reply, answer = question
    _, after = pack_prompt("tiny", asked.task).pieces(asked)
    ids = tokenizer.encode(after, add_special_tokens=False).ids
    known, options = [-1] * len(ids), [-1] * len(ids)
    if answer and has_bos:
        known[ids.index(tokenizer.token_to_id("?"))] = tokenizer.token_to_id(answer)
    if has_bos:
        for i, option in enumerate(asked.options):
            options[ids.index(tokenizer.token_to_id(f"({LETTERS[i]})")) + 1] = int(option == answer)
    reply_ids = [*(tokenizer.encode(reply, add_special_tokens=False).ids if has_bos else []), EOS]
    rest = [-1] * len(reply_ids)
    return ids + reply_ids, [0] * len(ids) + [1] * len(reply_ids), known + rest, options + rest
