"""Answer the requests of lmms-eval: those about one video together, so that it is decoded and encoded once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from sfllava.files import Row
from sfllava.lmms_bridge.arguments import ModelArguments
from sfllava.progress import progress_bar
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
"""What lmms-eval gets in place of an answer that failed, or that is empty.

It has no notion of a failure, and MVBench's task drops empty answers from its denominator. A dash stays in, and no rule
reads an option in it.
"""
_DEFAULT_NEW_TOKENS = 1024
_USED = ("max_new_tokens", "max_gen_toks", "until")
# options that change nothing for greedy decoding of a video, at these values or at any (None)
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
        text: The prompt of its task, without any chat format.
        video: The file.
        max_new_tokens: The largest number of new tokens of the answer.
        until: Texts that end the answer.
    """

    text: str
    video: str
    max_new_tokens: int = _DEFAULT_NEW_TOKENS
    until: tuple[str, ...] = ()


@dataclass(frozen=True)
class Reply:
    """The answer to a request.

    Attributes:
        text: The answer; `NO_ANSWER` if there is none, or an empty one.
        video: The file.
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
        """Return what lmms-eval writes as the token counts of a sample, from which `sfllava import` reads it again."""
        counts = {"output_tokens": self.output_tokens, "visual_tokens": self.visual_tokens, "video": self.video}
        return counts | ({"error": self.error} if self.error else {})


def task_prompt(family: str) -> Prompt:
    """Return the prompt for the text of a task: the chat format of a family, around the video and nothing but the text.

    Everything up to the video is as in the family's own prompt for open questions, and what follows the text ends the
    user's turn.
    """
    return Wording("{question}").prompt(family, f"{family}/lmms-eval")


def read_request(arguments: Sequence[Any], documents: Mapping[str, Any], note: Callable[[str], None]) -> Request:
    """Read the arguments of a request.

    Args:
        arguments: Its prompt, options of generation, function from a document to its visuals, document's number, task
            and split.
        documents: All documents, by task, split and number.
        note: Gets a line about options that have no effect here.

    Raises:
        SfllavaError: It is not about one video, or an option is impossible.
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
        note(f"task {task}: answers are greedy, as always with sfllava: {', '.join(ignored)} has no effect")
    return Request(context, video, length, until)


def one_video(visuals: Any, where: str) -> str:
    """Return the file of the one video that a document has.

    Args:
        visuals: What the task's `doc_to_visual` returned.
        where: Task and document, for errors.

    Raises:
        SfllavaError: It is not one video's file; the message says what it is.
    """
    found = list(visuals) if isinstance(visuals, list | tuple) else [] if visuals is None else [visuals]
    if len(found) == 1 and isinstance(found[0], str) and not found[0].lower().endswith(_IMAGES):
        return found[0]
    shown = [repr(each) if isinstance(each, str) else type(each).__name__ for each in found[:3]]
    more = f" and {len(found) - 3} more" if len(found) > 3 else ""
    got = f"{', '.join(shown)}{more}" if found else "no visual"
    raise SfllavaError(f"{where}: sfllava answers questions about one video: needed the path of its file, got {got}")


def _without_effect(options: Mapping[str, Any]) -> list[str]:
    """Return the options, with their values, that greedy decoding of a video does not follow."""
    return [
        f"{name}={value!r}"
        for name, value in options.items()
        if name not in _USED and value is not None and (neutral := _NEUTRAL.get(name, ())) is not None
        and value not in neutral
    ]  # fmt: skip


def answer_requests(
    model: VideoLM, requests: Sequence[Request], arguments: ModelArguments, progress: bool = True
) -> list[Reply]:
    """Answer requests; each video is decoded and encoded once, however many requests are about it.

    A request without an answer, such as one about a video that cannot be read, gets `NO_ANSWER`; its reason is logged
    as an error, and so is the number of all of them at the end.

    Args:
        model: The model.
        requests: The requests, in any order. Equal ones are answered once, since answers are greedy.
        arguments: The setting, and how videos are decoded.
        progress: Show a progress bar.

    Returns:
        The replies, in the order of the requests.

    Raises:
        SfllavaError: The setting does not fit the context, or three videos in a row failed with one error that they
            probably did not cause.
    """
    setting = arguments.setting.for_model(model.info)
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
    """Make one job for each video, by the largest number of new tokens that a request about it may have.

    Shorter answers are cut: greedy decoding gives the same first tokens.
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
