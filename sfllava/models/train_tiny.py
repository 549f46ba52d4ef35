"""Train the tiny model from nothing: `python -m sfllava.models.train_tiny`.

It sees one to six stills of a scene at a time, all patches of one after the other, and questions about them. It
never sees pooled tokens, nor a Slow or a Fast pathway.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import deque
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

from sfllava.models.llava_next import pixel_values
from sfllava.models.tiny import rename
from sfllava.prompts import LETTERS, pack_prompt
from sfllava.shapes import (
    CELL,
    CELLS,
    COLOURS,
    COUNTS,
    DIGITS,
    MARKS,
    PLACES,
    SIDE,
    Asked,
    Scene,
    ask_detail,
    ask_moment,
    choose_options,
    describe,
    draw,
    random_scene,
)
from sfllava.types import Question, Task

FOLDER = Path(__file__).with_name("tiny_weights")
# Other words for the same questions, so that a reader's own wording has a chance; {} is the thing.
_OTHER_WORDS = {
    "What colour is the small": ("What is the colour of the small", "What color is the small", "Which colour has the small"),
    "Which digit is on the sign?": ("What digit is on the sign?", "What number does the sign show?", "What is on the sign?"),
    "Where is the": ("Where in the frame is the", "In which corner is the"),
    "How many colours flashed?": ("How many flashes were there?", "How many different colours flashed?"),
    "Which colour flashed?": ("What colour was the flash?", "What colour flashed?"),
    "Which colour flashed first?": ("What colour flashed first?", "Which flash came first?"),
    "Which colour flashed last?": ("What colour flashed last?", "Which flash came last?"),
}
_DESCRIBE = ("Describe the video.", "What does the video show?", "What happens in the video?")
_CONTENTS = (
    "nothing",
    *(f"{name} {colour}" for name in (*MARKS, "flash") for colour in COLOURS),
    *(f"sign {digit}" for digit in DIGITS),
)
# (steps, largest number of stills, sequences a step); the first stage trains the tower and the projector alone
_STAGES = ((300, 1, 32), (500, 1, 24), (350, 3, 16), (650, 6, 12))
_RATE = 1.5e-3
_SLOTS: tuple[Task, ...] = ("open", "open", "open", "open", "choice", "describe")


@dataclass(frozen=True)
class Batch:
    """Stills (B K H W 3) of the scenes, and token ids (B Q L) of prompts with replies; -1 pads, `reply` marks replies."""

    stills: np.ndarray
    ids: list[np.ndarray]
    replies: list[np.ndarray]
    patches: np.ndarray
    """(B K cells) what is in each patch, as a number; -1 where it cannot be said"""


def write_tokenizer(folder: Path) -> Any:
    """A word-level tokenizer of the prompts' and replies' words."""
    from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers

    texts = [*_OTHER_WORDS, *(t for texts in _OTHER_WORDS.values() for t in texts), *_DESCRIBE, *COLOURS, *COUNTS]
    texts += [*DIGITS, *PLACES, *MARKS, "a sign with, flashes: then no flash . ! Answer: Description: ( )", " ".join(LETTERS), "".join(f"({x})" for x in LETTERS[:8])]
    # an option's "(A)" is one token; the open bracket in front of a reply is one too
    split = pre_tokenizers.Split(Regex(r"\([A-Z]\)|\w+|[^\w\s]"), "removed", invert=True)
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


def config_dict(vocabulary: int) -> dict[str, Any]:
    """The config in the layout of transformers; as with the 7B, the tower's last layer stays unused."""
    return {
        "model_type": "llava_next",
        "architectures": ["LlavaNextForConditionalGeneration"],
        "sfllava_family": "tiny",
        "text_config": {
            "model_type": "llama",
            "vocab_size": vocabulary,
            "hidden_size": 128,
            "intermediate_size": 352,
            "num_hidden_layers": 4,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 4096,
            "rope_theta": 10000.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 128,
            "intermediate_size": 256,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": SIDE,
            "patch_size": 14,
            "projection_dim": 32,
        },
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "projector_hidden_act": "gelu",
        "image_token_index": vocabulary,
        "tie_word_embeddings": False,
        "dtype": "float16",
    }


def make_batch(rng: np.random.Generator, tokenizer: Any, stills: int, size: int) -> Batch:
    """`size` scenes of `stills` stills each, and a question for each of the slots."""
    pixels = np.empty((size, stills, SIDE, SIDE, 3), np.uint8)
    patches = np.empty((size, stills, CELLS * CELLS), np.int64)
    rows: list[list[tuple[list[int], list[int]]]] = []
    for b in range(size):
        shown: list[int | None] = [None] * stills
        n = int(rng.integers(0, min(4, stills) + 1)) if stills > 1 else int(rng.random() < 0.25)
        starts = sorted(rng.permutation(stills)[:n].tolist())
        for k, start in enumerate(starts):
            end = starts[k + 1] if k + 1 < n else stills
            for i in range(start, min(end, start + 1 + int(rng.random() < 0.3))):
                shown[i] = k
        scene = random_scene(rng, n)
        start, span = rng.random(), rng.random()
        radius = rng.uniform(45, 75)
        light = rng.uniform(0.85, 1.15)
        for i, k in enumerate(shown):
            when = (start * (1 - span)) + span * i / stills
            still = draw(scene, rng, when, None if k is None else scene.flashes[k], radius)
            pixels[b, i] = _augment(still, rng, light)
            patches[b, i] = _patches(scene, k, radius)
        detail = ask_detail(scene) if None in shown else []
        moment = ask_moment(scene)
        rows.append([_text_ids(_question(task, scene, detail, moment, rng), tokenizer) for task in _SLOTS])
    ids, replies = [], []
    for slot in zip(*rows):
        length = max(len(prompt) + len(reply) for prompt, reply in slot)
        padded = np.full((size, length), -1)
        marked = np.zeros((size, length), bool)
        for b, (prompt, reply) in enumerate(slot):
            padded[b, : len(prompt) + len(reply)] = prompt + reply
            marked[b, len(prompt) : len(prompt) + len(reply)] = True
        ids.append(padded)
        replies.append(marked)
    return Batch(pixels, ids, replies, patches)


def _patches(scene: Scene, flash: int | None, radius: float) -> np.ndarray:
    """What is in each of a still's patches, as an index of _CONTENTS; -1 at the rim of a flash."""
    found = np.zeros((CELLS, CELLS), np.int64)
    for thing in scene.things:
        found[thing.cell] = _CONTENTS.index(f"{thing.name} {thing.value}")
    if flash is not None:
        y, x = np.mgrid[0:CELLS, 0:CELLS] * CELL + CELL / 2 - SIDE / 2
        distance = np.hypot(x, y)
        found[distance < radius + 16] = -1
        found[distance < radius - 16] = _CONTENTS.index(f"flash {scene.flashes[flash]}")
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
    task: Task, scene: Scene, detail: list[Asked], moment: list[Asked], rng: np.random.Generator
) -> tuple[Question, str]:
    if task == "describe" and detail:
        return Question(str(rng.choice(_DESCRIBE)), task=task), describe(scene)
    pool = detail if detail and (not moment or rng.random() < 0.5) else moment
    asked = pool[int(rng.integers(len(pool)))]
    text = asked.text
    if rng.random() < 0.4:
        known = next(k for k in sorted(_OTHER_WORDS, key=len, reverse=True) if text.startswith(k))
        text = str(rng.choice(_OTHER_WORDS[known])) + text[len(known) :]
    if task != "choice":
        return Question(text), asked.answer
    right = int(rng.integers(4))
    return Question(text, options=choose_options(asked, rng, right), task="choice"), LETTERS[right]


def _text_ids(question: tuple[Question, str], tokenizer: Any) -> tuple[list[int], list[int]]:
    asked, reply = question
    _, after = pack_prompt("tiny", asked.task).pieces(asked)
    prompt = tokenizer.encode(after, add_special_tokens=False).ids
    return prompt, [*tokenizer.encode(reply, add_special_tokens=False).ids, 2]


def patch_loss(visual: Tensor, batch: Batch, head: torch.nn.Linear) -> Tensor:
    """How badly `head` names what is in each projected patch (B*K cells D); nothing counts a tenth."""
    weight = torch.ones(len(_CONTENTS))
    weight[0] = 0.1
    targets = torch.from_numpy(batch.patches).flatten()
    return F.cross_entropy(head(visual.flatten(0, 1)).float(), targets, weight, ignore_index=-1)


def see(network: Any, batch: Batch) -> Tensor:
    """The stills' projected patches (B*K cells D)."""
    x = pixel_values(torch.from_numpy(batch.stills).flatten(0, 1))
    return network.model.multi_modal_projector(network.model.vision_tower(x).last_hidden_state[:, 1:])


def reply_loss(network: Any, batch: Batch, visual: Tensor, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy of the replies' tokens, and which of these are right."""
    b, k = batch.stills.shape[:2]
    visual = visual.unflatten(0, (b, k)).flatten(1, 2)
    language = network.model.language_model
    prefix = [language.embed_tokens(torch.ones(b, 1, dtype=torch.long)), visual]
    if rng.random() < 0.3:  # the end of another document in front, as when texts are packed: what counts follows BOS
        prefix.insert(0, visual[:, -CELLS * CELLS :].roll(1, 0))
    ids = [torch.from_numpy(slot) for slot in batch.ids]
    embeds = torch.cat([*prefix, *(language.embed_tokens(slot.clamp(min=0)) for slot in ids)], 1)
    n = sum(part.shape[1] for part in prefix)
    # one visual prefix, many questions: each sees the prefix and itself
    owners = torch.cat([torch.full((n,), -1), *(torch.full((slot.shape[1],), q) for q, slot in enumerate(ids))])
    seen = ((owners[None] == -1) | (owners[None] == owners[:, None])).tril()
    mask = torch.zeros(seen.shape).masked_fill(~seen, -1e4)
    # positions with gaps at random places, so that longer prompts than these are not strange
    places = np.arange(n)
    if rng.random() < 0.7:
        places = np.sort(rng.choice(int(rng.uniform(n, 2 * n + 600)), n, replace=False))
    positions = torch.cat([torch.from_numpy(places), *(places[-1] + 1 + torch.arange(s.shape[1]) for s in ids)])
    hidden = language(
        inputs_embeds=embeds, attention_mask=mask[None, None], position_ids=positions[None], use_cache=False
    ).last_hidden_state
    replies = torch.cat([torch.zeros(b, n, dtype=torch.bool), *map(torch.from_numpy, batch.replies)], 1)
    targets = torch.cat([torch.zeros(b, n, dtype=torch.long), *ids], 1)[:, 1:][replies[:, 1:]]
    logits = network.lm_head(hidden[:, :-1][replies[:, 1:]]).float()
    return F.cross_entropy(logits, targets), logits.argmax(-1) == targets


def _plan(step: int) -> tuple[int, int, int]:
    """Stage, largest number of stills and sequences of a step."""
    for stage, (steps, stills, size) in enumerate(_STAGES):
        if step < steps:
            return stage, stills, size
        step -= steps
    raise ValueError(step)


def _prepare(folder: Path, seed: int, step: int) -> Batch:
    _, most, size = _plan(step)
    rng = np.random.default_rng([seed, 0, step])
    stills = int(rng.integers(1 + (most > 3), most + 1))
    return make_batch(rng, _tokenizer(folder), stills, size)


@lru_cache(maxsize=1)
def _tokenizer(folder: Path) -> Any:
    from tokenizers import Tokenizer

    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def _batches(folder: Path, seed: int, steps: int) -> Iterator[Batch]:
    """Every step's batch, drawn ahead in a process of its own."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        ahead = deque(pool.submit(_prepare, folder, seed, step) for step in range(min(4, steps)))
        for step in range(steps):
            if step + 4 < steps:
                ahead.append(pool.submit(_prepare, folder, seed, step + 4))
            yield ahead.popleft().result()


def train(folder: Path, seed: int) -> dict[str, Any]:
    """Train through all stages and write the checkpoint; what happened, as a record."""
    torch.manual_seed(seed)
    config = config_dict(write_tokenizer(folder).get_vocab_size())
    # torch's fused attention is several times slower backwards on a CPU than plain matrix products
    settings: Any = LlavaNextConfig.from_dict(config, attn_implementation="eager")
    network: Any = LlavaNextForConditionalGeneration(settings)
    tower = network.model.vision_tower
    unused = tower.encoder.layers[-1:]
    tower.encoder.layers = tower.encoder.layers[:-1]
    head = torch.nn.Linear(config["text_config"]["hidden_size"], len(_CONTENTS))
    parameters = [p for name, p in network.named_parameters() if "post_layernorm" not in name and "newline" not in name]
    parameters += head.parameters()
    optimizer = torch.optim.AdamW(parameters, lr=1.0, betas=(0.9, 0.98), weight_decay=0.05)
    total, alone = sum(steps for steps, _, _ in _STAGES), _STAGES[0][0]
    start, history, recent = time.perf_counter(), [], []
    for step, batch in enumerate(_batches(folder, seed, total)):
        stage, most, _ = _plan(step)
        since = step - alone if stage else step
        rate = _RATE * min(1, (since + 1) / 100) * (0.02 + 0.49 * (1 + math.cos(math.pi * step / total)))
        for group in optimizer.param_groups:
            group["lr"] = rate
        with torch.autocast("cpu", torch.bfloat16):
            visual = see(network, batch)
            loss = named = patch_loss(visual, batch, head)
            right = torch.zeros(1)
            if stage:
                said, right = reply_loss(network, batch, visual, np.random.default_rng([seed, 1, step]))
                loss = said + 0.1 * named
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        recent.append((named.item(), said.item() if stage else 0.0, right.float().mean().item()))
        if (step + 1) % 50 == 0:
            means = [round(float(value), 4) for value in np.mean(recent, axis=0)]
            history.append((step + 1, round(time.perf_counter() - start), *means))
            print("step {} {} s: patches {}, replies {}, tokens right {}".format(*history[-1]), flush=True)
            recent = []
        if (step + 1) % 200 == 0 or step + 1 == total:
            tower.encoder.layers.extend(unused)
            save(network, config, folder)
            tower.encoder.layers = tower.encoder.layers[:-1]
    return {"steps": total, "seconds": round(time.perf_counter() - start), "seed": seed, "history": history}


def save(network: Any, config: dict[str, Any], folder: Path) -> None:
    """config.json and model.safetensors, in half precision and under the names that llava-hf's checkpoints use."""
    (folder / "config.json").write_text(json.dumps(config, indent=1) + "\n")
    weights = {rename(name, 2): tensor.half().contiguous() for name, tensor in network.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", type=Path, default=FOLDER)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.set_num_threads(2)
    facts = train(options.folder, options.seed)
    (options.folder / "training.json").write_text(json.dumps(facts) + "\n")


if __name__ == "__main__":
    main()
