"""Options that several commands share; parsed.py makes objects of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from sfllava import catalogue
from sfllava.cli.engine import add_engine
from sfllava.models.operations import QUANTIZATIONS

DEFAULT_AGGREGATION = "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4"
DTYPES = ("auto", "float32", "float16", "bfloat16")


def add_model(parser: argparse.ArgumentParser, new_tokens: int) -> None:
    """Add the model and how to use it, the prompt, and the length of answers (`new_tokens` by default)."""
    parser.add_argument("--model", metavar="PATH", help="checkpoint folder or hub name (default: SFLLAVA_MODEL)")
    parser.add_argument("--prompt", metavar="FILE", help="your own prompt, with <video>, {question} and {options}")
    add_new_tokens(parser, new_tokens)
    add_device(parser)
    add_placement(parser)
    add_quantize(parser)
    parser.add_argument("--family", metavar="NAME", help="prompt format (default: found in the checkpoint)")
    parser.add_argument("--context", type=int, metavar="N", help="maximum tokens of a prompt and its answer together")
    parser.add_argument(
        "--positions", default="time", choices=["time", "consecutive"],
        help="Qwen: positions of visual tokens by time, row and column (default), or consecutive, as for text",
    )  # fmt: skip
    parser.add_argument("--timestamps", action="store_true", help="Qwen: write the time before each frame's tokens")
    add_engine(parser)


def add_new_tokens(parser: argparse.ArgumentParser, default: int) -> None:
    """Add the length of answers."""
    parser.add_argument("--max-new-tokens", type=int, default=default, metavar="N", help="default: %(default)s")


def add_device(parser: argparse.ArgumentParser, text: str = "auto, cpu, cuda, cuda:1", dtype: bool = True) -> None:
    """Add the device, and unless `dtype` is False the number format."""
    parser.add_argument("--device", default="auto", help=text)
    if dtype:
        parser.add_argument("--dtype", default="auto", choices=DTYPES)


def add_placement(parser: argparse.ArgumentParser) -> None:
    """Add how a checkpoint is spread over devices, and where its vision weights are."""
    parser.add_argument("--device-map", metavar="MAP", help="auto: spread the model over several GPUs")
    parser.add_argument("--vision-tower", metavar="DIR", help="folder of the original layout's mm_vision_tower")


def add_quantize(parser: argparse._ActionsContainer, prefix: str = "", text: str = "", **more: Any) -> None:
    """Add how the language model's weights are quantised.

    Args:
        parser: The parser of the command, or a group in it.
        prefix: Of the option's name, where a command loads two models.
        text: In front of the help.
        **more: Further arguments of the option.
    """
    parser.add_argument(
        f"--{prefix}quantize", choices=QUANTIZATIONS, **more,
        help=f"{text}language model in 4 or 8 bits, by bitsandbytes (docs/quantize.md)",
    )  # fmt: skip


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add one or more numbers of frames and aggregations."""
    parser.add_argument("--frames", type=int, nargs="+", default=[50], metavar="N", help="default: 50")
    add_aggregation(parser, nargs="+", default=[DEFAULT_AGGREGATION])
    add_frame_rule(parser, nargs="+", default=["published"])


def add_frame_rule(parser: argparse.ArgumentParser, **more: Any) -> None:
    """Add the frame rule, or several of them with nargs."""
    rules = parser.add_argument(
        "--frame-rule", metavar="RULE", **more,
        help="how frames are sampled: published (default), lmms-eval, vlmevalkit, mvbench, or fps:1,max:64 for one "
        "per second but at most 64",
    )  # fmt: skip
    complete_with(rules, frame_rules)


def add_aggregation(parser: argparse.ArgumentParser, default: Any = DEFAULT_AGGREGATION, **more: Any) -> None:
    """Add the name of an aggregation, or of several with nargs."""
    aggregation = parser.add_argument(
        "--aggregation", default=default, metavar="NAME", help=f"default: {DEFAULT_AGGREGATION}", **more
    )
    complete_with(aggregation, lambda: [DEFAULT_AGGREGATION])


def add_selection(parser: argparse.ArgumentParser) -> None:
    """Add which questions are asked, and how their answers are read."""
    add_limit(parser)
    parser.add_argument(
        "--read", "--answer-mode", dest="answer_mode", default="generate", choices=["generate", "logits"],
        help="logits: read the option letter from one forward pass",
    )  # fmt: skip


def add_limit(parser: argparse.ArgumentParser, text: str = "the first N questions") -> None:
    """Add which questions are asked."""
    parser.add_argument("--limit", type=int, metavar="N", help=text)
    parser.add_argument("--seed", type=int, metavar="S", help="with --limit: a random selection instead of the first")


def add_benchmark(parser: argparse.ArgumentParser, subtitles: bool = True) -> None:
    """Add the benchmarks by name, and where their files are."""
    benchmark = parser.add_argument(
        "benchmark", help="name, or several separated by commas; open and choice take any file of your own"
    )
    complete_with(benchmark, benchmark_names)
    add_benchmark_files(parser, subtitles)


def benchmark_names() -> list[str]:
    """Return the names of all benchmarks, for completion."""
    from sfllava import benchmarks

    return benchmarks.benchmark_names()


def frame_rules() -> list[str]:
    """Return the names of the frame rules, for completion."""
    from sfllava.sampler.sampling import RULES

    return [*RULES, "fps:1,max:64"]


def protocols() -> list[str]:
    """Return the names of the protocols, for completion."""
    from sfllava.evaluators.protocols import protocol_names

    return protocol_names()


def add_benchmark_files(parser: argparse.ArgumentParser, subtitles: bool = True) -> None:
    """Add where question files, videos and, if wanted, subtitles are, and how many processes decode."""
    parser.add_argument("--questions", metavar="FILE", help="question file (vcgbench: its folder)")
    parser.add_argument("--videos", metavar="DIR", help="folder of videos")
    parser.add_argument("--root", metavar="DIR", help="folder in which both are found, instead")
    if subtitles:
        parser.add_argument("--subtitle-files", metavar="DIR", help="folder of subtitles (default: found below --root)")
    add_follow_links(parser)
    add_decoders(parser)


def add_follow_links(parser: argparse.ArgumentParser) -> None:
    """Add whether symbolic links may leave the folder of videos."""
    parser.add_argument("--follow-links", action="store_true", help="follow symlinks that leave the folder of videos")


def add_decoders(parser: argparse.ArgumentParser, text: str = "decoding processes (default: 2)") -> None:
    """Add the number of decoding processes."""
    parser.add_argument("--decoders", type=int, default=2, metavar="N", help=text)


def add_run(parser: argparse.ArgumentParser) -> None:
    """Add the run folder, what is asked into it, and the Ray workers that do it."""
    parser.add_argument("--out", required=True, metavar="DIR", help="run folder")
    add_selection(parser)
    parser.add_argument("--subtitles", action="store_true", help="add the sampled frames' subtitles to the prompt")
    protocol = parser.add_argument("--protocol", metavar="NAME", help="use the prompts of this evaluation tool")
    complete_with(protocol, protocols)
    add_workers(parser)


def add_workers(parser: argparse.ArgumentParser) -> None:
    """Add the time limit of a video, what to do about failures, and the Ray workers of a run."""
    add_failures(parser)
    parser.add_argument("--workers", type=int, metavar="N", help="number of models, run by Ray (docs/cluster.md)")
    parser.add_argument("--ray", metavar="ADDRESS", help="on a running Ray cluster: auto, or HOST:PORT of its head")
    parser.add_argument("--gpus-per-worker", type=int, metavar="N", help="with --workers or --ray (default: 1)")


def add_failures(parser: argparse.ArgumentParser) -> None:
    """Add the time limit of a video, and what to do about failures."""
    parser.add_argument("--decode-seconds", type=float, default=120, metavar="S", help="time limit for one video")
    parser.add_argument("--retry-failed", action="store_true", help="ask failed questions again")


def add_runs(parser: argparse.ArgumentParser) -> None:
    """Add one or more run folders, and the judge whose verdicts count."""
    parser.add_argument("runs", nargs="+", metavar="RUN")
    parser.add_argument("--judge", metavar="NAME", help="by this judge's verdicts (default: offline scores)")


def add_notebook(parser: argparse.ArgumentParser) -> None:
    """Add a notebook."""
    notebook = parser.add_argument("notebook", help="name, such as evaluate, or a path")
    complete_with_catalogue(notebook, "notebooks")


def add_parameters(parser: argparse.ArgumentParser) -> None:
    """Add the parameters of a notebook."""
    parser.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE")


def complete_with(action: argparse.Action, names: Callable[[], list[str]]) -> None:
    """Let the shell complete an option with names, and with paths where no name fits."""

    def completer(prefix: str, **_: Any) -> list[str]:
        from argcomplete.completers import FilesCompleter

        return [name for name in names() if name.startswith(prefix)] or list(FilesCompleter()(prefix))

    action.completer = completer  # type: ignore[attr-defined]  # where argcomplete looks for it


def complete_with_catalogue(action: argparse.Action, kind: catalogue.Kind) -> None:
    """Let the shell complete an option with the names of ablations, figures or notebooks."""
    complete_with(action, lambda: catalogue.names(kind))
