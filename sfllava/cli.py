"""The `sfllava` command: every subcommand is one call into the package."""

from __future__ import annotations

import argparse
import io
import json
import logging
import os
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfllava import __version__
from sfllava.files import is_url
from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM
    from sfllava.runs.ray_runner import RayRunner


_DEFAULT = "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4"
_NO_MODEL = (
    "no model given: pass --model PATH (or set SFLLAVA_MODEL) with a LLaVA-NeXT checkpoint folder or hub name, such as "
    "llava-hf/llava-v1.6-vicuna-7b-hf or liuhaotian/llava-v1.6-vicuna-7b; --model tiny is the small one in the package"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command line; 0, or 1 with one line on stderr, 2 for usage, 130 when interrupted."""
    arguments = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):  # a byte of a file name that is no character must not stop the output
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
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

    from sfllava.prompts import load_prompt
    from sfllava.runs.ask import ask, to_questions
    from sfllava.settings import Setting

    setting = Setting(a.frames, a.aggregation)
    prompt = load_prompt(a.prompt) if a.prompt else None
    questions = to_questions(a.questions)
    if is_url(a.video):  # before a model is loaded for it
        raise SfllavaError(f"{a.video}: needed a video on this machine, got a URL: download it first")
    start = time.perf_counter()
    model = _model(a)
    loading = time.perf_counter() - start
    asked = ask(model, a.video, questions, setting, prompt=prompt, max_new_tokens=a.max_new_tokens)
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
    from sfllava.benchmarks import find_benchmark
    from sfllava.prompts import load_prompt
    from sfllava.runs.evaluate import prepare
    from sfllava.settings import Setting

    names = a.benchmark.split(",")
    settings = [Setting(frames, name) for frames in a.frames for name in a.aggregation]
    prompt = load_prompt(a.prompt) if a.prompt else None
    _one_or_root(a, names)
    benchmarks = [find_benchmark(name, a.questions, a.videos, a.root, follow_links=a.follow_links) for name in names]
    nothing = False
    with _runner(a) as model:
        # all are prepared first: what is wrong with the last is told before the hours of the first
        evaluations = [
            prepare(
                model,
                benchmark,
                settings,
                Path(a.out) / benchmark.name if len(benchmarks) > 1 else Path(a.out),
                limit=a.limit,
                seed=a.seed,
                prompt=prompt,
                answer_mode=a.read,
                max_new_tokens=a.max_new_tokens,
                decoders=a.decoders,
                decode_seconds=a.decode_seconds,
            )
            for benchmark in benchmarks
        ]
        for evaluation in evaluations:
            run = evaluation.run(retry_failed=a.retry_failed)
            print(run, flush=True)
            nothing = nothing or not any(scores["answered"] for scores in run.scores.values())
    return 1 if nothing else 0


def _check(a: argparse.Namespace) -> int:
    from sfllava.benchmarks import load_benchmark
    from sfllava.runs.check import check

    names = a.benchmark.split(",")
    _one_or_root(a, names)
    checks = [
        check(
            load_benchmark(name, a.questions, a.videos, root=a.root, follow_links=a.follow_links), decoders=a.decoders
        )
        for name in names
    ]
    print(*checks, sep="\n")
    return 0 if all(found.ok for found in checks) else 1


def _judge(a: argparse.Namespace) -> int:
    from sfllava.evaluators.judges.openai_batch import BatchClient
    from sfllava.runs.judge import judge, plan_judging

    judging = _make_judge(a)
    planned = plan_judging(a.run_folder, judging, rubrics=a.rubrics, reuse=a.reuse)
    print(planned, file=sys.stderr, flush=True)
    if judging.paid and planned.requests and not a.yes and a.limit_cost is None:
        raise SfllavaError("nothing sent: pass --yes, or --limit-cost DOLLARS with --price")
    batch = BatchClient(wait=a.wait) if a.batch else None
    done = judge(a.run_folder, judging, rubrics=a.rubrics, limit_cost=a.limit_cost, reuse=a.reuse, batch=batch)
    print(done)
    if done.judged and find_spec("pandas"):
        from sfllava.analysis.agreement import format_judge_scores, judge_scores, load_verdicts

        print(format_judge_scores(judge_scores(load_verdicts(a.run_folder, [judging.name]))))
    return 0 if done.complete else 1


def _make_judge(a: argparse.Namespace) -> Any:
    from sfllava.evaluators.judges.local import LocalJudge
    from sfllava.evaluators.judges.match import MatchJudge
    from sfllava.evaluators.judges.openai import OpenAIJudge

    if a.batch and a.judge != "openai":
        raise SfllavaError("--batch is for the openai judge")
    if a.judge.startswith("match"):
        return MatchJudge(a.judge, a.name)
    if not a.model:
        raise SfllavaError(
            f"the {a.judge} judge needs --model, the exact name (openai) or folder (local, llava) of one"
        )
    if a.judge == "openai":
        more = {"max_reply_tokens": a.max_reply_tokens} if a.max_reply_tokens else {}
        return OpenAIJudge(
            a.model, a.name, concurrency=a.concurrency, seconds=a.seconds, tries=a.tries, structured=not a.plain,
            price=tuple(a.price) if a.price else None, **more,
        )  # fmt: skip
    from sfllava.models.load import load_model
    from sfllava.models.text import VideoLMText, load_text_model

    text = VideoLMText(load_model(a.model, a.device)) if a.judge == "llava" else load_text_model(a.model, a.device)
    return LocalJudge(text, a.name, **({"max_reply_tokens": a.max_reply_tokens} if a.max_reply_tokens else {}))


def _judges(a: argparse.Namespace) -> int:
    from sfllava.analysis.agreement import (
        disagreements,
        format_judge_scores,
        format_pairs,
        judge_pairs,
        judge_scores,
        kappas,
        load_verdicts,
    )
    from sfllava.files import as_csv, write_file

    if a.figure and Path(a.figure).suffix not in (".svg", ".pdf", ".png"):
        raise SfllavaError(f"--figure {a.figure}: needed a file that ends in .svg, .pdf or .png")
    verdicts = load_verdicts(a.run_folder, a.judge)
    if verdicts.empty:
        raise SfllavaError(f"{a.run_folder}: no verdicts; sfllava judge makes them")
    table, found, differ = judge_scores(verdicts), judge_pairs(verdicts), disagreements(verdicts)
    print(format_judge_scores(table))
    if found:
        print(format_pairs(found))
        print(f"{len(differ)} questions on which they differ" + (f", in {a.differing}" if a.differing else ""))
    if a.differing:
        write_file(Path(a.differing), as_csv(differ).encode())
    if a.figure:
        from sfllava.plots.judges import judges_agreement
        from sfllava.plots.static import save

        save(judges_agreement(table, kappas(found)), Path(a.figure))
    return 0


def _ablate(a: argparse.Namespace) -> int:
    from sfllava.ablation import ablate, load_ablation
    from sfllava.benchmarks import find_benchmark
    from sfllava.prompts import load_prompt
    from sfllava.report import report

    ablation = load_ablation(a.ablation)
    name = a.benchmark or ablation.benchmark
    benchmark = find_benchmark(name, a.questions, a.videos, a.root, follow_links=a.follow_links)
    options = {"limit": a.limit, "seed": a.seed, "answer_mode": a.read, "max_new_tokens": a.max_new_tokens}
    options |= {"decoders": a.decoders, "decode_seconds": a.decode_seconds, "retry_failed": a.retry_failed}
    prompt = load_prompt(a.prompt) if a.prompt else None
    options |= {"prompt": prompt, "measure": not a.rows_only}
    with _runner(a) as model:
        run = ablate(ablation, model, benchmark, a.out, tokens=a.budget, **options)
    print(run, flush=True)
    if benchmark.spec.task != "describe" and not a.rows_only:
        print(report(run.path))
    return 1 if not any(scores["answered"] for scores in run.scores.values()) else 0


def _compare(a: argparse.Namespace) -> int:
    from sfllava.analysis.compare import compare

    print(compare(a.runs, a.reference, a.judge))
    return 0


def _figures(a: argparse.Namespace) -> int:
    from sfllava.report import export_all

    for name, made in export_all(a.runs, a.out, a.only, a.judge).items():
        print(f"{name}: {made if isinstance(made, str) else ', '.join(path.name for path in made)}")
    return 0


def _render(a: argparse.Namespace) -> int:
    from sfllava.benchmarks.shapesqa import write_shapesqa

    print(write_shapesqa(a.out, a.videos, a.seed))
    return 0


def _batch(a: argparse.Namespace) -> int:
    from sfllava.notebooks import grid, run_batch

    fixed = dict(_pair(pair, "-p") for pair in a.parameters)
    varied = {
        name: [_value(v) for v in str(text).split(",")] for name, text in (_pair(p, "--grid", False) for p in a.grid)
    }
    runs = [fixed | values for values in grid(varied)]
    done = run_batch(a.notebook, a.out, runs, jobs=a.jobs, devices=a.devices.split(",") if a.devices else ())
    for name, state in done.items():
        print(f"{name}: {state}")
    return 0 if all(state == "done" for state in done.values()) else 1


def _notebook(a: argparse.Namespace) -> int:
    from sfllava.notebooks import run_notebook

    print(run_notebook(a.notebook, a.out, dict(_pair(pair, "-p") for pair in a.parameters)))
    return 0


def _pair(pair: str, option: str, read: bool = True) -> tuple[str, Any]:
    name, equals, value = pair.partition("=")
    if not equals or not name:
        raise SfllavaError(f"{option} {pair}: needed NAME=VALUE")
    return name, _value(value) if read else value


def _value(text: str) -> Any:
    try:
        return json.loads(text)  # numbers, true, false, null, lists; anything else is text
    except ValueError:
        return text


def _one_or_root(a: argparse.Namespace, names: list[str]) -> None:
    if len(names) > 1 and (a.questions or a.videos):
        raise SfllavaError("several benchmarks are found under --root; --questions and --videos are for one")


def _model(a: argparse.Namespace) -> VideoLM:
    from sfllava.models.load import load_model

    return load_model(_checkpoint(a), a.device, a.dtype, device_map=a.device_map, vision_tower=a.vision_tower)


def _runner(a: argparse.Namespace) -> AbstractContextManager[VideoLM | RayRunner]:
    if a.workers is None and a.ray is None:
        if a.gpus_per_worker is not None:
            raise SfllavaError("--gpus-per-worker needs --workers or --ray")
        return nullcontext(_model(a))
    from sfllava.runs.ray_runner import RayRunner

    return RayRunner(
        _checkpoint(a), a.workers, a.ray, gpus=1 if a.gpus_per_worker is None else a.gpus_per_worker,
        device=a.device, dtype=a.dtype, device_map=a.device_map, vision_tower=a.vision_tower,
    )  # fmt: skip


def _checkpoint(a: argparse.Namespace) -> str:
    path = a.model or os.environ.get("SFLLAVA_MODEL")
    if not path:
        raise SfllavaError(_NO_MODEL)
    return path


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="sfllava", description="SlowFast-LLaVA: ask videos, score benchmarks.")
    parser.add_argument("--version", action="version", version=f"sfllava {__version__}")
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

    def with_choice(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--limit", type=int, metavar="N", help="the first N questions")
        sub.add_argument("--seed", type=int, metavar="S", help="with --limit: a random choice instead of the first")
        logits = "logits: read the option letter from one forward"
        sub.add_argument("--read", default="generate", choices=["generate", "logits"], help=logits)

    def with_settings(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--frames", type=int, nargs="+", default=[50], metavar="N", help="default: 50")
        sub.add_argument("--aggregation", nargs="+", default=[_DEFAULT], metavar="NAME", help="default: %(default)s")

    def with_run(sub: argparse.ArgumentParser) -> None:
        sub.add_argument("--out", required=True, metavar="DIR", help="run folder")
        with_choice(sub)
        sub.add_argument("--decode-seconds", type=float, default=120, metavar="S", help="what one video may take")
        sub.add_argument("--retry-failed", action="store_true", help="ask again what failed before")
        sub.add_argument("--workers", type=int, metavar="N", help="so many models at a time, by Ray (docs/cluster.md)")
        sub.add_argument("--ray", metavar="ADDRESS", help="on a running Ray cluster: auto, or HOST:PORT of its head")
        sub.add_argument("--gpus-per-worker", type=int, metavar="N", help="with --workers or --ray (default: 1)")

    def with_benchmark(sub: argparse.ArgumentParser, named: bool = True) -> None:
        if named:
            sub.add_argument("benchmark", help="name, or several by commas; open and choice take any file of your own")
        sub.add_argument("--questions", metavar="FILE", help="question file (vcgbench: its folder)")
        sub.add_argument("--videos", metavar="DIR", help="folder of videos")
        sub.add_argument("--root", metavar="DIR", help="folder in which both are found, instead")
        sub.add_argument("--follow-links", action="store_true", help="follow symlinks that leave the folder of videos")
        sub.add_argument("--decoders", type=int, default=2, metavar="N", help="decoding processes (default: 2)")

    ask = command("ask", _ask, "Ask questions about one video.")
    ask.add_argument("video", help="video file, or a folder of frame images")
    ask.add_argument("questions", nargs="+", metavar="question")
    ask.add_argument("--frames", type=int, default=50, metavar="N", help="frames to sample (default: 50)")
    ask.add_argument("--aggregation", default=_DEFAULT, metavar="NAME", help="default: %(default)s")
    ask.add_argument("--json", action="store_true", help="print JSON, with token ids and seconds by stage")
    with_model(ask, 256)

    evaluate = command("evaluate", _evaluate, "Score benchmarks; started again, it goes on where it stopped.")
    with_benchmark(evaluate)
    with_settings(evaluate)
    with_run(evaluate)
    with_model(evaluate, 128)

    check = command("check", _check, "Count questions and find videos, before any GPU hour.")
    with_benchmark(check)

    judge = command("judge", _judge, "Grade a run's predictions; started again, it goes on, and retries what failed.")
    judge.add_argument("run_folder", metavar="RUN")
    judge.add_argument(
        "--judge",
        required=True,
        choices=["openai", "local", "llava", "match-exact", "match-contains"],
        help="openai: any such server (OPENAI_API_KEY, OPENAI_BASE_URL); local: a causal LM; llava: a LLaVA's own LM",
    )
    judge.add_argument("--model", default="", metavar="NAME", help="exact name (openai), or folder (local, llava)")
    judge.add_argument("--name", default="", help="name of the verdicts' file (default: made of judge and model)")
    judge.add_argument("--rubrics", metavar="DIR", help="your own wordings: open.txt, CI.txt, ...")
    judge.add_argument("--reuse", nargs="+", default=[], metavar="RUN", help="take over equal verdicts of other runs")
    judge.add_argument("--yes", action="store_true", help="go on without a limit on the cost")
    judge.add_argument("--price", type=float, nargs=2, metavar=("IN", "OUT"), help="dollars per million tokens")
    judge.add_argument("--limit-cost", type=float, metavar="DOLLARS", help="what this call may cost")
    judge.add_argument("--concurrency", type=int, default=16, metavar="N", help="requests at a time (default: 16)")
    judge.add_argument("--seconds", type=float, default=60, metavar="S", help="what one request may take")
    judge.add_argument("--tries", type=int, default=8, metavar="N", help="requests for one verdict (default: 8)")
    judge.add_argument("--max-reply-tokens", type=int, metavar="N", help="more for a model that thinks first")
    judge.add_argument("--plain", action="store_true", help="do not ask for the reply's JSON schema")
    judge.add_argument("--batch", action="store_true", help="the provider's Batch API: submit, later collect")
    judge.add_argument("--wait", action="store_true", help="with --batch: until it has ended")
    judge.add_argument("--device", default="auto", help="for local and llava: auto, cpu, cuda, cuda:1")

    judges = command("judges", _judges, "Compare the judges of a run: scores, agreement, where they differ.")
    judges.add_argument("run_folder", metavar="RUN")
    judges.add_argument("--judge", nargs="+", default=[], metavar="NAME", help="these only (default: all)")
    judges.add_argument("--differing", metavar="FILE", help="write the questions on which they differ as CSV")
    judges.add_argument("--figure", metavar="FILE", help="draw it: .png, .svg or .pdf")

    ablate = command("ablate", _ablate, "Sweep the settings of an ablation at little cost, and report on them.")
    ablate.add_argument("ablation", help="name, such as fast_grid, or a .py file of your own")
    ablate.add_argument("--benchmark", metavar="NAME", help="default: the ablation's own")
    ablate.add_argument("--budget", type=int, metavar="TOKENS", help="visual tokens, for an ablation that matches them")
    ablate.add_argument("--rows-only", action="store_true", help="neither time each setting alone nor write a report")
    with_benchmark(ablate, named=False)
    with_run(ablate)
    with_model(ablate, 128)

    compare = command("compare", _compare, "Accuracies and paired differences of runs on the same questions.")
    compare.add_argument("runs", nargs="+", metavar="RUN")
    compare.add_argument("--reference", metavar="SETTING", help="compare all with this one only")
    compare.add_argument("--judge", metavar="NAME", help="by this judge's verdicts (default: offline scores)")

    figures = command("figures", _figures, "Draw all figures of runs, and export their tables.")
    figures.add_argument("runs", nargs="+", metavar="RUN")
    figures.add_argument("--out", required=True, metavar="DIR")
    figures.add_argument("--only", nargs="+", default=[], metavar="FIGURE", help="names, or .py files of your own")
    figures.add_argument("--judge", metavar="NAME", help="by this judge's verdicts (default: offline scores)")

    render = command("render", _render, "Render ShapesQA, on which the model called tiny can be tried.")
    render.add_argument("out", help="folder; pass it to --root")
    render.add_argument("--videos", type=int, default=40, metavar="N", help="default: %(default)s")
    render.add_argument("--seed", type=int, default=0, metavar="S", help="default: %(default)s")

    batch = command("batch", _batch, "Run a notebook for many parameters, side by side (papermill).")
    batch.add_argument("notebook", help="name, such as ablate, or a path")
    batch.add_argument("--out", required=True, metavar="DIR", help="a folder for each run goes under it")
    batch.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE")
    batch.add_argument("--grid", action="append", default=[], metavar="NAME=A,B", help="all combinations are run")
    batch.add_argument("--jobs", type=int, default=1, metavar="N", help="at a time (default: 1)")
    batch.add_argument("--devices", metavar="0,1", help="the GPU of each job, as CUDA_VISIBLE_DEVICES has them")

    notebook = command("notebook", _notebook, "Run a notebook with parameters (papermill).")
    notebook.add_argument("notebook", help="name, such as evaluate, or a path")
    notebook.add_argument("out")
    notebook.add_argument("-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE")

    from sfllava.planning.commands import add_plan
    from sfllava.published.commands import add_commands

    add_commands(command)
    add_plan(command, with_settings, with_choice)
    return parser


if __name__ == "__main__":
    sys.exit(main())
