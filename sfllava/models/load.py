"""Loading a checkpoint folder, or a model of the hub, of any family."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig

from sfllava.files import is_url
from sfllava.models import attention
from sfllava.models.base import ModelInfo
from sfllava.models.checkpoint import CheckpointError, check_full_precision, fingerprint
from sfllava.models.families import configure, find_family
from sfllava.models.family import POSITIONS, Configuration, Family, LoadOptions
from sfllava.models.language_model import LanguageModel
from sfllava.models.layouts import read_checkpoint
from sfllava.models.network import make_network
from sfllava.models.prompt_formats import choose_format
from sfllava.models.quantization import check_quantization_kernels
from sfllava.models.tokenizer import Tokenizer
from sfllava.models.video_lm import TransformersVideoLM
from sfllava.types import SfllavaError

# Parameters. Above this, a config that does not fit its weights is refused before missing tensors are allocated
_CHECKED_PARAMETERS = 1_000_000_000
TINY = Path(__file__).with_name("tiny") / "weights"


def load_model(
    path_or_name: str | Path,
    device: str = "auto",
    dtype: str | torch.dtype = "auto",
    *,
    device_map: str | dict[str, Any] | None = None,
    vision_tower: str | Path | None = None,
    rope_factor: float | None = 2.0,
    context: int | None = None,
    family: str | None = None,
    positions: str = "time",
    timestamps: bool = False,
    quantize: str | None = None,
) -> TransformersVideoLM:
    """Load a checkpoint.

    Args:
        path_or_name: A folder in the transformers or the original layout, a hub name, or `tiny`, the model in the
            package.
        device: "auto" (a GPU where there is one), "cpu", "cuda" or "cuda:1".
        dtype: "auto" (float32 on CPU, the checkpoint's half precision elsewhere), "float32", "float16" or "bfloat16".
        device_map: As in transformers, such as "auto", for a model larger than one GPU.
        vision_tower: A folder that replaces `mm_vision_tower` of the original layout.
        rope_factor: Factor of dynamic NTK RoPE for LLaVA-1.5 and LLaVA-NeXT; None, or another family: its own RoPE.
        context: Positions of the longest prompt with its answer, at most as many as the checkpoint supports; by default
            8,192 for LLaVA-1.5 and LLaVA-NeXT, as in the published code, and all for the others.
        family: Name of the prompt templates; by default those that suit the checkpoint.
        positions: For Qwen's positions in time, height and width: "time" places each visual token by its time, row and
            column; "consecutive" counts them as text.
        timestamps: For Qwen: write a text such as "<1.5 seconds>" before the tokens of each frame.
        quantize: "nf4" (4 bits) or "int8", for the linear layers of the language model only; needs bitsandbytes.

    Returns:
        The model, ready to encode and to answer.

    Raises:
        CheckpointError: The checkpoint cannot be loaded.
        SfllavaError: There is no such device, dtype or quantisation, or they do not go together.
    """
    folder = _folder(path_or_name)
    try:
        options = LoadOptions(rope_factor, positions, timestamps)
        return _load(folder, device, dtype, device_map, vision_tower, options, context, family, quantize)
    except (SfllavaError, MemoryError):
        raise
    except torch.OutOfMemoryError as error:
        why = f"the model does not fit the memory of {device}: {first_line(error)}"
        raise CheckpointError(f"{folder}: {why}") from error
    except Exception as error:  # a damaged folder can fail anywhere in three libraries
        raise CheckpointError(f"{folder}: cannot be loaded: {type(error).__name__}: {first_line(error)}") from error


def first_line(error: Exception) -> str:
    """Return the message of an error as one line of at most 300 characters."""
    return " ".join(str(error).split())[:300]


def _load(
    folder: Path,
    device: str,
    dtype: str | torch.dtype,
    device_map: str | dict[str, Any] | None,
    vision_tower: str | Path | None,
    options: LoadOptions,
    context: int | None,
    prompt_family: str | None,
    quantize: str | None,
) -> TransformersVideoLM:
    if options.positions not in POSITIONS:
        raise SfllavaError(f"positions must be {' or '.join(POSITIONS)}, got {options.positions!r}")
    device = device_of(device)
    if quantize is not None:
        check_quantization_kernels(quantize, device)
        check_full_precision(folder)
    config_dict, weights, layout = read_checkpoint(folder, vision_tower)
    family = find_family(config_dict, folder)
    made = configure(config_dict, folder, options)
    needed, found = made.shape.parameters, sum(tensor.numel() for tensor in weights.values())
    if needed > _CHECKED_PARAMETERS and needed > 16 * found:  # 4-bit weights are packed into fewer numbers
        raise CheckpointError(
            f"{folder}: the weights do not fit the config: it declares {needed:,} parameters, and there are {found:,}"
        )
    checkpoint_hash = fingerprint(folder, weights)  # before loading, which takes the tensors over
    on_cpu = device == "cpu" and device_map is None
    torch_dtype = dtype_of(dtype, on_cpu, config_dict, weights)
    placement = device_map or {"": device}
    network = make_network(folder, family, made.config, weights, torch_dtype, placement, quantize)
    network.model.language_model.config._attn_implementation = attention.NAME
    if (folder / "generation_config.json").exists():
        network.generation_config = GenerationConfig.from_pretrained(str(folder))
    tokenizer = Tokenizer(folder)
    return assemble(
        network, tokenizer, family, made, path=folder, layout=layout, fingerprint=checkpoint_hash,
        context=min(context or made.context, made.positions), prompt_family=prompt_family,
        quantize=quantize,
    )  # fmt: skip


def assemble(
    network: Any,
    tokenizer: Tokenizer,
    family: Family,
    configuration: Configuration,
    *,
    path: Path,
    layout: str,
    context: int,
    fingerprint: str,
    prompt_family: str | None = None,
    quantize: str | None = None,
) -> TransformersVideoLM:
    """Make a model of a loaded network.

    Args:
        network: The loaded transformers model.
        tokenizer: The tokenizer of the checkpoint.
        family: The family of the checkpoint.
        configuration: The checked config.
        path, layout, context, fingerprint, quantize: As in `ModelInfo`.
        prompt_family: Name of the prompt templates; by default those that suit the checkpoint.
    """
    config, shape = configuration.config, replace(configuration.shape, quantize=quantize)
    templates = choose_format(prompt_family, family.prompt_family(config, path, tokenizer), path)
    encoder = family.encoder(network, configuration, tokenizer)
    language_model = LanguageModel(network.eval(), tokenizer, context, family.unused_ids(config))
    info = ModelInfo(
        path=path,
        layout=layout,
        model_type=config.model_type,
        family=templates,
        tokenizer=tokenizer,
        context=context,
        image_size=configuration.image_size,
        grid=shape.grid,
        shape=shape,
        native=configuration.native,
        video_text=configuration.video_text,
        options=changed_options(configuration.options),
        rope=config.get_text_config().rope_parameters,
        device=language_model.device,
        dtype=language_model.dtype,
        fingerprint=fingerprint,
        tower_outputs=configuration.tower_outputs,
        quantize=quantize,
    )
    return TransformersVideoLM(info, encoder, language_model)


def changed_options(options: LoadOptions) -> dict[str, Any]:
    """Return the options that change positions or text, where they are not the default."""
    usual = LoadOptions()
    return {n: getattr(options, n) for n in ("positions", "timestamps") if getattr(options, n) != getattr(usual, n)}


def _folder(path_or_name: str | Path) -> Path:
    if str(path_or_name) == "tiny":  # a folder of that name is written as ./tiny
        return TINY
    if is_url(path_or_name):
        raise CheckpointError(
            f"{path_or_name}: needed a checkpoint folder or a hub name such as llava-hf/llava-v1.6-vicuna-7b-hf, got a "
            "URL"
        )
    path = Path(path_or_name).expanduser()
    if path.is_dir():
        return path
    name = str(path_or_name)
    if path.exists() or name.count("/") != 1 or name.startswith((".", "/", "~")):
        raise CheckpointError(f"{name}: no such checkpoint folder")
    from huggingface_hub import snapshot_download

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.jinja", "*.safetensors", "*.bin", "*.model"]))
    except Exception as error:
        raise CheckpointError(
            f"{name}: neither a folder here nor a model that could be downloaded ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:120]})"
        ) from error


def device_of(device: str) -> str:
    """Resolve a device name.

    Args:
        device: "auto", or a name that torch knows.

    Returns:
        A name that torch knows.

    Raises:
        SfllavaError: There is no such device.
    """
    if device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        kind = torch.device(device).type
    except RuntimeError as error:
        raise SfllavaError(f"device must be auto, cpu, cuda or cuda:N, got {device!r}") from error
    if kind == "cuda" and not torch.cuda.is_available():
        raise SfllavaError(f"device {device}: no CUDA GPU is usable here")
    return device


def dtype_of(dtype: str | torch.dtype, on_cpu: bool, config: dict[str, Any], weights: dict[str, Tensor]) -> torch.dtype:
    """Resolve a dtype.

    Args:
        dtype: "auto", a name, or a torch dtype.
        on_cpu: Whether "auto" means float32.
        config: The JSON of the checkpoint's config.
        weights: The checkpoint's tensors, for a config without a dtype.

    Raises:
        SfllavaError: There is no such dtype.
    """
    names = {"float32": torch.float32, "float16": torch.float16, "bfloat16": torch.bfloat16}
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype in names:
        return names[dtype]
    if dtype != "auto":
        raise SfllavaError(f"dtype must be auto, {', '.join(names)}, got {dtype!r}")
    if on_cpu:
        return torch.float32
    stored = config.get("dtype") or config.get("torch_dtype") or next(iter(weights.values())).dtype
    return names.get(str(stored).removeprefix("torch."), torch.float16)
