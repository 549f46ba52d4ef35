"""Options that several commands share; parsed.py makes objects of them."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

from sfllava import catalogue
from sfllava.cli.engine import add_engine
from sfllava.cli.parser import group
from sfllava.models.operations import QUANTIZATIONS

DEFAULT_AGGREGATION = "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4"
DTYPES = ("auto", "float32", "float16", "bfloat16")
Container = argparse._ActionsContainer  # a parser, or a group in one


def add_model(parser: Container, new_tokens: int) -> None:
    """Add the model and how to use it, the prompt, and the length of answers (`new_tokens` by default)."""
    model, setting = group(parser, "model"), group(parser, "setting")
    model.add_argument(
        "--model", metavar="PATH", help="checkpoint folder, hub name, or tiny, the model in the package (default: "
        "the environment variable SFLLAVA_MODEL)",
    )  # fmt: skip
    setting.add_argument("--prompt", metavar="FILE", help="your own prompt, with <video>, {question} and {options}")
    add_new_tokens(parser, new_tokens)
    add_device(parser)
    add_placement(parser)
    add_quantize(group(parser, "model"))
    add_model_text(parser)
    model.add_argument(
        "--positions", default="time", choices=["time", "consecutive"],
        help="Qwen: positions of visual tokens by time, row and column (default: time), or consecutive, as for text",
    )  # fmt: skip
    model.add_argument("--timestamps", action="store_true", help="Qwen: write the time before each frame's tokens")
    add_engine(parser)


def add_model_text(parser: Container) -> None:
    """Add the prompt format and the context of a checkpoint."""
    model = group(parser, "model")
    model.add_argument("--family", metavar="NAME", help="prompt format (default: found in the checkpoint)")
    model.add_argument(
        "--context", type=int, metavar="N",
        help="maximum tokens of a prompt and its answer together (default: the checkpoint's)",
    )  # fmt: skip


def add_new_tokens(parser: Container, default: int) -> None:
    """Add the length of answers."""
    group(parser, "setting").add_argument(
        "--max-new-tokens", type=int, default=default, metavar="N",
        help="longest answer, in tokens (default: %(default)s)",
    )  # fmt: skip


def add_device(parser: Container, text: str = "auto, cpu, cuda or cuda:1 (default: auto)", dtype: bool = True) -> None:
    """Add the device, and unless `dtype` is False the number format."""
    model = group(parser, "model")
    model.add_argument("--device", default="auto", metavar="NAME", help=text)
    if dtype:
        model.add_argument(
            "--dtype", default="auto", choices=DTYPES,
            help="number format (default: auto, which is float32 on a CPU and 16 bits on a GPU)",
        )  # fmt: skip


def add_placement(parser: Container) -> None:
    """Add how a checkpoint is spread over devices, and where its vision weights are."""
    model = group(parser, "model")
    model.add_argument("--device-map", metavar="MAP", help="auto: spread the model over several GPUs")
    model.add_argument("--vision-tower", metavar="DIR", help="folder of the original layout's mm_vision_tower")


def add_quantize(parser: Container, prefix: str = "", text: str = "", **more: Any) -> None:
    """Add how the language model's weights are quantised.

    Args:
        parser: The parser of the command, or a group in it.
        prefix: Of the option's name, where a command loads two models.
        text: In front of the help.
        **more: Further arguments of the option.
    """
    group(parser, "model").add_argument(
        f"--{prefix}quantize", choices=QUANTIZATIONS, **more,
        help=f"{text}language model in 4 or 8 bits, by bitsandbytes (default: as it is; docs/how-to/small-gpus.md)",
    )  # fmt: skip


def add_frames(parser: Container) -> None:
    """Add one number of frames."""
    group(parser, "setting").add_argument(
        "--frames", type=int, default=50, metavar="N", help="frames to sample from a video (default: %(default)s)"
    )


def add_settings(parser: Container) -> None:
    """Add one or more numbers of frames and aggregations."""
    group(parser, "setting").add_argument(
        "--frames", type=int, nargs="+", default=[50], metavar="N",
        help="frames to sample from a video, one number or several (default: 50)",
    )  # fmt: skip
    add_aggregation(parser, nargs="+", default=[DEFAULT_AGGREGATION])
    add_frame_rule(parser, nargs="+", default=["published"])


def add_frame_rule(parser: Container, **more: Any) -> None:
    """Add the frame rule, or several of them with nargs."""
    rules = group(parser, "setting").add_argument(
        "--frame-rule", metavar="RULE", **more,
        help="how frames are sampled: published (default), lmms-eval, vlmevalkit, mvbench, or fps:1,max:64 for one "
        "per second but at most 64",
    )  # fmt: skip
    complete_with(rules, frame_rules)


def add_aggregation(parser: Container, default: Any = DEFAULT_AGGREGATION, **more: Any) -> None:
    """Add the name of an aggregation, or of several with nargs."""
    aggregation = group(parser, "setting").add_argument(
        "--aggregation", default=default, metavar="NAME", **more,
        help=f"how frames become tokens; `sfllava list methods` shows the names (default: {DEFAULT_AGGREGATION})",
    )  # fmt: skip
    complete_with(aggregation, lambda: [DEFAULT_AGGREGATION])


def add_selection(parser: Container) -> None:
    """Add which questions are asked, and how their answers are read."""
    add_limit(parser)
    group(parser, "setting").add_argument(
        "--read", "--answer-mode", dest="answer_mode", default="generate", choices=["generate", "logits"],
        help="generate an answer (default), or read the option letter from the logits of one forward pass",
    )  # fmt: skip


def add_limit(parser: Container, text: str = "the first N questions (default: all)") -> None:
    """Add which questions are asked."""
    where = group(parser, "input")
    where.add_argument("--limit", type=int, metavar="N", help=text)
    where.add_argument(
        "--seed", type=int, metavar="S", help="with --limit: a random selection, with this seed, instead of the first"
    )


def add_benchmark(parser: Container, subtitles: bool = True) -> None:
    """Add the benchmarks by name, and where their files are."""
    benchmark = parser.add_argument(
        "benchmark", metavar="BENCHMARK",
        help="name, or several separated by commas; open and choice take any file of your own",
    )  # fmt: skip
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


def add_benchmark_files(parser: Container, subtitles: bool = True) -> None:
    """Add where question files, videos and, if wanted, subtitles are, and how many processes decode."""
    where = group(parser, "input")
    where.add_argument("--root", metavar="DIR", help="folder in which questions and videos are found")
    where.add_argument("--questions", metavar="FILE", help="question file, instead of --root (vcgbench: its folder)")
    where.add_argument("--videos", metavar="DIR", help="folder of videos, instead of --root")
    if subtitles:
        where.add_argument("--subtitle-files", metavar="DIR", help="folder of subtitles (default: found below --root)")
    add_follow_links(parser)
    add_decoders(parser)


def add_follow_links(parser: Container) -> None:
    """Add whether symbolic links may leave the folder of videos."""
    group(parser, "input").add_argument(
        "--follow-links", action="store_true", help="follow symlinks that leave the folder of videos"
    )


def add_decoders(parser: Container, text: str = "decoding processes (default: %(default)s)") -> None:
    """Add the number of decoding processes."""
    group(parser, "speed and failures").add_argument("--decoders", type=int, default=2, metavar="N", help=text)


def add_run(parser: Container) -> None:
    """Add the run folder, what is asked into it, and the Ray workers that do it."""
    group(parser, "output").add_argument("--out", required=True, metavar="DIR", help="run folder")
    add_selection(parser)
    add_prompt_text(parser)
    add_workers(parser)


def add_prompt_text(parser: Container) -> None:
    """Add what the prompts consist of."""
    setting = group(parser, "setting")
    setting.add_argument("--subtitles", action="store_true", help="add the sampled frames' subtitles to the prompt")
    protocol = setting.add_argument(
        "--protocol", metavar="NAME",
        help="use the prompts of this evaluation tool; `sfllava list protocols` shows the names",
    )  # fmt: skip
    complete_with(protocol, protocols)


def add_workers(parser: Container) -> None:
    """Add the time limit of a video, what to do about failures, and the Ray workers of a run."""
    add_failures(parser)
    speed = group(parser, "speed and failures")
    speed.add_argument("--workers", type=int, metavar="N", help="number of models, run by Ray (docs/how-to/cluster.md)")
    speed.add_argument("--ray", metavar="ADDRESS", help="on a running Ray cluster: auto, or HOST:PORT of its head")
    speed.add_argument("--gpus-per-worker", type=int, metavar="N", help="with --workers or --ray (default: 1)")


def add_failures(parser: Container) -> None:
    """Add the time limit of a video, and what to do about failures."""
    speed = group(parser, "speed and failures")
    speed.add_argument(
        "--decode-seconds", type=float, default=120, metavar="S",
        help="time limit for reading one video, in seconds (default: %(default)s)",
    )  # fmt: skip
    speed.add_argument("--retry-failed", action="store_true", help="ask failed questions again")


def add_runs(parser: Container) -> None:
    """Add one or more run folders, and the judge whose verdicts count."""
    parser.add_argument("runs", nargs="+", metavar="RUN", help="run folder")
    parser.add_argument("--judge", metavar="NAME", help="by this judge's verdicts (default: offline scores)")


def add_notebook(parser: Container) -> None:
    """Add a notebook."""
    notebook = parser.add_argument(
        "notebook", metavar="NOTEBOOK", help="name, such as evaluate (`sfllava list notebooks`), or a path"
    )
    complete_with_catalogue(notebook, "notebooks")


def add_parameters(parser: Container) -> None:
    """Add the parameters of a notebook."""
    group(parser, "input").add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE",
        help="a parameter of the notebook's first cell; give it once for each",
    )  # fmt: skip


def complete_with(action: argparse.Action, names: Callable[[], list[str]]) -> None:
    """Let the shell complete an option with names, and with paths where no name fits."""

    def completer(prefix: str, **_: Any) -> list[str]:
        from argcomplete.completers import FilesCompleter

        return [name for name in names() if name.startswith(prefix)] or list(FilesCompleter()(prefix))

    action.completer = completer  # type: ignore[attr-defined]  # where argcomplete looks for it


def complete_with_catalogue(action: argparse.Action, kind: catalogue.Kind) -> None:
    """Let the shell complete an option with the names of ablations, figures or notebooks."""
    complete_with(action, lambda: catalogue.names(kind))
