"""The sampled frames of a video, and which patches each visual token covers."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import torch

from sfllava.aggregators.base import detailed_frames, image_count, needs_features
from sfllava.aggregators.sources import TokenSource, token_sources
from sfllava.plots.canvas import (
    COLOURS,
    INK,
    add_pictures,
    axes_of,
    data_uri,
    draw_lines,
    draw_sheet,
    label_axes,
    stack_rows,
)  # fmt: skip
from sfllava.sampler.video import Video
from sfllava.settings import Setting
from sfllava.types import SfllavaError

_LARGE = 10  # the most frames per part that can be drawn large enough to show their cells


def show_frames(video: Video, setting: Setting, grid: tuple[int, int] = (24, 24)) -> go.Figure:
    """Draw the sampled frames on a time axis, and on some of them which patches become one token.

    Args:
        video: the sampled frames.
        setting: how they become visual tokens.
        grid: rows and columns of patches in a frame (`model.info.grid`).

    Returns:
        The figure. The Slow pathway's frames are marked. Up to ten frames of each part are drawn large.
    """
    sources, note = _sources(video, setting, grid)
    figure, rows = stack_rows([("strip", 150), *((source.name, 112) for source in sources)])
    draw_strip(figure, rows["strip"], video, detailed_frames(setting.aggregation, len(video.frames)))
    for source in sources:
        row, all_frames = rows[source.name], frames_of(source)
        frames = _spread(all_frames)
        count = int((source.frames[:, frames[0]] > 0).sum())
        which = f"{len(frames)} of its {len(all_frames)} frames"
        title = f"{source.name.capitalize()}: {len(source.frames):,} tokens, {count:,} a frame; {which}"
        draw_sheet(figure, row, video, frames, (len(frames), 1), grid, title)
        draw_lines(figure, row, _cells(source, frames[0]), len(frames), grid, COLOURS.get(source.name))
    if note:
        figure.update_layout(title={"text": html.escape(note), "font_size": 12})
    return figure


def _sources(video: Video, setting: Setting, grid: tuple[int, int]) -> tuple[list[TokenSource], str]:
    """Return the source of each token, by part, and a note; without sources the note gives the reason."""
    aggregator, count = setting.aggregation, len(video.frames)
    if needs_features(aggregator):
        return [], f"{setting.name}: its tokens depend on the features of the frames, so encode the video first"
    try:
        return token_sources(aggregator, torch.zeros(image_count(aggregator, count), *grid, 1), count), ""
    except SfllavaError as error:
        return [], str(error)


def draw_strip(figure: go.Figure, row: int, video: Video, slow: Sequence[int]) -> None:
    """Draw the frames on a time axis, and mark those of the Slow pathway."""
    x, label = frame_times(video)
    # many frames take two or three lines, so that each is large enough to see
    lines = 1 if len(x) <= 14 else 2 if len(x) <= 30 else 3
    xaxis, yaxis = axes_of(row)
    marked = set(slow)
    pictures = []
    for i, frame in enumerate(video.frames):
        source = data_uri(_framed(frame, COLOURS["slow"]) if i in marked else frame, 64)
        pictures.append(
            {
                "source": source, "xref": xaxis, "yref": yaxis, "x": x[i], "y": lines - i % lines - 0.5,
                "sizex": lines * frame_spacing(x) * 0.96, "sizey": 0.96, "xanchor": "center", "yanchor": "middle",
                "sizing": "contain",
            }
        )  # fmt: skip
    add_pictures(figure, pictures)
    for name, which, symbol, size in (
        ("sampled", range(len(x)), "line-ns-open", 8),
        ("slow", sorted(marked), "triangle-up", 11),
    ):
        if len(which):
            figure.add_scatter(
                x=[x[i] for i in which], y=[-0.22] * len(which), mode="markers", name=f"{name}: {len(which)} frames",
                marker={"symbol": symbol, "size": size, "color": COLOURS.get(name, INK)}, xaxis=xaxis, yaxis=yaxis,
                hovertext=[f"frame {i} of the sample, {video.indices[i]} of the source, {x[i]:.2f}" for i in which],
                hoverinfo="text",
            )  # fmt: skip
    label_axes(figure, row, label, "", range=time_range(x), showgrid=False)
    end = "" if row == 1 else str(row)
    figure.update_layout({f"yaxis{end}": {"range": [-0.5, lines], "visible": False}})


def frame_times(video: Video) -> tuple[np.ndarray, str]:
    """Return the frames' positions on the time axis (T) and its label; frames without times are placed by index."""
    if np.isnan(video.pts_seconds).any():
        return video.indices.astype(float), "frame of the source"
    return video.pts_seconds, "seconds"


def frame_spacing(x: np.ndarray) -> float:
    """Return the median distance between neighbouring frames on the time axis."""
    return float(np.median(np.diff(x))) if len(x) > 1 else 1.0


def time_range(x: np.ndarray) -> list[float]:
    """Return the range of a time axis, with room for half a frame at both ends, however wide it is drawn."""
    return [float(x.min()) - 1.6 * frame_spacing(x), float(x.max()) + 1.6 * frame_spacing(x)]


def frames_of(source: TokenSource) -> list[int]:
    """Return the sampled frames that a part's tokens come from."""
    return source.frames.sum(0).nonzero()[:, 0].tolist()


def _spread(frames: list[int]) -> list[int]:
    """Return at most `_LARGE` of the frames, evenly spaced."""
    if len(frames) <= _LARGE:
        return frames
    return [frames[(2 * i + 1) * len(frames) // (2 * _LARGE)] for i in range(_LARGE)]


def _framed(frame: np.ndarray, colour: str) -> np.ndarray:
    """Return a copy of a frame with a coloured border."""
    frame, width = frame.copy(), max(1, len(frame) // 14)
    inside = np.zeros(frame.shape[:2], bool)
    inside[width:-width, width:-width] = True
    frame[~inside] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return frame


def _cells(source: TokenSource, frame: int) -> list[tuple[float, ...]]:
    """Return the borders of a frame, and the borders between patches of different tokens, as line segments."""
    inside = source.patches[source.frames[:, frame] > 0]
    label = np.full([size + 2 for size in inside.shape[1:]], -1)
    label[1:-1, 1:-1] = np.where(inside.sum(0) == 0, -1, inside.argmax(0))
    found: list[tuple[float, ...]] = []
    for column, cut in enumerate((label[1:-1, :-1] != label[1:-1, 1:]).T):
        found += [(column, start, column, end) for start, end in _runs(cut)]
    for line, cut in enumerate(label[:-1, 1:-1] != label[1:, 1:-1]):
        found += [(start, line, end, line) for start, end in _runs(cut)]
    return found


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    """Return (start, end) of each run of true values; the end is exclusive."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))
