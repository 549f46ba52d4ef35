"""Notes on why our number is not comparable with the paper's: different questions, model, prompt or judge."""

from __future__ import annotations

import hashlib
from functools import lru_cache
from typing import Any

from sfllava.benchmarks.spec import Spec
from sfllava.evaluators.judges.rubric import load_rubric
from sfllava.files import Row
from sfllava.models.sizes import sizes_of
from sfllava.prompts import families, pack_prompt
from sfllava.published.reproduction.paper import JUDGE
from sfllava.published.reproduction.plan import NEW_TOKENS

_DTYPE = "torch.float16"
"""The dtype of the published code on a GPU"""
_LAYERS = ("count", "width", "inner", "heads", "kv_heads")


def run_notes(identity: Row, spec: Spec, size: str) -> list[str]:
    """Return notes on the differences between a run and the paper.

    Args:
        identity: The identity in its run.json.
        spec: Its benchmark.
        size: The paper's model that it reproduces.
    """
    return [
        *_question_notes(identity, spec),
        *_model_notes(identity.get("model") or {}, size),
        *_asking_notes(identity),
    ]


def _question_notes(identity: Row, spec: Spec) -> list[str]:
    asked, published = identity["questions"], spec.question_count
    if published is None or asked == published:
        return []
    return [f"{spec.name}: {asked:,} questions, but {published:,} in the paper"]


def _model_notes(model: Row, size: str) -> list[str]:
    notes = []
    shape, wanted = model.get("shape") or {}, _paper_shape(size)
    for part, name in (("language", "language model"), ("vision", "vision tower")):
        if _sizes(shape, part) != _sizes(wanted, part):
            ours, theirs = (_describe(one.get(part) or {}) for one in (shape, wanted))
            notes.append(f"the {name} is not the paper's {size}: it has {ours}, the paper's has {theirs}")
    if (dtype := model.get("dtype")) not in (None, _DTYPE):
        notes.append(f"weights in {str(dtype).removeprefix('torch.')}; the published code uses float16")
    rope = model.get("rope") or {}
    if "rope" in model and (rope.get("type"), rope.get("factor")) != ("dynamic", 2.0):
        notes.append(
            f"RoPE is {rope.get('type')}, factor {rope.get('factor')}; the published code uses dynamic, factor 2"
        )
    return notes


def _sizes(shape: Row, part: str) -> list[Any]:
    return [(shape.get(part) or {}).get(name) for name in _LAYERS]


def _describe(layers: Row) -> str:
    return f"{layers.get('count')} layers of width {layers.get('width')}"


@lru_cache
def _paper_shape(size: str) -> Row:
    return sizes_of(size).shape.to_dict()


def _asking_notes(identity: Row) -> list[str]:
    prompt = identity.get("prompt")  # a text, or an object where it also says how options are written
    own = isinstance(prompt, str) and prompt in _own_prompts()
    notes = ["the prompt is this package's own wording"] if own else []
    if (length := identity.get("max_new_tokens", NEW_TOKENS)) != NEW_TOKENS:
        notes.append(f"answers of at most {length} tokens; the published code allows {NEW_TOKENS}")
    if identity.get("read") == "logits":
        notes.append("option letters read from the logits; the published code generates an answer")
    return notes


@lru_cache(maxsize=1)
def _own_prompts() -> frozenset[str]:
    return frozenset(pack_prompt(family, task).text for family in families() for task in ("open", "choice", "describe"))


def judge_notes(identity: Row, rubric: str) -> list[str]:
    """Return notes on the differences between a judge and the paper's.

    Args:
        identity: The judge's identity in verdicts-NAME.json.
        rubric: The rubric of the verdicts; empty for all rubrics.
    """
    notes = []
    kind, model = identity.get("judge"), identity.get("model")
    if not model:
        return [f"the judge is the rule {kind}, not a model; the paper's judge, {JUDGE}, is retired"]
    if model != JUDGE:
        notes.append(f"the judge is {model}; the paper's, {JUDGE}, is retired")
    digests = identity.get("rubrics_sha256") or {}
    used = {rubric: digests.get(rubric)} if rubric in digests else digests
    if any(digest == _rubric_digest(name) for name, digest in used.items()):
        notes.append("the judge's prompt is this package's own wording")
    return notes


@lru_cache
def _rubric_digest(name: str) -> str:
    return hashlib.sha256(load_rubric(name).text.encode()).hexdigest()
