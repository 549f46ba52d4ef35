"""A video LLM whose language model runs in this process, whatever its family."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from torch import Tensor

from sfllava.models.answering import Answering, Item
from sfllava.models.base import ModelInfo, VisionEncoder, check_generation
from sfllava.models.finite import LogitsError, not_finite
from sfllava.models.kv_cache import Prefix
from sfllava.models.language_model import LanguageModel
from sfllava.models.memory import retry_with_smaller_batch
from sfllava.models.packed_decoding import PrefixGroup, decode_steps
from sfllava.prompts import Prompt
from sfllava.sampler.images import resize_frames
from sfllava.types import Answer, Question, SfllavaError


class TransformersVideoLM:
    """A loaded model: what is known of it, its vision encoder and its language model. Make one with `load_model`."""

    def __init__(self, info: ModelInfo, encoder: VisionEncoder, language_model: LanguageModel) -> None:
        self.info, self.encoder, self.language_model = info, encoder, language_model
        self._answering = Answering(info, language_model)
        self._batch = 8 if info.device.type == "cpu" else 64
        """Frames at a time: fewer once the memory has turned out too small"""

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
        # from pinned memory (`pinned_array`) the copy runs next to the computation
        device = self.encoder.device
        return torch.cat([self.encoder(part.to(device, non_blocking=True)) for part in pixels.split(batch)])

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
                items.append(Item(len(items), video, tuple(before), after))
        prefixes = prefixes or self.new_prefixes(len(videos))
        with torch.inference_mode():
            if answer_mode == "logits":
                said = self._answering.letters(items, flat, prompt, tokens, prefixes)
            else:
                said = self._answering.generate(items, max_new_tokens, share_prefix, tokens, prefixes)
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
        if length + max_new_tokens <= self.language_model.shared_limit:
            shared = self.prefill(before, tokens, len(after) + max_new_tokens, prefix)
            steps = (
                following[0]
                for _, following in decode_steps(
                    self.language_model, [PrefixGroup(shared, [after])], max_new_tokens, self.language_model.eos_ids
                )
            )
        else:
            steps = self.language_model.stream(
                self.language_model.embed(before, tokens, after), min(max_new_tokens, self.info.context - length)
            )
        for token in steps:
            if token < 0:
                if prefix is not None:
                    prefix.forget()
                raise LogitsError(not_finite(self.info.dtype))
            if token in self.language_model.eos_ids:
                return
            yield token

    def new_prefixes(self, n: int) -> list[Prefix]:
        """Empty prefixes, one for each of `n` videos, for `answer` (one) and `answer_batch` to fill and to reuse."""
        return self.language_model.new_prefixes(n)

    def prefill(self, before: Sequence[int], tokens: Tensor, room: int = 0, prefix: Prefix | None = None) -> Prefix:
        """Compute the keys and values of text ids and visual tokens (N D) once, as `LanguageModel.prefill` does."""
        return self.language_model.prefill(before, tokens, room, prefix)
