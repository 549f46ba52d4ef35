"""Small checkpoints with random weights for all families but LLaVA-NeXT, in the layouts of the published ones."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from sfllava.models.families import find_family
from sfllava.models.network import quiet
from sfllava.models.tiny.random_checkpoint import CORPUS, random_weights, rename, write_json, write_sentencepiece

_CHATML = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
_VISION = ("<|vision_start|>", "<|vision_end|>", "<|image_pad|>", "<|video_pad|>")
# They format a conversation as the processors of these families do, for one video and one text
CHAT_TEMPLATES = {
    "vicuna": "{% for m in messages %}{% if m.role != 'system' %}{{ m.role.upper() + ': ' }}{% endif %}"
    "{% for c in m.content if c.type == 'video' %}{{ '<video>\\n' }}{% endfor %}"
    "{% for c in m.content if c.type == 'text' %}{{ c.text + ' ' }}{% endfor %}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}",
    "onevision": "{% for m in messages %}{{ '<|im_start|>' + m.role + ' ' }}"
    "{% for c in m.content if c.type == 'video' %}{{ '<video>' }}{% endfor %}"
    "{% for c in m.content if c.type == 'text' %}{{ '\\n' + c.text }}{% endfor %}{{ '<|im_end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "qwen": "{% for m in messages %}{% if loop.first and m.role != 'system' %}"
    "{{ '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}{% endif %}"
    "{{ '<|im_start|>' + m.role + '\\n' }}{% for c in m.content %}"
    "{{ '<|vision_start|><|video_pad|><|vision_end|>' if c.type == 'video' else c.text }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "qwen3": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}{% for c in m.content %}"
    "{{ '<|vision_start|><|video_pad|><|vision_end|>' if c.type == 'video' else c.text }}{% endfor %}"
    "{{ '<|im_end|>\\n' }}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "llava_qwen": "{% for m in messages %}{{ '<|im_start|>' + m.role + '\\n' }}"
    "{% for c in m.content if c.type == 'video' %}{{ '<video>\\n' }}{% endfor %}"
    "{% for c in m.content if c.type == 'text' %}{{ c.text }}{% endfor %}{{ '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}",
    "llama3": "{% for m in messages %}{{ '<|start_header_id|>' + m.role + '<|end_header_id|>\\n\\n' }}"
    "{% for c in m.content if c.type == 'video' %}{{ '<video>\\n' }}{% endfor %}"
    "{% for c in m.content if c.type == 'text' %}{{ c.text }}{% endfor %}{{ '<|eot_id|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}{% endif %}",
}
_LLAMA3 = ("<|begin_of_text|>", "<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>")


def write_random_backbone(
    folder: str | Path,
    backbone: str,
    *,
    seed: int = 0,
    original: bool = False,
    text: dict[str, Any] | None = None,
    vision: dict[str, Any] | None = None,
    template: str | None = None,
) -> Path:
    """Write a small random checkpoint of a family, with the grid of the published ones, and return its folder.

    Args:
        folder: The checkpoint folder to write.
        backbone: A family, by its name in sfllava/models/families.
        seed: Seed of the weights.
        original: Whether to write the original layout (llava and llava_onevision).
        text: Fields of the text config to replace.
        vision: Fields of the vision config to replace.
        template: The chat template, a name in CHAT_TEMPLATES; by default the one of the family.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    template = template or {"llava_onevision": "onevision", "qwen2_5_vl": "qwen", "qwen3_vl": "qwen3"}.get(backbone)
    if template in (None, "vicuna"):
        size, tokens, eos = write_sentencepiece(folder, "vicuna"), {"</s>": 2}, 2
    else:
        special = _LLAMA3 if template == "llama3" else _CHATML + (_VISION if "qwen" in template else ())
        size, tokens = _write_byte_level(folder, special)
        eos = tokens[special[-1] if template == "llama3" else "<|im_end|>"]
    if template:
        (folder / "chat_template.jinja").write_text(CHAT_TEMPLATES[template], encoding="utf-8")
    config = _config(backbone, size, tokens, eos, text or {}, vision or {}, template)
    family: Any = find_family(config, folder).network
    made = family.config_class.from_dict(config)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = family(made).eval()
    network.load_state_dict(random_weights(network, seed))
    if backbone.startswith("qwen"):
        with quiet():
            network.save_pretrained(folder)
        (folder / "generation_config.json").unlink(missing_ok=True)
        return folder
    _save(network, folder, original)
    if original:
        _write_original(folder, backbone, made)
    else:
        write_json(folder / "config.json", made.to_dict())
    return folder


def _save(network: Any, folder: Path, original: bool) -> None:
    """Write weights under the names of the original layout, or under those of the hub."""
    weights = {rename(name, 1 if original else 2): value.contiguous() for name, value in network.state_dict().items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})


def _config(
    backbone: str, size: int, tokens: dict[str, int], eos: int, text: dict[str, Any], vision: dict[str, Any],
    template: str | None,
) -> dict[str, Any]:  # fmt: skip
    qwen, image = backbone.startswith("qwen"), size
    kinds = {"qwen2_5_vl": "qwen2_5_vl_text", "qwen3_vl": "qwen3_vl_text", "llava_onevision": "qwen2"}
    width = text.get("hidden_size", 64)
    sections = {"mrope_section": [2, 3, 3]} if qwen else {}
    language = {
        "model_type": kinds.get(backbone, "llama"), "vocab_size": -(-(size + 2) // 64) * 64,
        "hidden_size": width, "intermediate_size": 2 * width, "num_hidden_layers": 4 if backbone == "qwen3_vl" else 2,
        "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 32768 if template else 4096,
        "rope_parameters": {"rope_type": "default", "rope_theta": 10000.0, **sections},
        "bos_token_id": None if qwen else 1, "eos_token_id": eos,
        **({"head_dim": width // 4} if backbone == "qwen3_vl" else {}), **text,
    }  # fmt: skip
    tower = {
        "hidden_size": 64, "intermediate_size": 128,
        **(
            {"depth": 4, "num_heads": 4, "out_hidden_size": width, "patch_size": 16 if backbone == "qwen3_vl" else 14}
            if qwen
            else {"num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 14}
        ),
        **{
            "qwen2_5_vl": {"fullatt_block_indexes": [1, 3], "tokens_per_second": 2},
            "qwen3_vl": {"deepstack_visual_indexes": [0, 1, 2]},
            "llava_onevision": {"model_type": "siglip_vision_model", "image_size": 384, "vision_use_head": False},
        }.get(backbone, {"model_type": "clip_vision_model", "image_size": 336, "projection_dim": 32}),
        **vision,
    }  # fmt: skip
    ids = {
        "image_token_id": tokens.get("<|image_pad|>", image),
        "video_token_id": tokens.get("<|video_pad|>", image + 1),
    }
    if qwen:
        ids |= {f"vision_{end}_token_id": tokens[f"<|vision_{end}|>"] for end in ("start", "end")}
    else:
        ids = {f"{name[:5]}_token_index": i for name, i in ids.items()}
    config = {"model_type": backbone, "text_config": language, "vision_config": tower, "dtype": "float32", **ids}
    return config | {"tie_word_embeddings": False}


def _write_byte_level(folder: Path, special: tuple[str, ...]) -> tuple[int, dict[str, int]]:
    """Write a tokenizer like those of Qwen and Llama 3: byte-level BPE, with special tokens after the vocabulary."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    trainer = trainers.BpeTrainer(vocab_size=400, initial_alphabet=alphabet, show_progress=False)
    tokenizer.train_from_iterator(CORPUS, trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in special])
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {token: tokenizer.get_vocab()[token] for token in special}
    bos = special[0] if special == _LLAMA3 else None
    write_json(
        folder / "tokenizer_config.json",
        {
            "bos_token": bos, "eos_token": special[-1] if bos else "<|im_end|>", "add_bos_token": bos is not None,
            "added_tokens_decoder": {str(i): {"content": token, "special": True} for token, i in ids.items()},
        },
    )  # fmt: skip
    return tokenizer.get_vocab_size(with_added_tokens=True), ids


def _write_original(folder: Path, backbone: str, config: Any) -> None:
    """Write config.json as in llava-v1.5 or LLaVA-OneVision, and the tower's config in the subfolder `tower`."""
    text, tower = config.text_config.to_dict(), config.vision_config.to_dict()
    siglip = backbone == "llava_onevision"
    # the original layout selects hidden state -2 of a tower with one more layer
    tower = tower | ({"num_hidden_layers": tower["num_hidden_layers"] + 1} if siglip else {})
    dropped = ("model_type", "architectures", "rope_parameters", "dtype", "layer_types")
    write_json(
        folder / "config.json",
        {
            **{k: v for k, v in text.items() if k not in dropped},
            "architectures": ["LlavaQwenForCausalLM" if siglip else "LlavaLlamaForCausalLM"],
            "model_type": "llava",
            "rope_theta": config.text_config.rope_parameters["rope_theta"],
            "torch_dtype": "float32",
            "mm_vision_tower": "tower",
            "mm_projector_type": "mlp2x_gelu",
            "mm_vision_select_layer": -2,
            "mm_vision_select_feature": "patch",
            **(
                {"mm_tunable_parts": "mm_vision_tower,mm_mlp_adapter"} if siglip else {"unfreeze_mm_vision_tower": True}
            ),
            **({"mm_patch_merge_type": "spatial_unpad", "image_aspect_ratio": "anyres_max_9"} if siglip else {}),
        },
    )
    write_json(folder / "tower" / "config.json", json.loads(json.dumps(tower)))
