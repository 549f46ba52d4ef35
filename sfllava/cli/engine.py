"""Options of the engine that runs the language model; parsed.py makes an object of them."""

from __future__ import annotations

import argparse


def add_engine(parser: argparse._ActionsContainer, prefix: str = "") -> None:
    """Add the engine and its options.

    Args:
        parser: The parser of the command, or a group in it.
        prefix: The prefix of the options' names.
    """

    def add(name: str, **more: object) -> None:
        parser.add_argument(f"--{prefix}{name}", dest=f"{prefix}{name}".replace("-", "_"), **more)  # type: ignore[arg-type]

    add("engine", default="packed", choices=["packed", "vllm"], help="what runs the language model (docs/engines.md)")
    if not prefix:
        add("exported-lm", metavar="DIR", help="vllm: folder of sfllava export-lm (default: a cache folder)")
    add("tensor-parallel", type=int, metavar="N", help="vllm: GPUs over which each layer is spread")
    add("gpu-memory", type=float, metavar="FRACTION", help="vllm: part of the GPU's memory that it takes")
    add("vllm", action="append", default=[], metavar="NAME=VALUE", help="vllm: any argument of vllm.LLM")
