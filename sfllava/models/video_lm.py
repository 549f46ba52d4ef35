"""A video LLM of any family, which runs in this process on transformers."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor

from sfllava.aggregators.native import NativeFrames
from sfllava.aggregators.tower import TowerFrames, join_grids
from sfllava.models.answering import Answering
from sfllava.models.base import ContextError, ModelInfo, check_generation
from sfllava.models.family import VisionEncoder
from sfllava.models.finite import LogitsError, not_finite
from sfllava.models.items import AnswersItems, Item
from sfllava.models.kv_cache import Prefix
from sfllava.models.language_model import LanguageModel
from sfllava.models.memory import frames_per_batch, retry_with_smaller_batch
from sfllava.models.visual_tokens import VisualTokens
from sfllava.prompts import Prompt
from sfllava.sampler.images import resize_frames
from sfllava.settings import Setting
from sfllava.types import Answer, Question, SfllavaError


class TransformersVideoLM:
    """A loaded video LLM. Make one with `load_model`.

    Args:
        info: The facts about the checkpoint.
        encoder: Its vision encoder.
        language_model: Its language model.
        answering: How answers are generated; by default the language model is decoded by this package.
    """

    def __init__(
        self,
        info: ModelInfo,
        encoder: VisionEncoder,
        language_model: LanguageModel,
        answering: AnswersItems | None = None,
    ) -> None:
        self.info, self.encoder, self.language_model = info, encoder, language_model
        self._answering = answering or Answering(info, language_model)
        self._batch = frames_per_batch(info.device, info.shape.patches, 64)
        """Frames per batch; reduced once memory has turned out too small"""

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.info!r})"

    def _repr_html_(self) -> str:
        return self.info._repr_html_()

    def encode(self, frames: np.ndarray | Tensor | NativeFrames | TowerFrames, batch: int | None = None) -> Any:
        """Encode frames as visual tokens before any pooling.

        Args:
            frames: uint8 RGB (T H W 3), of any size, or what an aggregator's `make_images` returns.
            batch: Images per forward of the vision tower; by default 64, and on a CPU as many as have 1,152 patches in
                the tower. A batch that does not fit the memory is halved.

        Returns:
            Grid of patches (T h w D), D being the width of the language model; a multiple of it where the model has
            further feature sets, which only `tokens` can aggregate. For `TowerFrames` a `PatchGrid`, with the same
            features.

        Raises:
            SfllavaError: The frames have another shape or type, or the vision tower does not give what they need.
        """
        native = frames if isinstance(frames, NativeFrames) else None
        needs = frames.needs if isinstance(frames, TowerFrames) else ()
        if missing := [name for name in needs if name not in self.info.tower_outputs]:
            raise SfllavaError(f"the vision tower of {self.info.model_type} models gives no {' and no '.join(missing)}")
        pixels = np.asarray(frames.frames if isinstance(frames, NativeFrames | TowerFrames) else frames)
        if pixels.ndim != 4 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or not len(pixels):
            raise SfllavaError(f"needed uint8 frames of shape (T H W 3), got {pixels.dtype} {pixels.shape}")
        size = (self.info.image_size, self.info.image_size)
        pixels = torch.from_numpy(np.ascontiguousarray(resize_frames(pixels, size)))
        encoder = self.encoder if native is None else self.encoder.encode_native
        encoder = partial(self.encoder.with_outputs, needs=needs) if needs else encoder
        each = 1 if native is None else native.per_image
        images = -(-len(pixels) // each)
        grid, used = retry_with_smaller_batch(
            lambda n: self._encode(pixels, n * each, encoder), min(batch or self._batch, images), "frames"
        )
        if batch is None and used < min(self._batch, images):
            self._batch = used
        return grid

    @torch.inference_mode()
    def _encode(self, pixels: Tensor, batch: int, encoder: Callable[[Tensor], Any]) -> Any:
        # from pinned memory (`pinned_array`) the copy overlaps the computation
        device = self.encoder.device
        return join_grids([encoder(part.to(device, non_blocking=True)) for part in pixels.split(batch)])

    @torch.inference_mode()
    def tokens(self, setting: Setting, grid: Any, seconds: Any = None) -> VisualTokens:
        """Make the visual part of a prompt.

        Args:
            setting: Its aggregation is used.
            grid: From `encode`, of `setting.images(frames)`.
            seconds: (T) The times of the sampled frames (`Video.pts_seconds`), for models that place tokens in time;
                without them, one frame per second.
        """
        aggregator = setting.for_model(self.info).aggregation
        return self.encoder.visual_tokens(aggregator, grid, None if seconds is None else np.asarray(seconds))

    def answer(
        self,
        tokens: Tensor | VisualTokens,
        questions: Iterable[Question | str],
        *,
        max_new_tokens: int = 128,
        prompt: Prompt | None = None,
        answer_mode: str = "generate",
        share_prefix: bool = True,
        prefix: Prefix | None = None,
    ) -> list[Answer]:
        """Answer questions about one video greedily; its visual tokens are prefilled once for all questions.

        Args:
            tokens: The visual part of the prompt, from `tokens`, or visual tokens (N D) at consecutive positions.
            questions: Questions, or their texts.
            max_new_tokens: The largest number of new tokens of an answer.
            prompt: Replaces the prompt of each question's task.
            answer_mode: "generate", or "logits" for the letter of highest probability after one forward; "logits"
                needs questions with options.
            share_prefix: False answers one question at a time with transformers' `generate`; the token ids are the
                same.
            prefix: From `new_prefixes`. The first tokens that two calls with one prefix have in common, such as one
                Slow pathway before two Fast ones, are prefilled once.

        Returns:
            One answer per question, in order.

        Raises:
            ContextError: A prompt does not fit the context; raised before any compute. In vLLM, or its answer.
            LogitsError: The logits of a question are not finite.
            SfllavaError: An option is out of range.
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
                kind = LogitsError if answer.error == not_finite(self.info.dtype) else ContextError
                raise kind(f"{answer.question.text[:60]!r}: {answer.error}")
        return answers

    def answer_batch(
        self,
        videos: Sequence[tuple[Tensor | VisualTokens, Iterable[Question | str]]],
        *,
        max_new_tokens: int = 128,
        prompt: Prompt | None = None,
        answer_mode: str = "generate",
        share_prefix: bool = True,
        prefixes: Sequence[Prefix] | None = None,
    ) -> list[list[Answer]]:
        """Answer questions about several videos, decoded together.

        Decoding reads all weights in each step, so that a few questions take about as long as many.

        Args:
            videos: Pairs of the visual part of a prompt and questions.
            max_new_tokens, prompt, answer_mode, share_prefix: As in `answer`.
            prefixes: One for each video, all from one call of `new_prefixes`.

        Returns:
            The answers of each video; where the logits of a question are not finite, its answer has an `error`.

        Raises:
            ContextError: A prompt does not fit the context; raised before any compute.
            SfllavaError: An option is out of range.
        """
        by_video = [[Question(q) if isinstance(q, str) else q for q in questions] for _, questions in videos]
        flat = [question for questions in by_video for question in questions]
        check_generation(answer_mode, max_new_tokens, flat)
        visual = [self._check_width(tokens).to(self.info.device, self.info.dtype) for tokens, _ in videos]
        items = []
        for video, questions in enumerate(by_video):
            for question in questions:
                before, after = self.info.prompt_ids(question, prompt)
                self.info.check_context(len(visual[video]), len(before) + len(after), question.text)
                items.append(Item(len(items), video, tuple(before), after))
        prefixes = prefixes or self.new_prefixes(len(videos))
        with torch.inference_mode():
            if answer_mode == "logits":
                found = self._answering.letters(items, flat, prompt, visual, prefixes)
            else:
                found = self._answering.generate(items, max_new_tokens, share_prefix, visual, prefixes)
        answers: list[list[Answer]] = [[] for _ in videos]
        for item, question in zip(items, flat):
            tokens = visual[item.video]
            result, length = found[item.number], len(tokens) + len(item.before) + len(item.after)
            text, ids, letters = result if isinstance(result, tuple) else ("", (), {})
            error = None if isinstance(result, tuple) else str(result or not_finite(self.info.dtype))
            answers[item.video].append(Answer(question, text, ids, tokens.count, length, letters, error))
        return answers

    @torch.inference_mode()
    def stream(
        self,
        tokens: Tensor | VisualTokens,
        question: Question | str,
        *,
        max_new_tokens: int = 256,
        prompt: Prompt | None = None,
        prefix: Prefix | None = None,
    ) -> Iterator[int]:
        """Answer one question token by token; generation stops when the caller stops iterating.

        Args:
            tokens: The visual part of the prompt, from `tokens`, or visual tokens (N D) at consecutive positions.
            question: The question, or its text.
            max_new_tokens: The largest number of new tokens.
            prompt: Replaces the prompt of the question's task.
            prefix: From `new_prefixes`; filled and reused as in `answer`.

        Yields:
            The token ids that `answer` gives, each as soon as it is known.

        Raises:
            ContextError: The prompt does not fit the context; raised at the first token.
            LogitsError: The logits of the next token are not finite.
        """
        question = Question(question) if isinstance(question, str) else question
        check_generation("generate", max_new_tokens, [question])
        tokens = self._check_width(tokens)
        before, after = self.info.prompt_ids(question, prompt)
        self.info.check_context(len(tokens), len(before) + len(after), question.text)
        steps = self._answering.stream(Item(0, 0, tuple(before), after), tokens, max_new_tokens, prefix)
        for token in steps:
            if token < 0:
                if prefix is not None:
                    prefix.forget()
                raise LogitsError(not_finite(self.info.dtype))
            if token in self.language_model.eos_ids:
                return
            yield token

    def _check_width(self, tokens: Tensor | VisualTokens) -> VisualTokens:
        """Take a tensor as visual tokens; raise SfllavaError if it is as wide as a grid with further feature sets."""
        visual, width = VisualTokens.of(tokens), self.language_model.width
        if len(visual) and visual.embeddings.shape[1:] != (width,):
            raise SfllavaError(
                f"needed visual tokens (N {width}), got {tuple(visual.embeddings.shape)}: make them of a grid with "
                "model.tokens(setting, grid)"
            )
        return visual

    def new_prefixes(self, n: int) -> list[Prefix]:
        """Make empty prefixes, one for each of `n` videos, for `answer` and `answer_batch` to fill and to reuse."""
        return self.language_model.new_prefixes(n)

    def prefill(
        self, before: Sequence[int], tokens: Tensor | VisualTokens, room: int = 0, prefix: Prefix | None = None
    ) -> Prefix:
        """Compute the keys and values of text and visual tokens once; see `LanguageModel.prefill`."""
        return self.language_model.prefill(before, self._check_width(tokens), room, prefix)
