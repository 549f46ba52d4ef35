"""A causal LM in vLLM that replies to text, for judging."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from transformers import AutoConfig, AutoTokenizer, GenerationConfig

from sfllava.models.chat_tokens import ChatTokens
from sfllava.models.checkpoint import CheckpointError, fingerprint, read_weights
from sfllava.models.engines.options import EngineInfo, EngineOptions, vllm_version
from sfllava.models.engines.vllm_engine import VllmEngine
from sfllava.models.finite import LogitsError
from sfllava.models.placement import device_of, dtype_of
from sfllava.types import SfllavaError

# requests have a few thousand tokens; room for the longest prompts of some models would take all memory
_CONTEXT = 8192


class VllmText:
    """A causal LM in vLLM and its tokenizer. Make one with `load_vllm_text`.

    Args:
        engine: vLLM.
        chat: Makes prompts of texts.
        name: The name to record.
        about: What a run records about the model.
        context: Positions of the longest prompt with its reply.

    Attributes:
        batch: Number of requests to pass to `replies` at a time.
    """

    batch = 64

    def __init__(self, engine: VllmEngine, chat: ChatTokens, name: str, about: dict[str, Any], context: int) -> None:
        self._engine, self._chat, self.name, self.about, self._context = engine, chat, name, about, context

    def replies(
        self, asks: Sequence[tuple[str, str]], max_new_tokens: int
    ) -> list[tuple[str, int, int] | SfllavaError]:
        """Reply greedily to requests, all in one batch.

        Args:
            asks: Pairs of system and user text.
            max_new_tokens: The largest number of new tokens of a reply.

        Returns:
            For each request a reply, or the error that it failed with.
        """
        prompts = [self._chat.ids(system, user)[0].tolist() for system, user in asks]
        found: list[tuple[str, int, int] | SfllavaError] = [
            SfllavaError(
                f"{len(ids)} prompt and {max_new_tokens} new tokens do not fit the judge's {self._context} in vLLM"
            )
            for ids in prompts
        ]
        fitting = [i for i, ids in enumerate(prompts) if len(ids) + max_new_tokens <= self._context]
        replies = self._engine.answer([prompts[i] for i in fitting], [max_new_tokens] * len(fitting))
        for i, reply in zip(fitting, replies):
            text = self._chat.tokenizer.decode(reply.ids, skip_special_tokens=True).strip()
            found[i] = (
                (text, len(prompts[i]), len(reply.ids))
                if reply.finite
                else LogitsError("the judge's logits are not finite: try another dtype")
            )
        return found


def load_vllm_text(folder: str | Path, device: str, engine: EngineOptions, dtype: str = "auto") -> VllmText:
    """Load a causal LM from a folder into vLLM; no code in the folder is executed.

    Args:
        folder: A folder with safetensors and a tokenizer.
        device: As in `load_model`.
        engine: vLLM's options.
        dtype: As in `load_model`.

    Raises:
        CheckpointError: The folder cannot be loaded.
        SfllavaError: vLLM cannot be started.
    """
    folder = Path(folder).expanduser()
    if not (folder / "config.json").is_file():
        raise CheckpointError(f"{folder}: no such checkpoint folder of a language model; needed config.json")
    engine.check(device, None)
    on_cpu = device_of(device) == "cpu"
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        config: Any = AutoConfig.from_pretrained(folder, trust_remote_code=False, local_files_only=True)
        weights = read_weights(folder)
        ends: Any = config.eos_token_id or tokenizer.eos_token_id
        if (folder / "generation_config.json").is_file():
            ends = GenerationConfig.from_pretrained(folder, local_files_only=True).eos_token_id or ends
    except SfllavaError:
        raise
    except Exception as error:  # a damaged folder can fail anywhere in two libraries
        text = " ".join(str(error).split())[:300]
        raise CheckpointError(f"{folder}: cannot be loaded: {type(error).__name__}: {text}") from error
    if (getattr(config, "rope_parameters", None) or {}).get("rope_type") == "dynamic":
        raise CheckpointError(f"{folder}: its dynamic RoPE differs in vLLM; use the packed engine")
    found_dtype = dtype_of(dtype, on_cpu, config.to_dict(), weights)
    context = min(config.max_position_embeddings, _CONTEXT)
    vllm = VllmEngine(
        folder, dtype=found_dtype, context=context, on_cpu=on_cpu, options=engine, embeddings=False,
        ends=[ends] if isinstance(ends, int) else list(ends or ()),
    )  # fmt: skip
    chat = ChatTokens(tokenizer)
    about = {
        "sha256_sampled": fingerprint(folder, weights),
        "dtype": str(found_dtype),
        "template_sha256": chat.template_sha256,
        **EngineInfo("vllm", vllm_version(), dict(engine.vllm)).identity(),
    }
    return VllmText(vllm, chat, str(folder.resolve()), about, context)
