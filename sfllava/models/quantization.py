"""Weights in 4 or 8 bits: bitsandbytes quantises the linear layers of a language model while they are loaded.

Each layer computes in the dtype of its input, with its weights dequantised, so that an answer does not depend on the
questions that are answered together with it.
"""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import logging
import sys
from typing import Any

import torch
from packaging.version import Version
from torch import Tensor, nn
from torch.nn import functional
from transformers import BitsAndBytesConfig

from sfllava.models.operations import NF4_BLOCK, QUANTIZATIONS
from sfllava.types import SfllavaError

_OLDEST = "0.46.1"  # of bitsandbytes, for transformers; the first with kernels for CPUs
_DTYPES = (torch.float32, torch.float16, torch.bfloat16)
# As transformers matches the names of modules: everything but the decoder layers of a video LLM
_NOT_LANGUAGE = [r"(?!model\.language_model\.).*"]


def check_quantization_kernels(quantize: str | None, device: str) -> None:
    """Check that weights can be quantised on a device, before a checkpoint is read.

    Args:
        quantize: "nf4", "int8", or None, for which there is nothing to check.
        device: A name that torch knows.

    Raises:
        SfllavaError: There is no such quantisation, or bitsandbytes is missing, too old or without kernels for the
            device.
    """
    if quantize is None:
        return
    if quantize not in QUANTIZATIONS:
        raise SfllavaError(f"quantize must be {' or '.join(QUANTIZATIONS)}, got {quantize!r}")
    install = "pip install 'sfllava[quantize]'"
    if importlib.util.find_spec("bitsandbytes") is None:
        raise SfllavaError(f"quantize {quantize} needs bitsandbytes, which is not installed: {install}")
    version = importlib.metadata.version("bitsandbytes")
    if Version(version) < Version(_OLDEST):
        raise SfllavaError(f"quantize {quantize} needs bitsandbytes {_OLDEST} or newer, got {version}: {install}")
    try:
        _import_bitsandbytes()
        with torch.device(device):
            _try_kernels(quantize, torch.linspace(-1, 1, 64 * NF4_BLOCK).view(NF4_BLOCK, -1))
    except Exception as error:  # a library that does not fit the machine can fail anywhere
        line = " ".join(str(error).split())[:200]
        raise SfllavaError(
            f"quantize {quantize}: bitsandbytes {version} does not work on {device}: {type(error).__name__}: {line}"
        ) from error


def _import_bitsandbytes() -> Any:
    """Import bitsandbytes without the kernel that it would download from the hub, and execute, on some CPUs."""
    if "bitsandbytes" in sys.modules:
        return sys.modules["bitsandbytes"]
    kernels, log = sys.modules.get("kernels"), logging.getLogger("bitsandbytes.backends.cpu.ops")
    sys.modules["kernels"] = None  # type: ignore[assignment]  # an import of it fails, which bitsandbytes allows for
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        return importlib.import_module("bitsandbytes")
    finally:
        log.setLevel(level)
        del sys.modules["kernels"]
        if kernels is not None:
            sys.modules["kernels"] = kernels


def _try_kernels(quantize: str, weight: Tensor) -> None:
    """Quantise and dequantise a small matrix; raise an error if the result is not near it."""
    kernels = _import_bitsandbytes().functional
    if quantize == "nf4":
        restored = kernels.dequantize_4bit(*kernels.quantize_4bit(weight, quant_type="nf4", compress_statistics=True))
    else:
        values, largest, _ = kernels.int8_vectorwise_quant(weight.half())
        restored = values * (largest[:, None] / 127)
    if not (restored - weight).abs().max() < 0.2:
        raise ValueError("its kernels give wrong numbers")


def quantization_config(quantize: str, dtype: torch.dtype, *, video_lm: bool = True) -> BitsAndBytesConfig:
    """Return the config with which transformers quantises each weight as it is loaded.

    Args:
        quantize: "nf4", with scales in 8 bits, or "int8".
        dtype: Of the other weights.
        video_lm: Whether the network is a video LLM, whose vision tower and projector keep their dtype. The output
            layer always does.

    Raises:
        SfllavaError: The dtype is none that a layer can compute in.
    """
    if dtype not in _DTYPES:
        names = ", ".join(str(known).removeprefix("torch.") for known in _DTYPES)
        raise SfllavaError(f"quantize {quantize} needs dtype {names}, got {str(dtype).removeprefix('torch.')}")
    kept = _NOT_LANGUAGE if video_lm else None  # None: transformers finds the output layer
    if quantize == "int8":
        return BitsAndBytesConfig(load_in_8bit=True, llm_int8_skip_modules=kept)
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
        llm_int8_skip_modules=kept,
    )


class Int8Linear(nn.Module):
    """A linear layer with weights in 8 bits.

    The layer of bitsandbytes also rounds its input to 8 bits, apart from columns in which any row of the batch has an
    outlier. With it, answers would depend on what else is in the batch.

    Args:
        layer: A layer of bitsandbytes that holds quantised weights (outputs, inputs); they are shared, not copied.
    """

    def __init__(self, layer: Any) -> None:
        super().__init__()
        self.weight = nn.Parameter(layer.weight.data, requires_grad=False)
        self.bias = layer.bias
        self.scale: Tensor
        self.register_buffer("scale", layer.weight.SCB.float()[:, None] / 127)

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs (... O) of inputs (... I), in their dtype."""
        weight = torch.empty(self.weight.shape, dtype=x.dtype, device=x.device)
        torch.mul(self.weight, self.scale, out=weight)  # one pass over the weights: int8 in, dtype out
        return functional.linear(x, weight, self.bias)


def prepare_quantized(network: nn.Module) -> None:
    """Make the quantised layers of a loaded network compute row by row, in the dtype of their input."""
    layers = _import_bitsandbytes().nn
    for module in list(network.modules()):
        child: Any
        for name, child in list(module.named_children()):
            if isinstance(child, layers.Linear8bitLt):
                setattr(module, name, Int8Linear(child))
            elif isinstance(child, layers.Linear4bit):
                # on some CPUs it would round inputs and outputs to bfloat16, and fail with some widths
                child.support_avx512bf16_for_cpu = False
