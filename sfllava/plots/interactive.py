"""Charts as plotly figures: hovering shows the setting, the interval, and the number of questions and failures."""

from __future__ import annotations

import html
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
from plotly.offline import get_plotlyjs
from plotly.subplots import make_subplots

from sfllava.files import write_file
from sfllava.plots.chart import BEYOND, Chart, Panel, Series, arrange, beyond_known, log_ticks, wrap_names

# seaborn's "colorblind" palette, so that both drawings of a chart have the same colours
_COLOURS = (
    "#0173b2", "#de8f05", "#029e73", "#d55e00", "#cc78bc", "#ca9161", "#fbafe4", "#949494", "#ece133", "#56b4e9",
)  # fmt: skip
_SYMBOLS = ("circle", "square", "diamond", "triangle-up", "triangle-down", "cross", "x", "star")


def render(chart: Chart) -> go.Figure:
    """Render a chart as a plotly figure."""
    rows, columns, places = arrange(chart.panels)
    spans = {(row, column): span for row, column, span in places}
    grid = [[(row, column) for column in range(columns)] for row in range(rows)]
    cells = [[{"colspan": spans[cell]} if cell in spans else None for cell in line] for line in grid]
    titles = [html.escape(panel.title) for panel in chart.panels]
    below = max(_names_height(panel) for panel in chart.panels) + 60  # pixels below a row of axes: names and label
    height = max(420, 300 + below) * rows
    gap = below / (height - 60) if rows > 1 else 0
    figure = make_subplots(rows, columns, specs=cells, subplot_titles=titles, vertical_spacing=gap)
    named: set[str] = set()
    for i, panel in enumerate(chart.panels):
        at: dict[str, Any] = {"row": places[i][0] + 1, "col": places[i][1] + 1}
        if panel.heat:
            figure.add_trace(_heat(panel), **at)
        for series in panel.series:
            figure.add_trace(_trace(series, series.name not in named), **at)
            named.add(series.name)
        if panel.level is not None:
            where = {"annotation_text": "chance", "annotation_position": "bottom right"}
            figure.add_hline(panel.level, line_dash="dash", line_color="#666", **where, **at)
        if (span := beyond_known(panel)) is not None:
            where = {"annotation_text": BEYOND, "annotation_position": "top left"}
            figure.add_vrect(*span, fillcolor="#888", opacity=0.15, line_width=0, **where, **at)
        figure.update_xaxes(title_text=panel.x_label, **at)
        if panel.names:
            texts = ["<br>".join(map(html.escape, lines)) for lines in wrap_names(panel.names)]
            figure.update_xaxes(tickvals=panel.names, ticktext=texts, **at)
        if panel.log_x:
            ticks, labels = log_ticks(panel)
            figure.update_xaxes(type="log", tickvals=ticks, ticktext=labels, **at)
        # omitted where the panel to the left has the same title, since it would be drawn over that panel
        repeated = places[i][1] and chart.panels[i - 1].y_label == panel.y_label
        # the same y range in all panels, so that heights can be compared
        figure.update_yaxes(title_text=None if repeated else panel.y_label, matches=None if panel.heat else "y", **at)
    figure.update_layout(
        template="plotly_white", height=height, margin={"t": 60, "b": below + 40}, barmode="group",
        legend={"orientation": "h", "yref": "container", "y": 0, "yanchor": "bottom"},
    )  # fmt: skip
    title = f"<b>{html.escape(chart.title)}</b>" if chart.title else ""
    lines = [line for line in (title, html.escape(chart.note)) if line]
    if lines:
        figure.update_layout(
            title={"text": "<br>".join(lines), "font_size": 13, "x": 0, "xref": "paper", "yref": "container", "y": 1,
                   "yanchor": "top", "pad": {"t": 8}},
            margin_t=60 + 20 * len(lines),
        )  # fmt: skip
    return figure


def _names_height(panel: Panel) -> float:
    """Return the height in pixels of the names on a panel's x axis, slanted as plotly draws long ones."""
    sizes = [(6 * max(map(len, lines)), 14 * len(lines)) for lines in wrap_names(panel.names)]
    return max((0.5 * long + 0.87 * high for long, high in sizes), default=14.0)  # sine and cosine of 30 degrees


def _trace(series: Series, first: bool) -> Any:
    common: dict[str, Any] = {
        "x": list(series.x), "y": list(series.y), "name": html.escape(series.name), "legendgroup": series.name,
        "showlegend": first, "hovertext": [html.escape(text) for text in series.hover] or None,
        "hoverinfo": "text" if series.hover else "skip",
    }  # fmt: skip
    colour = _COLOURS[series.colour % len(_COLOURS)]
    if series.low is not None and series.high is not None:
        common["error_y"] = {
            "array": [high - y for high, y in zip(series.high, series.y)],
            "arrayminus": [y - low for low, y in zip(series.low, series.y)],
        }
    if series.mark == "bars":
        return go.Bar(marker_color=colour, **common)
    if series.mark == "front":
        return go.Scatter(mode="lines", line={"shape": "hv", "dash": "dash", "color": "#777"}, **common)
    mode = "lines+markers" if series.mark == "line" else "markers"
    marker = {"symbol": _SYMBOLS[series.colour % len(_SYMBOLS)], "size": 9, "color": colour}
    return go.Scatter(mode=mode, marker=marker, line={"color": colour}, **common)


def _heat(panel: Panel) -> go.Heatmap:
    heat = panel.heat
    assert heat is not None
    return go.Heatmap(
        x=list(heat.columns), y=list(heat.rows), z=[list(row) for row in heat.values], colorscale="Cividis",
        text=[["" if v is None else f"{v:.1f}" for v in row] for row in heat.values], texttemplate="%{text}",
        hovertext=[[html.escape(text) for text in row] for row in heat.hover], hoverinfo="text",
        colorbar={"title": "accuracy, %"},
    )  # fmt: skip


def save(figure: go.Figure, path: Path) -> Path:
    """Write an HTML file, with plotly's script next to it, once per folder; return the path."""
    text = figure.to_html(include_plotlyjs="directory", div_id=path.stem, config={"displaylogo": False})
    if not (script := path.with_name("plotly.min.js")).exists():
        write_file(script, get_plotlyjs().encode())
    write_file(path, text.encode())
    return path
