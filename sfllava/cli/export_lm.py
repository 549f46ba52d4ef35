"""Write the language model of a checkpoint as a checkpoint of its own, for vLLM."""

from __future__ import annotations

import argparse

from sfllava.cli.parser import group

ORDER = 18
EXAMPLES = ("sfllava export-lm llava-hf/llava-v1.6-vicuna-7b-hf --out lm",)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("checkpoint", metavar="CHECKPOINT", help="checkpoint folder or hub name")
    group(parser, "output").add_argument(
        "--out", required=True, metavar="DIR", help="folder to write; a complete export is kept"
    )
    group(parser, "input").add_argument(
        "--vision-tower", metavar="DIR", help="folder of the original layout's mm_vision_tower"
    )


def run(arguments: argparse.Namespace) -> int:
    from sfllava.models.engines.export import export_lm
    from sfllava.models.placement import checkpoint_folder

    print(export_lm(checkpoint_folder(arguments.checkpoint), arguments.out, arguments.vision_tower))
    return 0
