"""The tiny model's card: what its training was, with places for what is measured later."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from sfllava.models.tiny.data import SLOTS, Diet

_CARD = """# The tiny model

A LLaVA-NeXT of {parameters:.2f} million parameters: a CLIP vision tower (128 wide, 3 layers of which the last is unused
as in the 7B, 112 x 112 pixels in 8 x 8 patches), a two-layer GELU projector, and a Llama (128 wide, {layers} layers)
with {words} words of its own. `load_model("tiny")` reads it through the same code as any other checkpoint.

## What it saw

Rendered stills of scenes (`sfllava/shapes.py`), one to {most} at a time, the 64 patches of each one after the other or
a random {kept} of them, and questions about them (`sfllava/models/tiny_data.py`). It never saw a video file, a pooled
token, a Slow or a Fast pathway, or the two after one another: what ShapesQA shows about those is training-free.

- Stage 1 trains the tower and the projector alone, with a linear head that names what is in each patch. Stage 2 trains
  everything, on one still. Stage 3 takes turns: one still; a few, with all patches; up to {most}, of each {kept} random
  patches, while the tower and the projector stay as they are.
- Three helps that are thrown away in the end: the head of stage 1 stays on as a small part of the loss; after layer
  {knowing} of the language model the question mark is to know the answer (through the model's own last layers); after
  layer {choosing} a linear head on each option says whether it is the right one.
- Stills were changed in pixel space only: brightness, noise, and colour at half resolution as in a video codec.
- Positions had gaps at random places (in 7 of 10 steps), so that prompts longer than those in training are not strange.
- 6 of 100 sequences did not begin with BOS but with a patch of another: the middle of some other document, to which
  the right reply is none at all. So a prompt that lacks BOS is not answered, and a test sees that.
- Three in ten multiple-choice questions name the answer ("Which is red?"), to teach what the letters stand for.
- Three in five questions have ShapesQA's wording, the others one of a few more. Other words are unknown to it.
- ShapesQA's videos come from other random streams than the training scenes; both draw from the same few colours,
  digits and places.

## Training

| | |
|---|---|
| stages: steps of (stills, patches of each, scenes) | {stages} |
| scenes / stills / questions seen | {scenes:,} / about {stills:,} / {questions:,} |
| optimizer | AdamW at {rate}; warm-up, a flat part, and a cosine for the last 40 %; bfloat16; seed {seed} |
| time | {minutes} minutes on 2 shared CPU cores |
| at the end of training, on training scenes | words {words_right:.1%} and letters {letters_right:.1%} right |
| stored as | float16, {megabytes:.1f} MB |

Words / letters right on training scenes, in percent, by step: {history}

## Accuracy

<!-- curves -->
Not measured yet: `python bench/tiny_curves.py --card`.
<!-- /curves -->

## When something is put together wrongly

<!-- mutations -->
Not measured yet: `python bench/tiny_mutations.py --card`.
<!-- /mutations -->

## What it is not

It knows nothing but these shapes. It does not answer about real videos, its numbers say nothing of a 7B's, and the
curves show that the two pathways do what they are meant to do, not how much they gain on real benchmarks. Behind
a visual prefix of more than about 1,500 tokens it mostly says nothing: BOS is then farther away than it ever was in
training.
"""


def write_card(
    folder: Path,
    stages: Sequence[tuple[int, Sequence[Diet]]],
    layers: tuple[int, int],
    rate: float,
    record: dict[str, Any],
) -> None:
    """MODEL_CARD.md beside the weights: what the training was; what is measured later has its places in it.

    layers: after which the answer is to be known, and an option to be chosen.
    """
    weights = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    history = record["history"]
    shares = [(steps / len(diets), diet) for steps, diets in stages for diet in diets]
    asked = [(steps / len(diets), diet) for steps, diets in stages[1:] for diet in diets]
    text = _CARD.format(
        parameters=sum(tensor.numel() for tensor in weights.values()) / 1e6,
        words=weights["language_model.model.embed_tokens.weight"].shape[0],
        layers=config["text_config"]["num_hidden_layers"],
        most=max(diet.stills[1] for _, diet in shares),
        kept=max(diet.kept for _, diet in shares),
        knowing=layers[0],
        choosing=layers[1],
        stages="; ".join(f"{steps} of {', '.join(map(str, diets))}" for steps, diets in stages),
        scenes=round(sum(steps * diet.scenes for steps, diet in shares)),
        stills=round(sum(steps * diet.scenes * sum(diet.stills) / 2 for steps, diet in shares)),
        questions=round(sum(steps * diet.scenes for steps, diet in asked)) * len(SLOTS),
        rate=rate,
        seed=record["seed"],
        minutes=f"{record['seconds'] / 60:.0f}",
        words_right=history[-1][4],
        letters_right=history[-1][5],
        megabytes=(folder / "model.safetensors").stat().st_size / 1e6,
        history=", ".join(f"{row[0]}: {100 * row[4]:.0f} / {100 * row[5]:.0f}" for row in history if row[0] % 400 == 0),
    )
    (folder / "MODEL_CARD.md").write_text(text)
