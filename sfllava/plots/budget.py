"""A bar of how much of the context a setting uses."""

from __future__ import annotations

import plotly.graph_objects as go

from sfllava.models.base import VideoLM
from sfllava.planning.budget import ContextBudget, context_budget
from sfllava.plots.canvas import COLOURS, INK, RED, plain_figure, wrap_text
from sfllava.prompts import Prompt
from sfllava.settings import Setting
from sfllava.types import Question


def show_budget(
    setting: Setting, model: VideoLM, question: Question | str = "", prompt: Prompt | None = None
) -> go.Figure:
    """Draw how much of a model's context a setting and a question use.

    Args:
        setting: frames, aggregation and prompt.
        model: the model whose context it is.
        question: the question to ask.
        prompt: replaces the setting's prompt or the model family's.

    Returns:
        A bar of slow, fast and text tokens and of the free positions; red if the tokens do not fit.
    """
    return draw_budget(context_budget(setting, model, question, prompt))


def draw_budget(budget: ContextBudget) -> go.Figure:
    """Draw a context budget as one bar."""
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
    figure.update_layout(barmode="stack", title={"text": wrap_text(str(budget), 100), "font_size": 12})
    if budget.over:
        figure.update_layout(title_font_color=RED)
    figure.update_xaxes(title_text="tokens", range=[0, 1.04 * max(budget.context, budget.visual + budget.text)])
    plain_figure(figure).update_layout(
        height=230, margin={"t": 100}, legend={"traceorder": "normal", "y": 1.12}, title_y=0.92
    )
    return figure
