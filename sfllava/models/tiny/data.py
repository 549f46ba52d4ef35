"""The training data of the tiny model: stills of scenes, questions about them, and the tokenizer."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
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
from sfllava.benchmarks.shapesqa.signs import BOARD, ask_digit, ask_place, draw_sign, random_signs
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
CONTENTS = (
    "nothing",
    *(f"{name} {colour}" for name in (*MARKS, "flash") for colour in COLOURS),
    *(f"sign {digit}" for digit in DIGITS),
    *(f"board {colour}" for colour in COLOURS),
    *(f"sign {colour} {digit}" for colour in COLOURS for digit in DIGITS),
)
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

    def __str__(self) -> str:
        least, most = self.stills
        shown = f"{least if least == most else f'{least} to {most}'}{' with signs' if self.signs else ''}"
        return f"({shown}, {self.kept or 'all'}, {self.scenes})"


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
        if spec.signs:
            pixels[b], patches[b], asked = _stills_with_signs(rng, stills)
            rows.append([_text(_phrase(task, asked, rng), has_bos[b], tokenizer) for task in SLOTS])
            continue
        scene, shown = _scene(rng, stills, least=1 if spec.kept else 0)
        start, span = rng.random(), rng.random()
        radius = rng.uniform(45, 75)
        light = rng.uniform(0.85, 1.15)
        for i, k in enumerate(shown):
            when = (start * (1 - span)) + span * i / stills
            still = draw_scene(scene, rng, when, None if k is None else scene.flashes[k], radius)
            pixels[b, i] = _augment(still, rng, light)
            patches[b, i] = _patches(scene, k, radius)
        detail = ask_detail(scene) if None in shown and not spec.kept else []
        moment = ask_moment(scene)
        rows.append([_text(_question(task, scene, detail, moment, rng), has_bos[b], tokenizer) for task in SLOTS])
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


def _scene(rng: np.random.Generator, stills: int, least: int) -> tuple[Scene, list[int | None]]:
    """Return a scene, and which of its flashes each still shows, if any; a flash is in one still or in two."""
    shown: list[int | None] = [None] * stills
    n = int(rng.integers(least, min(4, stills) + 1)) if stills > 1 else int(rng.random() < 0.25)
    starts = sorted(rng.permutation(stills)[:n].tolist())
    for k, start in enumerate(starts):
        end = starts[k + 1] if k + 1 < n else stills
        for i in range(start, min(end, start + 1 + int(rng.random() < 0.3))):
            shown[i] = k
    return random_scene(rng, n), shown


def _patches(scene: Scene, flash: int | None, radius: float) -> np.ndarray:
    """Return the content of each patch of a still, as an index of CONTENTS; -1 at the edge of a flash."""
    found = np.zeros((CELLS, CELLS), np.int64)
    for thing in scene.things:
        found[thing.cell] = CONTENTS.index(f"{thing.name} {thing.value}")
    if flash is not None:
        y, x = np.mgrid[0:CELLS, 0:CELLS] * CELL + CELL / 2 - SIDE / 2
        distance = np.hypot(x, y)
        found[distance < radius + 16] = -1
        found[distance < radius - 16] = CONTENTS.index(f"flash {scene.flashes[flash]}")
    return found.ravel()


def _stills_with_signs(rng: np.random.Generator, stills: int) -> tuple[np.ndarray, np.ndarray, list[SceneQuestion]]:
    """Return stills (K H W 3) with at most one coloured sign each, the content of their patches, and the questions.

    There are different signs, each in one or more stills, which need not follow each other. Some stills have no sign,
    unless there is just one. Half of the stills have another scene than the one before.
    """
    n = int(rng.integers(1, min(5, stills) + 1))
    signs = random_signs(rng, n)
    # each sign at least once; the other stills show none, or a sign again
    shown: list[int | None] = [
        *range(n),
        *(None if rng.random() < 0.6 else int(rng.integers(n)) for _ in range(n, stills)),
    ]
    shown = [shown[i] for i in rng.permutation(stills)]
    pixels, patches = [], []
    scene, light = _marks(rng), rng.uniform(0.85, 1.15)
    for k in shown:
        if rng.random() < 0.5:
            scene = _marks(rng)
        still, found = draw_scene(scene, rng, rng.random()), _patches(scene, None, 0).reshape(CELLS, CELLS)
        if k is not None:
            draw_sign(still, signs[k])
            row, column = signs[k].cell
            around = BOARD // 2
            found[row - around : row + around + 1, column - around : column + around + 1] = CONTENTS.index(
                f"board {signs[k].colour}"
            )
            found[row, column] = CONTENTS.index(f"sign {signs[k].colour} {signs[k].digit}")
        pixels.append(_augment(still, rng, light))
        patches.append(found.ravel())
    return np.stack(pixels), np.stack(patches), [ask(sign) for sign in signs for ask in (ask_digit, ask_place)]


def _marks(rng: np.random.Generator) -> Scene:
    """Return a random scene without its plain sign."""
    scene = random_scene(rng, 0)
    return replace(scene, things=scene.things[:2])


def _augment(still: np.ndarray, rng: np.random.Generator, light: float) -> np.ndarray:
    """Change the brightness, add noise, and sometimes halve the resolution of colour as a video codec does."""
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
    """Return a question, the reply to it, and the answer that the reply means (empty for a description)."""
    if task == "describe" and detail:
        return Question(str(rng.choice(_DESCRIBE)), task=task), describe(scene), ""
    return _phrase(task, detail if detail and (not moment or rng.random() < 0.5) else moment, rng)


def _phrase(task: Task, pool: list[SceneQuestion], rng: np.random.Generator) -> tuple[Question, str, str]:
    """Return one of the questions in one of its wordings, the reply to it, and the answer that the reply means."""
    asked = pool[int(rng.integers(len(pool)))]
    text = asked.text
    if rng.random() < 0.4:
        known = next(k for k in sorted(_OTHER_WORDS, key=len, reverse=True) if text.startswith(k))
        text = str(rng.choice(_OTHER_WORDS[known])) + text[len(known) :]
    if task != "choice":
        return Question(text), asked.answer, asked.answer
    if rng.random() < 0.3:  # the question contains the answer, which teaches what an option's letter stands for
        text = f"Which is {asked.answer}?"
    right = int(rng.integers(4))
    options = choose_options(asked, rng, right)
    return Question(text, options=options, task="choice"), LETTERS[right], asked.answer


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
