"""SlowFast-LLaVA for researchers: training-free video question answering with LLaVA-NeXT.

frames = read_video(path, setting.frames).frames   # T H W 3, uint8
grid = model.encode(frames)                         # T h w D
tokens = setting.tokens(grid)                       # N D
answers = model.answer(tokens, questions)           # one visual prefix, many questions
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfllava.asking import ask
    from sfllava.benchmarks import load_benchmark
    from sfllava.checking import check
    from sfllava.evaluation import evaluate
    from sfllava.explorer import explore
    from sfllava.methods import parse_aggregation
    from sfllava.models.load import load_model
    from sfllava.notebooks import run_notebook
    from sfllava.prompts import Prompt, load_prompt
    from sfllava.sampler import read_video
    from sfllava.slowfast import Pool, SlowFast
    from sfllava.types import Answer, Question, Setting, SfllavaError

# name -> its module; loaded on first use, so that importing the package needs no torch
_HOMES = {
    "ask": "asking",
    "load_benchmark": "benchmarks",
    "check": "checking",
    "evaluate": "evaluation",
    "explore": "explorer",
    "load_model": "models.load",
    "run_notebook": "notebooks",
    "Prompt": "prompts",
    "load_prompt": "prompts",
    "read_video": "sampler",
    "Pool": "slowfast",
    "SlowFast": "slowfast",
    "parse_aggregation": "methods",
    "Answer": "types",
    "Question": "types",
    "Setting": "types",
    "SfllavaError": "types",
}
__all__ = [
    "Answer",
    "Pool",
    "Prompt",
    "Question",
    "Setting",
    "SfllavaError",
    "SlowFast",
    "ask",
    "check",
    "evaluate",
    "explore",
    "load_benchmark",
    "load_model",
    "load_prompt",
    "parse_aggregation",
    "read_video",
    "run_notebook",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'sfllava' has no attribute {name!r}")
    return getattr(importlib.import_module(f"sfllava.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
