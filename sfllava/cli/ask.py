"""Ask questions about one video."""

from __future__ import annotations

import argparse
import json
import sys
import time

from sfllava.cli import options, parsed
from sfllava.files import is_url
from sfllava.types import SfllavaError

ORDER = 1


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("video", help="video file, or a folder of frame images")
    parser.add_argument("questions", nargs="+", metavar="question")
    parser.add_argument("--frames", type=int, default=50, metavar="N", help="frames to sample (default: 50)")
    options.add_aggregation(parser)
    options.add_frame_rule(parser, default="published")
    parser.add_argument("--json", action="store_true", help="print JSON, with token ids and seconds by stage")
    options.add_model(parser, 256)


def run(arguments: argparse.Namespace) -> int:
    from sfllava.runs.ask import ask, to_questions
    from sfllava.settings import Setting

    setting = Setting(arguments.frames, arguments.aggregation, frame_rule=arguments.frame_rule)
    prompt = parsed.own_prompt(arguments)
    questions = to_questions(arguments.questions)
    if is_url(arguments.video):  # before a model is loaded for it
        raise SfllavaError(f"{arguments.video}: needed a video on this machine, got a URL: download it first")
    start = time.perf_counter()
    model = parsed.load_model(arguments)
    load_seconds = time.perf_counter() - start
    found = ask(model, arguments.video, questions, setting, prompt=prompt, max_new_tokens=arguments.max_new_tokens)
    if arguments.json:
        result = found.to_dict()
        result["seconds"] = {"load": round(load_seconds, 4), **result["seconds"]}
        print(json.dumps(result, ensure_ascii=False, indent=1))
        return 0
    for answer in found.answers:
        print(f"{answer.question.text}\n  {answer.text}")
    seconds = {"load": load_seconds, **found.seconds}
    frames = f"{len(found.video.frames)} of {found.video.total} frames, {found.visual_tokens} visual tokens"
    print(f"{frames}; {', '.join(f'{stage} {spent:.2f} s' for stage, spent in seconds.items())}", file=sys.stderr)
    return 0
