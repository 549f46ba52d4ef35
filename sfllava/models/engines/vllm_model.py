"""A model whose language model runs in vLLM: which folder vLLM loads, and what is loaded here."""

from __future__ import annotations

import hashlib
import re
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from sfllava.models.checkpoint import CheckpointError, fingerprint, read_json, read_weights
from sfllava.models.engines.export import MANIFEST, export_weights
from sfllava.models.engines.options import EngineInfo, EngineOptions, vllm_version
from sfllava.models.engines.vllm_answering import TextEmbeddings, VllmAnswering
from sfllava.models.engines.vllm_engine import VllmEngine
from sfllava.models.language_model import LanguageModel
from sfllava.models.video_lm import TransformersVideoLM

_LAYERS = re.compile(r"(?:language_model\.model|model\.language_model)\.layers\.")
# Questions about several videos in flight: enough to fill a GPU, and few enough that their patch grids fit beside vLLM
_BATCH_QUESTIONS = 32


def without_layers(config: Any, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Change a config to a language model without layers, and return the weights without those of its layers."""
    text = config.get_text_config()
    text.num_hidden_layers = 0
    if getattr(text, "layer_types", None):
        text.layer_types = []
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return {name: tensor for name, tensor in weights.items() if not _LAYERS.match(name)}


def prepare_export(
    folder: Path, config: dict[str, Any], checkpoint_hash: str, layout: str, options: EngineOptions
) -> tuple[Path, str]:
    """Find or write the folder of the language model.

    Args:
        folder: The checkpoint folder.
        config: The JSON of its config in transformers.
        checkpoint_hash: Its hash.
        layout: "transformers" or "original".
        options: The engine's options.

    Returns:
        The folder, and a hash of the checkpoint and, where the folder is not an export of it, of the folder.

    Raises:
        CheckpointError: The folder has a language model of other sizes.
    """
    if options.exported_lm is None:
        given = Path.home() / ".cache" / "sfllava" / "language-models" / checkpoint_hash[:32]
    else:
        given = Path(options.exported_lm).expanduser()
    if not (given / "config.json").is_file() or (given / MANIFEST).is_file():
        return export_weights(folder, given, config, checkpoint_hash, layout).folder, checkpoint_hash
    own, other = config["text_config"], read_json(given / "config.json")
    for name in ("model_type", "hidden_size", "num_hidden_layers", "vocab_size"):
        if name in own and own[name] != other.get(name):
            raise CheckpointError(
                f"{given}: needed a language model with {name} {own[name]}, as in {folder}, got {other.get(name)}"
            )
    both = f"{checkpoint_hash} {fingerprint(given, read_weights(given))}"
    return given, hashlib.sha256(both.encode()).hexdigest()


def with_vllm(model: TransformersVideoLM, folder: Path, options: EngineOptions) -> TransformersVideoLM:
    """Return a model that was loaded without layers as one whose language model runs in vLLM.

    Args:
        model: The model, with the vision encoder and the embeddings of text.
        folder: The folder of the language model.
        options: The engine's options.

    Raises:
        SfllavaError: vLLM cannot be started.
    """
    text = model.language_model
    context = text.shared_limit
    engine = EngineInfo(
        "vllm", vllm_version(), dict(options.vllm), packed_context=model.info.context, batch_questions=_BATCH_QUESTIONS
    )
    info = replace(model.info, context=context, engine=engine)
    vllm = VllmEngine(
        folder,
        dtype=info.dtype,
        context=context,
        on_cpu=info.device.type == "cpu",
        options=options,
        ends=sorted(text.eos_ids),
        suppressed=text.suppressed_ids.tolist(),
    )
    answering = VllmAnswering(info, text, vllm)
    return TransformersVideoLM(info, model.encoder, cast(LanguageModel, TextEmbeddings(text)), answering)
