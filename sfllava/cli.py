"""The `sfllava` command: every subcommand is one call into the package."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.models.llava_next import LlavaNext

_DEFAULT = "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4"
_NO_MODEL = (
    "no model given: pass --model PATH (or set SFLLAVA_MODEL) with a LLaVA-NeXT checkpoint folder or hub name, such as "
    "llava-hf/llava-v1.6-vicuna-7b-hf or liuhaotian/llava-v1.6-vicuna-7b; --model tiny is the small one in the package"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; 0, or 1 with one line on stderr, 2 for usage, 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    logging.basicConfig(format="%(levelname)s %(message)s")
    logging.getLogger().handlers[0].setLevel(logging.INFO if arguments.verbose else logging.WARNING)
    try:
        return arguments.run(arguments)
    except SfllavaError as error:
        print(f"sfllava: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("sfllava: stopped; the same command goes on from here", file=sys.stderr)
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except Exception as error:
        if arguments.verbose:
            raise
        text = " ".join(str(error).split())[:300]
        print(f"sfllava: {type(error).__name__}: {text} (-v shows where)", file=sys.stderr)
        return 1


def _ask(a: argparse.Namespace) -> int:
    import time

    from sfllava.asking import ask
    from sfllava.prompts import load_prompt
    from sfllava.types import Setting

    setting = Setting(a.frames, a.aggregation)
    prompt = load_prompt(a.prompt) if a.prompt else None
    start = time.perf_counter()
    model = _model(a)
    loading = time.perf_counter() - start
    asked = ask(model, a.video, a.questions, setting, prompt=prompt, max_new_tokens=a.max_new_tokens)
    if a.json:
        result = asked.to_dict()
        result["seconds"] = {"load": round(loading, 4), **result["seconds"]}
        print(json.dumps(result, ensure_ascii=False, indent=1))
        return 0
    for answer in asked.answers:
        print(f"{answer.question.text}\n  {answer.text}")
    stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in {"load": loading, **asked.seconds}.items())
    print(
        f"{len(asked.video.frames)} of {asked.video.total} frames, {asked.visual_tokens} visual tokens; {stages}",
        file=sys.stderr,
    )
    return 0


def _evaluate(a: argparse.Namespace) -> int:
    from sfllava.benchmarks import load_benchmark
    from sfllava.evaluation import evaluate
    from sfllava.prompts import load_prompt
    from sfllava.types import Setting

    names = a.benchmark.split(",")
    settings = [Setting(frames, name) for frames in a.frames for name in a.aggregation]
    prompt = load_prompt(a.prompt) if a.prompt else None
    _one_or_root(a, names)
    benchmarks = [load_benchmark(name, a.questions, a.videos, root=a.root) for name in names]
    for benchmark in benchmarks:
        benchmark.require_videos()
    model = _model(a)
    nothing = False
    for benchmark in benchmarks:
        out = Path(a.out) / benchmark.name if len(benchmarks) > 1 else Path(a.out)
        run = evaluate(
            model,
            benchmark,
            settings,
            out,
            limit=a.limit,
            seed=a.seed,
            prompt=prompt,
            read=a.read,
            max_new_tokens=a.max_new_tokens,
            workers=a.workers,
            decode_seconds=a.decode_seconds,
            retry_failed=a.retry_failed,
        )
        print(run, flush=True)
        nothing = nothing or not any(scores["answered"] for scores in run.scores.values())
    return 1 if nothing else 0


def _check(a: argparse.Namespace) -> int:
    from sfllava.benchmarks import load_benchmark
    from sfllava.checking import check

    names = a.benchmark.split(",")
    _one_or_root(a, names)
    checks = [check(load_benchmark(name, a.questions, a.videos, root=a.root), workers=a.workers) for name in names]
    print(*checks, sep="\n")
    return 0 if all(found.ok for found in checks) else 1


def _notebook(a: argparse.Namespace) -> int:
    from sfllava.notebooks import run_notebook

    parameters = {}
    for pair in a.parameters:
        name, equals, value = pair.partition("=")
        if not equals:
            raise SfllavaError(f"-p {pair}: needed NAME=VALUE")
        parameters[name] = _value(value)
    print(run_notebook(a.notebook, a.out, parameters))
    return 0


def _value(text: str) -> Any:
    try:
        return json.loads(text)  # numbers, true, false, null, lists; anything else is text
    except ValueError:
        return text


def _one_or_root(a: argparse.Namespace, names: list[str]) -> None:
    if len(names) > 1 and (a.questions or a.videos):
        raise SfllavaError("several benchmarks are found under --root; --questions and --videos are for one")


def _model(a: argparse.Namespace) -> LlavaNext:
    path = a.model or os.environ.get("SFLLAVA_MODEL")
    if not path:
        raise SfllavaError(_NO_MODEL)
    from sfllava.models.load import load_model

    return load_model(path, a.device, a.dtype, device_map=a.device_map, vision_tower=a.vision_tower)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sfllava", description="SlowFast-LLaVA: ask videos, score benchmarks.")
    parser.add_argument("--version", action="version", version=f"sfllava {_version()}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(name: str, run: Callable[[argparse.Namespace], int], text: str) -> argparse.ArgumentParser:
        sub = commands.add_parser(name, help=text, description=text)
        sub.set_defaults(run=run)
        sub.add_argument("-v", "--verbose", action="store_true", help="log what is done")
        return sub

    def with_model(sub: argparse.ArgumentParser, new_tokens: int) -> None:
        sub.add_argument("--model", metavar="PATH", help="checkpoint folder or hub name (default: SFLLAVA_MODEL)")
        sub.add_argument("--prompt", metavar="FILE", help="your own prompt, with <video>, {question} and {options}")
        sub.add_argument("--max-new-tokens", type=int, default=new_tokens, metavar="N", help="default: %(default)s")
        sub.add_argument("--device", default="auto", help="auto, cpu, cuda, cuda:1")
        sub.add_argument("--dtype", default="auto", choices=["auto", "float32", "float16", "bfloat16"])
        sub.add_argument("--device-map", metavar="MAP", help="auto: spread a model over several GPUs")
        sub.add_argument("--vision-tower", metavar="DIR", help="folder of the original layout's mm_vision_tower")

    def with_benchmark(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("benchmark", help="name, or several by commas; open and choice take any file of your own")
        sub.add_argument("--questions", metavar="FILE", help="question file (vcgbench: its folder)")
        sub.add_argument("--videos", metavar="DIR", help="folder of videos")
        sub.add_argument("--root", metavar="DIR", help="folder in which both are found, instead")
        sub.add_argument("--workers", type=int, default=2, metavar="N", help="decoding processes (default: 2)")

    ask = command("ask", _ask, "Ask questions about one video.")
    ask.add_argument("video", help="video file, or a folder of frame images")
    ask.add_argument("questions", nargs="+", metavar="question")
    ask.add_argument("--frames", type=int, default=50, metavar="N", help="frames to sample (default: 50)")
    ask.add_argument("--aggregation", default=_DEFAULT, metavar="NAME", help="default: %(default)s")
    ask.add_argument("--json", action="store_true", help="print JSON, with token ids and seconds by stage")
    with_model(ask, 256)

    evaluate = command("evaluate", _evaluate, "Score benchmarks; started again, it goes on where it stopped.")
    with_benchmark(evaluate)
    evaluate.add_argument("--out", required=True, metavar="DIR", help="run folder")
    evaluate.add_argument("--frames", type=int, nargs="+", default=[50], metavar="N", help="default: 50")
    evaluate.add_argument("--aggregation", nargs="+", default=[_DEFAULT], metavar="NAME", help="default: %(default)s")
    evaluate.add_argument("--limit", type=int, metavar="N", help="the first N questions")
    evaluate.add_argument("--seed", type=int, metavar="S", help="with --limit: a random choice instead of the first")
    evaluate.add_argument(
        "--read",
        default="generate",
        choices=["generate", "logits"],
        help="logits: read the option letter from one forward",
    )
    evaluate.add_argument("--decode-seconds", type=float, default=120, metavar="S", help="what one video may take")
    evaluate.add_argument("--retry-failed", action="store_true", help="ask again what failed before")
    with_model(evaluate, 128)

    check = command("check", _check, "Count questions and find videos, before any GPU hour.")
    with_benchmark(check)

    notebook = command("notebook", _notebook, "Run a notebook with parameters (papermill).")
    notebook.add_argument("notebook")
    notebook.add_argument("out")
    notebook.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE")

    from sfllava.published.commands import add_commands

    add_commands(command)
    return parser


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sfllava")
    except PackageNotFoundError:
        return "(not installed)"


if __name__ == "__main__":
    sys.exit(main())
