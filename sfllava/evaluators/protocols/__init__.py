"""Protocols: the prompts, answer parsers and averages of evaluation tools; one file each, with one object `PROTOCOL`.

The folder rules/ has the rules that several tools share.
"""

from __future__ import annotations

import importlib
import pkgutil

from sfllava.catalogue import unknown_name
from sfllava.evaluators.protocols.base import Protocol
from sfllava.types import SfllavaError


def protocol_names() -> list[str]:
    """Return the names of all protocols: those of their modules, with hyphens."""
    modules = [module.name for module in pkgutil.iter_modules(__path__) if not module.ispkg]
    return sorted(name.replace("_", "-") for name in modules if name != "base")


def load_protocol(name: str) -> Protocol:
    """Load a protocol by name.

    Raises:
        SfllavaError: There is no protocol with this name.
    """
    if name not in protocol_names():
        raise SfllavaError(unknown_name("protocol", name, protocol_names()))
    return importlib.import_module(f"{__name__}.{name.replace('-', '_')}").PROTOCOL
