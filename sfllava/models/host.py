"""This machine and its packages. It needs no torch, so that a broken one can still be diagnosed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path


def processor_name() -> str:
    """Return the name of the processor, or its architecture where the system tells no name."""
    if platform.system() == "Linux":
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
        return names[0] if names else platform.machine()
    return platform.processor() or platform.machine()


def host_memory() -> tuple[int, int]:
    """Return the free and the total bytes of memory; a container's limit counts. 0 where the system tells neither."""
    free = total = 0
    if platform.system() == "Linux":
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free, total = (int(lines[name].split()[0]) * 1024 for name in ("MemAvailable", "MemTotal"))
        limit, used = (Path(f"/sys/fs/cgroup/memory.{name}") for name in ("max", "current"))
        if limit.is_file() and used.is_file() and (text := limit.read_text().strip()) != "max":
            total = min(total, int(text))
            free = min(free, max(0, total - int(used.read_text())))
    elif "SC_PHYS_PAGES" in getattr(os, "sysconf_names", ()):
        free = total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return free, total


def versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that a result may depend on."""
    packages = ("sfllava", "torch", "transformers", "decord2", "av", "pillow", "numpy", "sentencepiece", "bitsandbytes")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
