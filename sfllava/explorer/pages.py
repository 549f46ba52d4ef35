"""The explorer's HTML: every text from outside is escaped here."""

from __future__ import annotations

import base64
import difflib
import traceback
from collections.abc import Sequence
from html import escape

from sfllava.attribution.attribution import EXPLANATION, Attribution
from sfllava.explorer.session import Reply
from sfllava.planning.budget import ContextBudget
from sfllava.plots.canvas import COLOURS, RED
from sfllava.types import SfllavaError

# Colours of the theme (JupyterLab or VS Code), else colours that are legible on black and on white
_INK = "var(--jp-ui-font-color1, var(--vscode-foreground, #7a7a7a))"
_FIELD = "var(--jp-layout-color2, var(--vscode-editorWidget-background, rgba(128,128,128,0.12)))"
_LINE = "var(--jp-border-color1, var(--vscode-panel-border, rgba(128,128,128,0.4)))"
STYLE = f"""<style>
.sfllava {{ color: {_INK}; max-width: 1400px; overflow: hidden; }}
.sfllava .widget-html-content {{ color: {_INK}; line-height: 1.4; }}
.sfllava .jupyter-widgets label {{ color: {_INK}; }}
.sfllava .widget-output .jp-OutputArea, .sfllava .widget-output .jp-OutputArea-child,
.sfllava .widget-output .jp-RenderedPlotly {{ height: 100%; }}
.sfllava .js-plotly-plot text:not(.hovertext text) {{ fill: {_INK} !important; }}
.sfllava .js-plotly-plot .hovertext text {{ fill: #fff !important; }}
.sfllava :focus-visible {{ outline: 2px solid var(--jp-brand-color1, #2196f3); outline-offset: 1px; }}
.sfllava input, .sfllava select, .sfllava textarea {{ min-width: 0; max-width: 100%; }}
.sfllava .jupyter-button {{ width: auto; min-width: 72px; }}
.sfllava .sf-bar {{ display: flex; height: 22px; border-radius: 3px; overflow: hidden; background: {_FIELD}; }}
.sfllava .sf-bar span {{ min-width: 2px; }}
.sfllava .sf-key {{ display: inline-block; width: 10px; height: 10px; border-radius: 2px; margin: 0 4px 0 12px; }}
.sfllava .sf-over {{ color: var(--jp-error-color1, {RED}); font-weight: 600; }}
.sfllava .sf-answer {{ background: {_FIELD}; border-left: 4px solid {COLOURS["fast"]}; padding: 8px 12px;
  font-size: 15px; min-height: 22px; white-space: pre-wrap; overflow-wrap: anywhere; }}
.sfllava .sf-small {{ opacity: 0.85; font-size: 12px; }}
.sfllava .sf-error {{ border-left: 4px solid {RED}; padding: 4px 10px; overflow-wrap: anywhere; }}
.sfllava .sf-error pre {{ overflow: auto; max-height: 260px; font-size: 11px; color: {_INK}; }}
.sfllava .sf-side {{ display: grid; grid-template-columns: repeat(auto-fit, minmax(220px, 1fr)); gap: 10px; }}
.sfllava .sf-side > div {{ border: 1px solid {_LINE}; border-radius: 4px; padding: 8px; overflow-wrap: anywhere; }}
.sfllava a {{ color: var(--jp-content-link-color, {COLOURS["fast"]}); text-decoration: underline; }}
.sfllava mark {{ background: #ffd54a; color: #000; padding: 0 2px; }}
.sfllava .sf-scroll {{ overflow-x: auto; max-height: 420px; }}
.sfllava table {{ border-collapse: collapse; font-size: 12px; }}
.sfllava td, .sfllava th {{ border-bottom: 1px solid {_LINE}; padding: 3px 8px;
  text-align: left; vertical-align: top; }}
.sfllava .sf-effect {{ display: inline-block; height: 10px; background: {COLOURS["slow"]}; vertical-align: middle; }}
</style>"""


def budget_page(budget: ContextBudget) -> str:
    """Show a budget as a bar; red, with the excess, where it does not fit."""
    whole = max(budget.context, budget.visual + budget.text)
    bar, keys = "", ""
    for name, tokens in budget.parts.items():
        colour = RED if budget.over and name != "rest" else COLOURS[name]
        bar += f'<span style="width:{100 * tokens / whole:.2f}%;background:{colour}" title="{name} {tokens:,}"></span>'
        keys += f'<span class="sf-key" style="background:{COLOURS[name]}"></span>{name} {tokens:,}'
    kind = "sf-budget sf-over" if budget.over else "sf-budget"
    warning = "Above the context: " if budget.over else ""
    text = f"{warning}{escape(str(budget))}"
    picture = f'<div class="sf-bar" role="img" aria-label="{text}">{bar}</div>'
    return f'{picture}<div>{keys}</div><div class="{kind}">{text}</div>'


def note_page(text: str, over: bool = False) -> str:
    """Show one line."""
    return f'<div class="{"sf-over" if over else "sf-small"}">{escape(text)}</div>'


def error_page(error: BaseException) -> str:
    """Show one line, and the folded traceback."""
    known = isinstance(error, SfllavaError)
    line = " ".join((str(error) if known else f"{type(error).__name__}: {error}").split())
    trace = "".join(traceback.format_exception(error))
    return (
        f'<div class="sf-error" role="alert"><span class="sf-over">{escape(line[:400])}</span>'
        f"<details><summary>Traceback</summary><pre>{escape(trace)}</pre></details></div>"
    )


def answer_page(question: str, text: str, state: str) -> str:
    """Show a question and its answer so far."""
    return (
        f"<div>{escape(question)}</div>"
        f'<div class="sf-answer" aria-live="polite">{escape(text)}</div><div class="sf-small">{escape(state)}</div>'
    )


def seconds_line(reply: Reply) -> str:
    """Return the seconds of each stage, and what was reused."""
    stages = ", ".join(f"{stage} {seconds:.2f} s" for stage, seconds in reply.seconds.items())
    return (
        f"{'stopped; ' if reply.stopped else ''}{stages}; {reply.decoded_frames} frames decoded, "
        f"{reply.encoded_frames} encoded, {reply.reused_tokens:,} of {reply.visual_tokens:,} visual tokens reused"
    )


def comparison_page(replies: Sequence[Reply]) -> str:
    """Show replies side by side, with their differences from the first marked."""
    columns = []
    for i, reply in enumerate(replies):
        first = replies[0]
        name = _marked(first.setting.name.split("-"), reply.setting.name.split("-"), "-")
        text = _marked(first.text.split(), reply.text.split(), " ")
        if i and first.text == reply.text:
            same = "same answer as the first"
        else:
            same = "differs from the first" if i else "the first"
        columns.append(
            f'<div><b>{name}</b><div class="sf-answer">{text}</div><div class="sf-small">{same}; '
            f"{reply.visual_tokens:,} visual tokens; {escape(seconds_line(reply))}</div></div>"
        )
    return f'<div class="sf-side">{"".join(columns)}</div>'


def _marked(one: Sequence[str], two: Sequence[str], join: str) -> str:
    parts = []
    for kind, a, b, c, d in difflib.SequenceMatcher(None, one, two, autojunk=False).get_opcodes():
        text = escape(join.join(two[c:d]))
        if kind == "delete":
            parts.append(f'<mark title="only in the first: {escape(join.join(one[a:b]))}">&hellip;</mark>')
        else:
            parts.append(text if kind == "equal" else f"<mark>{text}</mark>")
    return join.join(parts)


def history_page(replies: Sequence[Reply], text: str) -> str:
    """Show all replies as a table, with a link to its CSV."""
    if not replies:
        return note_page("No questions yet.")
    rows = "".join(
        f"<tr><td>{i}</td><td>{escape(name_of_video(r.video))}</td><td>{escape(r.setting.name)}</td>"
        f"<td>{escape(r.question.text)}</td><td>{escape(r.text)}{' (stopped)' if r.stopped else ''}</td>"
        f"<td>{sum(r.seconds.values()):.2f}</td></tr>"
        for i, r in enumerate(replies, 1)
    )
    data = base64.b64encode(text.encode()).decode()
    return (
        '<div class="sf-scroll"><table><tr><th>#</th><th>video</th><th>setting</th><th>question</th><th>answer</th>'
        f'<th>seconds</th></tr>{rows}</table></div><a download="answers.csv" href="data:text/csv;base64,{data}">'
        "Download as CSV</a>"
    )


def effects_page(attribution: Attribution) -> str:
    """Show how the answer's log-likelihood changed without each part, the greatest loss first."""
    if not attribution.left_out:
        return note_page("Nothing measured yet.")
    top = max(map(abs, attribution.left_out.values())) or 1.0
    rows = "".join(
        f"<tr><td>{escape(part)}</td><td>{change:+.4f}</td>"
        f'<td><span class="sf-effect" style="width:{160 * abs(change) / top:.0f}px"></span></td></tr>'
        for part, change in sorted(attribution.left_out.items(), key=lambda item: item[1])
    )
    return (
        f"<div>Log-likelihood of the answer: {attribution.log_likelihood:.4f} nats. Change without each part "
        '(below zero: the part made the answer more likely):</div><div class="sf-scroll"><table class="sf-effects">'
        f"<tr><th>left out</th><th>nats</th><th></th></tr>{rows}</table></div>"
    )


def help_page() -> str:
    """Explain what attention means and what it does not."""
    return (
        f"<details open><summary>What this shows and what it does not</summary><p>{escape(EXPLANATION)}</p></details>"
    )


def name_of_video(path: str) -> str:
    """Return the last part of a path."""
    return path.rstrip("/").rsplit("/", 1)[-1]
