"""Find ablations, figures and notebooks by name: files next to the package in a checkout, inside it in a wheel."""

from __future__ import annotations

import difflib
import importlib.util
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Literal

from sfllava.types import SfllavaError

_PACKAGE = Path(__file__).parent
Kind = Literal["ablations", "figures", "notebooks"]


def folder(kind: Kind) -> Path:
    """Return the folder of the files of one kind."""
    checkout = _PACKAGE.parent
    in_checkout = (checkout / "pyproject.toml").exists() and (checkout / kind).is_dir()
    return (checkout if in_checkout else _PACKAGE / "bundled") / kind


def names(kind: Kind) -> list[str]:
    """Return all names of a kind."""
    suffix = ".ipynb" if kind == "notebooks" else ".py"
    return sorted(path.stem for path in folder(kind).glob(f"*{suffix}") if not path.stem.startswith("_"))


def find(kind: Kind, name: str | Path) -> Path:
    """Return the file of a name, or of a path to a file of your own; else raise SfllavaError with all names."""
    suffix = ".ipynb" if kind == "notebooks" else ".py"
    if str(name).endswith(suffix):
        path = Path(name)
        if not path.is_file():
            raise SfllavaError(f"{path}: no such {kind.removesuffix('s')}")
        return path
    if str(name) not in names(kind):
        raise SfllavaError(unknown_name(kind.removesuffix("s"), str(name), names(kind)))
    return folder(kind) / f"{name}{suffix}"


def load(kind: Kind, name: str | Path) -> ModuleType:
    """Return the Python module of a name or path. It is executed, so pass only paths to code that you trust."""
    path = find(kind, name)
    spec = importlib.util.spec_from_file_location(f"sfllava_{kind}_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SfllavaError:
        raise
    except Exception as error:
        raise SfllavaError(f"{path}: {type(error).__name__}: {error}") from error
    return module


def unknown_name(kind: str, name: str, known: Iterable[str], more: str = "") -> str:
    """Return a message: there is nothing of this kind with that name, what was probably meant, and all names.

    Args:
        kind: what the name should stand for, such as "benchmark".
        name: the unknown name.
        known: the names that there are.
        more: what may be given instead of a name, such as ", or a folder".
    """
    known = list(known)
    by_lower = {one.lower(): one for one in known}
    close = difflib.get_close_matches(name.lower(), by_lower, n=1, cutoff=0.7)
    meant = f" (did you mean {by_lower[close[0]]!r}?)" if close else ""
    return f"no {kind} is called {name!r}{meant}; choose from {', '.join(known)}{more}"
