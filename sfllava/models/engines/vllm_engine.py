"""vLLM in this process: prompts as embeddings in, greedy token ids out."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from sfllava.models.checkpoint import read_json
from sfllava.models.engines.options import EngineOptions
from sfllava.types import SfllavaError

# vLLM reads its settings from the environment. In this process, prompts need no copy to another one, and the engine
# ends with the process that it serves. Threads that are bound to cores would bind those of the decoders too.
_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
    "VLLM_CONFIGURE_LOGGING": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
}
_CPU_CACHE_BYTES = 2 << 30


@dataclass(frozen=True)
class Reply:
    """What vLLM generated for one prompt.

    Attributes:
        ids: The token ids, including the one that ends the answer.
        finite: Whether all logits were finite.
        cut: Whether it ended because it was as long as it may be.
        cached: Positions of the prompt whose keys and values an earlier prompt had computed.
        probabilities: The probability of each of the ids that were allowed, by id; empty where all were.
    """

    ids: list[int]
    finite: bool
    cut: bool
    cached: int
    probabilities: dict[int, float]


class VllmEngine:
    """vLLM with the language model of a folder.

    Args:
        folder: The folder of the language model.
        dtype: Of its weights and of the prompts.
        context: Positions of the longest prompt with its answer.
        on_cpu: Whether the rest of the model is on the CPU.
        options: vLLM's options.
        ends: Token ids that end an answer.
        suppressed: Token ids that are never generated.
        embeddings: Whether prompts are embeddings; otherwise they are token ids.

    Raises:
        SfllavaError: vLLM cannot be started; one line with its reason.
    """

    def __init__(
        self,
        folder: Path,
        *,
        dtype: torch.dtype | str,
        context: int,
        on_cpu: bool,
        options: EngineOptions,
        ends: Sequence[int] = (),
        suppressed: Sequence[int] = (),
        embeddings: bool = True,
    ) -> None:
        arguments: dict[str, Any] = {
            "dtype": str(dtype).removeprefix("torch."),
            "max_model_len": context,
            "skip_tokenizer_init": True,
            "enable_prompt_embeds": embeddings,
            "enable_prefix_caching": True,
            "tensor_parallel_size": options.tensor_parallel or 1,
            # with the letters of a question allowed only, these are their probabilities; NaN tells logits that are none
            "logprobs_mode": "processed_logprobs",
            "use_tqdm_on_load": False,
            "enforce_eager": on_cpu,
        }
        if on_cpu:
            arguments["kv_cache_memory_bytes"] = _CPU_CACHE_BYTES
        elif options.gpu_memory is not None:
            arguments["gpu_memory_utilization"] = options.gpu_memory
        if (options.tensor_parallel or 1) > 1:
            arguments["distributed_executor_backend"] = "mp"  # also in a Ray worker, which has the GPUs already
        arguments |= options.vllm
        self._eager = bool(arguments["enforce_eager"])
        self._common = {"temperature": 0.0, "detokenize": False, "stop_token_ids": sorted(ends)}
        self._bias = dict.fromkeys(suppressed, -math.inf)
        self._failed = ""
        self._llm, self._parameters = _start(folder, arguments, on_cpu)
        try:  # what the kernels cannot do shows with the first prompt
            width = read_json(folder / "config.json")["hidden_size"]
            self.answer([torch.zeros(8, width, dtype=_dtype(dtype)) if embeddings else [1] * 8], [1])
        except Exception as error:
            raise SfllavaError(f"{folder}: vLLM cannot start: {_line(error)}") from error

    def answer(self, prompts: Sequence[Tensor | list[int]], lengths: Sequence[int]) -> list[Reply]:
        """Answer prompts greedily, all in one continuous batch.

        Args:
            prompts: Embeddings (L D), or token ids, of each prompt.
            lengths: The largest number of new tokens of each answer.
        """
        parameters = [
            self._parameters(max_tokens=length, logprobs=0, logit_bias=self._bias or None, **self._common)
            for length in lengths
        ]
        return self._run(prompts, parameters)

    def choose(self, prompts: Sequence[Tensor], allowed: Sequence[list[int]]) -> list[Reply]:
        """Choose the most probable of some token ids as the token that follows each prompt.

        Args:
            prompts: Embeddings (L D) of each prompt.
            allowed: The token ids to choose from.
        """
        parameters = []
        for ids in allowed:
            different = sorted(set(ids))
            options = {"allowed_token_ids": different, "logprobs": len(different), "max_tokens": 1}
            parameters.append(self._parameters(**options, **{**self._common, "stop_token_ids": []}))
        return self._run(prompts, parameters)

    def _run(self, prompts: Sequence[Tensor | list[int]], parameters: list[Any]) -> list[Reply]:
        """Run prompts; run each without finite logits once more on its own.

        NaN that one prompt left in the cache reaches those that later use its memory, since 0 x NaN is NaN. So after
        each such prompt the cache is emptied.
        """
        replies = self._run_once(prompts, parameters)
        for i in [i for i, reply in enumerate(replies) if not reply.finite]:
            self._empty_cache()
            if len(prompts) > 1:
                (replies[i],) = self._run_once([prompts[i]], [parameters[i]])
        if not all(reply.finite for reply in replies):
            self._empty_cache()
        return replies

    def _empty_cache(self) -> None:
        self._llm.reset_prefix_cache()
        self._llm.collective_rpc(_zero_cache)

    def _run_once(self, prompts: Sequence[Tensor | list[int]], parameters: list[Any]) -> list[Reply]:
        if self._failed:
            raise RuntimeError(f"vLLM failed earlier and cannot go on: {self._failed}")
        inputs = [
            {"prompt_token_ids": prompt} if isinstance(prompt, list) else {"prompt_embeds": prompt.detach().cpu()}
            for prompt in prompts
        ]
        try:
            with _eagerly(self._eager):
                found = self._llm.generate(inputs, parameters, use_tqdm=False)
        except BaseException as error:  # what it had begun would be mixed with the next prompts
            self._failed = " ".join(f"{type(error).__name__}: {error}".split())[:200]
            raise
        return [_reply(output, bool(given.allowed_token_ids)) for output, given in zip(found, parameters, strict=True)]


def _zero_cache(worker: Any) -> None:
    for layer in worker.model_runner.kv_caches:
        layer.zero_()


def _reply(output: Any, choosing: bool) -> Reply:
    answer = output.outputs[0]
    steps = [{token: entry.logprob for token, entry in step.items()} for step in answer.logprobs or ()]
    finite = all(math.isfinite(step[token]) for step, token in zip(steps, answer.token_ids))
    probabilities = {token: math.exp(value) for token, value in steps[0].items()} if choosing and finite else {}
    cached = output.num_cached_tokens or 0
    return Reply(list(answer.token_ids), finite, answer.finish_reason == "length", cached, probabilities)


def _start(folder: Path, arguments: dict[str, Any], on_cpu: bool) -> tuple[Any, Any]:
    """Start vLLM; return the engine and the class of its sampling parameters."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    # it has no tokenizer to warm up, which it reports as an error
    logging.getLogger("vllm").setLevel(logging.ERROR)
    logging.getLogger("vllm.renderers").setLevel(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch, about vLLM's own code
        return _import_and_start(folder, arguments, on_cpu)


def _import_and_start(folder: Path, arguments: dict[str, Any], on_cpu: bool) -> tuple[Any, Any]:
    try:
        import vllm  # pyright: ignore[reportMissingImports]
        from vllm.platforms import current_platform  # pyright: ignore[reportMissingImports]
    except Exception as error:  # an installation for another device or torch fails in many ways
        raise SfllavaError(f"vLLM cannot be imported: {_line(error)}") from error
    if current_platform.is_cpu() != on_cpu:
        built, wanted = ("the CPU", "a GPU") if current_platform.is_cpu() else ("a GPU", "the CPU")
        raise SfllavaError(f"this vLLM is built for {built}, and the model is to run on {wanted}: pass device")
    try:
        return vllm.LLM(str(folder), **arguments), vllm.SamplingParams
    except Exception as error:
        raise SfllavaError(f"{folder}: vLLM cannot start: {_line(error)}") from error


@contextlib.contextmanager
def _eagerly(eager: bool) -> Iterator[None]:
    """Run without the compiler, which would take half a minute for a function that counts ranks of probabilities."""
    if not eager:
        yield
        return
    with torch.compiler.set_stance("force_eager"):
        yield


def _dtype(dtype: torch.dtype | str) -> torch.dtype:
    return dtype if isinstance(dtype, torch.dtype) else getattr(torch, dtype)


def _line(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:300]
