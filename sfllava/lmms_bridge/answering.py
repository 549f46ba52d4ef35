"""Answer the requests of lmms-eval, grouped by video, so that each video is decoded and encoded once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sfllava.display.progress import progress_bar
from sfllava.files import Row
from sfllava.lmms_bridge.arguments import NO_SELECTION, ModelArguments
from sfllava.prompts import Prompt, Wording
from sfllava.runs.failures import RESUMABLE
from sfllava.runs.jobs import GenerationOptions, Job
from sfllava.runs.runner import LocalRunner
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError, Task

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM

log = logging.getLogger(__name__)
NO_ANSWER = "-"
"""The reply that lmms-eval gets if there is no answer, or an empty one.

lmms-eval has no notion of a failure, and its MVBench task drops empty answers from the denominator. A dash stays in the
denominator, and no rule parses it as an option.
"""
_DEFAULT_NEW_TOKENS = 1024
_USED = ("max_new_tokens", "max_gen_toks", "until")
# options without effect on greedy decoding of a video: at these values, or at any value (None)
_NEUTRAL: dict[str, tuple[Any, ...] | None] = {
    "do_sample": (False,),
    "temperature": (0,),
    "num_beams": (1,),
    "repetition_penalty": (1,),
    "num_return_sequences": (1,),
    "top_p": None,
    "top_k": None,
    "image_aspect_ratio": None,
}
_IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".tif", ".tiff")


@dataclass(frozen=True)
class Request:
    """One request of lmms-eval.

    Attributes:
        text: The prompt of the task, without a chat format.
        video: The video file.
        max_new_tokens: The largest number of new tokens in the answer.
        until: Stop strings of the answer.
    """

    text: str
    video: str
    max_new_tokens: int = _DEFAULT_NEW_TOKENS
    until: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reply:
    """The answer to a request.

    Attributes:
        text: The answer; `NO_ANSWER` if there is none or it is empty.
        video: The video file.
        output_tokens: Number of generated tokens.
        visual_tokens: Number of visual tokens in the prompt.
        error: Why there is no answer; empty if there is one.
    """

    text: str
    video: str
    output_tokens: int = 0
    visual_tokens: int | None = None
    error: str = ""

    def to_dict(self) -> Row:
        """Return the `token_counts` that lmms-eval writes for a sample; `sfllava import` reads them back."""
        counts = {"output_tokens": self.output_tokens, "visual_tokens": self.visual_tokens, "video": self.video}
        return counts | ({"error": self.error} if self.error else {})


def task_prompt(family: str) -> Prompt:
    """Return the prompt for a task: the chat format of a family around the video and the unchanged text of the task.

    The part before the video is the same as in the family's own prompt for open questions.
    """
    return Wording("{question}").prompt(family, f"{family}/lmms-eval")


def read_request(arguments: Sequence[Any], documents: Mapping[str, Any], note: Callable[[str], None]) -> Request:
    """Read the arguments of a request.

    Args:
        arguments: The prompt, the generation options, the function that returns the visuals of a document, the number
            of the document, the task and the split.
        documents: All documents, by task, split and number.
        note: Called with a line about options that have no effect here.

    Raises:
        SfllavaError: The request is not about one video, or an option has an invalid value.
    """
    context, options, doc_to_visual, number, task, split = arguments
    where = f"task {task}, document {number}"
    video = one_video(doc_to_visual(documents[task][split][number]), where)
    length = options.get("max_new_tokens", options.get("max_gen_toks"))
    length = _DEFAULT_NEW_TOKENS if length is None else length
    if isinstance(length, bool) or not isinstance(length, int) or length < 1:
        raise SfllavaError(f"{where}: max_new_tokens must be a whole number of at least 1, got {length!r}")
    until = options.get("until") or []
    until = tuple(text for text in ([until] if isinstance(until, str) else until) if text)
    if ignored := _without_effect(options):
        note(f"task {task}: sfllava always decodes greedily, so {', '.join(ignored)} has no effect")
    return Request(context, video, length, until)


def one_video(visuals: Any, where: str) -> str:
    """Return the file of the only video of a document.

    Args:
        visuals: What the task's `doc_to_visual` returned.
        where: Task and document, for error messages.

    Raises:
        SfllavaError: The visuals are not one video file; the message says what they are.
    """
    found = list(visuals) if isinstance(visuals, list | tuple) else [] if visuals is None else [visuals]
    if len(found) == 1 and isinstance(found[0], str) and not found[0].lower().endswith(_IMAGES):
        return found[0]
    shown = [repr(each) if isinstance(each, str) else type(each).__name__ for each in found[:3]]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    got = f"{', '.join(shown)}{more}" if found else "no visual"
    raise SfllavaError(f"{where}: sfllava answers questions about one video: needed one path of a video, got {got}")


def _without_effect(options: Mapping[str, Any]) -> list[str]:
    """Return the options, with their values, that greedy decoding of a video ignores."""
    return [
        f"{name}={value!r}"
        for name, value in options.items()
        if name not in _USED and value is not None and (neutral := _NEUTRAL.get(name, ())) is not None
        and value not in neutral
    ]  # fmt: skip


def answer_requests(
    model: VideoLM, requests: Sequence[Request], arguments: ModelArguments, progress: bool = True
) -> list[Reply]:
    """Answer requests; each video is decoded and encoded once, regardless of the number of requests about it.

    A request without an answer, for example about an unreadable video, gets `NO_ANSWER`. The reason is logged as an
    error; at the end, the number of such requests is logged too.

    Args:
        model: The model.
        requests: The requests, in any order. Identical ones are answered once, since decoding is greedy.
        arguments: The setting, and how videos are decoded.
        progress: Show a progress bar.

    Returns:
        The replies, in the order of the requests.

    Raises:
        SfllavaError: The setting chooses frames for each question, or does not fit the context, or three videos in a
            row failed with the same error, which they probably did not cause.
    """
    setting = arguments.setting.for_model(model.info)
    if setting.question_aware:
        raise SfllavaError(f"{setting.name}: {NO_SELECTION}")
    model.info.check_context(model.info.prompt_rows(setting), 1, setting.name)
    prompts: dict[str, dict[Task, Prompt]] = {setting.name: {"open": task_prompt(model.info.family)}}
    rows: dict[tuple[str, str], Row] = {}
    jobs = _jobs_by_length(requests, setting)
    asked = sum(job.size for some in jobs.values() for job in some)
    with progress_bar(asked, "question", 0, progress) as bar:
        for length, some in jobs.items():
            options = GenerationOptions(
                prompts, min(length, model.info.context), "generate", arguments.decoders, arguments.decode_seconds
            )
            try:
                for answered in LocalRunner(model).run(options, some):
                    rows |= {(row["video"], row["question"]): row for row in answered}
                    bar.update(len(answered))
            except SfllavaError as error:
                raise SfllavaError(str(error).removesuffix(RESUMABLE)) from error
    replies = [_reply(model, request, rows[request.video, request.text]) for request in requests]
    _log_failures(replies)
    return replies


def _jobs_by_length(requests: Sequence[Request], setting: Setting) -> dict[int, list[Job]]:
    """Make one job per video, grouped by the largest max_new_tokens of the requests about it.

    Answers to the other requests are truncated later: greedy decoding gives the same first tokens.
    """
    texts: dict[str, dict[str, None]] = {}
    lengths: dict[str, int] = {}
    for request in requests:
        texts.setdefault(request.video, {})[request.text] = None
        lengths[request.video] = max(request.max_new_tokens, lengths.get(request.video, 0))
    jobs: dict[int, list[Job]] = {}
    for video, asked in texts.items():
        questions = [Question(text, key=str(i), video=video) for i, text in enumerate(asked)]
        jobs.setdefault(lengths[video], []).append(Job(video, video, "", [(setting, questions)]))
    return jobs


def _reply(model: VideoLM, request: Request, row: Row) -> Reply:
    if row["error"] or row["prediction"] is None:
        return Reply(NO_ANSWER, request.video, error=row["error"] or "no prediction")
    ids, text = row["token_ids"], row["prediction"]
    if len(ids) > request.max_new_tokens:
        ids = ids[: request.max_new_tokens]
        text = model.info.tokenizer.decode(ids)
    for end in request.until:
        text = text.partition(end)[0]
    return Reply(text.strip() or NO_ANSWER, request.video, len(ids), row["visual_tokens"])


def _log_failures(replies: Sequence[Reply]) -> None:
    failed = [reply for reply in replies if reply.error]
    for video, error in dict.fromkeys((reply.video, reply.error) for reply in failed):
        count = sum((reply.video, reply.error) == (video, error) for reply in failed)
        log.error("%s: %d %s without an answer: %s", video, count, "request" if count == 1 else "requests", error)
    if failed:
        log.error(
            "%d of %d requests have no answer; lmms-eval counts each as the answer %r, and `sfllava import` as failed",
            len(failed), len(replies), NO_ANSWER,
        )  # fmt: skip
