"""Options that several commands share, and the objects made of them."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from sfllava import catalogue
from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.benchmarks import Benchmark
    from sfllava.models.base import VideoLM
    from sfllava.prompts import Prompt
    from sfllava.runs.ray_runner import RayRunner
    from sfllava.settings import Setting

DEFAULT_AGGREGATION = "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4"
DTYPES = ("auto", "float32", "float16", "bfloat16")
_NO_MODEL = (
    "no model given: pass --model PATH (or set SFLLAVA_MODEL) with a checkpoint folder or hub name, such as "
    "llava-hf/llava-v1.6-vicuna-7b-hf (`sfllava models` lists more); --model tiny is the small one in the package"
)


# 1) declare options


def add_model(parser: argparse.ArgumentParser, new_tokens: int) -> None:
    """Add the model and how to use it, the prompt, and the length of answers (`new_tokens` by default)."""
    parser.add_argument("--model", metavar="PATH", help="checkpoint folder or hub name (default: SFLLAVA_MODEL)")
    parser.add_argument("--prompt", metavar="FILE", help="your own prompt, with <video>, {question} and {options}")
    add_new_tokens(parser, new_tokens)
    add_device(parser)
    add_placement(parser)
    parser.add_argument("--family", metavar="NAME", help="prompt format (default: found in the checkpoint)")
    parser.add_argument("--context", type=int, metavar="N", help="maximum tokens of a prompt and its answer together")
    parser.add_argument(
        "--positions", default="time", choices=["time", "consecutive"],
        help="Qwen: positions of visual tokens by time, row and column (default), or consecutive, as for text",
    )  # fmt: skip
    parser.add_argument("--timestamps", action="store_true", help="Qwen: write the time before each frame's tokens")


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


def add_settings(parser: argparse.ArgumentParser) -> None:
    """Add one or more numbers of frames and aggregations."""
    parser.add_argument("--frames", type=int, nargs="+", default=[50], metavar="N", help="default: 50")
    add_aggregation(parser, nargs="+", default=[DEFAULT_AGGREGATION])
    add_frame_rule(parser, nargs="+", default=["published"])


def add_frame_rule(parser: argparse.ArgumentParser, **more: Any) -> None:
    """Add the frame rule, or several with nargs."""
    rules = parser.add_argument(
        "--frame-rule", metavar="RULE", **more,
        help="which frames are sampled: published (default), lmms-eval, vlmevalkit, mvbench, or fps:1,max:64 for one "
        "per second and at most 64",
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
    parser.add_argument("--subtitles", action="store_true", help="write the sampled frames' subtitles into the prompt")
    protocol = parser.add_argument("--protocol", metavar="NAME", help="ask with this evaluation tool's wording")
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


# 2) make objects of them


def load_model(arguments: argparse.Namespace) -> VideoLM:
    """Load the model of a command line."""
    from sfllava.models import load

    return load.load_model(_checkpoint(arguments), **_placement(arguments))


def open_runner(arguments: argparse.Namespace) -> AbstractContextManager[VideoLM | RayRunner]:
    """Return what a run asks: the model, or Ray workers with a model each, which the context ends."""
    if arguments.workers is None and arguments.ray is None:
        if arguments.gpus_per_worker is not None:
            raise SfllavaError("--gpus-per-worker needs --workers or --ray")
        return nullcontext(load_model(arguments))
    from sfllava.runs.ray_runner import RayRunner

    gpus = 1 if arguments.gpus_per_worker is None else arguments.gpus_per_worker
    return RayRunner(_checkpoint(arguments), arguments.workers, arguments.ray, gpus=gpus, **_placement(arguments))


def _checkpoint(arguments: argparse.Namespace) -> str:
    path = arguments.model or os.environ.get("SFLLAVA_MODEL")
    if not path:
        raise SfllavaError(_NO_MODEL)
    return path


def _placement(arguments: argparse.Namespace) -> dict[str, Any]:
    names = ("device", "dtype", "device_map", "vision_tower", "family", "context", "positions", "timestamps")
    return {name: getattr(arguments, name) for name in names}


def settings(arguments: argparse.Namespace) -> list[Setting]:
    """Return a setting for each frame rule, number of frames and aggregation."""
    from sfllava.settings import Setting

    return [
        Setting(frames, name, frame_rule=rule)
        for rule in arguments.frame_rule for frames in arguments.frames for name in arguments.aggregation
    ]  # fmt: skip


def load_benchmarks(arguments: argparse.Namespace) -> list[Benchmark]:
    """Load the benchmarks that a command line names."""
    from sfllava.benchmarks import load_benchmark

    names = arguments.benchmark.split(",")
    if len(names) > 1 and (arguments.questions or arguments.videos):
        raise SfllavaError("several benchmarks are found under --root; --questions and --videos are for one")
    return [load_benchmark(name, **benchmark_files(arguments)) for name in names]


def benchmark_files(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return where the files of a benchmark are, as `load_benchmark` takes it."""
    found = {name: getattr(arguments, name) for name in ("questions", "videos", "root", "follow_links")}
    return found | {"subtitles": getattr(arguments, "subtitle_files", None)}


def evaluation_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the options of a run, as `evaluate` and `ablate` take them."""
    names = ("limit", "seed", "answer_mode", "max_new_tokens", "decoders", "decode_seconds", "subtitles", "protocol")
    return {"prompt": own_prompt(arguments)} | {name: getattr(arguments, name) for name in names}


def own_prompt(arguments: argparse.Namespace) -> Prompt | None:
    """Return the prompt of --prompt, or None."""
    from sfllava.prompts import load_prompt

    return load_prompt(arguments.prompt) if arguments.prompt else None


def split_pair(pair: str, option: str) -> tuple[str, str]:
    """Return the name and the value of NAME=VALUE."""
    name, equals, value = pair.partition("=")
    if not equals or not name:
        raise SfllavaError(f"{option} {pair}: needed NAME=VALUE")
    return name, value


def read_parameters(arguments: argparse.Namespace) -> dict[str, Any]:
    """Return the notebook parameters of -p by name."""
    return {name: read_value(value) for name, value in (split_pair(pair, "-p") for pair in arguments.parameters)}


def read_value(text: str) -> Any:
    """Return a number, true, false, null or list as JSON has it; anything else stays text."""
    try:
        return json.loads(text)
    except ValueError:
        return text
