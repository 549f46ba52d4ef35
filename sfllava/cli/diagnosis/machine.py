"""Devices and disks of this machine."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from sfllava.cli.diagnosis.finding import Finding
from sfllava.files import format_bytes
from sfllava.models.host import host_memory, processor_name

_LITTLE = 2 * 2**30  # bytes of free disk space below which there is a warning


def devices() -> Iterator[Finding]:
    """Yield the processor, the memory and the GPUs, and whether torch can use them."""
    import torch

    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    yield Finding("CPU", f"{processor_name()}, {cores} cores, {torch.get_num_threads()} threads of torch")
    free, total = host_memory()
    yield Finding("memory", f"{format_bytes(free)} of {format_bytes(total)} free" if total else "unknown", "info")
    smi = _nvidia_smi()
    if torch.cuda.is_available():
        yield from _gpus(torch, smi)
    elif smi:
        yield Finding("GPU", f"{smi[0]} is there, and torch cannot use it: {_why_no_gpu(torch)}", "warning")
    else:
        build = f"built for CUDA {torch.version.cuda}" if torch.version.cuda else "a build without CUDA"
        yield Finding("GPU", f"no NVIDIA GPU found (torch is {build}); models run on the CPU", "info")
    if platform.system() == "Darwin":
        there = "there; not used by --device auto" if torch.backends.mps.is_available() else "not usable"
        yield Finding("MPS", there, "info")


def disks() -> Iterator[Finding]:
    """Yield the free space where files are written."""
    from huggingface_hub.constants import HF_HUB_CACHE

    from sfllava.runs.score_cache import default_folder

    models = len(list(Path(HF_HUB_CACHE).glob("models--*")))
    where = " (HF_HOME or HF_HUB_CACHE)" if {"HF_HOME", "HF_HUB_CACHE"} & set(os.environ) else ""
    yield _disk("hub cache", Path(HF_HUB_CACHE), f"{models} models{where}")
    yield _disk("sfllava cache", default_folder().parent, "scores of frames, exported language models")
    yield _disk("this folder", Path.cwd(), "")
    yield _disk("temporary files", Path(tempfile.gettempdir()), "")


def _gpus(torch: Any, smi: list[str]) -> Iterator[Finding]:
    for i in range(torch.cuda.device_count()):
        facts = torch.cuda.get_device_properties(i)
        name, capability = f"cuda:{i}", f"{facts.major}.{facts.minor}"
        text = f"{facts.name}, {format_bytes(facts.total_memory)}, compute capability {capability}"
        try:
            one = torch.ones(8, 8, device=name)
            assert float((one @ one).sum()) == 512
            text += f", {format_bytes(torch.cuda.mem_get_info(i)[0])} free"
            yield Finding(name, text if torch.cuda.is_bf16_supported() else f"{text}, no bfloat16")
        except Exception as error:  # such as a build without kernels for this GPU
            yield Finding(name, f"{text}; torch cannot compute on it: {str(error)[:200]}", "warning")
    driver = smi[0].rpartition(", ")[2] if smi else "unknown"
    yield Finding("CUDA", f"torch is built for {torch.version.cuda}; driver {driver}{_driver_cuda(torch)}")


def _why_no_gpu(torch: Any) -> str:
    if not torch.version.cuda:
        return "it is a build without CUDA; install torch from https://pytorch.org for the CUDA of this driver"
    if os.environ.get("CUDA_VISIBLE_DEVICES") in ("", "-1"):
        return "CUDA_VISIBLE_DEVICES hides it"
    return f"torch is built for CUDA {torch.version.cuda}, which this driver{_driver_cuda(torch)} may be too old for"


def _driver_cuda(torch: Any) -> str:
    """Return the newest CUDA that the driver supports, as text."""
    try:
        number = torch._C._cuda_getDriverVersion()
    except (AttributeError, RuntimeError):
        return ""
    return f", for CUDA up to {number // 1000}.{number % 1000 // 10}" if number else ""


def _nvidia_smi() -> list[str]:
    """Return name, memory and driver of each NVIDIA GPU, as nvidia-smi has them."""
    query = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    try:
        done = subprocess.run(query, capture_output=True, text=True, timeout=3)
    except (OSError, subprocess.SubprocessError):
        return []
    return done.stdout.strip().splitlines() if done.returncode == 0 else []


def _disk(name: str, folder: Path, what: str) -> Finding:
    """Return the free space of a folder, or of that in which it would be made."""
    there = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    usage = shutil.disk_usage(there)
    text = f"{format_bytes(usage.free)} of {format_bytes(usage.total)} free{f'; {what}' if what else ''}"
    if not os.access(there, os.W_OK):
        return Finding(name, f"{text}; not writable", "warning")
    return Finding(name, text, "warning" if usage.free < _LITTLE else "ok")
