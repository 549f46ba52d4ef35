"""The report as a single HTML page. Every text is escaped here, and the page loads no other files."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from html import escape

from sfllava.ablation import load_ablation
from sfllava.published.reproduction.paper import MAIN_TABLE, PAPER
from sfllava.published.reproduction.results import Result, Results, RunRecord, count_results

SAMPLING = (
    "The 95 % intervals are only for our numbers: they cover the sampling error of our questions, clustered by video. "
    "The paper reports no intervals, so each difference also contains the paper's own error."
)
_STYLE = """
:root { color-scheme: light dark; --ink: #1c1e21; --soft: #5d646c; --line: #dfe3e8; --back: #ffffff; --band: #f5f7f9;
  --ours: #0173b2; --paper: #b56a00; --no: #b3261e; }
@media (prefers-color-scheme: dark) { :root { --ink: #e6e8eb; --soft: #a2a9b1; --line: #3a4047; --back: #16191d;
  --band: #1f2328; --ours: #5cb8f0; --paper: #f0a63c; --no: #ff8a80; } }
* { box-sizing: border-box; }
body { margin: 0 auto; padding: 24px 28px 48px; max-width: 1280px; background: var(--back); color: var(--ink);
  font: 14px/1.45 system-ui, -apple-system, "Segoe UI", Roboto, "Noto Sans", sans-serif; }
h1 { font-size: 22px; margin: 0 0 8px; } h2 { font-size: 17px; margin: 32px 0 4px; }
p { max-width: 900px; margin: 6px 0; } .soft { color: var(--soft); }
.counts { display: flex; flex-wrap: wrap; gap: 8px 28px; margin: 14px 0 10px; padding: 0; list-style: none; }
.counts b { display: block; font-size: 22px; line-height: 1.2; } .counts li { color: var(--soft); font-size: 13px; }
.counts b { color: var(--ink); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; margin: 8px 0; font-variant-numeric: tabular-nums; }
th, td { padding: 4px 8px; text-align: left; border-bottom: 1px solid var(--line); vertical-align: middle; }
th { font-weight: 600; font-size: 12.5px; color: var(--soft); vertical-align: bottom; }
.number { text-align: right; white-space: nowrap; } .name { white-space: nowrap; }
tr.first td { border-top: 2px solid var(--line); } td.ours { color: var(--ours); font-weight: 600; }
td.paper { color: var(--paper); font-weight: 600; } td.no { color: var(--no); }
td.none { color: var(--soft); font-weight: 400; } a { color: inherit; }
td.notes { font-size: 12.5px; min-width: 72px; }
th { white-space: nowrap; } td.judge { font-size: 12px; line-height: 1.25; max-width: 140px; overflow-wrap: anywhere; }
svg { display: block; } svg .axis { stroke: var(--line); } svg .interval { stroke: var(--ours); stroke-width: 2.5; }
svg .ours { fill: var(--ours); } svg .paper { fill: none; stroke: var(--paper); stroke-width: 2; }
.key svg { display: inline; vertical-align: -3px; margin: 0 4px 0 12px; }
ol.notes li { margin: 2px 0; overflow-wrap: anywhere; } ol.notes li:target { background: var(--band); }
table.runs td { font-size: 12.5px; overflow-wrap: anywhere; vertical-align: top; }
table.runs td:nth-child(2) { min-width: 260px; }
"""
_WIDTH, _HEIGHT = 140, 18


def make_page(results: Results, version: str) -> str:
    """Return the report.

    Args:
        results: The results.
        version: The version of the package, for the last line.
    """
    notes = list(dict.fromkeys(note for result in results.results for note in result.notes))
    tables = dict.fromkeys(result.number.table for result in results.results)
    sections = [_section(table, [r for r in results.results if r.number.table == table], notes) for table in tables]
    body = [
        f"<h1>Reproduction of {escape(PAPER)}</h1>",
        _summary(results),
        *sections,
        _notes(notes),
        _runs(results.runs),
        f'<p class="soft">Written by sfllava {escape(version)}. The same numbers are in reproduction.csv and '
        "reproduction.tex.</p>",
    ]
    head = '<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">'
    title = f"<title>Reproduction of {escape(PAPER)}</title>"
    text = "\n".join(body)
    start = f'<!doctype html>\n<html lang="en"><head>{head}{title}<style>{_STYLE}</style></head>'
    return f"{start}<body>\n{text}\n</body></html>\n"


def summary_lines(results: Results) -> list[str]:
    """Return a summary of a reproduction as sentences."""
    counts = count_results(results.distinct())
    asked = sum(counts[state] for state in ("measured", "not judged", "not run"))
    lines = [
        f"Of {asked} numbers of the paper, {counts['measured']} are measured, {counts['not judged']} not judged and "
        f"{counts['not run']} not run."
    ]
    if counts["compared"]:
        lines.append(
            f"The paper's number is in our 95 % interval in {counts['inside']} of {counts['compared']} cases; "
            f"{counts['comparable']} of these cases have no note, so they are comparable."
        )
    if results.not_asked:
        lines.append(f"{results.not_asked} other numbers of the paper were not selected.")
    return lines


def _summary(results: Results) -> str:
    counts = count_results(results.distinct())
    shown = [
        (counts["measured"], "measured"),
        (f"{counts['inside']} of {counts['compared']}", "have the paper's number in our interval"),
        (counts["comparable"], "comparable (no note)"),
        (counts["not judged"], "not judged"),
        (counts["not run"], "not run"),
    ]
    items = "".join(f"<li><b>{value}</b>{text}</li>" for value, text in shown)
    key = f'<span class="key">{_mark("ours")}ours with its interval{_mark("paper")}the paper</span>'
    more = f" {escape(summary_lines(results)[-1])}" if results.not_asked else ""
    return f'<ul class="counts">{items}</ul><p class="soft">{escape(SAMPLING)}{more}</p><p class="soft">{key}</p>'


def _section(table: str, results: Sequence[Result], notes: Sequence[str]) -> str:
    if table == MAIN_TABLE:
        title, text = "Main table", "50 frames: ten Slow frames of 12x24 tokens, and 4x4 Fast tokens per frame."
    else:
        title, text = f"Ablation {table.replace('_', ' ')}", load_ablation(table).question
    judged = any(result.judge for result in results)
    ranges = {percent: _range(r for r in results if r.number.percent == percent) for percent in (True, False)}
    heads = [
        "model", "benchmark", "measure" if table == MAIN_TABLE else "setting", *(["judge"] if judged else []),
        "#paper", "#ours [95 %]", _range_text(results, ranges), "#ours &minus; paper", "paper in<br>interval", "#n",
        "#failed", "notes",
    ]  # fmt: skip
    head = "".join(f'<th class="number">{h[1:]}</th>' if h.startswith("#") else f"<th>{h}</th>" for h in heads)
    rows, before = [], None
    for result in results:
        group = result.number.run if table != MAIN_TABLE else result.number.size
        rows.append(_row(result, judged, ranges[result.number.percent], notes, first=group != before))
        before = group
    return (
        f'<h2 id="{escape(table)}">{escape(title)}</h2><p class="soft">{escape(text)}</p>'
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )


def _row(result: Result, judged: bool, span: tuple[float, float], notes: Sequence[str], first: bool) -> str:
    number = result.number
    what = number.measure if number.table == MAIN_TABLE else number.label
    paper = "out of memory" if number.value is None else f"{number.value:.{number.decimals}f}"
    cells = [f'<td class="name">{escape(name)}</td>' for name in (number.size, number.benchmark, what)]
    cells += [f'<td class="judge">{escape(result.judge or "–")}</td>'] if judged else []
    cells.append(f'<td class="number {"none" if number.value is None else "paper"}">{paper}</td>')
    if result.ours is None:
        cells.append(f'<td class="none" colspan="6">{escape(result.state)}</td>')
    else:
        inside = {True: "yes", False: "no", None: "&ndash;"}[result.inside]
        failed = f"{result.failed:,}" if result.failed else "0"
        cells += [
            f'<td class="number ours">{format_interval(number.percent, result.ours, result.low, result.high)}</td>',
            f"<td>{_strip(result, span)}</td>",
            f'<td class="number">{format_difference(result) or "&ndash;"}</td>',
            f'<td class="{"no" if result.inside is False else "name"}">{inside}</td>',
            f'<td class="number">{result.n:,}</td>',
            f'<td class="number">{failed}</td>',
        ]
    links = ", ".join(
        f'<a href="#note-{i}" title="{escape(note)}">{i}</a>' for i, note in enumerate(notes, 1) if note in result.notes
    )
    cells.append(f'<td class="notes">{links}</td>')
    return f"{'<tr class=first>' if first else '<tr>'}{''.join(cells)}</tr>"


def format_interval(percent: bool, *numbers: float | None) -> str:
    """Return a number with its interval, with one decimal for percentages and two for scores."""
    one, low, high = (f"{number:.{1 if percent else 2}f}" for number in numbers)
    return f"{one} [{low}, {high}]"


def format_difference(result: Result) -> str:
    """Return the signed difference with its interval; empty if there is none."""
    if result.difference is None:
        return ""
    one, low, high = (f"{x:+.{1 if result.number.percent else 2}f}" for x in result.difference)
    return f"{one} [{low}, {high}]".replace("-", "\u2212")


def _range(results: Iterable[Result]) -> tuple[float, float]:
    """Return round limits of an axis that covers all numbers of one kind."""
    kept = list(results)
    known = [x for r in kept for x in (r.low, r.high, r.number.value) if x is not None]
    step, top = (10.0, 100.0) if all(r.number.percent for r in kept) else (0.5, 5.0)
    if not known:
        return 0.0, top
    return max(0.0, math.floor(min(known) / step) * step), min(top, math.ceil(max(known) / step) * step)


def _range_text(results: Sequence[Result], ranges: dict[bool, tuple[float, float]]) -> str:
    """Return the limits of the axes of a section, for the kinds of numbers in it."""
    kinds = [percent for percent in (True, False) if any(r.number.percent == percent for r in results)]
    texts = [f"{ranges[kind][0]:g} to {ranges[kind][1]:g}{' %' if kind else ''}" for kind in kinds]
    return "<br>scores ".join(texts)


def _strip(result: Result, span: tuple[float, float]) -> str:
    """Draw our interval and the paper's number on an axis."""
    low, high = span
    assert result.ours is not None and result.low is not None and result.high is not None

    def x(value: float) -> float:
        return round(6 + (_WIDTH - 12) * (value - low) / max(high - low, 1e-9), 1)

    text = f"ours {format_interval(result.number.percent, result.ours, result.low, result.high)}"
    middle = _HEIGHT // 2
    parts = [
        f'<line class="axis" x1="6" x2="{_WIDTH - 6}" y1="{middle}" y2="{middle}"/>',
        f'<line class="interval" x1="{x(result.low)}" x2="{x(result.high)}" y1="{middle}" y2="{middle}"/>',
        f'<circle class="ours" cx="{x(result.ours)}" cy="{middle}" r="4"/>',
    ]
    if (paper := result.number.value) is not None:
        text += f", paper {paper:g}"
        parts.append(f'<path class="paper" d="{_diamond(x(paper), middle)}"/>')
    size = f'width="{_WIDTH}" height="{_HEIGHT}" viewBox="0 0 {_WIDTH} {_HEIGHT}"'
    return f'<svg {size} role="img" aria-label="{text}"><title>{text}</title>{"".join(parts)}</svg>'


def _diamond(x: float, y: float) -> str:
    return f"M{x} {y - 6}L{x + 5} {y}L{x} {y + 6}L{x - 5} {y}Z"


def _mark(kind: str) -> str:
    if kind == "paper":
        inner = f'<path class="paper" d="{_diamond(8, 8)}"/>'
    else:
        inner = '<line class="interval" x1="0" x2="16" y1="8" y2="8"/><circle class="ours" cx="8" cy="8" r="4"/>'
    return f'<svg width="16" height="16" viewBox="0 0 16 16" aria-hidden="true">{inner}</svg>'


def _notes(notes: Sequence[str]) -> str:
    if not notes:
        return ""
    items = "".join(f'<li id="note-{i}">{escape(note)}</li>' for i, note in enumerate(notes, 1))
    why = "Why our number is not comparable with the paper's, or why it is missing."
    return f'<h2>Notes</h2><p class="soft">{why}</p><ol class="notes">{items}</ol>'


def _runs(runs: Sequence[RunRecord]) -> str:
    if not runs:
        return ""
    rows = []
    for run in runs:
        model, versions = run.identity.get("model") or {}, run.session.get("versions") or {}
        kind = str(model.get("dtype") or "").removeprefix("torch.")
        packages = [name for name in ("sfllava", "torch", "transformers") if name in versions]
        software = ", ".join(f"{name} {versions[name]}" for name in packages)
        cells = [
            run.name, run.session.get("model") or "", f"{kind} on {run.session.get('device') or '?'}",
            f"{run.identity['questions']:,}", str(len(run.identity["settings"])),
            run.session.get("prompt_source") or "", ", ".join(run.judges) or "none", software,
        ]  # fmt: skip
        rows.append("<tr>" + "".join(f"<td>{escape(str(cell))}</td>" for cell in cells) + "</tr>")
    heads = ("run", "checkpoint", "dtype and device", "questions", "settings", "prompt", "judges", "software")
    head = "".join(f"<th>{name}</th>" for name in heads)
    return (
        f'<h2>Runs</h2><div class="scroll"><table class="runs"><thead><tr>{head}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
    )
