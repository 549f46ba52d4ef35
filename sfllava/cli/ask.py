"""Ask questions about one video."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfllava.cli import options, parsed, selecting
from sfllava.cli.parser import group
from sfllava.cli.working import working
from sfllava.files import is_url
from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.runs.ask import AskResult
    from sfllava.settings import Setting

ORDER = 1
EXAMPLES = (
    'sfllava ask clip.mp4 "What happens?" "How many people are there?" --model llava-hf/llava-v1.6-vicuna-7b-hf',
    'sfllava ask clip.mp4 "What colour is the ball?" --model tiny --frames 16',
    'sfllava ask frames_folder "What is said?" --model 7B_FOLDER --json',
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("video", metavar="VIDEO", help="video file, or a folder of frame images")
    parser.add_argument(
        "questions", nargs="+", metavar="QUESTION", help="one question or several, asked together about the video"
    )
    options.add_frames(parser)
    options.add_aggregation(parser)
    options.add_frame_rule(parser, default="published")
    selecting.add_one_selection(parser)
    output = group(parser, "output")
    output.add_argument("--json", action="store_true", help="print JSON, with token ids and seconds by stage")
    output.add_argument("--quiet", action="store_true", help="print nothing but the answers")
    options.add_model(parser, 256)


def run(arguments: argparse.Namespace) -> int:
    checkpoint, silent = parsed.checkpoint(arguments), arguments.json or arguments.quiet
    with working(f"loading {checkpoint}", silent):  # importing torch takes a while, too
        from sfllava.runs.ask import ask, to_questions
        from sfllava.runs.video_choice import prepare_source
        from sfllava.settings import Setting

        setting = Setting(
            arguments.frames, arguments.aggregation, frame_rule=arguments.frame_rule, selection=arguments.selection,
            selection_for=arguments.selection_for,
        )  # fmt: skip
        source = selecting.selection_source(arguments)
        prompt = parsed.own_prompt(arguments)
        questions = to_questions(arguments.questions)
        if is_url(arguments.video):  # before a model is loaded for it
            raise SfllavaError(f"{arguments.video}: needed a video on this machine, got a URL: download it first")
        if setting.question_aware:
            source = prepare_source(source, setting, questions, arguments.video)
        start = time.perf_counter()
        model = parsed.load_model(arguments)
        load_seconds = time.perf_counter() - start
    count = f"{len(questions)} question{'s' * (len(questions) > 1)}"
    with working(f"asking {count} about {Path(arguments.video).name}", silent):
        found = ask(
            model, arguments.video, questions, setting, prompt=prompt, max_new_tokens=arguments.max_new_tokens,
            selection=source,
        )  # fmt: skip
    _print(found, load_seconds, arguments)
    return 0


def _print(found: AskResult, load_seconds: float, arguments: argparse.Namespace) -> None:
    """Print the answers, and how they were made."""
    repeated = _repeated(found.setting, len(found.video.frames))
    if arguments.json:
        result = found.to_dict()
        result["seconds"] = {"load": round(load_seconds, 4), **result["seconds"]}
        if repeated:
            result["notes"] = [repeated]
        print(json.dumps(result, ensure_ascii=False, indent=1))
        return
    for i, answer in enumerate(found.answers):
        print(f"{answer.question.text}\n  {answer.text}")
        if found.selected:
            print(f"  {_describe(found.selected[i])}")
    if not arguments.quiet:
        seconds = {"load": load_seconds, **found.seconds}
        frames = f"{len(found.video.frames)} of {found.video.total} frames, {found.visual_tokens} visual tokens"
        print(f"{frames}; {', '.join(f'{stage} {spent:.2f} s' for stage, spent in seconds.items())}", file=sys.stderr)
        if repeated:
            print(f"note: {repeated}", file=sys.stderr)


def _repeated(setting: Setting, frames: int) -> str:
    """Say that Slow frames are used more than once, if there are fewer frames than the Slow pathway takes."""
    from sfllava.aggregators.base import detailed_frames, name_of

    if setting.question_aware:  # the frames of a video are those of all questions
        return ""
    slow = detailed_frames(setting.aggregation, frames)
    different = len(set(slow))
    if different == len(slow):
        return ""
    return (
        f"{name_of(setting.aggregation)} takes {len(slow)} Slow frames and only {different} were sampled, so frames "
        f"repeat: pass --frames {len(slow)} or more, or an aggregation with fewer Slow frames"
    )


def _describe(selected: dict[str, Any]) -> str:
    """Return the frames that were chosen for a question, each with its second and its score."""
    facts = zip(selected["frames"], selected["seconds"], selected.get("scores") or [None] * len(selected["frames"]))
    listed = [
        f"{frame}"
        + (f" at {second:.1f} s" if second is not None else "")
        + (f" ({score:.3f})" if score is not None else "")
        for frame, second, score in facts
    ]
    what = {"all": "frames", "slow": "Slow frames", "both": "Slow frames"}[selected["for"]]
    kind = " (score)" if selected.get("scores") else ""
    return f"{what}{kind}: {', '.join(listed)}"
