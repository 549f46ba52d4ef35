"""The sampled frames of a video, and which patches each visual token covers."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

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
from sfllava.runs.video_choice import ChosenFrames
from sfllava.sampler.video import Video
from sfllava.settings import Setting
from sfllava.types import SfllavaError

_UNEVEN = 0.4  # frames whose distances differ more than this from the usual one are drawn in their order
_MOST_TICKS = 12
_LARGE = 10  # the most frames per part that can be drawn large enough to show their cells


def show_frames(
    video: Video, setting: Setting, grid: tuple[int, int] = (24, 24), chosen: ChosenFrames | None = None
) -> go.Figure:
    """Draw the sampled frames on a time axis, and on some of them which patches become one token.

    Args:
        video: the sampled frames.
        setting: how they become visual tokens.
        grid: rows and columns of patches in a frame (`model.info.grid`).
        chosen: the frames that were chosen for a question, to draw the scores of the candidates.

    Returns:
        The figure. The Slow pathway's frames are marked. Up to ten frames of each part are drawn large.
    """
    sources, note = sources_of(video, setting, grid)
    scored = chosen if chosen is not None and len(chosen.candidates) else None
    parts = [(source.name, 112) for source in sources]
    figure, rows = stack_rows([("strip", 150), *([("scores", 90)] if scored else []), *parts])
    draw_strip(figure, rows["strip"], video, detailed_frames(setting.aggregation, len(video.frames)))
    if scored:
        draw_scores(figure, rows["scores"], video, scored)
    for source in sources:
        row, all_frames = rows[source.name], frames_of(source)
        frames = _spread(all_frames)
        count = int((source.frames[:, frames[0]] > 0).sum())
        which = f"{len(frames)} of its {len(all_frames)} frames"
        title = f"{source.name.capitalize()}: {len(source.frames):,} tokens, {count:,} a frame; {which}"
        draw_sheet(figure, row, video, frames, (len(frames), 1), grid, title)
        draw_lines(figure, row, cells_of(source, frames[0]), len(frames), grid, COLOURS.get(source.name))
    if note:
        figure.update_layout(title={"text": html.escape(note), "font_size": 12})
    return figure


def sources_of(video: Video, setting: Setting, grid: tuple[int, int]) -> tuple[list[TokenSource], str]:
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
    axis = time_axis(video)
    x = axis.x
    # of many frames the middle is drawn, so that they stand side by side and each is large enough to see
    share = 1.0 if len(x) <= 14 else 0.5 if len(x) <= 30 else 0.3
    xaxis, yaxis = axes_of(row)
    marked = set(slow)
    pictures = []
    for i, frame in enumerate(video.frames):
        middle = _middle(frame, share)
        source = data_uri(_framed(middle, COLOURS["slow"]) if i in marked else middle, 64)
        pictures.append(
            {
                "source": source, "xref": xaxis, "yref": yaxis, "x": x[i], "y": 0.5,
                "sizex": axis.spacing * 0.96, "sizey": 0.96, "xanchor": "center", "yanchor": "middle",
                "sizing": "contain",
            }
        )  # fmt: skip
    add_pictures(figure, pictures)
    seconds = frame_seconds(video)
    for name, which, symbol, size in (
        ("sampled", range(len(x)), "line-ns-open", 8),
        ("slow", sorted(marked), "triangle-up", 11),
    ):
        if len(which):
            figure.add_scatter(
                x=[x[i] for i in which], y=[-0.22] * len(which), mode="markers", name=f"{name}: {len(which)} frames",
                marker={"symbol": symbol, "size": size, "color": COLOURS.get(name, INK)}, xaxis=xaxis, yaxis=yaxis,
                hovertext=[
                    f"frame {i} of the sample, {video.indices[i]} of the source, {seconds[i]:.2f}" for i in which
                ],
                hoverinfo="text",
            )  # fmt: skip
    axis.label(figure, row, "", showgrid=False)
    end = "" if row == 1 else str(row)
    figure.update_layout({f"yaxis{end}": {"range": [-0.5, 1], "visible": False}})


def draw_scores(figure: go.Figure, row: int, video: Video, chosen: ChosenFrames) -> None:
    """Draw the scores of the candidates on a time axis, and mark the frames that were chosen by them."""
    xaxis, yaxis = axes_of(row)
    x, taken = seconds_of(chosen.candidates, video), set(chosen.selected["frames"])
    detailed = chosen.selected["for"] != "all"
    name, colour = ("chosen for Slow", COLOURS["slow"]) if detailed else ("chosen", COLOURS["fast"])
    hover = [
        f"frame {i} of the source, {at:.2f}: score {score:.4f}"
        for i, at, score in zip(chosen.candidates, x, chosen.scores)
    ]
    figure.add_scatter(
        x=x, y=chosen.scores, mode="lines", line={"color": INK, "width": 1.2}, name=f"score: {len(x):,} candidates",
        hovertext=hover, hoverinfo="text", xaxis=xaxis, yaxis=yaxis,
    )  # fmt: skip
    which = [place for place, i in enumerate(chosen.candidates.tolist()) if i in taken]
    figure.add_scatter(
        x=x[which], y=chosen.scores[which], mode="markers", name=f"{name}: {len(which):,} frames",
        marker={"size": 8, "color": colour}, hovertext=[hover[i] for i in which], hoverinfo="text", xaxis=xaxis,
        yaxis=yaxis,
    )  # fmt: skip
    label = "frame of the source" if np.isnan(video.pts_seconds).any() else "seconds"
    room = 0.02 * float(np.ptp(x)) or 1.0
    label_axes(figure, row, label, "score", range=[float(x.min()) - room, float(x.max()) + room], showgrid=False)
    figure.update_layout({f"yaxis{'' if row == 1 else row}": {"zeroline": False}})


@dataclass(frozen=True)
class TimeAxis:
    """Where frames are drawn from left to right.

    Attributes:
        x: (T) positions: seconds; for a video without a clock the indices; where frames are at very different
            distances, as those chosen for a question, their order.
        spacing: the distance of neighbours.
        title: the axis' label.
        ticks: the text at each frame; empty for a scale of numbers.
    """

    x: np.ndarray
    spacing: float
    title: str
    ticks: tuple[str, ...] = ()

    def label(self, figure: go.Figure, row: int, y_label: str, tickformat: str = "", **x: Any) -> None:
        """Label the axes of a row whose x axis this is, with room for half a frame at both ends."""
        more = {"range": [float(self.x.min()) - 1.6 * self.spacing, float(self.x.max()) + 1.6 * self.spacing], **x}
        if self.ticks:
            step = -(-len(self.x) // _MOST_TICKS)
            more |= {"tickvals": self.x[::step], "ticktext": self.ticks[::step]}
        label_axes(figure, row, self.title, y_label, tickformat, **more)


def time_axis(video: Video) -> TimeAxis:
    """Return where the frames of a video are drawn."""
    seconds = frame_seconds(video)
    gaps = np.diff(seconds)
    usual = float(np.median(gaps)) if len(gaps) else 1.0
    clock = not np.isnan(video.pts_seconds).any()
    name = "seconds" if clock else "frame of the source"
    if len(gaps) and (gaps.min() < _UNEVEN * usual or gaps.max() > usual / _UNEVEN):
        ticks = tuple(f"{at:.1f}" if clock else f"{at:.0f}" for at in seconds)
        return TimeAxis(np.arange(len(seconds), dtype=float), 1.0, f"{name}, not to scale", ticks)
    return TimeAxis(seconds, usual, name)


def frame_seconds(video: Video) -> np.ndarray:
    """Return the second of each frame (T); of a video without a clock, its index."""
    return video.indices.astype(float) if np.isnan(video.pts_seconds).any() else video.pts_seconds


def seconds_of(indices: np.ndarray, video: Video) -> np.ndarray:
    """Return the seconds of other frames (C) of a video, between those that were sampled; without a clock, indices."""
    seconds = frame_seconds(video)
    if np.isnan(video.pts_seconds).any():
        return indices.astype(float)
    found = np.interp(indices, video.indices, seconds)
    if video.fps:  # before the first sampled frame, and after the last
        first, last = video.indices[[0, -1]]
        found = np.where(indices < first, seconds[0] - (first - indices) / video.fps, found)
        found = np.where(indices > last, seconds[-1] + (indices - last) / video.fps, found)
    return found


def frames_of(source: TokenSource) -> list[int]:
    """Return the sampled frames that a part's tokens come from."""
    return source.frames.sum(0).nonzero()[:, 0].tolist()


def _spread(frames: list[int]) -> list[int]:
    """Return at most `_LARGE` of the frames, evenly spaced."""
    if len(frames) <= _LARGE:
        return frames
    return [frames[(2 * i + 1) * len(frames) // (2 * _LARGE)] for i in range(_LARGE)]


def _middle(frame: np.ndarray, share: float) -> np.ndarray:
    """Return the columns in the middle of a frame."""
    left = int(frame.shape[1] * (1 - share) / 2)
    return frame[:, left : frame.shape[1] - left]


def _framed(frame: np.ndarray, colour: str) -> np.ndarray:
    """Return a copy of a frame with a coloured border."""
    frame, width = frame.copy(), max(1, len(frame) // 14)
    inside = np.zeros(frame.shape[:2], bool)
    inside[width:-width, width:-width] = True
    frame[~inside] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return frame


def cells_of(source: TokenSource, frame: int) -> list[tuple[float, ...]]:
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
