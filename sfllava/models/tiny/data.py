"""What the tiny model is trained on: stills of scenes, questions about them, and the words for both."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sfllava.benchmarks.shapesqa.scenes import (
    CELL,
    CELLS,
    COLOURS,
    COUNTS,
    DIGITS,
    MARKS,
    PLACES,
    SIDE,
    Scene,
    SceneQuestion,
    ask_detail,
    ask_moment,
    choose_options,
    describe,
    draw_scene,
    random_scene,
)
from sfllava.prompts import LETTERS, pack_prompt
from sfllava.types import Question, Task

# Other words for the same questions, so that a reader's own wording has a chance; {} is the thing.
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
    "Where is the": ("Where in the frame is the", "In which corner is the"),
    "How many colours flashed?": ("How many flashes were there?", "How many different colours flashed?"),
    "Which colour flashed?": ("What colour was the flash?", "What colour flashed?"),
    "Which colour flashed first?": ("What colour flashed first?", "Which flash came first?"),
    "Which colour flashed last?": ("What colour flashed last?", "Which flash came last?"),
}
_DESCRIBE = ("Describe the video.", "What does the video show?", "What happens in the video?")
CONTENTS = (
    "nothing",
    *(f"{name} {colour}" for name in (*MARKS, "flash") for colour in COLOURS),
    *(f"sign {digit}" for digit in DIGITS),
)
BOS, EOS = 1, 2
SLOTS: tuple[Task, ...] = ("open", "open", "open", "describe", "choice", "choice", "choice", "choice")


@dataclass(frozen=True)
class Diet:
    """What a step shows: sequences of as many stills (least, most), of each all patches or as many as `kept`."""

    stills: tuple[int, int]
    kept: int
    scenes: int

    def __str__(self) -> str:
        least, most = self.stills
        return f"({least if least == most else f'{least} to {most}'}, {self.kept or 'all'}, {self.scenes})"


@dataclass(frozen=True)
class Batch:
    """Stills (B K H W 3) of scenes, and for each slot token ids (B L) of prompts with replies."""

    stills: np.ndarray
    kept: np.ndarray | None
    """(B K n) which patches of each still are shown, in order; None for all"""
    begun: np.ndarray
    """(B) whether the sequence begins with BOS, or is the middle of another, to which there is no reply"""
    ids: list[np.ndarray]
    """-1 where padded"""
    replies: list[np.ndarray]
    """(B L) where the replies are"""
    known: list[np.ndarray]
    """(B L) the answer's token at the question's last word, where it can be known; -1 elsewhere"""
    options: list[np.ndarray]
    """(B L) at each option's last word 1 for the right one and 0 for the others; -1 elsewhere"""
    patches: np.ndarray
    """(B K cells) what is in each patch, as a number; -1 where it cannot be said"""


def write_tokenizer(folder: Path) -> Any:
    """A word-level tokenizer of the prompts' and replies' words."""
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
    # an option's "(A)" is one token, as is a place; the open bracket in front of a reply is one too
    split = pre_tokenizers.Split(Regex("|".join([*PLACES, r"\([A-Z]\)", r"\w+", r"[^\w\s]"])), "removed", invert=True)
    words = sorted({word for text in texts for word, _ in split.pre_tokenize_str(text)})
    vocabulary = {word: i for i, word in enumerate(["<unk>", "<s>", "</s>", *words])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = split
    tokenizer.decoder = decoders.WordPiece(prefix="##", cleanup=True)  # joins by spaces, none before a comma
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    folder.mkdir(parents=True, exist_ok=True)
    tokenizer.save(str(folder / "tokenizer.json"))
    options = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(options, indent=1) + "\n")
    return tokenizer


def make_batch(rng: np.random.Generator, tokenizer: Any, diet: Diet) -> Batch:
    """`diet.scenes` scenes, and a question about each for each of the slots."""
    size, stills = diet.scenes, int(rng.integers(diet.stills[0], diet.stills[1] + 1))
    pixels = np.empty((size, stills, SIDE, SIDE, 3), np.uint8)
    patches = np.empty((size, stills, CELLS * CELLS), np.int64)
    begun = rng.random(size) > 0.06
    rows: list[list[_Text]] = []
    for b in range(size):
        scene, shown = _scene(rng, stills, least=1 if diet.kept else 0)
        start, span = rng.random(), rng.random()
        radius = rng.uniform(45, 75)
        light = rng.uniform(0.85, 1.15)
        for i, k in enumerate(shown):
            when = (start * (1 - span)) + span * i / stills
            still = draw_scene(scene, rng, when, None if k is None else scene.flashes[k], radius)
            pixels[b, i] = _augment(still, rng, light)
            patches[b, i] = _patches(scene, k, radius)
        detail = ask_detail(scene) if None in shown and not diet.kept else []
        moment = ask_moment(scene)
        rows.append([_text(_question(task, scene, detail, moment, rng), begun[b], tokenizer) for task in SLOTS])
    kept = None
    if diet.kept:
        kept = np.sort(rng.random(patches.shape).argsort(-1)[..., : diet.kept])
    slots = [[_pad([text[part] for text in slot]) for part in range(4)] for slot in zip(*rows)]
    ids, replies, known, options = ([slot[part] for slot in slots] for part in range(4))
    return Batch(pixels, kept, begun, ids, [part == 1 for part in replies], known, options, patches)


def _pad(rows: list[list[int]]) -> np.ndarray:
    padded = np.full((len(rows), max(map(len, rows))), -1)
    for b, row in enumerate(rows):
        padded[b, : len(row)] = row
    return padded


def _scene(rng: np.random.Generator, stills: int, least: int) -> tuple[Scene, list[int | None]]:
    """A scene, and which of its flashes each still shows; each is seen in one still or in two."""
    shown: list[int | None] = [None] * stills
    n = int(rng.integers(least, min(4, stills) + 1)) if stills > 1 else int(rng.random() < 0.25)
    starts = sorted(rng.permutation(stills)[:n].tolist())
    for k, start in enumerate(starts):
        end = starts[k + 1] if k + 1 < n else stills
        for i in range(start, min(end, start + 1 + int(rng.random() < 0.3))):
            shown[i] = k
    return random_scene(rng, n), shown


def _patches(scene: Scene, flash: int | None, radius: float) -> np.ndarray:
    """What is in each of a still's patches, as an index of CONTENTS; -1 at the rim of a flash."""
    found = np.zeros((CELLS, CELLS), np.int64)
    for thing in scene.things:
        found[thing.cell] = CONTENTS.index(f"{thing.name} {thing.value}")
    if flash is not None:
        y, x = np.mgrid[0:CELLS, 0:CELLS] * CELL + CELL / 2 - SIDE / 2
        distance = np.hypot(x, y)
        found[distance < radius + 16] = -1
        found[distance < radius - 16] = CONTENTS.index(f"flash {scene.flashes[flash]}")
    return found.ravel()


def _augment(still: np.ndarray, rng: np.random.Generator, light: float) -> np.ndarray:
    """Brightness, noise, and the half-resolution colour of a video codec."""
    image = still.astype(np.float32) * light
    if rng.random() < 0.5:
        grey = image.mean(-1, keepdims=True)
        colour = (image - grey).reshape(SIDE // 2, 2, SIDE // 2, 2, 3).mean((1, 3))
        image = grey + colour.repeat(2, 0).repeat(2, 1)
    image += rng.normal(0, rng.uniform(0, 5), (SIDE, SIDE, 1)).astype(np.float32)
    return image.clip(0, 255).astype(np.uint8)


def _question(
    task: Task, scene: Scene, detail: list[SceneQuestion], moment: list[SceneQuestion], rng: np.random.Generator
) -> tuple[Question, str, str]:
    """A question, the reply to it, and the answer that the reply stands for, if there is one."""
    if task == "describe" and detail:
        return Question(str(rng.choice(_DESCRIBE)), task=task), describe(scene), ""
    pool = detail if detail and (not moment or rng.random() < 0.5) else moment
    asked = pool[int(rng.integers(len(pool)))]
    text = asked.text
    if rng.random() < 0.4:
        known = next(k for k in sorted(_OTHER_WORDS, key=len, reverse=True) if text.startswith(k))
        text = str(rng.choice(_OTHER_WORDS[known])) + text[len(known) :]
    if task != "choice":
        return Question(text), asked.answer, asked.answer
    if rng.random() < 0.3:  # the answer is in the question: what an option's letter stands for
        text = f"Which is {asked.answer}?"
    right = int(rng.integers(4))
    options = choose_options(asked, rng, right)
    return Question(text, options=options, task="choice"), LETTERS[right], asked.answer


_Text = tuple[list[int], list[int], list[int], list[int]]


def _text(question: tuple[Question, str, str], begun: bool, tokenizer: Any) -> _Text:
    """Ids of prompt and reply, where of these the reply is, the answer at the question mark, which option is right."""
    asked, reply, answer = question
    _, after = pack_prompt("tiny", asked.task).pieces(asked)
    ids = tokenizer.encode(after, add_special_tokens=False).ids
    known, options = [-1] * len(ids), [-1] * len(ids)
    if answer and begun:
        known[ids.index(tokenizer.token_to_id("?"))] = tokenizer.token_to_id(answer)
    if begun:
        for i, option in enumerate(asked.options):
            options[ids.index(tokenizer.token_to_id(f"({LETTERS[i]})")) + 1] = int(option == answer)
    said = [*(tokenizer.encode(reply, add_special_tokens=False).ids if begun else []), EOS]
    rest = [-1] * len(said)
    return ids + said, [0] * len(ids) + [1] * len(said), known + rest, options + rest
