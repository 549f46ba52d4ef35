"""The identity in run.json, by which two runs are the same run: questions, settings, model and prompt."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sfllava.benchmarks import Benchmark
from sfllava.files import Row, RunError
from sfllava.runs.json_diff import describe_changes
from sfllava.types import Clip, Question, SfllavaError

VERSION = 3
"""The version of the identity's format.

Version 1 (sfllava 0.1.0) has no version number; it has the hash of the question file, the limit and the seed. Versions
1 and 2 have the RoPE parameters under their names in transformers, which differ between its versions.
"""
USUAL_TASKS = ("open", "choice", "describe")
"""The tasks that a benchmark's name tells; rows repeat the others."""
_CHOICE = ("questions_sha256", "limit", "seed")
"""How the questions were chosen. Each session records this; it is not part of the identity, since different choices may
give the same questions."""


def choose_questions(questions: Sequence[Question], limit: int | None, seed: int | None) -> list[Question]:
    """Return at most `limit` questions, in the order of the file.

    Args:
        questions: All questions of the benchmark.
        limit: How many to return; None for all.
        seed: Seed of a random sample; None for the first questions.

    Raises:
        SfllavaError: `limit` is less than 1.
    """
    if limit is not None and limit < 1:
        raise SfllavaError(f"limit must be at least 1, got {limit}")
    if limit is None or limit >= len(questions):
        return list(questions)
    chosen = range(limit) if seed is None else sorted(random.Random(seed).sample(range(len(questions)), limit))
    return [questions[i] for i in chosen]


def asked_sha256(questions: Iterable[Question]) -> str:
    """Return the SHA-256 of the questions, over all fields that a row repeats; their order does not matter."""
    lines = (json.dumps(_contents(question)) for question in questions)
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def _contents(question: Question) -> list[Any]:
    q, more = question, question_facts(question)
    for name in ("groups", "answer_index"):  # these change how accuracy is broken down, or repeat what the key tells
        more.pop(name, None)
    return [q.key, q.video, q.id, q.type, q.text, q.answer, list(q.options), *([more] if more else [])]


def question_facts(question: Question) -> Row:
    """Return the optional fields of a question, as a row of predictions repeats them."""
    clip = question.clip
    found = {
        "task": question.task if question.task not in USUAL_TASKS else None,
        "groups": dict(question.groups),
        "clip": {name: value for name, value in vars(clip).items() if value is not None} if clip else None,
        "subtitle_file": question.subtitle_file,
        "subtitle_start": question.subtitle_start,
    }
    # of two equal options, which one is right cannot be told by its text
    if question.answer in question.options and question.answer_index not in (
        None,
        question.options.index(question.answer),
    ):
        found["answer_index"] = question.answer_index
    return {name: value for name, value in found.items() if value}


def question_of(row: Row) -> Question:
    """Return the question that a row of predictions repeats."""
    options = tuple(row.get("options") or ())
    return Question(
        row.get("question", ""),
        row["key"],
        row["video"],
        row.get("answer", ""),
        options,
        row.get("answer_index"),
        id=row.get("id", ""),
        type=row.get("type", ""),
        task=row.get("task") or ("choice" if row.get("options") else "open"),
        groups=_groups_of(row),
        clip=_clip_of(row),
        subtitle_file=row.get("subtitle_file", ""),
        subtitle_start=row.get("subtitle_start", 0.0),
    )


def _groups_of(row: Row) -> Row:
    groups = row.get("groups") or {}
    if not isinstance(groups, dict) or not all(isinstance(value, str) for value in groups.values()):
        raise RunError(f"question {row['key']}: groups must be an object of texts, got {groups!r:.80}")
    return groups


def _clip_of(row: Row) -> Clip | None:
    clip = row.get("clip")
    if clip is None:
        return None
    known = isinstance(clip, dict) and set(clip) <= {"start", "end", "fps"}
    if not known or not all(isinstance(value, int | float) for value in clip.values()):
        raise RunError(f"question {row['key']}: clip must have start, end and fps in numbers, got {clip!r:.80}")
    return Clip(**clip)


def job_name(video: str, clip: Clip | None) -> str:
    """Return the name of what is decoded and answered together: the video, and the clip if there is one."""
    if clip in (None, Clip()):
        return video
    return f"{video}, {clip}" if clip.fps is None else f"{video}, {clip}, {clip.fps!r} frames per second"


def job_of(row: Row) -> str:
    """Return the name of the job that a row of predictions belongs to."""
    return job_name(row["video"], _clip_of(row))


def make_identity(benchmark: str, questions: Sequence[Question], settings: Sequence[Row], **more: Any) -> Row:
    """Return the identity of a run.

    Args:
        benchmark: The name of the benchmark.
        questions: The questions that the run asks.
        settings: The entry of each setting in run.json.
        **more: Further parts of the identity, such as the model and the prompt.
    """
    asked = {"questions": len(questions), "asked_sha256": asked_sha256(questions)}
    return {"version": VERSION, "benchmark": benchmark, **asked, "settings": list(settings), **more}


def rope_facts(parameters: Mapping[str, Any] | None) -> Row | None:
    """Return the RoPE parameters of a model under fixed names: type, factor and theta.

    Other RoPE parameters are in the checkpoint's config, which the checkpoint's hash covers.

    Args:
        parameters: The parameters as any version of transformers, or an older run.json, names them.

    Returns:
        The parameters, with None for a factor or theta that is not set; or None if `parameters` is None.
    """
    if parameters is None:
        return None
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    factor, theta = parameters.get("factor"), parameters.get("rope_theta", parameters.get("theta"))
    return {"type": kind, "factor": factor and float(factor), "theta": theta and float(theta)}


def upgrade(run: Row, benchmark: Benchmark) -> Row:
    """Convert a run.json of an older version to the current format; a current one is returned as it is."""
    identity = run["identity"]
    if identity.get("version") == VERSION:
        return run
    if "version" not in identity:
        run = _with_questions(run, benchmark)
        identity = run["identity"]
    model = identity.get("model")
    if isinstance(model, dict) and isinstance(model.get("rope"), dict | None):
        model = model | {"rope": rope_facts(model.get("rope"))}
    return run | {"identity": identity | {"version": VERSION} | ({"model": model} if "model" in identity else {})}


def _with_questions(run: Row, benchmark: Benchmark) -> Row:
    """Add the hash of the questions to a run.json of sfllava 0.1.0, from its question file, limit and seed.

    If the question file has changed since, the questions are unknown, and `asked_sha256` is None: it matches no run.
    """
    old = run["identity"]
    choice = {name: old.get(name) for name in _CHOICE}
    limit, seed = choice["limit"], choice["seed"]
    digest = None
    if choice["questions_sha256"] == benchmark.fingerprint and all(isinstance(n, int | None) for n in (limit, seed)):
        digest = asked_sha256(choose_questions(benchmark.questions, limit, seed))
    kept = {name: value for name, value in old.items() if name not in _CHOICE}
    sessions = [choice | session if isinstance(session, dict) else session for session in run["sessions"]]
    return run | {"identity": kept | {"asked_sha256": digest}, "sessions": sessions}


def describe_mismatch(before: Row, now: Row) -> list[str]:
    """Describe why a run cannot be resumed with another run.json.

    New settings do not prevent it, nor does what only they choose frames with; missing ones do.

    Args:
        before: The run.json in the folder.
        now: The run.json of the run to start.

    Returns:
        The reasons in words; empty if the run can be resumed.
    """
    was, wanted = before["identity"], now["identity"]
    had, has = _by_name(was), _by_name(wanted)
    if had is None or has is None:
        return sorted(describe_changes(was, wanted))
    found = []
    if missing := [name for name in had if name not in has]:
        found.append(f"the run has settings that are not requested now: {', '.join(missing)}")
    if was.get("asked_sha256") != wanted.get("asked_sha256"):
        differences = "; ".join(describe_changes(_choice(before), _choice(now)))
        why = differences or "the questions have different keys or contents"
        found.append(f"{was.get('questions')} questions were asked, now {wanted.get('questions')} ({why})")
    compared = {"asked_sha256": None, "questions": None}  # already compared above
    both = [name for name in had if name in has]
    old, new = ({**run, **compared, "settings": [of[name] for name in both]} for run, of in ((was, had), (wanted, has)))
    # what no earlier setting chose frames with may be new
    used, given = (run.get("selection") or {} for run in (was, wanted))
    old["selection"], new["selection"] = used, {part: given[part] for part in given if part in used}
    return found + sorted(describe_changes(old, new))


def merge_settings(before: Row, now: Row) -> Row:
    """Return the identity `now` with the settings of `before` first, then its new ones."""
    had, has = _by_name(before) or {}, _by_name(now) or {}
    return now | {"settings": [*(has[name] for name in had), *(has[name] for name in has if name not in had)]}


def _by_name(identity: Row) -> dict[str, Row] | None:
    """Return the settings of an identity by name, or None if they are not a list of named settings."""
    settings = identity.get("settings", [])
    if not isinstance(settings, list) or not all(
        isinstance(s, dict) and isinstance(s.get("name"), str) for s in settings
    ):
        return None
    return {setting["name"]: setting for setting in settings}


def _choice(run: Row) -> Row:
    """Return how the last session chose the questions."""
    last = run["sessions"][-1] if run["sessions"] else {}
    return {name: last.get(name) for name in _CHOICE} if isinstance(last, dict) else {}
