"""Versions of sfllava and of the packages that it needs, and the optional ones that are missing."""

from __future__ import annotations

import importlib
import platform
import re
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import PackageNotFoundError, requires, version
from pathlib import Path

from sfllava.cli.diagnosis.finding import Finding

# packages with code of their own for the machine, which may be installed and fail all the same: name -> module
_NATIVE = {
    "torch": "torch", "numpy": "numpy", "pillow": "PIL._imaging", "av": "av", "decord2": "decord",
    "sentencepiece": "sentencepiece", "safetensors": "safetensors", "pyarrow": "pyarrow", "pyyaml": "yaml",
    "transformers": "transformers",
}  # fmt: skip
_SHOWN = ("torch", "transformers")  # each in a line of its own
PURPOSES = {
    "notebooks": "notebooks, figures, reports and the explorer",
    "judge": "the openai judge, and tables with intervals",
    "quantize": "--quantize, models in 4 or 8 bits",
    "vllm": "--engine vllm",
    "cluster": "--workers and --ray, many GPUs",
    "track": "results in wandb, MLflow or TensorBoard",
    "docs": "building the documentation",
    "dev": "tests and checks of this repository",
}


def versions() -> Iterator[Finding]:
    """Yield the versions of sfllava, Python and the required packages."""
    import sfllava

    yield Finding("sfllava", f"{sfllava.__version__}{_checkout()}")
    system = f"{platform.system()} {platform.release()} on {platform.machine()}"
    yield Finding("Python", f"{platform.python_version()} ({platform.python_implementation()}), {system}")
    fine = []
    for name, wanted in _requirements().get("", {}).items():
        problem = _problem(name, wanted)
        if problem:
            yield Finding(name, f"{problem}; pip install '{name}{wanted}'", "broken")
        elif name in _SHOWN:
            yield Finding(name, version(name))
        else:
            fine.append(f"{name} {version(name)}")
    if fine:
        yield Finding("packages", ", ".join(fine))
    if not _requirements():
        yield Finding("packages", "sfllava is on the path and not installed, so versions are not checked", "info")


def extras() -> Iterator[Finding]:
    """Yield whether the packages of each extra are there, and if not, what they are for and how to install them."""
    for extra, wanted in sorted(_requirements().items(), key=lambda item: list(PURPOSES).index(item[0] or "dev")):
        if not extra:
            continue
        purpose = PURPOSES.get(extra, "more")
        missing = [f"{name} ({problem})" for name, spec in wanted.items() if (problem := _problem(name, spec, False))]
        if not missing:
            yield Finding(extra, f"for {purpose}")
            continue
        names = [name.removesuffix(" (missing)") for name in missing]
        some = f"{len(missing)} of {len(wanted)} packages missing: " if len(wanted) > 1 else "missing: "
        yield Finding(extra, f"for {purpose}; {some}{', '.join(names)}; pip install 'sfllava[{extra}]'", "missing")


def _requirements() -> dict[str, dict[str, str]]:
    """Return the versions that are needed, by extra ("" for none) and package."""
    from packaging.requirements import Requirement

    try:
        lines = requires("sfllava") or []
    except PackageNotFoundError:
        return {}
    found: dict[str, dict[str, str]] = {}
    for line in lines:
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", line)
        wanted = Requirement(line)
        if extra or wanted.marker is None or wanted.marker.evaluate():
            found.setdefault(extra[1] if extra else "", {})[wanted.name] = str(wanted.specifier)
    return found


def _problem(name: str, wanted: str, load: bool = True) -> str:
    """Return what is wrong with a package, or an empty text."""
    from packaging.specifiers import SpecifierSet

    try:
        there = version(name)
    except PackageNotFoundError:
        return "missing"
    if not SpecifierSet(wanted).contains(there, prereleases=True):
        return f"version {there}, needed {wanted}"
    if load and name in _NATIVE:
        try:
            importlib.import_module(_NATIVE[name])
        except Exception as error:
            return f"version {there} cannot be imported: {type(error).__name__}: {str(error)[:200]}"
    return ""


def _checkout() -> str:
    """Return which commit of a checkout this is, if it is one."""
    root = Path(sys.modules["sfllava"].__file__ or "").parents[1]
    if not (root / ".git").exists():
        return ""

    def git(*words: str) -> str:
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=5)
        return done.stdout.strip()

    try:
        commit, changed = git("rev-parse", "--short", "HEAD"), git("status", "--porcelain", "-uno")
    except (OSError, subprocess.SubprocessError):
        return ", a checkout"
    return f", a checkout at {commit}{' with changes' if changed else ''}"
