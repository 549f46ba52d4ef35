"""The attention of an answer, drawn over the frames."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np
import plotly.graph_objects as go
import torch

from sfllava.aggregators.base import detailed_frames
from sfllava.aggregators.sources import TokenSource
from sfllava.attribution.attribution import Attribution
from sfllava.plots.canvas import COLOURS, axes_of, draw_sheet, sheet_shape, stack_rows
from sfllava.plots.frames import draw_strip, frames_of, time_axis
from sfllava.sampler.video import Video


def show_attention(attribution: Attribution, word: int | None = None) -> go.Figure:
    """Draw the attention on each frame as bars, and over the frames of each part of the visual tokens.

    Args:
        attribution: an answer and its attention.
        word: index of a word of the answer; None for the mean over all words.

    Returns:
        The figure. The colour scale is the same for all words; the highest 1 % of patches get the strongest colour.
    """
    shapes = {source.name: sheet_shape(len(frames_of(source))) for source in attribution.sources}
    heights = [(name, 40 + 84 * rows) for name, (_, rows) in shapes.items()]
    figure, rows = stack_rows([("strip", 130), ("totals", 130), *heights], top=90)
    video, setting = attribution.video, attribution.setting
    draw_strip(figure, rows["strip"], video, detailed_frames(setting.aggregation, len(video.frames)))
    _draw_totals(figure, rows["totals"], video, attribution.totals(word))
    for source in attribution.sources:
        name, frames, shape = source.name, frames_of(source), shapes[source.name]
        heat = attribution.heat(name, word)
        title = f"{name.capitalize()}: {float(heat.sum()):.1%} of the attention, {len(frames)} frames"
        draw_sheet(figure, rows[name], video, frames, shape, attribution.grid, title, grey=True)
        top = max(strongest(source, weights) for weights in attribution.attention)
        _draw_heat(figure, rows[name], heat[frames], frames, shape, COLOURS.get(name, COLOURS["visual"]), top)
    words = [html.escape(text) for text in attribution.words]
    answer = " ".join(f"<b>[{text}]</b>" if i == word else text for i, text in enumerate(words))
    about = "mean over all words" if word is None else f"word {word + 1} of {len(words)}"
    title = f"{html.escape(attribution.question.text)} — {answer} ({about})"
    figure.update_layout(barmode="stack", title={"text": title, "font_size": 13})
    return figure


def _draw_totals(figure: go.Figure, row: int, video: Video, totals: dict[str, np.ndarray]) -> None:
    axis = time_axis(video)
    x, y = axes_of(row)
    for name, total in totals.items():
        figure.add_bar(
            x=axis.x, y=total, name=name, marker_color=COLOURS.get(name, COLOURS["visual"]), xaxis=x, yaxis=y,
            width=0.8 * axis.spacing,
            hovertext=[f"frame {i}: {name} {value:.2%}" for i, value in enumerate(total)], hoverinfo="text",
        )  # fmt: skip
    axis.label(figure, row, "attention", tickformat=".1%")


def _draw_heat(
    figure: go.Figure, row: int, heat: np.ndarray, frames: Sequence[int], shape: tuple[int, int], colour: str,
    top: float,
) -> None:  # fmt: skip
    """Draw a heat map (K h w) over a contact sheet of K frames, from transparent to the given colour."""
    (across, down), (_, h, w) = shape, heat.shape
    z = np.full((down * (h + 1), across * (w + 1)), np.nan, np.float32)
    which = np.full(z.shape, -1)
    for k, values in enumerate(heat):
        cell = (slice(k // across * (h + 1), None), slice(k % across * (w + 1), None))
        z[cell][:h, :w] = values
        which[cell][:h, :w] = frames[k]
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    xaxis, yaxis = axes_of(row)
    figure.add_heatmap(
        z=z, x0=0.5, y0=0.5, dx=1, dy=1, xaxis=xaxis, yaxis=yaxis, zmin=0, zmax=top or 1, showscale=False,
        colorscale=[[0, f"rgba({red},{green},{blue},0)"], [1, f"rgba({red},{green},{blue},0.95)"]],
        customdata=which, hovertemplate="frame %{customdata}: %{z:.4%} of the attention<extra></extra>",
    )  # fmt: skip


def strongest(source: TokenSource, weights: torch.Tensor) -> float:
    """Return the 99th percentile of one word's attention over the patches of a part of the tokens."""
    heat = source.heat(weights[source.tokens])
    return float(np.quantile(heat[frames_of(source)].numpy(), 0.99))
