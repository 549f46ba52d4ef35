"""One video and one setting as plotly figures: the sampled frames with their cells, the budget, the attention."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import plotly.graph_objects as go
import torch
from PIL import Image

from sfllava.attribution.attribution import Attribution
from sfllava.attribution.sources import TokenSource, token_sources
from sfllava.planning.budget import ContextBudget, context_budget
from sfllava.prompts import Prompt
from sfllava.sampler.video import Video
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

if TYPE_CHECKING:
    from sfllava.models.base import VideoLM


COLOURS = {
    "slow": "#de8f05", "fast": "#0173b2", "visual": "#029e73", "text": "#cc78bc", "rest": "rgba(128,128,128,0.25)",
}  # fmt: skip
RED = "#d62728"
INK = "#7a7a7a"  # legible on white and on black; the explorer's style sheet puts the theme's own in its place
SHOWN = 10  # frames of a pathway that are drawn large enough to see their cells


def show_frames(video: Video, setting: Setting, grid: tuple[int, int] = (24, 24)) -> go.Figure:
    """The sampled frames on a time axis, the Slow ones marked, and the cells of each pathway drawn over frames.

    `grid` is the model's patches of a frame (`model.info.grid`). Up to ten frames of each pathway are drawn large.
    """
    try:
        parts = token_sources(setting.aggregation, torch.zeros(len(video.frames), *grid, 1))
        note = ""
    except SfllavaError as error:
        parts, note = [], str(error)
    if any(part.name == "key frames" for part in parts):  # which ones, only their features tell
        parts, note = [], f"{setting.name}: its frames are chosen by their features, once the video is encoded"
    shown = [(part, _spread(_frames_of(part))) for part in parts]
    figure, rows = _stack([("strip", 150), *((part.name, 112) for part in parts)])
    marked = _frames_of(parts[0]) if parts and parts[0].name == "slow" else []
    _strip(figure, rows["strip"], video, marked)
    for part, frames in shown:
        count = int((part.frames[:, frames[0]] > 0).sum())
        which = f"{len(frames)} of its {len(_frames_of(part))} frames"
        title = f"{part.name.capitalize()}: {len(part.frames):,} tokens, {count:,} a frame; {which}"
        _sheet(figure, rows[part.name], video, frames, (len(frames), 1), grid, title)
        _lines(figure, rows[part.name], _cells(part, frames[0], grid), len(frames), grid, COLOURS.get(part.name))
    if note:
        figure.update_layout(title={"text": html.escape(note), "font_size": 12})
    return figure


def show_budget(
    setting: Setting, model: VideoLM, question: Question | str = "", prompt: Prompt | None = None
) -> go.Figure:
    """Slow, fast and text tokens and the rest of the context as one bar; red where they do not fit."""
    return draw_budget(context_budget(setting, model, question, prompt))


def draw_budget(budget: ContextBudget) -> go.Figure:
    """The bar of a budget."""
    figure = go.Figure()
    for name, tokens in budget.parts.items():
        figure.add_bar(
            x=[tokens], y=[""], orientation="h", name=f"{name} {tokens:,}", hovertext=f"{name}: {tokens:,} tokens",
            hoverinfo="text", marker_color=RED if budget.over else COLOURS[name], marker_line_color="#fff",
            marker_line_width=1,
        )  # fmt: skip
    figure.add_vline(
        budget.context, line_color=INK, annotation_text=f"context {budget.context:,}", annotation_position="top left"
    )
    figure.update_layout(barmode="stack", title={"text": _wrap(str(budget), 100), "font_size": 12})
    if budget.over:
        figure.update_layout(title_font_color=RED)
    figure.update_xaxes(title_text="tokens", range=[0, 1.04 * max(budget.context, budget.visual + budget.text)])
    _plain(figure).update_layout(
        height=230, margin={"t": 100}, legend={"traceorder": "normal", "y": 1.12}, title_y=0.92
    )
    return figure


def show_attention(seen: Attribution, word: int | None = None) -> go.Figure:
    """Where the model looked at one word of an answer, or on average: by frame as bars, and on each pathway's frames.

    Colours are the same for all words of the answer; the highest 1 % of patches share the strongest.
    """
    columns = {part.name: _columns(len(_frames_of(part))) for part in seen.pathways}
    heights = [(name, 40 + 84 * rows) for name, (_, rows) in columns.items()]
    figure, rows = _stack([("strip", 130), ("totals", 130), *heights], top=90)
    first = seen.pathways[0]
    _strip(figure, rows["strip"], seen.video, _frames_of(first) if first.name == "slow" else [])
    seconds, label = _times(seen.video)
    x, y = _axes(rows["totals"])
    for name, total in seen.totals(word).items():
        figure.add_bar(
            x=seconds, y=total, name=name, marker_color=COLOURS.get(name, COLOURS["visual"]), xaxis=x, yaxis=y,
            width=0.8 * _slot(seconds),
            hovertext=[f"frame {i}: {name} {value:.2%}" for i, value in enumerate(total)], hoverinfo="text",
        )  # fmt: skip
    _axis(figure, rows["totals"], label, "attention", range=_range(seconds), tickformat=".1%")
    for part in seen.pathways:
        frames, (across, down) = _frames_of(part), columns[part.name]
        share = float(seen.totals(word)[part.name].sum())
        title = f"{part.name.capitalize()}: {share:.1%} of the attention, {len(frames)} frames"
        _sheet(figure, rows[part.name], seen.video, frames, (across, down), seen.grid, title, grey=True)
        top = max(_strong(part, seen.attention[i]) for i in range(len(seen.words)))
        heat = seen.heat(part.name, word)[frames]
        _heat(figure, rows[part.name], heat, frames, (across, down), COLOURS.get(part.name, COLOURS["visual"]), top)
    said = " ".join(f"<b>[{html.escape(w)}]</b>" if i == word else html.escape(w) for i, w in enumerate(seen.words))
    about = "mean over all words" if word is None else f"word {word + 1} of {len(seen.words)}"
    title = f"{html.escape(seen.question.text)} — {said} ({about})"
    figure.update_layout(barmode="stack", title={"text": title, "font_size": 13})
    return figure


def _stack(rows: Sequence[tuple[str, int]], top: int = 50) -> tuple[go.Figure, dict[str, int]]:
    """An empty figure of rows one below the other, by name and height in pixels; each row's number."""
    gap = 50
    height = sum(pixels for _, pixels in rows) + gap * len(rows) + top
    figure = _plain(go.Figure(layout={"height": height}))
    usable, y = height - top - 20, height - top - 20
    figure.update_layout(margin={"t": top, "b": 20})
    for i, (_, pixels) in enumerate(rows, 1):
        domain = [max(0, (y - pixels) / usable), y / usable]
        figure.update_layout({f"yaxis{i}": {"domain": domain, "anchor": f"x{i}"}, f"xaxis{i}": {"anchor": f"y{i}"}})
        y -= pixels + gap
    return figure, {name: i for i, (name, _) in enumerate(rows, 1)}


def _plain(figure: go.Figure) -> go.Figure:
    figure.update_layout(
        template="none", paper_bgcolor="rgba(0,0,0,0)", plot_bgcolor="rgba(0,0,0,0)", font={"color": INK, "size": 12},
        margin={"l": 60, "r": 20, "t": 50, "b": 40}, legend={"orientation": "h", "y": 1.0, "yanchor": "bottom"},
        title={"x": 0, "xref": "paper", "y": 0.99, "yanchor": "top"}, showlegend=True,
        hoverlabel={"font": {"color": "#fff"}, "bgcolor": "#444"},
    )  # fmt: skip
    return figure


def _axes(row: int) -> tuple[str, str]:
    end = "" if row == 1 else str(row)
    return f"x{end}", f"y{end}"


def _axis(figure: go.Figure, row: int, x_label: str, y_label: str, tickformat: str = "", **x: Any) -> None:
    end = "" if row == 1 else str(row)
    figure.update_layout(
        {
            f"xaxis{end}": {"title": {"text": x_label, "standoff": 4}, "zeroline": False, **x},
            f"yaxis{end}": {"title": y_label, "tickformat": tickformat, "gridcolor": COLOURS["rest"], "nticks": 4},
        }
    )  # fmt: skip


def _times(video: Video) -> tuple[np.ndarray, str]:
    """Where frames stand on the time axis (T), and its label; images without a clock stand by number."""
    if np.isnan(video.pts_seconds).any():
        return video.indices.astype(float), "frame of the source"
    return video.pts_seconds, "seconds"


def _slot(x: np.ndarray) -> float:
    return float(np.median(np.diff(x))) if len(x) > 1 else 1.0


def _range(x: np.ndarray) -> list[float]:
    return [float(x.min()) - 1.6 * _slot(x), float(x.max()) + 1.6 * _slot(x)]  # half of the widest frame, and air


def _strip(figure: go.Figure, row: int, video: Video, slow: Sequence[int]) -> None:
    x, label = _times(video)
    # many frames stand in two or three lines, so that each is large enough to see
    lines = 1 if len(x) <= 14 else 2 if len(x) <= 30 else 3
    xaxis, yaxis = _axes(row)
    marked = set(slow)
    pictures = []
    for i, frame in enumerate(video.frames):
        source = _picture(_framed(frame, COLOURS["slow"]) if i in marked else frame, 64)
        pictures.append(
            {
                "source": source, "xref": xaxis, "yref": yaxis, "x": x[i], "y": lines - i % lines - 0.5,
                "sizex": lines * _slot(x) * 0.96, "sizey": 0.96, "xanchor": "center", "yanchor": "middle",
                "sizing": "contain",
            }
        )  # fmt: skip
    _add_pictures(figure, pictures)
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
    _axis(figure, row, label, "", range=_range(x), showgrid=False)
    end = "" if row == 1 else str(row)
    figure.update_layout({f"yaxis{end}": {"range": [-0.5, lines], "visible": False}})


def _add_pictures(figure: go.Figure, pictures: list[dict[str, Any]]) -> None:
    layout: Any = figure.layout
    figure.update_layout(images=[*layout.images, *pictures])  # all at once: each update checks the layout


def _columns(n: int) -> tuple[int, int]:
    """(columns, rows) of a contact sheet of n frames."""
    rows = -(-n // 17)
    return -(-n // rows), rows


def _sheet(
    figure: go.Figure, row: int, video: Video, frames: Sequence[int], shape: tuple[int, int],
    grid: tuple[int, int], title: str, grey: bool = False,
) -> None:  # fmt: skip
    """Frames side by side, in patches as units: one of h x w, and one patch between them."""
    (across, down), (h, w) = shape, grid
    xaxis, yaxis = _axes(row)
    pictures = []
    for k, i in enumerate(frames):
        frame = video.frames[i]
        if grey:
            frame = np.repeat(frame.mean(-1, keepdims=True).astype(np.uint8), 3, axis=-1)
        pictures.append(
            {
                "source": _picture(frame, 112), "xref": xaxis, "yref": yaxis, "x": k % across * (w + 1),
                "y": k // across * (h + 1), "sizex": w, "sizey": h, "sizing": "stretch", "layer": "below",
            }
        )  # fmt: skip
    _add_pictures(figure, pictures)
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
        text=html.escape(title),
        xref="paper",
        yref="paper",
        x=0,
        y=layout[f"yaxis{end}"].domain[1],
        yanchor="bottom",
        showarrow=False,
    )


def _lines(
    figure: go.Figure, row: int, lines: list[tuple[float, ...]], frames: int, grid: tuple[int, int], colour: str | None
) -> None:
    """Line segments (x0 y0 x1 y1) of one frame drawn over each of a row of frames."""
    xs: list[float | None] = []
    ys: list[float | None] = []
    for k in range(frames):
        for x0, y0, x1, y1 in lines:
            xs += [x0 + k * (grid[1] + 1), x1 + k * (grid[1] + 1), None]
            ys += [y0, y1, None]
    xaxis, yaxis = _axes(row)
    figure.add_scatter(
        x=xs, y=ys, mode="lines", line={"color": colour or COLOURS["visual"], "width": 1}, hoverinfo="skip",
        showlegend=False, xaxis=xaxis, yaxis=yaxis,
    )  # fmt: skip


def _cells(part: TokenSource, frame: int, grid: tuple[int, int]) -> list[tuple[float, ...]]:
    """The borders between the patches of a frame that go into different tokens, and the frame's own, as segments."""
    h, w = grid
    inside = part.patches[part.frames[:, frame] > 0]
    label = np.full((h + 2, w + 2), -1)
    label[1:-1, 1:-1] = inside.argmax(0).reshape(h, w).numpy()
    label[1:-1, 1:-1][inside.sum(0).reshape(h, w).numpy() == 0] = -1
    found: list[tuple[float, ...]] = []
    for column, cut in enumerate((label[1:-1, :-1] != label[1:-1, 1:]).T):
        found += [(column, a, column, b) for a, b in _runs(cut)]
    for line, cut in enumerate(label[:-1, 1:-1] != label[1:, 1:-1]):
        found += [(a, line, b, line) for a, b in _runs(cut)]
    return found


def _runs(flags: np.ndarray) -> list[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[0], flags.astype(int), [0]])))
    return list(zip(edges[::2].tolist(), edges[1::2].tolist()))


def _heat(
    figure: go.Figure, row: int, heat: np.ndarray, frames: Sequence[int], shape: tuple[int, int], colour: str,
    top: float,
) -> None:  # fmt: skip
    """(K h w) values over a contact sheet, from clear to a colour."""
    (across, down), (_, h, w) = shape, heat.shape
    z = np.full((down * (h + 1), across * (w + 1)), np.nan, np.float32)
    which = np.full(z.shape, -1)
    for k, values in enumerate(heat):
        place = (slice(k // across * (h + 1), None), slice(k % across * (w + 1), None))
        z[place][:h, :w] = values
        which[place][:h, :w] = frames[k]
    red, green, blue = (int(colour[i : i + 2], 16) for i in (1, 3, 5))
    xaxis, yaxis = _axes(row)
    figure.add_heatmap(
        z=z, x0=0.5, y0=0.5, dx=1, dy=1, xaxis=xaxis, yaxis=yaxis, zmin=0, zmax=top or 1, showscale=False,
        colorscale=[[0, f"rgba({red},{green},{blue},0)"], [1, f"rgba({red},{green},{blue},0.95)"]],
        customdata=which, hovertemplate="frame %{customdata}: %{z:.4%} of the attention<extra></extra>",
    )  # fmt: skip


def _strong(part: TokenSource, weights: torch.Tensor) -> float:
    """What 99 % of the patches that a pathway has stay below at one word."""
    heat = part.heat(weights[part.tokens])
    return float(np.quantile(heat[_frames_of(part)].numpy(), 0.99))


def _frames_of(part: TokenSource) -> list[int]:
    return part.frames.sum(0).nonzero()[:, 0].tolist()


def _spread(frames: list[int]) -> list[int]:
    """At most SHOWN of them, at equal distances."""
    if len(frames) <= SHOWN:
        return frames
    return [frames[(2 * i + 1) * len(frames) // (2 * SHOWN)] for i in range(SHOWN)]


def _framed(frame: np.ndarray, colour: str) -> np.ndarray:
    frame, wide = frame.copy(), max(1, len(frame) // 14)
    inside = np.zeros(frame.shape[:2], bool)
    inside[wide:-wide, wide:-wide] = True
    frame[~inside] = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return frame


def _picture(frame: np.ndarray, side: int) -> str:
    """A data URI of a JPEG of at most `side` pixels."""
    image = Image.fromarray(frame)
    image.thumbnail((side, side))
    out = io.BytesIO()
    image.save(out, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(out.getvalue()).decode()


def _wrap(text: str, width: int) -> str:
    import textwrap

    return "<br>".join(html.escape(line) for line in textwrap.wrap(text, width))
