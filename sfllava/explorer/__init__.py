"""The explorer: see what the model sees, in JupyterLab."""

from __future__ import annotations

from collections.abc import Sequence

from sfllava.explorer.app import MOST_COMPARED, Explorer
from sfllava.explorer.session import Reply, Session
from sfllava.models.base import VideoLM
from sfllava.runs.selection_source import SelectionSource
from sfllava.settings import Setting
from sfllava.types import SfllavaError

__all__ = ["Explorer", "Reply", "Session", "explore"]


def explore(
    model: VideoLM,
    video: str = "",
    question: str = "",
    setting: Setting | Sequence[Setting] | None = None,
    *,
    max_new_tokens: int = 256,
    memory_gb: float = 2.0,
    selection: SelectionSource | None = None,
) -> Explorer:
    """Open the explorer; show it as the last line of a notebook cell.

    Args:
        model: a loaded model.
        video: file, or folder of frame images; empty to choose one in the explorer.
        question: what to start with.
        setting: what the controls start with; of up to four, the first, and all of them are in the comparison.
        max_new_tokens: longest answer.
        memory_gb: memory for frames, features and attention of the last few videos, in GiB.
        selection: what frames are chosen with for each question, where a setting says so; the controls start with it.

    Returns:
        The explorer.

    Raises:
        SfllavaError: there are no settings, or more than four.
    """
    settings = [setting or Setting()] if setting is None or isinstance(setting, Setting) else list(setting)
    if not 1 <= len(settings) <= MOST_COMPARED:
        raise SfllavaError(f"needed one setting to start from, or up to four to compare, got {len(settings)}")
    memory, source = int(memory_gb * 2**30), selection or SelectionSource()
    explorer = Explorer(model, video, question, settings[0], max_new_tokens, memory, source)
    if len(settings) > 1:
        explorer.set_compared(settings)
    return explorer
