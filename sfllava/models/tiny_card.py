"""The tiny model's card: what its training was, with places for what is measured later."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from sfllava.models.tiny_data import SLOTS

_CARD = """# The tiny model

A LLaVA-NeXT of {parameters:.2f} million parameters: a CLIP vision tower (128 wide, 3 layers of which the last is unused
as in the 7B, 112 x 112 pixels in 8 x 8 patches), a two-layer GELU projector, and a Llama (128 wide, 4 layers) with
{words} words of its own. `load_model("tiny")` reads it through the same code as any other checkpoint.

## What it saw

Rendered stills of scenes (`sfllava/shapes.py`), one to six at a time, all 64 patches of each one after the other, and
questions about them (`sfllava/models/tiny_data.py`). It never saw a video file, a pooled token, a Slow or a Fast
pathway, or the two after one another: what ShapesQA shows about those is training-free.

- Stage 1 trains the tower and the projector alone, with a linear head that names what is in each patch; the head
  stays on as a small part of the loss, and is thrown away in the end. Later stages train everything: up to one still,
  then three, then six.
- Stills were changed in pixel space only: brightness, noise, and colour at half resolution as in a video codec.
- Positions had gaps at random places (in 7 of 10 steps), so that prompts longer than those in training are not strange.
- In 3 of 10 steps from the third stage on, patches of another scene stood in front of BOS, as the end of another
  document does where texts are packed; only what followed BOS counted. This was meant to make a prompt without BOS
  fail, and does not (see below).
- Three in ten multiple-choice questions name the answer ("Which is red?"), to teach what the letters stand for.
- Three in five questions have ShapesQA's wording, the others one of a few more. Other words are unknown to it.
- ShapesQA's videos come from other random streams than the training scenes; both draw from the same few colours,
  digits and places.

## Training

| | |
|---|---|
| stages (steps, most stills, scenes a step) | {stages} |
| scenes / stills / questions seen | {scenes:,} / about {stills:,} / {questions:,} |
| optimizer | AdamW at {rate}; two rounds, each with warm-up and a cosine for its last 40 %; bfloat16; seed {seed} |
| time | {minutes} minutes on 2 shared CPU cores |
| last loss | replies {loss:.3f} a token, patches {named:.3f} |
| stored as | float16, {megabytes:.1f} MB |

Loss by step: {history}

## Accuracy

<!-- curves -->
Not measured yet: `python bench/tiny_curves.py --card`.
<!-- /curves -->

## When something is put together wrongly

<!-- mutations -->
Not measured yet: `python bench/tiny_mutations.py --card`.
<!-- /mutations -->

## What it has not learned

With the weights stored now, open questions on detail are nearly all right, and a flash that is seen is named. Counting
flashes is hardly better than chance, order is right in about six to seven of ten cases, and in multiple choice the
letter of an answer is found little more often than by chance, which the figures of both forms together show. Leaving
BOS out changes little, so that a test of accuracy does not notice it.

## What it is not

It knows nothing but these shapes. It does not answer about real videos, its numbers say nothing of a 7B's, and the
curves show that the two pathways do what they are meant to do, not how much they gain on real benchmarks. Where its
visual prefix is much longer than about 1,000 tokens it has not been tried.
"""


def write_card(
    folder: Path, stages: tuple[tuple[int, int, int], ...], rate: float, rounds: list[dict[str, Any]]
) -> None:
    """MODEL_CARD.md beside the weights: what the training was; what is measured later has its places in it."""
    weights = load_file(folder / "model.safetensors")
    history = [row for facts in rounds for row in facts["history"]]
    trained = [(steps, size) for steps, _, size in stages[1:]]
    text = _CARD.format(
        parameters=sum(tensor.numel() for tensor in weights.values()) / 1e6,
        words=weights["language_model.model.embed_tokens.weight"].shape[0],
        stages=", ".join(f"({steps}, {most}, {size})" for steps, most, size in stages),
        scenes=sum(steps * size for steps, _, size in stages),
        stills=sum(steps * size * (most + 1 + (most > 3)) // 2 for steps, most, size in stages),
        questions=sum(steps * size for steps, size in trained) * len(SLOTS),
        rate=rate,
        seed=rounds[0]["seed"],
        minutes=" + ".join(f"{facts['seconds'] / 60:.0f}" for facts in rounds),
        loss=history[-1][3],
        named=history[-1][2],
        megabytes=(folder / "model.safetensors").stat().st_size / 1e6,
        history=", ".join(f"{row[0]}: {row[3]:.2f}" for row in history if row[3] and row[0] % 200 == 0),
    )
    (folder / "MODEL_CARD.md").write_text(text)
