"""Language models that reply to text, for judging: a causal LM from a folder, or that of a loaded video LLM."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, LogitsProcessorList

from sfllava.models.base import VideoLM
from sfllava.models.chat_tokens import ChatTokens
from sfllava.models.checkpoint import CheckpointError, check_full_precision, fingerprint, read_json, read_weights
from sfllava.models.finite import FiniteLogitsWatch, LogitsError, not_finite
from sfllava.models.load import first_line
from sfllava.models.network import quiet
from sfllava.models.placement import device_of, dtype_of
from sfllava.models.quantization import check_quantization_kernels, prepare_quantized, quantization_config
from sfllava.prompts import Prompt, chat_prompt
from sfllava.types import Question, SfllavaError

Reply = tuple[str, int, int]
"""(text, prompt tokens, reply tokens)."""


class CausalText:
    """A transformers causal LM and its tokenizer. Make one with `load_text_model`.

    Args:
        network: The causal LM.
        tokenizer: Its tokenizer.
        name: The name to record.
        checkpoint_hash: The fingerprint of the checkpoint.
        quantize: How its linear layers are quantised; None for not at all.

    Attributes:
        batch: Number of requests to pass to `replies` at a time.
        about: What a run records about the model.
    """

    batch = 1

    def __init__(
        self, network: Any, tokenizer: Any, name: str, checkpoint_hash: str, quantize: str | None = None
    ) -> None:
        self._network, self._tokenizer, self.name = network.eval(), tokenizer, name
        self._chat = ChatTokens(tokenizer)
        template = self._chat.template_sha256
        self.about = {"sha256_sampled": checkpoint_hash, "dtype": str(network.dtype), "template_sha256": template}
        self.about |= {"quantize": quantize} if quantize else {}
        ends = network.generation_config.eos_token_id or tokenizer.eos_token_id
        self._ends = [ends] if isinstance(ends, int) else list(ends or [])
        self._context = getattr(network.config, "max_position_embeddings", None)

    def replies(self, asks: Sequence[tuple[str, str]], max_new_tokens: int) -> list[Reply | SfllavaError]:
        """Reply greedily to requests, one at a time.

        Args:
            asks: Pairs of system and user text.
            max_new_tokens: The largest number of new tokens of a reply.

        Returns:
            For each request a reply, or the error that it failed with.
        """
        return [self._reply(system, user, max_new_tokens) for system, user in asks]

    @torch.inference_mode()
    def _reply(self, system: str, user: str, max_new_tokens: int) -> Reply | SfllavaError:
        ids = self._chat.ids(system, user).to(self._network.device)
        if self._context and ids.shape[1] + max_new_tokens > self._context:
            return SfllavaError(
                f"{ids.shape[1]} prompt and {max_new_tokens} new tokens do not fit the judge's {self._context}"
            )
        options = GenerationConfig(
            do_sample=False, max_new_tokens=max_new_tokens, eos_token_id=self._ends or None,
            pad_token_id=min(self._ends, default=0),
        )  # fmt: skip
        watch = FiniteLogitsWatch()
        out = self._network.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            generation_config=options,
            logits_processor=LogitsProcessorList([watch]),
        )
        if not watch.finite:
            return LogitsError(not_finite(self._network.dtype))
        generated_ids = out[0, ids.shape[1] :].tolist()
        return self._tokenizer.decode(generated_ids, skip_special_tokens=True).strip(), ids.shape[1], len(generated_ids)


class VideoLMText:
    """The language model of a loaded video LLM, used without a video; requests share the system text as prefix.

    Args:
        model: The video LLM.

    Attributes:
        batch: Number of requests to pass to `replies` at a time.
        about: What a run records about the model.
    """

    batch = 8

    def __init__(self, model: VideoLM) -> None:
        self._model, self.name = model, str(model.info.path)
        self.about = {
            "sha256_sampled": model.info.fingerprint,
            "dtype": str(model.info.dtype),
            "family": model.info.family,
            **({"quantize": model.info.quantize} if model.info.quantize else {}),
            **model.info.engine.identity(),
        }
        self._no_tokens = torch.zeros(0, model.language_model.width)

    def replies(self, asks: Sequence[tuple[str, str]], max_new_tokens: int) -> list[Reply | SfllavaError]:
        """Reply greedily to requests, those with the same system text together.

        Args:
            asks: Pairs of system and user text.
            max_new_tokens: The largest number of new tokens of a reply.

        Returns:
            For each request a reply, or the error that it failed with.
        """
        found: list[Reply | SfllavaError] = []
        by_system: dict[str, list[int]] = {}
        for i, (system, user) in enumerate(asks):
            ids = sum(map(len, self._model.info.prompt_ids(Question(user), self._prompt(system))))
            found.append(("", ids, 0))
            try:
                self._model.info.check_context(0, ids + max_new_tokens, user)
                by_system.setdefault(system, []).append(i)
            except SfllavaError as error:
                found[i] = error
        for system, indices in by_system.items():
            users = [Question(asks[i][1]) for i in indices]
            prompt = self._prompt(system)
            options = {"max_new_tokens": max_new_tokens, "prompt": prompt}
            for i, answer in zip(indices, self._model.answer_batch([(self._no_tokens, users)], **options)[0]):
                found[i] = (
                    LogitsError(answer.error)
                    if answer.error
                    else (answer.text, answer.prompt_tokens, len(answer.token_ids))
                )
        return found

    def _prompt(self, system: str) -> Prompt:
        return chat_prompt(self._model.info.family, system)


def load_text_model(
    folder: str | Path, device: str = "auto", dtype: str = "auto", quantize: str | None = None
) -> CausalText:
    """Load a causal LM from a folder; no code in the folder is executed.

    Args:
        folder: A folder with safetensors and a tokenizer.
        device: As in `load_model`.
        dtype: As in `load_model`.
        quantize: As in `load_model`.

    Raises:
        CheckpointError: The folder cannot be loaded.
        SfllavaError: There is no such device, dtype or quantisation.
    """
    folder = Path(folder).expanduser()
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: no such checkpoint folder of a language model; needed config.json")
    device = device_of(device)
    if quantize is not None:
        check_quantization_kernels(quantize, device)
        check_full_precision(folder)
    local: dict[str, Any] = {"trust_remote_code": False, "local_files_only": True}
    try:
        with quiet():
            tokenizer = AutoTokenizer.from_pretrained(folder, **local)
        if quantize is None:
            with quiet():
                network: Any = AutoModelForCausalLM.from_pretrained(folder, use_safetensors=True, dtype="auto", **local)
            weights = network.state_dict()
            checkpoint_hash = fingerprint(folder, weights)
            network = network.to(device, dtype_of(dtype, device == "cpu", network.config.to_dict(), weights))
        else:
            weights = read_weights(folder)
            checkpoint_hash = fingerprint(folder, weights)
            chosen = dtype_of(dtype, device == "cpu", read_json(folder / "config.json"), weights)
            local |= {"quantization_config": quantization_config(quantize, chosen, video_lm=False)}
            with quiet():
                network = AutoModelForCausalLM.from_pretrained(
                    folder, use_safetensors=True, dtype=chosen, device_map={"": device}, **local
                )
            prepare_quantized(network)
    except (SfllavaError, MemoryError):
        raise
    except Exception as error:  # a damaged folder can fail anywhere in three libraries
        raise CheckpointError(f"{folder}: cannot be loaded: {type(error).__name__}: {first_line(error)}") from error
    return CausalText(network, tokenizer, str(folder.resolve()), checkpoint_hash, quantize)
