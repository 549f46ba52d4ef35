"""The tiny model's card: a description of its training, with sections for later measurements."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from safetensors.torch import load_file

from sfllava.models.tiny.data import SLOTS, BatchSpec

_CARD = """# The tiny model

A LLaVA-NeXT of {parameters:.2f} million parameters: a CLIP vision tower (128 wide, 3 layers of which the last is unused
as in the 7B, 112 x 112 pixels in 8 x 8 patches), a two-layer GELU projector, and a Llama (128 wide, {layers} layers)
with its own vocabulary of {words} words. `load_model("tiny")` reads it through the same code as any other checkpoint.

## Training data

The model saw rendered stills (`sfllava/models/tiny/stills.py`), 1 to {most} at a time, each as all of its 64 patches in
order or as a random {kept} of them, and questions about them (`sfllava/models/tiny/data.py`). It never saw a video
file, a pooled token, or a Slow or Fast pathway: what ShapesQA shows about those is training-free.

- Stage 1 trains only the tower and the projector, with a linear head that classifies the content of each patch. Stage 2
  trains everything, on one still. Stage 3 alternates between one still; a few stills with all patches; and up to {most}
  stills with {kept} random patches each, with the tower and the projector frozen.
- Stage 4 teaches coloured signs, which the long family of ShapesQA asks about. It mixes the batches of stage 3 with
  stills of which some have a coloured sign, {signs} at a time with all patches. In half of the cases a still is of
  another scene than the one before, as where frames of a long video are put together.
- Stage 4 started from the weights as stage 3 had stored them, in half precision, with a new optimizer and new auxiliary
  heads: `python -m sfllava.models.tiny.training --continue` on these. Without `--continue` all stages run in this way.
- Three auxiliary losses, not part of the final model: the patch loss of stage 1 continues with a small weight; after
  layer {knowing} of the language model, the question mark must predict the answer (through the final norm and the
  output head); after layer {choosing}, a linear head predicts for each option whether it is right.
- Stills were augmented in pixel space only: brightness, noise, and colour at half resolution as in a video codec.
- In 7 of 10 steps, position ids had random gaps, so that the model accepts longer prompts than those in training.
- 6 % of sequences began with a patch of another sequence instead of BOS, like the middle of another document; the right
  reply to them is empty. So the model does not answer a prompt that lacks BOS, and a test detects that.
- 30 % of multiple-choice questions contain the answer ("Which is red?"), to teach what the letters stand for.
- 60 % of questions have ShapesQA's wording, the others one of a few more. The model does not know other wordings.
- ShapesQA's videos and the training scenes come from different random streams; both use the same few colours, digits
  and places.

## Training

| | |
|---|---|
| stages: steps of (stills, patches per still, scenes) | {stages} |
| scenes / stills / questions seen | {scenes:,} / about {stills:,} / {questions:,} |
| optimizer, stages 1 to 3 | AdamW at {rates[0]}; warm-up, constant, then cosine decay over the last 40 %; bfloat16; \
seed {seed} |
| optimizer, stage 4 | AdamW at {rates[1]}, its heads at {rates[0]}; warm-up, constant, then cosine decay over the \
last 70 % |
| time | {minutes} minutes for stages 1 to 3 and {late_minutes} for stage 4, each on 2 shared CPU cores |
| at the end of training, on training scenes | {words_right:.1%} of words and {letters_right:.1%} of letters right |
| stored as | float16, {megabytes:.1f} MB |

Words / letters right on training scenes, in percent, by step: {history}. Stage 4: {late_history}

## Accuracy

<!-- curves -->
Not measured yet: `python bench/tiny_curves.py --card`.
<!-- /curves -->

## Accuracy with question-aware frames

<!-- selection -->
Not measured yet: `python bench/tiny_selection.py --card`.
<!-- /selection -->

## Accuracy with a bug in the pipeline

<!-- mutations -->
Not measured yet: `python bench/tiny_mutations.py --card`.
<!-- /mutations -->

## Limits

The model knows only these shapes. It cannot answer questions about real videos, and its accuracy says nothing about
that of a 7B model. The curves show that the two pathways do what they are meant to do, not how much they gain on real
benchmarks. After a visual prefix of more than about 1,500 tokens its replies are mostly empty, since BOS is then
farther away than it ever was in training.
"""


def write_card(
    folder: Path,
    stages: Sequence[tuple[int, Sequence[BatchSpec]]],
    layers: tuple[int, int],
    rates: tuple[float, float],
    record: dict[str, Any],
) -> None:
    """Write MODEL_CARD.md next to the weights, with empty sections for later measurements.

    Args:
        folder: the folder of the weights.
        stages: the steps of each training stage, and the samplings it takes in turn.
        layers: the layers of the auxiliary losses on the answer and on the options.
        rates: the highest learning rates, before the last stage and in it.
        record: from `train`.
    """
    weights = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    late = record["last_stage"]
    shares = [(steps / len(specs), spec) for steps, specs in stages for spec in specs]
    asked = [(steps / len(specs), spec) for steps, specs in stages[1:] for spec in specs]
    text = _CARD.format(
        parameters=sum(tensor.numel() for tensor in weights.values()) / 1e6,
        words=weights["language_model.model.embed_tokens.weight"].shape[0],
        layers=config["text_config"]["num_hidden_layers"],
        most=max(spec.stills[1] for _, spec in shares),
        kept=max(spec.kept for _, spec in shares),
        knowing=layers[0],
        choosing=layers[1],
        stages="; ".join(f"{steps} of {', '.join(map(str, specs))}" for steps, specs in stages),
        scenes=round(sum(steps * spec.scenes for steps, spec in shares)),
        stills=round(sum(steps * spec.scenes * sum(spec.stills) / 2 for steps, spec in shares)),
        questions=round(sum(steps * spec.scenes for steps, spec in asked)) * len(SLOTS),
        rates=rates,
        seed=record["seed"],
        minutes=f"{record['seconds'] / 60:.0f}",
        late_minutes=f"{late['seconds'] / 60:.0f}",
        words_right=late["history"][-1][4],
        letters_right=late["history"][-1][5],
        megabytes=(folder / "model.safetensors").stat().st_size / 1e6,
        history=_history(record["history"], 400),
        late_history=_history(late["history"], 100),
        signs=" or ".join(dict.fromkeys(spec.few for _, spec in shares if spec.signs)),
    )
    (folder / "MODEL_CARD.md").write_text(text)


def _history(rows: Sequence[Sequence[float]], every: int) -> str:
    return ", ".join(f"{row[0]}: {100 * row[4]:.0f} / {100 * row[5]:.0f}" for row in rows if row[0] % every == 0)


_SCORER_CARD = """# The small scorer

A CLIP of {parameters:.2f} million parameters in the layout of transformers ({megabytes:.1f} MB, float16). It compares a
frame with a question: the cosine of their features is high where the frame shows what the question names. With it,
question-aware selections of frames can be tried offline, on ShapesQA with the tiny model.

## Training

`python -m sfllava.models.tiny.scorer_training`: {steps} steps, {stills:,} stills, {minutes} minutes on 2 shared CPU
cores, seed {seed}. It saw the stills that the tiny model is trained on (`sfllava/models/tiny/stills.py`), with coloured
signs or with flashes, and questions, of which 3 in 10 came with their options. It saw neither a video file nor an
answer. Its vision tower starts from the tiny model's.

The loss has three parts: for each pair of a still and a question, whether the still shows what the question names
(SigLIP's loss); for each question, a softmax over the stills; and a pull of the features' norms to {norm:.0f}, so that
dot products are useful too. At the end, {right:.1%} of pairs were right on training stills.

The tokenizer is that of the tiny model with CLIP's two extra tokens. Words beyond those 107 are unknown to it.

## Ranking

<!-- ranking -->
Not measured yet: `python bench/tiny_selection.py --card`.
<!-- /ranking -->

## Limits

It knows only ShapesQA's shapes and questions, and says nothing about real videos.
"""


def write_scorer_card(folder: Path, record: dict[str, Any]) -> None:
    """Write MODEL_CARD.md next to the scorer, with an empty section for later measurements.

    Args:
        folder: the folder of the scorer.
        record: what its training returned.
    """
    weights = load_file(folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    text = _SCORER_CARD.format(
        parameters=sum(tensor.numel() for tensor in weights.values()) / 1e6,
        megabytes=(folder / "model.safetensors").stat().st_size / 1e6,
        steps=record["steps"],
        stills=record["stills"],
        minutes=f"{record['seconds'] / 60:.0f}",
        seed=record["seed"],
        norm=config["projection_dim"] ** 0.5,
        right=record["history"][-1][3],
    )
    (folder / "MODEL_CARD.md").write_text(text)
