"""The configs of published checkpoints, so that the cost of a run can be estimated without a download.

They contain only the fields that the cost depends on. They were written from memory of the published configs, not
copied from them. If a checkpoint folder is given, its own config is read instead.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from sfllava.models.layouts import CLIP_L_336, SIGLIP_SO400M_384


@dataclass(frozen=True)
class Known:
    """A published checkpoint.

    Attributes:
        config: The JSON of its config.
        family: Name of the prompt templates that suit it.
        hub: Regular expression that matches its names on the hub.
    """

    config: dict[str, Any]
    family: str
    hub: str


def _text(kind: str, layers: int, width: int, inner: int, heads: int, kv_heads: int, **more: Any) -> dict[str, Any]:
    defaults = {"model_type": kind, "vocab_size": 32000, "max_position_embeddings": 4096}
    sizes = {"num_hidden_layers": layers, "hidden_size": width, "intermediate_size": inner}
    return {**defaults, **sizes, "num_attention_heads": heads, "num_key_value_heads": kv_heads, **more}


def _llava(model_type: str, text: dict[str, Any], family: str, hub: str) -> Known:
    return Known({"model_type": model_type, "text_config": text, "vision_config": CLIP_L_336}, family, hub)


def _onevision(size: str, text: dict[str, Any], **more: Any) -> Known:
    tower = {**SIGLIP_SO400M_384, "num_hidden_layers": 26}
    config = {"model_type": "llava_onevision", "text_config": text, "vision_config": tower, **more}
    return Known(config, "onevision", rf"(?:llava-hf|lmms-lab)/llava-onevision-qwen2-{size}-(?:si|ov)(?:-hf)?")


def _qwen25(size: str, text: dict[str, Any], inner: int, **more: Any) -> Known:
    tower = {
        "depth": 32, "hidden_size": 1280, "intermediate_size": inner, "num_heads": 16, "patch_size": 14,
        "out_hidden_size": text["hidden_size"], "tokens_per_second": 2,
    }  # fmt: skip
    config = {"model_type": "qwen2_5_vl", "text_config": text, "vision_config": tower, **more}
    return Known(config, "qwen", rf"Qwen/Qwen2\.5-VL-{size}-Instruct")


def _qwen3(size: str, text: dict[str, Any], large: bool, **more: Any) -> Known:
    depth, width, inner, sets = (27, 1152, 4304, [8, 16, 24]) if large else (24, 1024, 4096, [5, 11, 17])
    tower = {
        "depth": depth, "hidden_size": width, "intermediate_size": inner, "num_heads": 16, "patch_size": 16,
        "out_hidden_size": text["hidden_size"], "deepstack_visual_indexes": sets,
    }  # fmt: skip
    config = {"model_type": "qwen3_vl", "text_config": text, "vision_config": tower, **more}
    return Known(config, "qwen3", rf"Qwen/Qwen3-VL-{size}-Instruct")


_VICUNA_7B = _text("llama", 32, 4096, 11008, 32, 32)
_VICUNA_13B = _text("llama", 40, 5120, 13824, 40, 40)
_QWEN2 = {"vocab_size": 152064, "max_position_embeddings": 32768}
_TIED = {"tie_word_embeddings": True}
_QWEN25 = {"vocab_size": 152064, "max_position_embeddings": 128000}
_QWEN3 = {"vocab_size": 151936, "max_position_embeddings": 262144, "head_dim": 128}
_NEXT_HUB = r"(?:llava-hf|liuhaotian)/llava-v1\.6-{}(?:-hf)?"
KNOWN: dict[str, Known] = {
    "7b": _llava("llava_next", _VICUNA_7B, "vicuna", _NEXT_HUB.format("vicuna-7b")),
    "13b": _llava("llava_next", _VICUNA_13B, "vicuna", _NEXT_HUB.format("vicuna-13b")),
    "mistral-7b": _llava(
        "llava_next",
        _text("mistral", 32, 4096, 14336, 32, 8, max_position_embeddings=32768, sliding_window=None, head_dim=128),
        "mistral",
        _NEXT_HUB.format("mistral-7b"),
    ),
    "34b": _llava(
        "llava_next", _text("llama", 60, 7168, 20480, 56, 8, vocab_size=64000, head_dim=128), "chatml",
        _NEXT_HUB.format("34b"),
    ),
    "llama3-8b": _llava(
        "llava_next", _text("llama", 32, 4096, 14336, 32, 8, vocab_size=128256, max_position_embeddings=8192), "llama3",
        "llava-hf/llama3-llava-next-8b-hf",
    ),
    "next-72b": _llava(
        "llava_next", _text("qwen2", 80, 8192, 24576, 64, 64, **_QWEN2), "llava_qwen", "llava-hf/llava-next-72b-hf"
    ),
    "next-110b": _llava(
        "llava_next", _text("qwen2", 80, 8192, 49152, 64, 8, **_QWEN2), "llava_qwen", "llava-hf/llava-next-110b-hf"
    ),
    "llava-1.5-7b": _llava("llava", _VICUNA_7B, "vicuna", r"(?:llava-hf|liuhaotian)/llava-(?:v)?1\.5-7b(?:-hf)?"),
    "llava-1.5-13b": _llava("llava", _VICUNA_13B, "vicuna", r"(?:llava-hf|liuhaotian)/llava-(?:v)?1\.5-13b(?:-hf)?"),
    "next-video-7b": _llava("llava_next_video", _VICUNA_7B, "vicuna", "llava-hf/LLaVA-NeXT-Video-7B-hf"),
    "onevision-0.5b": _onevision(
        r"0\.5b", _text("qwen2", 24, 896, 4864, 14, 2, **{**_QWEN2, "vocab_size": 151936}, **_TIED), **_TIED
    ),
    "onevision-7b": _onevision("7b", _text("qwen2", 28, 3584, 18944, 28, 4, **_QWEN2)),
    "onevision-72b": _onevision("72b", _text("qwen2", 80, 8192, 29568, 64, 8, **_QWEN2)),
    "qwen2.5-vl-3b": _qwen25(
        "3B", _text("qwen2_5_vl_text", 36, 2048, 11008, 16, 2, **{**_QWEN25, "vocab_size": 151936}, **_TIED), 3420,
        **_TIED,
    ),
    "qwen2.5-vl-7b": _qwen25("7B", _text("qwen2_5_vl_text", 28, 3584, 18944, 28, 4, **_QWEN25), 3420),
    "qwen2.5-vl-32b": _qwen25("32B", _text("qwen2_5_vl_text", 64, 5120, 27648, 40, 8, **_QWEN25), 3456),
    "qwen2.5-vl-72b": _qwen25("72B", _text("qwen2_5_vl_text", 80, 8192, 29568, 64, 8, **_QWEN25), 3456),
    "qwen3-vl-2b": _qwen3("2B", _text("qwen3_vl_text", 28, 2048, 6144, 16, 8, **_QWEN3, **_TIED), False, **_TIED),
    "qwen3-vl-4b": _qwen3("4B", _text("qwen3_vl_text", 36, 2560, 9728, 32, 8, **_QWEN3, **_TIED), False, **_TIED),
    "qwen3-vl-8b": _qwen3("8B", _text("qwen3_vl_text", 36, 4096, 12288, 32, 8, **_QWEN3), True),
    "qwen3-vl-32b": _qwen3("32B", _text("qwen3_vl_text", 64, 5120, 25600, 64, 8, **_QWEN3), True),
}  # fmt: skip


def known_name(name: str) -> str | None:
    """Return the name in KNOWN of a checkpoint, given that name or its name on the hub; None if there is none."""
    if name in KNOWN:
        return name
    return next((key for key, known in KNOWN.items() if re.fullmatch(known.hub, name)), None)
