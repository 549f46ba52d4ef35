"""SlowFast-LLaVA for researchers: training-free video question answering with image LLMs.

video = read_video(path, setting.frames)                     # frames: T H W 3, uint8
grid = model.encode(video.frames)                            # T h w D
tokens = model.tokens(setting, grid, video.pts_seconds)      # N D, and where the model wants them, positions in time
answers = model.answer(tokens, questions)                    # one visual prefix, many questions

Names and modules are loaded on first use, so that importing the package needs no torch.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sfllava.ablation import ablate
    from sfllava.aggregators.slowfast import SlowFast
    from sfllava.analysis.loading import load_results
    from sfllava.benchmarks import load_benchmark
    from sfllava.explorer import explore
    from sfllava.models.load import load_model
    from sfllava.notebooks import run_notebook
    from sfllava.prompts import load_prompt
    from sfllava.runs.ask import ask
    from sfllava.runs.check import check
    from sfllava.runs.evaluate import evaluate
    from sfllava.runs.judge import judge
    from sfllava.runs.selection_source import SelectionSource
    from sfllava.sampler.reading import read_video
    from sfllava.settings import Setting
    from sfllava.types import Question, SfllavaError

    __version__: str

# name -> its module
_MODULES = {
    "Question": "types",
    "SelectionSource": "runs.selection_source",
    "Setting": "settings",
    "SfllavaError": "types",
    "SlowFast": "aggregators.slowfast",
    "ablate": "ablation",
    "ask": "runs.ask",
    "check": "runs.check",
    "evaluate": "runs.evaluate",
    "explore": "explorer",
    "judge": "runs.judge",
    "load_benchmark": "benchmarks",
    "load_model": "models.load",
    "load_prompt": "prompts",
    "load_results": "reports.accessor",  # which also gives results their accessor, `results.sfl`
    "read_video": "sampler.reading",
    "run_notebook": "notebooks",
}
__all__ = [
    "Question",
    "SelectionSource",
    "Setting",
    "SfllavaError",
    "SlowFast",
    "__version__",
    "ablate",
    "ask",
    "check",
    "evaluate",
    "explore",
    "judge",
    "load_benchmark",
    "load_model",
    "load_prompt",
    "load_results",
    "read_video",
    "run_notebook",
]


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return getattr(importlib.import_module(f"sfllava.{_MODULES[name]}"), name)
    if name == "__version__":
        return _version()
    if not name.startswith("_") and importlib.util.find_spec(f"sfllava.{name}"):
        return importlib.import_module(f"sfllava.{name}")
    raise AttributeError(f"module 'sfllava' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("sfllava")
    except PackageNotFoundError:  # a checkout that is on the path and not installed
        return "0+unknown"
