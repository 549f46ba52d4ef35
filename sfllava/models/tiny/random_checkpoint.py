"""Small checkpoints with random weights in the layouts of real ones, for tests, benchmarks and dry runs."""

from __future__ import annotations

import io
import json
import string
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors.torch import save_file
from torch import Tensor
from transformers import LlavaNextConfig, LlavaNextForConditionalGeneration

Layout = Literal["transformers", "original"]
CORPUS = (
    "the frames of a video show people on a raft on the river and a woman in a gym with a panda on the grass",
    "what is the color of the barrels of the raft? blue, yellow, black and white, red or green",
    "where does it take place and what do they do: paddle, crawl, lift a leg, stand, lie on the ground, eat",
    "A person asks about a video. The assistant has watched all of it and replies truthfully and to the point.",
    "Reply with the letter of the one option that the video shows to be right. The right option is (A) (B) (C)",
    "how many animals are there: one, two, three, four or five? USER: ASSISTANT: Question: Reply with one word",
)
FAMILIES = ("vicuna", "chatml", "mistral")
# prefixes of tensor names: in transformers 5, in an original checkpoint, in llava-hf's on the hub
_NAMES = (
    ("model.language_model.", "model.", "language_model.model."),
    ("model.vision_tower.", "model.vision_tower.vision_tower.vision_model.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.linear_1.", "model.mm_projector.0.", "multi_modal_projector.linear_1."),
    ("model.multi_modal_projector.linear_2.", "model.mm_projector.2.", "multi_modal_projector.linear_2."),
    ("model.image_newline", "model.image_newline", "image_newline"),
    ("lm_head.", "lm_head.", "language_model.lm_head."),
)


def write_random_checkpoint(
    folder: str | Path,
    layout: Layout = "transformers",
    family: str = "vicuna",
    *,
    seed: int = 0,
    text: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
) -> Path:
    """Write a checkpoint whose weights do not depend on its layout.

    The vision tower takes 336 x 336 pixels in 24 x 24 patches, as in a real checkpoint.

    Args:
        folder: the folder to write; created if it does not exist.
        layout: `transformers` as llava-hf's checkpoints, or `original` as liuhaotian's.
        family: vicuna, mistral or chatml, the families of language models in LLaVA-v1.6.
        seed: the seed of the weights.
        text: fields that override those of the language model's config.
        vision: fields that override those of the vision tower's config.

    Returns:
        The folder.

    Raises:
        ValueError: there is no such family.
    """
    if family not in FAMILIES:
        raise ValueError(f"family must be one of {', '.join(FAMILIES)}, got {family!r}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    vocabulary = write_sentencepiece(folder, family)
    config: Any = LlavaNextConfig.from_dict(_config(family, vocabulary, text or {}, vision or {}))
    weights = random_weights(LlavaNextForConditionalGeneration(config), seed)
    if layout == "transformers":
        # as in llava-hf's: <image> follows the vocabulary, then padding to a multiple of 64 rows
        config.image_token_index = vocabulary
        config.text_config.vocab_size = -(-(vocabulary + 1) // 64) * 64
        for name in ("model.language_model.embed_tokens.weight", "lm_head.weight"):
            padding = torch.full((config.text_config.vocab_size - vocabulary, weights[name].shape[1]), 0.5)
            weights[name] = torch.cat([weights[name], padding])
        config.architectures = ["LlavaNextForConditionalGeneration"]
        write_json(folder / "config.json", config.to_dict())
    else:
        write_json(folder / "config.json", _original_config(family, config))
        write_json(folder / "clip" / "config.json", config.vision_config.to_dict())
    column = 1 if layout == "original" else 2
    renamed = {rename(name, column): tensor for name, tensor in weights.items()}
    save_file(renamed, folder / "model.safetensors", metadata={"format": "pt"})
    return folder


def _config(family: str, vocabulary: int, text: dict[str, Any], vision: dict[str, Any]) -> dict[str, Any]:
    width = text.get("hidden_size", 64)
    return {
        "model_type": "llava_next",
        "text_config": {
            "model_type": "mistral" if family == "mistral" else "llama",
            "vocab_size": vocabulary,
            "hidden_size": width,
            "intermediate_size": 2 * width,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4 if family == "vicuna" else 2,
            "rms_norm_eps": 1e-5,
            "max_position_embeddings": 32768 if family == "mistral" else 4096,
            "rope_theta": 10000.0,
            "bos_token_id": 1,
            "eos_token_id": 2,
            "sliding_window": None,
            **text,
        },
        "vision_config": {
            "model_type": "clip_vision_model",
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 3,
            "num_attention_heads": 4,
            "image_size": 336,
            "patch_size": 14,
            "projection_dim": 32,
            **vision,
        },
        "vision_feature_layer": -2,
        "vision_feature_select_strategy": "default",
        "projector_hidden_act": "gelu",
        "image_token_index": vocabulary,
        "tie_word_embeddings": False,
        "dtype": "float32",
    }


def _original_config(family: str, config: Any) -> dict[str, Any]:
    text = config.text_config.to_dict()
    mistral = family == "mistral"
    return {
        **{k: v for k, v in text.items() if k not in ("model_type", "architectures", "rope_parameters", "dtype")},
        "architectures": ["LlavaMistralForCausalLM" if mistral else "LlavaLlamaForCausalLM"],
        "model_type": "llava_mistral" if mistral else "llava_llama",
        "rope_theta": config.text_config.rope_parameters["rope_theta"],
        "torch_dtype": "float32",
        "mm_vision_tower": "clip",
        "mm_projector_type": "mlp2x_gelu",
        "mm_vision_select_layer": -2,
        "mm_vision_select_feature": "patch",
        "mm_patch_merge_type": "spatial_unpad",
        "mm_hidden_size": config.vision_config.hidden_size,
        "unfreeze_mm_vision_tower": True,
        "image_aspect_ratio": "anyres",
    }


def random_weights(network: Any, seed: int) -> dict[str, Tensor]:
    """Return random values for the weights of a network, by name."""
    # Large enough that answers depend on the input; with the usual deviation of 0.02 one token repeats forever.
    generator = torch.Generator().manual_seed(seed)
    gains = {"q_proj": 2.0, "k_proj": 2.0, "embed_tokens": 0.3}
    weights = {}
    for name, tensor in network.state_dict().items():
        if tensor.is_floating_point() and (tensor.ndim > 1 or "embedding" in name or "newline" in name):
            fan_in = tensor[0].numel() if tensor.ndim > 1 and "embed" not in name else 1
            gain = next((gain for part, gain in gains.items() if part in name), 1.0)
            tensor = torch.randn(tensor.shape, generator=generator) * 1.5 * gain / fan_in**0.5
        weights[name] = tensor.contiguous().clone()
    return weights


def rename(name: str, column: int) -> str:
    """Translate a tensor's name from transformers 5 to the original layout (column 1) or llava-hf's (column 2)."""
    names = next(names for names in _NAMES if name.startswith(names[0]))
    return names[column] + name[len(names[0]) :]


def write_sentencepiece(folder: Path, family: str) -> int:
    """Write a small BPE tokenizer with Llama's settings (byte fallback, a leading space), and return its size."""
    import sentencepiece

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.Train(
        sentence_iterator=iter(CORPUS),
        model_writer=model,
        vocab_size=440,
        model_type="bpe",
        byte_fallback=True,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        pad_id=-1,
        required_chars=string.ascii_letters,
        hard_vocab_limit=False,
        minloglevel=2,
    )
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    vocabulary = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue()).GetPieceSize()
    options: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "add_bos_token": True}
    if family == "chatml":
        added = {"<|im_start|>": vocabulary, "<|im_end|>": vocabulary + 1}
        write_json(folder / "added_tokens.json", added)
        options |= {"eos_token": "<|im_end|>", "add_bos_token": False}
        vocabulary += 2
    write_json(folder / "tokenizer_config.json", options)
    return vocabulary


def write_json(path: Path, value: dict[str, Any]) -> None:
    """Write a JSON file, and the folder that it is in."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(value, indent=1), encoding="utf-8")
