"""Charts as SVG inside a page, in the colours of its light or dark theme."""

from __future__ import annotations

import io
import re
from html import escape

import matplotlib
import seaborn as sns

from sfllava.plots.chart import Chart
from sfllava.plots.static import GREY, INK, STYLE, render

WIDTH = 8.0  # inches; text of 8 points is about 15 pixels high on a page 1,100 pixels wide
_HEAD = re.compile(r"^.*?(?=<svg )", re.DOTALL)
_NOT_NEEDED = re.compile(r"<metadata>.*?</metadata>|<style type=.*?</style>", re.DOTALL)
_SIZE = re.compile(r' width="[\d.]+pt" height="[\d.]+pt"')


def inline_svg(chart: Chart, name: str, row_height: float = 3.0) -> str:
    """Return a chart as an SVG element that fills the width of its place.

    Its text and lines have the colours `--ink`, `--soft` and `--line` of the page, and series `--c0` to `--c9`.

    Args:
        chart: the chart.
        name: of the chart, which makes the ids in it unique in the page.
        row_height: height of a row of panels in inches, at a width of `WIDTH`.
    """
    figure = render(chart, WIDTH, row_height)
    out = io.StringIO()
    with matplotlib.rc_context(STYLE):
        figure.savefig(out, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    text = _NOT_NEEDED.sub("", _HEAD.sub("", out.getvalue(), count=1))
    text = _SIZE.sub(f' role="img" aria-label="{escape(chart.title or name)}"', text, count=1)
    for start in ('id="', "url(#", 'xlink:href="#'):
        text = text.replace(start, f"{start}{name}-")
    for colour, variable in _colours().items():
        text = text.replace(colour, f"var({variable})")
    return re.sub(r" *\n *", "\n", text)


def _colours() -> dict[str, str]:
    series = {colour: f"--c{i}" for i, colour in enumerate(sns.color_palette("colorblind", 10).as_hex())}
    return {INK["text.color"]: "--ink", INK["grid.color"]: "--line", GREY: "--soft", **series}
