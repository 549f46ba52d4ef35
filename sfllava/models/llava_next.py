"""LLaVA-NeXT: frames -> patch grid -> (aggregation) -> one visual prefix -> answers to many questions."""

from __future__ import annotations

import inspect
import logging
import math
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor
from transformers import GenerationConfig, LlavaNextForConditionalGeneration, LogitsProcessorList

from sfllava.models.base import ModelInfo, check_generation
from sfllava.models.finite import FiniteLogitsWatch, LogitsError, greedy, is_finite, not_finite
from sfllava.models.kv_cache import BatchKVCache, PrefixCache
from sfllava.models.memory import retry_with_smaller_batch
from sfllava.models.operations import shape_of
from sfllava.models.packed_decoding import (
    PACKED_POSITIONS,
    PackedBatch,
    Prefix,
    PrefixGroup,
    decode_steps,
    split_to_fit,
)
from sfllava.models.tokenizer import Tokenizer
from sfllava.prompts import LETTERS, Prompt, pack_prompt
from sfllava.sampler.images import resize_frames
from sfllava.types import Answer, Question, SfllavaError

# CLIP's own statistics of RGB in 0..1; all LLaVA-NeXT checkpoints use them
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)
log = logging.getLogger(__name__)
T = TypeVar("T")
_Said = tuple[str, tuple[int, ...], dict[str, float]]  # text, ids, letters
_Found = dict[int, T | None]  # by an item's number; None where its logits were not finite


def pixel_values(frames: Tensor) -> Tensor:
    """uint8 (T H W 3) -> float32 (T 3 H W), scaled and normalised as CLIP was trained, on the frames' device."""
    mean, std = (torch.tensor(values).to(frames.device).view(3, 1, 1) for values in (_MEAN, _STD))
    return frames.permute(0, 3, 1, 2).float().div_(255).sub_(mean).div_(std)


@dataclass(frozen=True)
class _Item:
    """A question of a call: its number, its video's, and the ids before and behind the video."""

    number: int
    video: int
    before: tuple[int, ...]
    after: list[int]


class LlavaNext:
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
        self.info = ModelInfo(
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
        never -= self._eos
        self._never = torch.tensor(sorted(never), dtype=torch.long).to(self.network.lm_head.weight.device)
        network.generation_config = GenerationConfig(
            do_sample=False,
            eos_token_id=sorted(self._eos),
            pad_token_id=min(self._eos, default=0),
            suppress_tokens=sorted(never) or None,
        )
        self.graphs = False
        """Whether decoding is replayed as a CUDA graph: one launch a token instead of hundreds, on one GPU only"""
        # renamed in transformers 5.24
        known = inspect.signature(type(network.model.language_model).forward).parameters
        self._cache_name = "cache" if "cache" in known else "past_key_values"
        self._warned = False
        # frames, and questions of a video, at a time: fewer once the memory has turned out too small
        self._batch, self._questions = 8 if self.info.device.type == "cpu" else 64, sys.maxsize

    def encode(self, frames: np.ndarray | Tensor, batch: int | None = None) -> Tensor:
        """uint8 frames (T H W 3) of any size -> patch grid (T h w D), in the language model's width.

        `batch` frames go through the vision tower at a time (8 on CPU, 64 elsewhere; fewer where memory is short).
        """
        pixels = np.asarray(frames)
        if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or not len(pixels):
            raise SfllavaError(f"needed uint8 frames of shape (T H W 3), got {pixels.dtype} {pixels.shape}")
        pixels = torch.from_numpy(
            np.ascontiguousarray(resize_frames(pixels, (self.info.image_size, self.info.image_size)))
        )
        grid, used = retry_with_smaller_batch(
            lambda n: self._encode(pixels, n), min(batch or self._batch, len(pixels)), "frames"
        )
        if batch is None and used < min(self._batch, len(pixels)):
            self._batch = used
        return grid

    @torch.inference_mode()
    def _encode(self, pixels: Tensor, batch: int) -> Tensor:
        tower, projector = self.network.model.vision_tower, self.network.model.multi_modal_projector
        out = []
        for part in pixels.split(batch):
            # from pinned memory (`pinned`) the copy runs beside the computation
            x = pixel_values(part.to(tower.device, non_blocking=True)).to(self.info.dtype)
            # load_model cut the layers behind the selected hidden state off; 1: drops CLS
            out.append(projector(tower(x).last_hidden_state[:, 1:]))
        return torch.cat(out).unflatten(1, self.info.grid)

    def answer(
        self,
        tokens: Tensor,
        questions: Iterable[Question | str],
        *,
        max_new_tokens: int = 128,
        prompt: Prompt | None = None,
        answer_mode: str = "generate",
        share_prefix: bool = True,
        prefix: Prefix | None = None,
    ) -> list[Answer]:
        """Greedy answers to many questions about one video; its tokens (N D) are prefilled once for all.

        `prefix` (from `new_prefixes`) carries the prefilled tokens from one call to the next: what the tokens of two
        calls have in common at their front, such as one Slow pathway before two Fast ones, is computed once.

        `prompt` replaces the pack's wording for each question's task. `answer_mode="logits"` gives choice questions the
        letter of highest probability after one forward, without generation. `share_prefix=False` is the plain
        way, one question at a time through transformers' `generate`; the tokens are the same. Raises ContextError
        before any compute where a prompt does not fit, and LogitsError where the logits of a question are not finite.
        """
        prefixes = None if prefix is None else [prefix]
        options = {
            "max_new_tokens": max_new_tokens,
            "prompt": prompt,
            "answer_mode": answer_mode,
            "share_prefix": share_prefix,
        }
        answers = self.answer_batch([(tokens, questions)], prefixes=prefixes, **options)[0]
        for answer in answers:
            if answer.error:
                raise LogitsError(f"{answer.question.text[:60]!r}: {answer.error}")
        return answers

    def answer_batch(
        self,
        videos: Sequence[tuple[Tensor, Iterable[Question | str]]],
        *,
        max_new_tokens: int = 128,
        prompt: Prompt | None = None,
        answer_mode: str = "generate",
        share_prefix: bool = True,
        prefixes: Sequence[Prefix] | None = None,
    ) -> list[list[Answer]]:
        """`answer` for several videos, (tokens, questions) each, whose questions are decoded together.

        Decoding reads all weights for each token, so that few questions at a time take about as long as many.
        `prefixes`: one for each video, from one call of `new_prefixes`. A question whose logits are not finite has an
        answer with an `error`, and the others theirs.
        """
        asked = [[Question(q) if isinstance(q, str) else q for q in questions] for _, questions in videos]
        flat = [question for mine in asked for question in mine]
        check_generation(answer_mode, max_new_tokens, flat)
        tokens = [tokens.to(self.info.device, self.info.dtype) for tokens, _ in videos]
        items = []
        for video, mine in enumerate(asked):
            for question in mine:
                before, after = self.info.prompt_ids(question, prompt)
                self.info.check_context(len(tokens[video]), len(before) + len(after), question.text)
                items.append(_Item(len(items), video, tuple(before), after))
        prefixes = prefixes or self.new_prefixes(len(videos))
        with torch.inference_mode():
            if answer_mode == "logits":
                said = self._letters(items, flat, prompt, tokens, prefixes)
            else:
                said = self._generate(items, max_new_tokens, share_prefix, tokens, prefixes)
        answers: list[list[Answer]] = [[] for _ in videos]
        for item, question in zip(items, flat):
            n = len(tokens[item.video])
            text, ids, letters = said[item.number] or ("", (), {})
            length = n + len(item.before) + len(item.after)
            error = not_finite(self.info.dtype) if said[item.number] is None else None
            answers[item.video].append(Answer(question, text, ids, n, length, letters, error))
        return answers

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

        `prefix` (from `new_prefixes`) is filled and reused as in `answer`. Raises ContextError at the first token, and
        LogitsError where the logits of the next are not finite.
        """
        question = Question(question) if isinstance(question, str) else question
        check_generation("generate", max_new_tokens, [question])
        before, after = self.info.prompt_ids(question, prompt)
        self.info.check_context(len(tokens), len(before) + len(after), question.text)
        length = len(before) + len(tokens) + len(after)
        if length + max_new_tokens <= self._shared_limit:
            shared = self.prefill(before, tokens, len(after) + max_new_tokens, prefix)
            steps = (
                said[0] for _, said in decode_steps(self, [PrefixGroup(shared, [after])], max_new_tokens, self._eos)
            )
        else:
            steps = self._steps_alone(
                self._embed(before, tokens, after), min(max_new_tokens, self.info.context - length)
            )
        for token in steps:
            if token < 0:
                if prefix is not None:
                    prefix.forget()
                raise LogitsError(not_finite(self.info.dtype))
            if token in self._eos:
                return
            yield token

    def _steps_alone(self, embeds: Tensor, new: int) -> Iterator[int]:
        """What `generate` says to one prompt, the end included, a token at a time; -1 where logits are not finite."""
        self._fresh_rope()
        empty = self.new_prefixes(1)[0]
        empty.shelf.reserve(embeds.shape[1] + new)
        cache = empty.cache
        for _ in range(new):
            start = cache.get_seq_length()
            positions = torch.arange(start, start + embeds.shape[1], device=self.info.device)[None]
            hidden = self._forward(embeds, cache=cache, position_ids=positions)
            token = int(greedy(self._logits(hidden[0, -1])))
            yield token
            embeds = self._embed([max(token, 0)])

    def new_prefixes(self, n: int) -> list[Prefix]:
        """Empty prefixes, one for each of `n` videos, for `answer` (one) and `answer_batch` to fill and to reuse."""
        layers, width = (getattr(self.network.config.text_config, n) for n in ("num_hidden_layers", "hidden_size"))
        shelf, nothing = BatchKVCache(layers, n), torch.zeros(0, width, device=self.info.device, dtype=self.info.dtype)
        return [Prefix((), nothing, shelf, shelf.row(i)) for i in range(n)]

    @torch.inference_mode()
    def prefill(self, before: Sequence[int], tokens: Tensor, room: int = 0, prefix: Prefix | None = None) -> Prefix:
        """Prefill text ids and visual tokens (N D) once; `room` positions are kept free behind them.

        Of an earlier `prefix` what stands at the same place, counted from the front, is kept and not computed again.
        """
        self._fresh_rope()
        prefix = prefix or self.new_prefixes(1)[0]
        tokens, before = tokens.to(self.info.device, self.info.dtype), tuple(before)
        same = before == prefix.before
        kept = _equal_rows(prefix.tokens, tokens) if same else 0
        # a forward needs a position: where all are kept, the last is computed again
        first = min(len(before) + kept, len(before) + len(tokens) - 1) if same else 0
        prefix.before, prefix.tokens, prefix.reused = (), tokens[:0], kept  # nothing is known until it has gone well
        prefix.cache.crop_to(first)
        prefix.shelf.reserve(len(before) + len(tokens) + room)
        embeds = self._embed(before, tokens, [])[:, first:]
        positions = torch.arange(first, first + embeds.shape[1], device=self.info.device)[None]
        still = self.still_rope() if len(before) + len(tokens) <= self._shared_limit else nullcontext()
        with still:
            self._forward(embeds, cache=prefix.cache, position_ids=positions)
        prefix.before, prefix.tokens = before, tokens
        return prefix

    def _generate(
        self, items: list[_Item], new: int, share_prefix: bool, tokens: list[Tensor], prefixes: Sequence[Prefix]
    ) -> _Found[_Said]:
        def together(lanes: list[PrefixGroup]) -> list[list[int] | None]:
            said: list[list[int]] = [[] for lane in lanes for _ in lane.suffixes]
            for live, following in decode_steps(self, lanes, new, self._eos):
                for question, token in zip(live, following):
                    said[question].append(token)
            return [None if ids[-1] < 0 else self._until_eos(ids) for ids in said]

        shared, alone = self._split(items, tokens, new) if share_prefix else ([], items)
        found = self._share(shared, tokens, prefixes, new, together)
        for item in alone:
            embeds = self._embed(item.before, tokens[item.video], item.after)
            found[item.number] = self._generate_alone(embeds, new)
        return {
            number: None if ids is None else (self.info.tokenizer.decode(ids), tuple(ids), {})
            for number, ids in found.items()
        }

    def _split(self, items: list[_Item], tokens: list[Tensor], new: int) -> tuple[list[_Item], list[_Item]]:
        """Those that may share a prefix, and those that may not.

        Up to the limit all questions see the same keys; one that crosses it while it is answered is answered alone,
        since the rotation then depends on the length.
        """
        shared, alone = [], []
        for item in items:
            length = len(item.before) + len(tokens[item.video]) + len(item.after) + new
            (shared if length <= self._shared_limit else alone).append(item)
        if alone and not self._warned:
            self._warned = True
            log.warning(
                "prompts past %d positions: a shared prefix is not exact there, so these are prefilled one question "
                "at a time",
                self._shared_limit,
            )
        return shared, alone

    def _share(
        self,
        items: list[_Item],
        tokens: list[Tensor],
        prefixes: Sequence[Prefix],
        new: int,
        use: Callable[[list[PrefixGroup]], Iterable[T | None]],
    ) -> _Found[T]:
        """What `use` makes of each question behind its video's prefix; as many at a time as the memory holds.

        None stands for logits that are not finite. Such a question spoils those beside it, as a key that a mask hides
        still enters a product, so each is asked once more alone.
        """
        if not items:
            return {}
        most = min(len(items), self._questions)

        def run_one_video(now: int) -> _Found[T]:
            if now < most:
                prefixes[0].forget()
            return self._share_at_once(items, tokens, prefixes, new, use, now)

        if len(tokens) == 1:
            found, used = retry_with_smaller_batch(run_one_video, most, "questions")
            self._questions = self._questions if used == most else used
        else:  # the caller's to take apart: each video by itself needs less than a smaller group of questions
            found = self._share_at_once(items, tokens, prefixes, new, use, most)
        lost = [item for item in items if found[item.number] is None]
        if lost:
            for prefix in prefixes:
                prefix.forget()
        for item in lost if len(items) > 1 else []:
            found |= self._share([item], tokens, prefixes, new, use)
        return found

    def _share_at_once(
        self,
        items: list[_Item],
        tokens: list[Tensor],
        prefixes: Sequence[Prefix],
        new: int,
        use: Callable[[list[PrefixGroup]], Iterable[T | None]],
        most: int,
    ) -> _Found[T]:
        """`_share` with at most `most` questions of a video at a time."""
        found: _Found[T] = {}
        for turn in _turns(items, len(tokens)):
            cut = [
                split_to_fit([item.after for item in mine], new, PACKED_POSITIONS // len(turn), most) for mine in turn
            ]
            packs = [
                [[mine[i] for i in part[k]] if k < len(part) else [] for mine, part in zip(turn, cut)]
                for k in range(max(map(len, cut)))
            ]
            room = max(sum(len(item.after) + new for item in mine) for pack in packs for mine in pack)
            longest = max(len(mine[0].before) + len(tokens[video]) for video, mine in enumerate(turn) if mine)
            for video, mine in enumerate(turn):
                if mine:
                    before, own = mine[0].before, tokens[video]
                    self.prefill(before, own, room + longest - len(before) - len(own), prefixes[video])
            for pack in packs:
                lanes = [PrefixGroup(prefix, [item.after for item in mine]) for prefix, mine in zip(prefixes, pack)]
                found |= zip([item.number for mine in pack for item in mine], use(lanes))
        return found

    def _generate_alone(self, embeds: Tensor, new: int) -> list[int] | None:
        self._fresh_rope()
        new = min(new, self.info.context - embeds.shape[1])
        mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=embeds.device)
        watch = FiniteLogitsWatch()
        ids = self.network.generate(
            inputs_embeds=embeds, attention_mask=mask, max_new_tokens=new, logits_processor=LogitsProcessorList([watch])
        )
        return self._until_eos(ids[0].tolist()) if watch.finite else None

    def _letters(
        self,
        items: list[_Item],
        asked: list[Question],
        prompt: Prompt | None,
        tokens: list[Tensor],
        prefixes: Sequence[Prefix],
    ) -> _Found[_Said]:
        def finite(logits: Tensor) -> list[Tensor | None]:
            return [row if known else None for row, known in zip(logits, is_finite(logits).tolist())]

        shared, alone = self._split(items, tokens, 0)
        rows = self._share(shared, tokens, prefixes, 0, lambda lanes: finite(PackedBatch(self, lanes).logits))
        for item in alone:
            self._fresh_rope()
            embeds = self._embed(item.before, tokens[item.video], item.after)
            rows[item.number] = finite(self._logits(self._forward(embeds)[:, -1]))[0]
        found: _Found[_Said] = {}
        for item, question in zip(items, asked):
            names = LETTERS[: len(question.options)]
            ids = [self._letter_id(question, prompt, item.after, letter) for letter in names]
            row = rows[item.number]
            shares = [math.nan] if row is None else row[ids].float().softmax(-1).tolist()
            letters = dict(zip(names, shares))
            known = all(map(math.isfinite, shares))
            found[item.number] = (max(letters, key=lambda letter: letters[letter]), (), letters) if known else None
        return found

    def _letter_id(self, question: Question, prompt: Prompt | None, after: list[int], letter: str) -> int:
        text = (prompt or pack_prompt(self.info.family, question.task)).pieces(question)[1]
        longer = self.info.tokenizer.encode(text + letter)
        if len(longer) > len(after) and longer[: len(after)] == after:
            return longer[len(after)]
        # the letter would melt into the prompt's last token: then it is said as the letter alone
        alone = self.info.tokenizer.token_id(letter)
        return self.info.tokenizer.encode(letter)[-1] if alone is None else alone

    def _embed(self, before: Sequence[int], tokens: Tensor | None = None, after: Sequence[int] = ()) -> Tensor:
        """Ids, visual tokens (N D), ids -> (1 L D)."""

        def embed(ids: Sequence[int]) -> Tensor:
            return self._embed_ids(torch.tensor(list(ids), dtype=torch.long).to(self.info.device))

        visual = [] if tokens is None else [tokens.to(self.info.device, self.info.dtype)]
        return torch.cat([embed(before), *visual, embed(after)])[None]

    def _embed_ids(self, ids: Tensor) -> Tensor:
        return self.network.model.language_model.embed_tokens(ids)

    def _forward(self, embeds: Tensor, cache: PrefixCache | None = None, **options: Any) -> Tensor:
        if cache is not None:
            options |= {self._cache_name: cache, "use_cache": True}
        return self.network.model.language_model(inputs_embeds=embeds, **options).last_hidden_state

    def _logits(self, hidden: Tensor) -> Tensor:
        logits = self.network.lm_head(hidden)
        return logits.index_fill_(-1, self._never, -torch.inf)

    @property
    def _shared_limit(self) -> int:
        return min(self.shared_positions or self.info.context, self.info.context)

    def _until_eos(self, ids: list[int]) -> list[int]:
        end = next((k for k, i in enumerate(ids) if i in self._eos), len(ids))
        return ids[:end]

    @contextmanager
    def still_rope(self) -> Iterator[None]:
        """Dynamic RoPE as it is below its limit, without a look at the positions, for which the host would wait."""
        rope = self.network.model.language_model.rotary_emb
        kind = rope.rope_type
        rope.rope_type = "default" if kind == "dynamic" else kind
        try:
            yield
        finally:
            rope.rope_type = kind

    def _fresh_rope(self) -> None:
        # Dynamic RoPE remembers the longest prompt it saw; without this one long prompt changes later ones.
        rope = self.network.model.language_model.rotary_emb
        if hasattr(rope, "original_inv_freq"):
            rope.register_buffer("inv_freq", rope.original_inv_freq.to(rope.inv_freq.device), persistent=False)
            rope.max_seq_len_cached = rope.original_max_seq_len


def _equal_rows(one: Tensor, two: Tensor) -> int:
    """How many rows at the front of (N D) and (M D) are the same, bit for bit."""
    n = min(len(one), len(two))
    if not n:  # without a look, for which the host would wait
        return 0
    different = (one[:n] != two[:n]).any(1)
    return int(different.int().argmax()) if different.any() else n


def _turns(items: list[_Item], videos: int) -> Iterator[list[list[_Item]]]:
    """By video the items that share one text before it; of a video with several such texts, one in each turn."""
    texts: list[dict[tuple[int, ...], list[_Item]]] = [{} for _ in range(videos)]
    for item in items:
        texts[item.video].setdefault(item.before, []).append(item)
    for turn in zip_longest(*(mine.values() for mine in texts), fillvalue=[]):
        yield list(turn)


def _ids(value: int | list[int] | None) -> list[int]:
    return [] if value is None else value if isinstance(value, list) else [value]
