"""Small pieces of HTML that notebooks and reports share: tables, bars of intervals, chips. All text is escaped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape

# JupyterLab's variables where there are any, so that a cell follows its theme; otherwise the reader's light or dark.
STYLE = """<style>
.sfl { color-scheme: light dark; }
[data-jp-theme-light="true"] .sfl { color-scheme: light; } [data-jp-theme-light="false"] .sfl { color-scheme: dark; }
.sfl { --sfl-text: var(--jp-content-font-color1, light-dark(#1b1f24, #e6e8eb));
  --sfl-soft: var(--jp-content-font-color2, light-dark(#57606a, #9aa4af));
  --sfl-line: var(--jp-border-color2, light-dark(#d8dee4, #3a424b));
  --sfl-bar: light-dark(#0072b2, #56b4e9); --sfl-fill: light-dark(#eef2f6, #252b32);
  color: var(--sfl-text); font: 13px/1.45 var(--jp-content-font-family, system-ui, sans-serif); }
.sfl table { border-collapse: collapse; font-variant-numeric: tabular-nums; }
.sfl th, .sfl td { padding: 3px 10px; text-align: left; border-bottom: 1px solid var(--sfl-line); vertical-align: top; }
.sfl th { color: var(--sfl-soft); font-weight: 600; } .sfl .num { text-align: right; }
.sfl caption { text-align: left; font-weight: 600; padding: 0 0 4px; } .sfl .soft { color: var(--sfl-soft); }
.sfl .chip { display: inline-block; padding: 0 7px; margin: 0 3px 2px 0; border-radius: 9px;
  background: var(--sfl-fill); } .sfl svg { vertical-align: middle; min-width: 90px; }
.sfl .nowrap, .sfl td.num { white-space: nowrap; }
.jp-OutputArea .jp-RenderedHTMLCommon .sfl :is(td, th) { padding: 3px 10px; text-align: left; vertical-align: top;
  max-width: 40em; border-bottom: 1px solid var(--sfl-line); }
.jp-OutputArea .jp-RenderedHTMLCommon .sfl td.num { text-align: right; }
.jp-OutputArea .jp-RenderedHTMLCommon .sfl :is(table, tr, thead) { margin: 0; background: none; font-size: inherit; }
</style>"""


class Html(str):
    """HTML that is safe already: `cell` leaves it as it is."""


def cell(value: object) -> str:
    """A value as HTML: numbers with thousands separators, missing values as a dash, everything else escaped."""
    if isinstance(value, Html):
        return value
    if value is None or (isinstance(value, float) and value != value):
        return '<span class="soft">–</span>'
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    return escape(f"{value:,.4g}" if isinstance(value, float) else str(value))


def table(rows: Iterable[Mapping[str, object]], columns: Sequence[str] | None = None, caption: str = "") -> Html:
    """Rows as an HTML table.

    Args:
        rows: column -> value; `Html` values are taken as they are, all others are escaped.
        columns: the columns to show, in order. Default: those of the first row.
        caption: a line above the table.

    Returns:
        A `<table>` in which numbers stand to the right.
    """
    rows = list(rows)
    columns = list(columns if columns is not None else rows[0] if rows else [])
    head = "".join(f"<th>{escape(name)}</th>" for name in columns)
    lines = [
        "<tr>" + "".join(f"<td{_align(row.get(name))}>{cell(row.get(name))}</td>" for name in columns) + "</tr>"
        for row in rows
    ]
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return Html(f"<table>{above}<thead><tr>{head}</tr></thead><tbody>{''.join(lines)}</tbody></table>")


def _align(value: object) -> str:
    return ' class="num"' if isinstance(value, (int, float)) and not isinstance(value, bool) else ""


def interval_bar(value: float, low: float, high: float, least: float = 0.0, most: float = 100.0) -> Html:
    """A value and its interval as a small bar: a line from `low` to `high` with a dot at `value`.

    Args:
        value: the estimate.
        low: the lower end of its interval.
        high: the upper end of its interval.
        least: the value at the left end of the bar.
        most: the value at the right end of the bar.
    """
    if value != value or most <= least:
        return Html("")
    width = 120

    def x(number: float) -> float:
        return 4 + (width - 8) * (min(max(number, least), most) - least) / (most - least)

    middle = f"{x(0):.1f}"
    zero = f'<line x1="{middle}" x2="{middle}" y1="1" y2="13" stroke="var(--sfl-soft)"/>' if least < 0 < most else ""
    return Html(
        # with a view box, notebooks that narrow it scale it instead of cutting it off
        f'<svg width="{width}" height="14" viewBox="0 0 {width} 14" role="img" '
        f'aria-label="{value:.1f}, from {low:.1f} to {high:.1f}">'
        f'<line x1="4" x2="{width - 4}" y1="7" y2="7" stroke="var(--sfl-line)" stroke-width="2"/>{zero}'
        f'<line x1="{x(low):.1f}" x2="{x(high):.1f}" y1="7" y2="7" stroke="var(--sfl-bar)" stroke-width="4"/>'
        f'<circle cx="{x(value):.1f}" cy="7" r="4" fill="var(--sfl-bar)"/></svg>'
    )


def chips(values: Iterable[object]) -> Html:
    """Short values one after the other, each on a background of its own."""
    return Html("".join(f'<span class="chip">{cell(value)}</span>' for value in values))


def block(*parts: str) -> Html:
    """Parts as one block with the style that they need: what a `_repr_html_` returns."""
    return Html(f'{STYLE}<div class="sfl">{"".join(parts)}</div>')
