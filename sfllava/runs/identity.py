"""What makes two runs the same run, as run.json has it: the questions asked, the settings, the model, the prompt."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from sfllava.benchmarks import Benchmark
from sfllava.files import Row
from sfllava.runs.json_diff import describe_changes
from sfllava.types import Question, SfllavaError

VERSION = 3
"""Of the identity. Version 1, of sfllava 0.1.0, has no number, but the question file, limit and seed; versions 1 and 2
have RoPE in the names of transformers, which change between its versions."""
_CHOICE = ("questions_sha256", "limit", "seed")
"""How the questions were chosen: no part of the identity, since many ways choose the same; each session has its own."""


def choose_questions(questions: Sequence[Question], limit: int | None, seed: int | None) -> list[Question]:
    """The first `limit` questions, or with a seed a random choice of them, in the file's order."""
    if limit is not None and limit < 1:
        raise SfllavaError(f"limit must be at least 1, got {limit}")
    if limit is None or limit >= len(questions):
        return list(questions)
    chosen = range(limit) if seed is None else sorted(random.Random(seed).sample(range(len(questions)), limit))
    return [questions[i] for i in chosen]


def asked_sha256(questions: Iterable[Question]) -> str:
    """SHA-256 of what is asked: all that a row repeats of its question, in whatever order."""
    lines = (json.dumps([q.key, q.video, q.id, q.type, q.text, q.answer, list(q.options)]) for q in questions)
    return hashlib.sha256("\n".join(sorted(lines)).encode()).hexdigest()


def make_identity(benchmark: str, questions: Sequence[Question], settings: Sequence[Row], **more: Any) -> Row:
    """The identity of a run. settings: what run.json says of each; more: the model, the prompt, how it answers."""
    asked = {"questions": len(questions), "asked_sha256": asked_sha256(questions)}
    return {"version": VERSION, "benchmark": benchmark, **asked, "settings": list(settings), **more}


def rope_facts(parameters: Mapping[str, Any] | None) -> Row | None:
    """The rotary positions of a model in names of our own: type, factor and theta, None where it has none.

    What else there may be of them stands in the checkpoint's config, and so in its hash.

    Args:
        parameters: As transformers, of whatever version, or an older run.json has them.
    """
    if parameters is None:
        return None
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    factor, theta = parameters.get("factor"), parameters.get("rope_theta", parameters.get("theta"))
    return {"type": kind, "factor": factor and float(factor), "theta": theta and float(theta)}


def upgrade(run: Row, benchmark: Benchmark) -> Row:
    """A run.json of an earlier version as one of today; one of today as it is."""
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
    """A run.json of sfllava 0.1.0 with the hash of what it asked, which follows from its question file, limit and seed.

    If that was another file than the benchmark's, it is not known: `asked_sha256` is then None, which matches nothing.
    """
    old = run["identity"]
    choice = {name: old.get(name) for name in _CHOICE}
    limit, seed = choice["limit"], choice["seed"]
    asked = None
    if choice["questions_sha256"] == benchmark.fingerprint and all(isinstance(n, int | None) for n in (limit, seed)):
        asked = asked_sha256(choose_questions(benchmark.questions, limit, seed))
    kept = {name: value for name, value in old.items() if name not in _CHOICE}
    sessions = [choice | session if isinstance(session, dict) else session for session in run["sessions"]]
    return run | {"identity": kept | {"asked_sha256": asked}, "sessions": sessions}


def changes(before: Row, now: Row) -> list[str]:
    """In words, what keeps a run from going on as another: of the run.json that is there and the one to be.

    Settings that are new are no change; those that are missing are one.
    """
    was, wanted = before["identity"], now["identity"]
    had, has = _by_name(was), _by_name(wanted)
    if had is None or has is None:
        return sorted(describe_changes(was, wanted))
    found = []
    if missing := [name for name in had if name not in has]:
        found.append(f"the run has settings that are not asked for now: {', '.join(missing)}")
    if was.get("asked_sha256") != wanted.get("asked_sha256"):
        why = "; ".join(describe_changes(_choice(before), _choice(now))) or "the questions have other keys or contents"
        found.append(f"{was.get('questions')} questions were asked, now {wanted.get('questions')} ({why})")
    done = {"asked_sha256": None, "questions": None}
    both = [name for name in had if name in has]
    old, new = ({**run, **done, "settings": [of[name] for name in both]} for run, of in ((was, had), (wanted, has)))
    return found + sorted(describe_changes(old, new))


def union(before: Row, now: Row) -> Row:
    """The identity `now`, its settings in the order in which the run came to have them."""
    had, has = _by_name(before) or {}, _by_name(now) or {}
    return now | {"settings": [*(has[name] for name in had), *(has[name] for name in has if name not in had)]}


def _by_name(identity: Row) -> dict[str, Row] | None:
    """The settings of an identity by name; None where they are no such list."""
    settings = identity.get("settings", [])
    if not isinstance(settings, list) or not all(
        isinstance(s, dict) and isinstance(s.get("name"), str) for s in settings
    ):
        return None
    return {setting["name"]: setting for setting in settings}


def _choice(run: Row) -> Row:
    """How the questions were chosen, as the last session has it."""
    last = run["sessions"][-1] if run["sessions"] else {}
    return {name: last.get(name) for name in _CHOICE} if isinstance(last, dict) else {}
