"""LLaVA-NeXT: frames -> patch grid -> (aggregation) -> one visual prefix -> answers to many questions."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LlavaNextForConditionalGeneration

from sfllava.costs import shape_of
from sfllava.models.kvcache import PrefixCache, packed_mask
from sfllava.models.outline import Outline
from sfllava.models.tokenizer import Tokenizer
from sfllava.prompts import LETTERS, Prompt, pack_prompt
from sfllava.sampler import resize_frames
from sfllava.types import Answer, Question, SfllavaError, check_options

# CLIP's own statistics of RGB in 0..1; all LLaVA-NeXT checkpoints use them
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
# Cache positions that one pack of questions may take beside the prefix: 2 GB in half precision for 7B
PACKED_POSITIONS = 4096
log = logging.getLogger(__name__)


def pixel_values(frames: Tensor) -> Tensor:
    """uint8 (T H W 3) -> float32 (T 3 H W), scaled and normalised as CLIP was trained, on the frames' device."""
    mean, std = (torch.tensor(values, device=frames.device).view(3, 1, 1) for values in (_MEAN, _STD))
    return frames.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)


@dataclass
class Prefix:
    """A prefilled text and visual prefix; `extend` makes it another's, computing only what differs."""

    before: tuple[int, ...]
    tokens: Tensor
    cache: PrefixCache
    reused: int = 0
    """Visual tokens that the last prefill took over from the one before it"""

    @property
    def length(self) -> int:
        return len(self.before) + len(self.tokens)


@dataclass
class _Group:
    """Questions that share the text before the video."""

    before: list[int]
    items: list[tuple[int, list[int]]] = field(default_factory=list)  # (position in the call, ids behind the video)


class LlavaNext(Outline):
    """A loaded checkpoint: its outline, and the network. Make one with `load_model`."""

    def __init__(
        self,
        network: LlavaNextForConditionalGeneration,
        tokenizer: Tokenizer,
        *,
        path: Path,
        layout: str,
        context: int,
        fingerprint: str,
    ) -> None:
        self.network: Any = network.eval()
        config: Any = network.config
        text, vision = config.text_config, config.vision_config
        # a checkpoint of this project's own names its prompt pack; those of llava-v1.6 are told by their parts
        family = getattr(config, "sfllava_family", None) or (
            "mistral"
            if text.model_type == "mistral"
            else "chatml"
            if tokenizer.token_id("<|im_start|>") is not None
            else "vicuna"
        )
        rope = text.rope_parameters or {}
        super().__init__(
            path=path,
            layout=layout,
            family=family,
            tokenizer=tokenizer,
            context=context,
            image_size=vision.image_size,
            grid=(vision.image_size // vision.patch_size,) * 2,
            shape=shape_of(config, len(self.network.model.vision_tower.encoder.layers)),
            rope=text.rope_parameters,
            device=self.network.model.language_model.embed_tokens.weight.device,
            dtype=self.network.dtype,
            fingerprint=fingerprint,
        )
        limits = [text.max_position_embeddings] if rope.get("rope_type") == "dynamic" else []
        limits += [text.sliding_window] if getattr(text, "sliding_window", None) else []
        self.shared_positions: int | None = min(limits) if limits else None
        """Positions up to which a shared prefix is exact: dynamic RoPE turns keys differently past its limit."""
        ends = {tokenizer.eos_id, *_ids(text.eos_token_id), *_ids(network.generation_config.eos_token_id)}
        self._eos = {i for i in ends if i is not None}
        # Rows that pad the vocabulary and the <image> placeholder were never trained: they are never said.
        never = set(range(tokenizer.vocabulary, text.vocab_size)) | tokenizer.placeholders
        if config.image_token_id < text.vocab_size:
            never.add(config.image_token_id)
        self._never = sorted(never - self._eos)
        network.generation_config = GenerationConfig(
            do_sample=False,
            eos_token_id=sorted(self._eos),
            pad_token_id=min(self._eos, default=0),
            suppress_tokens=self._never or None,
        )
        self._warned = False

    def outline(self) -> Outline:
        """All that is known beside the weights."""
        return Outline(**{field.name: getattr(self, field.name) for field in fields(Outline)})

    @torch.inference_mode()
    def encode(self, frames: np.ndarray | Tensor, batch: int | None = None) -> Tensor:
        """uint8 frames (T H W 3) of any size -> patch grid (T h w D), in the language model's width.

        `batch` frames go through the vision tower at a time (8 on CPU, 64 elsewhere).
        """
        pixels = np.asarray(frames)
        if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or not len(pixels):
            raise SfllavaError(f"needed uint8 frames of shape (T H W 3), got {pixels.dtype} {pixels.shape}")
        pixels = resize_frames(pixels, (self.image_size, self.image_size))
        tower, projector = self.network.model.vision_tower, self.network.model.multi_modal_projector
        device = tower.device
        out = []
        for part in torch.from_numpy(np.ascontiguousarray(pixels)).split(batch or (8 if device.type == "cpu" else 64)):
            x = pixel_values(part.to(device)).to(self.dtype)
            # load_model cut the layers behind the selected hidden state off; 1: drops CLS
            out.append(projector(tower(x).last_hidden_state[:, 1:]))
        return torch.cat(out).unflatten(1, self.grid)

    def answer(
        self,
        tokens: Tensor,
        questions: Iterable[Question | str],
        *,
        max_new_tokens: int = 128,
        prompt: Prompt | None = None,
        read: str = "generate",
        share_prefix: bool = True,
        prefix: Prefix | None = None,
    ) -> list[Answer]:
        """Greedy answers to many questions about one video; its tokens (N D) are prefilled once for all.

        `prefix` (from `new_prefix`) carries the prefilled tokens from one call to the next: what the tokens of two
        calls have in common at their front, such as one Slow pathway before two Fast ones, is computed once.

        `prompt` replaces the pack's wording for each question's task. `read="logits"` gives choice questions the
        letter of highest probability after one forward, without generation. `share_prefix=False` is the plain
        way, one question at a time through transformers' `generate`; the tokens are the same. Raises ContextError
        before any compute where a prompt does not fit.
        """
        asked = [Question(q) if isinstance(q, str) else q for q in questions]
        check_options(read, max_new_tokens, asked)
        groups: dict[tuple[int, ...], _Group] = {}
        for i, question in enumerate(asked):
            before, after = self.prompt_ids(question, prompt)
            self.check_context(len(tokens), len(before) + len(after), question.text)
            groups.setdefault(tuple(before), _Group(before)).items.append((i, after))
        lengths = [len(tokens) + sum(map(len, self.prompt_ids(q, prompt))) for q in asked]
        answers: dict[int, Answer] = {}
        with torch.inference_mode():
            for group in groups.values():
                if read == "logits":
                    for i, letters in self._letters(tokens, group, asked, prompt, prefix):
                        best = max(letters, key=lambda letter: letters[letter])
                        answers[i] = Answer(asked[i], best, (), len(tokens), lengths[i], letters)
                    continue
                for i, ids in self._generate(tokens, group, max_new_tokens, share_prefix, prefix):
                    text = self.tokenizer.decode(ids)
                    answers[i] = Answer(asked[i], text, tuple(ids), len(tokens), lengths[i])
        return [answers[i] for i in range(len(asked))]

    @torch.inference_mode()
    def stream(
        self,
        tokens: Tensor,
        question: Question | str,
        *,
        max_new_tokens: int = 256,
        prompt: Prompt | None = None,
        prefix: Prefix | None = None,
    ) -> Iterator[int]:
        """The token ids that `answer` gives, each as soon as it is known; whoever stops asking has stopped it.

        `prefix` (from `new_prefix`) is filled and reused as in `answer`. Raises ContextError at the first token.
        """
        question = Question(question) if isinstance(question, str) else question
        check_options("generate", max_new_tokens, [question])
        before, after = self.prompt_ids(question, prompt)
        self.check_context(len(tokens), len(before) + len(after), question.text)
        length = len(before) + len(tokens) + len(after)
        if length + max_new_tokens <= self._shared_limit:
            shared = self.prefill(before, tokens, len(after) + max_new_tokens, prefix)
            steps = (following[0] for _, following in self._steps(shared, [after], max_new_tokens))
        else:
            steps = self._steps_alone(self._embed(before, tokens, after), min(max_new_tokens, self.context - length))
        for token in steps:
            if token in self._eos:
                return
            yield token

    def _steps_alone(self, embeds: Tensor, new: int) -> Iterator[int]:
        """What `generate` says to one prompt, the end included, a token at a time."""
        self._fresh_rope()
        cache = self.new_prefix().cache
        cache.reserve(embeds.shape[1] + new)
        for _ in range(new):
            start = cache.get_seq_length()
            positions = torch.arange(start, start + embeds.shape[1], device=self.device)[None]
            hidden = self._forward(embeds, past_key_values=cache, use_cache=True, position_ids=positions)
            token = int(self._logits(hidden[0, -1:]).argmax())
            yield token
            embeds = self._embed([token])

    def new_prefix(self) -> Prefix:
        """An empty prefix for `answer` to fill and to reuse."""
        layers, width = (getattr(self.network.config.text_config, n) for n in ("num_hidden_layers", "hidden_size"))
        return Prefix((), torch.zeros(0, width, device=self.device, dtype=self.dtype), PrefixCache(layers, 0))

    @torch.inference_mode()
    def prefill(self, before: Sequence[int], tokens: Tensor, room: int = 0, prefix: Prefix | None = None) -> Prefix:
        """Prefill text ids and visual tokens (N D) once; `room` positions are kept free behind them.

        Of an earlier `prefix` what stands at the same place, counted from the front, is kept and not computed again.
        """
        self._fresh_rope()
        prefix = prefix or self.new_prefix()
        tokens, before = tokens.to(self.device, self.dtype), tuple(before)
        same = before == prefix.before
        kept = _equal_rows(prefix.tokens, tokens) if same else 0
        # a forward needs a position: where all are kept, the last is computed again
        first = min(len(before) + kept, len(before) + len(tokens) - 1) if same else 0
        prefix.before, prefix.tokens, prefix.reused = (), tokens[:0], kept  # nothing is known until it has gone well
        prefix.cache.crop_to(first)
        prefix.cache.reserve(len(before) + len(tokens) + room)
        embeds = self._embed(before, tokens, [])[:, first:]
        positions = torch.arange(first, first + embeds.shape[1], device=self.device)[None]
        self._forward(embeds, past_key_values=prefix.cache, use_cache=True, position_ids=positions)
        prefix.before, prefix.tokens = before, tokens
        return prefix

    def _generate(
        self, tokens: Tensor, group: _Group, new: int, share_prefix: bool, shared: Prefix | None
    ) -> Iterator[tuple[int, list[int]]]:
        prefix, packs, alone = len(group.before) + len(tokens), [], []
        for i, after in group.items:
            # Up to the limit all questions see the same keys; one that crosses it while it is answered is
            # answered alone, since the rotation then depends on the length.
            (packs if share_prefix and prefix + len(after) + new <= self._shared_limit else alone).append((i, after))
        if share_prefix and alone:
            self._warn_alone()
        if packs:
            parts = list(_parts(packs, new))
            room = max(sum(len(a) + new for _, a in part) for part in parts)
            shared = self.prefill(group.before, tokens, room, shared)
            for part in parts:
                yield from zip([i for i, _ in part], self._decode_packed(shared, [after for _, after in part], new))
                shared.cache.crop_to(shared.length)
        for i, after in alone:
            yield i, self._generate_alone(self._embed(group.before, tokens, after), new)

    def _generate_alone(self, embeds: Tensor, new: int) -> list[int]:
        self._fresh_rope()
        new = min(new, self.context - embeds.shape[1])
        mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
        ids = self.network.generate(inputs_embeds=embeds, attention_mask=mask, max_new_tokens=new)
        return self._until_eos(ids[0].tolist())

    def _decode_packed(self, prefix: Prefix, suffixes: list[list[int]], new: int) -> list[list[int]]:
        """All questions behind one prefix: one forward over all suffixes, then one token a question a step."""
        said: list[list[int]] = [[] for _ in suffixes]
        for live, following in self._steps(prefix, suffixes, new):
            for question, token in zip(live, following):
                said[question].append(token)
        return [self._until_eos(ids) for ids in said]

    def _steps(self, prefix: Prefix, suffixes: list[list[int]], new: int) -> Iterator[tuple[list[int], list[int]]]:
        """Each step's questions that are still being answered, and the token that each says, the ends included."""
        logits, owners = self._forward_suffixes(prefix, suffixes)
        live = list(range(len(suffixes)))
        for step in range(new):
            following = logits.argmax(-1).tolist()
            yield live, following
            going = [(q, token) for q, token in zip(live, following) if token not in self._eos]
            if not going or step + 1 == new:
                return
            live = [q for q, _ in going]
            queries = torch.tensor(live, device=self.device)
            owners = torch.cat([owners, queries])
            positions = [prefix.length + len(suffixes[q]) + step for q in live]
            hidden = self._forward(
                self._embed([token for _, token in going]),
                past_key_values=prefix.cache,
                use_cache=True,
                position_ids=torch.tensor([positions], device=self.device),
                attention_mask=packed_mask(prefix.length, owners, queries),
            )
            logits = self._logits(hidden[0])

    def _forward_suffixes(self, prefix: Prefix, suffixes: list[list[int]]) -> tuple[Tensor, Tensor]:
        """(Q V) logits behind each question, and the (K) owners of the positions behind the prefix."""
        lengths = torch.tensor([len(s) for s in suffixes], device=self.device)
        owners = torch.repeat_interleave(torch.arange(len(suffixes), device=self.device), lengths)
        positions = torch.cat([torch.arange(len(s), device=self.device) for s in suffixes]) + prefix.length
        hidden = self._forward(
            self._embed([i for s in suffixes for i in s]),
            past_key_values=prefix.cache,
            use_cache=True,
            position_ids=positions[None],
            attention_mask=packed_mask(prefix.length, owners, owners),
        )
        return self._logits(hidden[0, lengths.cumsum(0) - 1]), owners

    def _letters(
        self, tokens: Tensor, group: _Group, asked: list[Question], prompt: Prompt | None, shared: Prefix | None
    ) -> Iterator[tuple[int, dict[str, float]]]:
        room = self._shared_limit - len(group.before) - len(tokens)
        packs = [item for item in group.items if len(item[1]) <= room]
        rows: list[tuple[int, list[int], Tensor]] = []
        if packs:
            shared = self.prefill(group.before, tokens, prefix=shared)
            for part in _parts(packs, 0):
                logits, _ = self._forward_suffixes(shared, [after for _, after in part])
                shared.cache.crop_to(shared.length)
                rows += [(i, after, row) for (i, after), row in zip(part, logits)]
        if len(packs) < len(group.items):
            self._warn_alone()
        for i, after in (item for item in group.items if len(item[1]) > room):
            self._fresh_rope()
            rows.append((i, after, self._logits(self._forward(self._embed(group.before, tokens, after))[0, -1])))
        for i, after, row in rows:
            letters = LETTERS[: len(asked[i].options)]
            ids = [self._letter_id(asked[i], prompt, after, letter) for letter in letters]
            yield i, dict(zip(letters, row[ids].float().softmax(-1).tolist()))

    def _letter_id(self, question: Question, prompt: Prompt | None, after: list[int], letter: str) -> int:
        text = (prompt or pack_prompt(self.family, question.task)).pieces(question)[1]
        longer = self.tokenizer.encode(text + letter)
        if len(longer) > len(after) and longer[: len(after)] == after:
            return longer[len(after)]
        # the letter would melt into the prompt's last token: then it is said as the letter alone
        alone = self.tokenizer.token_id(letter)
        return self.tokenizer.encode(letter)[-1] if alone is None else alone

    def _embed(self, before: Sequence[int], tokens: Tensor | None = None, after: Sequence[int] = ()) -> Tensor:
        """Ids, visual tokens (N D), ids -> (1 L D)."""
        embed = self.network.model.language_model.embed_tokens
        parts = [embed(torch.tensor(list(before), dtype=torch.long, device=self.device))]
        if tokens is not None:
            parts.append(tokens.to(self.device, self.dtype))
            parts.append(embed(torch.tensor(list(after), dtype=torch.long, device=self.device)))
        return torch.cat(parts)[None]

    def _forward(self, embeds: Tensor, **options: Any) -> Tensor:
        return self.network.model.language_model(inputs_embeds=embeds, **options).last_hidden_state

    def _logits(self, hidden: Tensor) -> Tensor:
        logits = self.network.lm_head(hidden)
        logits[..., self._never] = -torch.inf
        return logits

    @property
    def _shared_limit(self) -> int:
        return min(self.shared_positions or self.context, self.context)

    def _warn_alone(self) -> None:
        if not self._warned:
            self._warned = True
            log.warning(
                "prompts past %d positions: a shared prefix is not exact there, so these are prefilled one question "
                "at a time",
                self._shared_limit,
            )

    def _until_eos(self, ids: list[int]) -> list[int]:
        end = next((k for k, i in enumerate(ids) if i in self._eos), len(ids))
        return ids[:end]

    def _fresh_rope(self) -> None:
        # Dynamic RoPE remembers the longest prompt it saw; without this one long prompt changes later ones.
        rope = self.network.model.language_model.rotary_emb
        if hasattr(rope, "original_inv_freq"):
            rope.register_buffer("inv_freq", rope.original_inv_freq.to(rope.inv_freq.device), persistent=False)
            rope.max_seq_len_cached = rope.original_max_seq_len


def _equal_rows(one: Tensor, two: Tensor) -> int:
    """How many rows at the front of (N D) and (M D) are the same, bit for bit."""
    n = min(len(one), len(two))
    different = (one[:n] != two[:n]).any(1)
    return int(different.int().argmax()) if different.any() else n


def _parts(items: list[tuple[int, list[int]]], new: int) -> Iterator[list[tuple[int, list[int]]]]:
    """Groups of questions whose prompts and answers together take at most PACKED_POSITIONS of the cache."""
    part, used = [], 0
    for item in items:
        need = len(item[1]) + new
        if part and used + need > PACKED_POSITIONS:
            yield part
            part, used = [], 0
        part.append(item)
        used += need
    if part:
        yield part


def _ids(value: int | list[int] | None) -> list[int]:
    return [] if value is None else value if isinstance(value, list) else [value]
