"""Loading a checkpoint folder, or a model of the hub, of any family."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from transformers import GenerationConfig

from sfllava.models import attention
from sfllava.models.base import ModelInfo
from sfllava.models.checkpoint import CheckpointError, check_full_precision, fingerprint
from sfllava.models.engines.export import own_text_config
from sfllava.models.engines.options import EngineOptions
from sfllava.models.engines.vllm_model import prepare_export, with_vllm, without_layers
from sfllava.models.families import configure, find_family
from sfllava.models.family import POSITIONS, Configuration, Family, LoadOptions
from sfllava.models.language_model import LanguageModel
from sfllava.models.layouts import read_checkpoint
from sfllava.models.network import make_network
from sfllava.models.placement import checkpoint_folder, device_of, dtype_of
from sfllava.models.prompt_formats import choose_format
from sfllava.models.quantization import check_quantization_kernels
from sfllava.models.tokenizer import Tokenizer
from sfllava.models.video_lm import TransformersVideoLM
from sfllava.types import SfllavaError

# Parameters. Above this, a config that does not fit its weights is refused before missing tensors are allocated
_CHECKED_PARAMETERS = 1_000_000_000


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
    engine: str | EngineOptions = "packed",
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
        engine: What runs the language model: "packed", this package, or "vllm" (docs/how-to/vllm.md), with its options.

    Returns:
        The model, ready to encode and to answer.

    Raises:
        CheckpointError: The checkpoint cannot be loaded.
        SfllavaError: There is no such device, dtype, quantisation or engine, or they do not go together.
    """
    folder, options = checkpoint_folder(path_or_name), LoadOptions(rope_factor, positions, timestamps)
    with _one_line_errors(folder, device):
        return _load(folder, device, dtype, device_map, vision_tower, options, context, family, quantize, engine)


@contextmanager
def _one_line_errors(folder: Path, device: str) -> Iterator[None]:
    """Raise each error as a CheckpointError that names the folder."""
    try:
        yield
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
    engine: str | EngineOptions,
) -> TransformersVideoLM:
    engine = EngineOptions(engine) if isinstance(engine, str) else engine
    engine.check(device, device_map, quantize)
    if options.positions not in POSITIONS:
        raise SfllavaError(f"positions must be {' or '.join(POSITIONS)}, got {options.positions!r}")
    device = device_of(device)
    if quantize is not None:
        check_quantization_kernels(quantize, device)
        check_full_precision(folder)
    config_dict, weights, layout = read_checkpoint(folder, vision_tower)
    family, in_vllm = find_family(config_dict, folder), engine.name == "vllm"
    if in_vllm:
        own_text_config(config_dict, folder)  # refuses what vLLM cannot run, before anything is written
    # vLLM reads quantised layers itself; what is loaded here has full precision
    kept = {name: value for name, value in config_dict.items() if not in_vllm or name != "quantization_config"}
    made = configure(kept, folder, options)
    needed, found = made.shape.parameters, sum(tensor.numel() for tensor in weights.values())
    if needed > _CHECKED_PARAMETERS and needed > 16 * found:  # 4-bit weights are packed into fewer numbers
        raise CheckpointError(
            f"{folder}: the weights do not fit the config: it declares {needed:,} parameters, and there are {found:,}"
        )
    checkpoint_hash = fingerprint(folder, weights)  # before loading, which takes the tensors over
    on_cpu = device == "cpu" and device_map is None
    torch_dtype = dtype_of(dtype, on_cpu, config_dict, weights)
    exported, checkpoint_hash = (
        prepare_export(folder, config_dict, checkpoint_hash, layout, engine) if in_vllm else (None, checkpoint_hash)
    )
    if in_vllm:
        weights = without_layers(made.config, weights)
    placement = device_map or {"": device}
    network = make_network(folder, family, made.config, weights, torch_dtype, placement, quantize)
    network.model.language_model.config._attn_implementation = attention.NAME
    if (folder / "generation_config.json").exists():
        network.generation_config = GenerationConfig.from_pretrained(str(folder))
    model = assemble(
        network, Tokenizer(folder), family, made, path=folder, layout=layout, fingerprint=checkpoint_hash,
        context=min(context or made.context, made.positions), prompt_family=prompt_family, quantize=quantize,
    )  # fmt: skip
    return model if exported is None else with_vllm(model, exported, engine)


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
