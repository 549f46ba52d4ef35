"""Parts of the figures of video frames: rows, axes, contact sheets, and lines over the frames."""

from __future__ import annotations

import base64
import html
import io
import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import plotly.graph_objects as go
from PIL import Image

from sfllava.sampler.video import Video

COLOURS = {
    "slow": "#de8f05", "fast": "#0173b2", "visual": "#029e73", "text": "#cc78bc", "rest": "rgba(128,128,128,0.25)",
}  # fmt: skip
RED = "#d62728"
INK = "#7a7a7a"  # legible on white and on black; the explorer's style sheet replaces it with the theme's own


def stack_rows(rows: Sequence[tuple[str, int]], top: int = 50) -> tuple[go.Figure, dict[str, int]]:
    """Make an empty figure whose rows are stacked from top to bottom.

    Args:
        rows: (name, height in pixels) of each row.
        top: margin above the first row, in pixels.

    Returns:
        The figure, and name -> number of the row, from 1.
    """
    gap = 50
    height = sum(pixels for _, pixels in rows) + gap * len(rows) + top
    figure = plain_figure(go.Figure(layout={"height": height}))
    usable, y = height - top - 20, height - top - 20
    figure.update_layout(margin={"t": top, "b": 20})
    for i, (_, pixels) in enumerate(rows, 1):
        domain = [max(0, (y - pixels) / usable), y / usable]
        figure.update_layout({f"yaxis{i}": {"domain": domain, "anchor": f"x{i}"}, f"xaxis{i}": {"anchor": f"y{i}"}})
        y -= pixels + gap
    return figure, {name: i for i, (name, _) in enumerate(rows, 1)}


def plain_figure(figure: go.Figure) -> go.Figure:
    """Apply the style that all these figures share, and return the figure."""
    figure.update_layout(
        template="none", paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"color": INK, "size": 12},
        margin={"l": 60, "r": 20, "t": 50, "b": 40}, legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        title={"x": 0, "xref": "paper", "y": 0.99, "yanchor": "top"}, showlegend=True,
        hoverlabel={"font": {"color": "#fff"}, "bgcolor": "#444"},
    )  # fmt: skip
    return figure


def axes_of(row: int) -> tuple[str, str]:
    """Return the names that plotly gives to a row's x and y axes."""
    end = "" if row == 1 else str(row)
    return f"x{end}", f"y{end}"


def label_axes(figure: go.Figure, row: int, x_label: str, y_label: str, tickformat: str = "", **x: Any) -> None:
    """Label the axes of a row; further keywords go to its x axis."""
    end = "" if row == 1 else str(row)
    figure.update_layout(
        {
            f"xaxis{end}": {"title": {"text": x_label, "standoff": 4}, "zeroline": False, **x},
            f"yaxis{end}": {"title": y_label, "tickformat": tickformat, "gridcolor": COLOURS["rest"], "nticks": 4},
        }
    )  # fmt: skip


def add_pictures(figure: go.Figure, pictures: list[dict[str, Any]]) -> None:
    """Add images to a figure, as plotly layout images."""
    layout: Any = figure.layout
    figure.update_layout(images=[*layout.images, *pictures])  # all at once: each update validates the whole layout


def sheet_shape(n: int) -> tuple[int, int]:
    """Return (columns, rows) of a contact sheet of n frames, at most 17 per row."""
    rows = -(-n // 17)
    return -(-n // rows), rows


def draw_sheet(
    figure: go.Figure, row: int, video: Video, frames: Sequence[int], shape: tuple[int, int],
    grid: tuple[int, int], title: str, grey: bool = False,
) -> None:  # fmt: skip
    """Draw frames as a contact sheet, whose axes count patches and whose frames are one patch apart.

    Args:
        figure: the figure to draw in.
        row: the row of the figure.
        video: the sampled frames.
        frames: indices of the frames to draw.
        shape: (columns, rows) of the sheet.
        grid: rows and columns of patches in a frame.
        title: text above the sheet.
        grey: whether to draw the frames without colour.
    """
    (across, down), (h, w) = shape, grid
    xaxis, yaxis = axes_of(row)
    pictures = []
    for k, i in enumerate(frames):
        frame = video.frames[i]
        if grey:
            frame = np.repeat(frame.mean(-1, keepdims=True).astype(np.uint8), 3, axis=-1)
        pictures.append(
            {
                "source": data_uri(frame, 112), "xref": xaxis, "yref": yaxis, "x": k % across * (w + 1),
                "y": k // across * (h + 1), "sizex": w, "sizey": h, "sizing": "stretch", "layer": "below",
            }
        )  # fmt: skip
    add_pictures(figure, pictures)
    end = "" if row == 1 else str(row)
    plain = {"visible": False, "constrain": "domain"}
    figure.update_layout(
        {
            f"xaxis{end}": {**plain, "range": [-0.5, across * (w + 1) - 0.5], "constraintoward": "left"},
            f"yaxis{end}": {
                **plain, "range": [down * (h + 1) - 0.5, -0.5], "scaleanchor": xaxis, "scaleratio": 1,
                "constraintoward": "top",
            },
        }
    )  # fmt: skip
    layout: Any = figure.layout
    figure.add_annotation(
        text=html.escape(title), xref="paper", yref="paper", x=0, y=layout[f"yaxis{end}"].domain[1],
        yanchor="bottom", showarrow=False,
    )  # fmt: skip


def draw_lines(
    figure: go.Figure, row: int, lines: list[tuple[float, ...]], frames: int, grid: tuple[int, int], colour: str | None
) -> None:
    """Draw line segments (x0 y0 x1 y1) over each frame of a row."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for k in range(frames):
        for x0, y0, x1, y1 in lines:
            xs += [x0 + k * (grid[1] + 1), x1 + k * (grid[1] + 1), None]
            ys += [y0, y1, None]
    xaxis, yaxis = axes_of(row)
    figure.add_scatter(
        x=xs, y=ys, mode="lines", line={"color": colour or COLOURS["visual"], "width": 1}, hoverinfo="skip",
        showlegend=False, xaxis=xaxis, yaxis=yaxis,
    )  # fmt: skip


def data_uri(frame: np.ndarray, side: int) -> str:
    """Return a frame as the data URI of a JPEG whose longer side has at most `side` pixels."""
    image = Image.fromarray(frame)
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def wrap_text(text: str, width: int) -> str:
    """Break a text into lines of at most `width` characters, and escape them for HTML."""
    return "<br>".join(html.escape(line) for line in textwrap.wrap(text, width))
