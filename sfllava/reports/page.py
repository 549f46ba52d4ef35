"""The report as one HTML page: what won and by how much, the key figure, tables, and what a paper needs."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

import jinja2
import pandas as pd

from sfllava import catalogue
from sfllava.analysis.flags import describe_flags
from sfllava.analysis.loading import load_results
from sfllava.display.private import without_credentials
from sfllava.models.host import versions
from sfllava.reports import sections
from sfllava.reports.comparable import Conditions, group_runs
from sfllava.reports.methods import latex_of, methods_paragraph, model_name, model_text
from sfllava.reports.ranking import Ranking, headline_sentence, make_ranking
from sfllava.types import SfllavaError

_TEMPLATES = Path(__file__).with_name("templates")


def make_page(runs: Iterable[str | Path], judge: str | None = None) -> str:
    """Make a report of one run, or a leaderboard of several.

    Runs are ranked together only if they have the same questions, judge, protocol and way of answering; the others get
    a ranking of their own, and the page says what differs. The page is one file that loads nothing else.

    Args:
        runs: The run folders.
        judge: The judge whose verdicts decide open questions; None for the offline rules.

    Returns:
        The page as HTML. The same runs give the same page.

    Raises:
        RunError: A run cannot be read, or has no score by the judge or the rules.
    """
    runs = [Path(run) for run in runs]
    groups = group_runs(runs, judge)
    made = [_group(i, conditions, folders, judge) for i, (conditions, folders) in enumerate(groups, 1)]
    first = groups[0][0]
    apart = [
        {"number": i, "what": str(conditions), "runs": [folder.name for folder in folders],
         "differs": ", ".join(conditions.differing(first)) if i > 1 else ""}
        for i, (conditions, folders) in enumerate(groups, 1)
    ]  # fmt: skip
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_TEMPLATES), autoescape=True, undefined=jinja2.StrictUndefined,
        trim_blocks=True, lstrip_blocks=True,
    )  # fmt: skip
    several = len(runs) > 1
    title = f"{len(runs)} runs" if several else made[0]["title"]
    template = environment.get_template("page.html")
    more = {"overview": _overview(made), "version": versions().get("sfllava", "")}
    return template.render(title=title, groups=made, apart=apart, several=several, **more)


def _group(number: int, conditions: Conditions, folders: Sequence[Path], judge: str | None) -> dict[str, Any]:
    """Return what the template shows of runs that are ranked together."""
    results = load_results(folders, judge)
    ranking, runs = make_ranking(results), results.attrs["runs"]
    ablations = list(dict.fromkeys(facts["ablation"] for facts in runs.values() if facts.get("ablation")))
    prefix = f"g{number}"
    key = sections.figures(results, [sections.KEY_FIGURE], prefix, row_height=3.7)
    return {
        "number": number,
        "title": " ".join([*ablations, "on", conditions.benchmark] if ablations else [conditions.benchmark]),
        "kind": _kind(ablations, conditions, runs),
        "question": _question(ablations),
        "headline": headline_sentence(ranking),
        "conditions": str(conditions),
        "warnings": _warnings(results, ranking),
        "tiles": _tiles(ranking),
        "key_figure": key[0] if key else None,
        "ranking": ranking,
        "table": sections.ranking_table(ranking, runs),
        "matrix": sections.matrix(ranking),
        "costs": sections.cost_table(results, ranking),
        "groups": sections.group_tables(results, ranking),
        "failures": sections.failure_table(results),
        "figures": sections.figures(results, sections.MORE_FIGURES, prefix),
        "methods": methods_paragraph(ranking, conditions, runs.values()),
        "latex": latex_of(ranking, conditions),
        "runs": [_run(label, facts) for label, facts in runs.items()],
        "prompts": _prompts(runs),
    }


def _kind(ablations: Sequence[str], conditions: Conditions, runs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Return the facts above the headline: ablation, benchmark, models and dates."""
    models = list(dict.fromkeys(model_name(facts) for facts in runs.values()))
    dates = sorted({day for facts in runs.values() if (day := _day((facts.get("session") or {}).get("started")))})
    shown = [f"ablation {name}" for name in ablations] + [conditions.benchmark]
    shown += filter(None, [models[0] if len(models) == 1 else f"{len(models)} models"])
    return [*shown, *([_as_words(dates[-1])] if dates else [])]


def _question(ablations: Sequence[str]) -> str:
    """Return the question of an ablation of the package; a file of the user's own is not opened again."""
    if len(ablations) != 1 or ablations[0] not in catalogue.names("ablations"):
        return ""
    from sfllava.ablation import load_ablation  # with it come the models, which most pages do not need

    try:
        return load_ablation(ablations[0]).question
    except SfllavaError:
        return ""


def _warnings(results: pd.DataFrame, ranking: Ranking) -> list[str]:
    found = describe_flags(results)
    waiting = sum(entry.counts["not_asked"] for entry in ranking.entries)
    failed = sum(entry.counts["failed"] for entry in ranking.entries)
    if waiting:
        found.append(f"{waiting:,} questions have not been asked yet: the numbers cover only the others.")
    if failed:
        found.append(f"{failed:,} answers failed and count as wrong; their reasons are below.")
    if ranking.missing:
        found.append(f"{ranking.measure} is not that of the whole benchmark: {ranking.missing}.")
    return found


def _tiles(ranking: Ranking) -> list[dict[str, str]]:
    """Return the numbers below the headline."""
    ranked, tiles = ranking.ranked, []
    if ranked:
        best = ranked[0]
        tiles.append({"value": f"{best.value:.1f} %", "text": f"{ranking.measure} of {best.name}"})
    tied = sum(entry.status in ("best", "tied") for entry in ranked)
    if len(ranked) > 1:
        tiles.append({"value": f"{tied} of {len(ranked)}", "text": "settings are best, or not distinguishable from it"})
    tiles.append({"value": f"{ranking.questions:,}", "text": f"questions about {ranking.videos:,} videos"})
    if ranking.detectable is not None and len(ranked) > 1:
        shown = "true difference, in points, that such data show in four of five cases after the correction"
        tiles.append({"value": f"{ranking.detectable:.1f}", "text": shown})
    return tiles


def _run(label: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    session: Mapping[str, Any] = facts.get("session") or {}
    model = facts.get("model") if isinstance(facts.get("model"), dict) else {}
    assert isinstance(model, dict)
    dates = [session.get("first_started"), session.get("started")]
    started, last = (str(date or "").replace("T", " ").removesuffix("+00:00") for date in dates)
    command = session.get("command") or []
    lines = {
        "run": label,
        "model": model_text(facts),
        "checkpoint": str(session.get("model") or ""),
        "weights": f"SHA-256 {str(model['sha256_sampled'])[:16]}" if model.get("sha256_sampled") else "",
        "device": str(session.get("device") or ""),
        "started": f"{started} UTC" if started else "",
        "last resumed": f"{last} UTC" if last and last != started else "",
        "videos": str(session.get("videos") or ""),
        "command": without_credentials(" ".join(["sfllava", *map(str, command[1:])])) if command else "",
        "versions": ", ".join(f"{name} {version}" for name, version in (session.get("versions") or {}).items()),
    }
    return {name: text for name, text in lines.items() if text}


def _prompts(runs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, str]]:
    """Return the texts of the prompts, each once, with where they come from."""
    found: dict[str, dict[str, str]] = {}
    for facts in runs.values():
        prompt, source = facts.get("prompt"), (facts.get("session") or {}).get("prompt_source")
        by_task = prompt if isinstance(prompt, dict) and "text" not in prompt else {"": prompt}
        for task, one in by_task.items():
            text = one.get("text") if isinstance(one, dict) else one
            where = source.get(task, "") if isinstance(source, dict) else source
            if isinstance(text, str):
                found.setdefault(text, {"text": text, "name": " ".join(filter(None, [task, str(where or "")]))})
    return list(found.values())


def _overview(groups: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """Return a table of settings by group, for settings that more than one group has; None if there are none."""
    found: dict[tuple[str, str], dict[int, Any]] = {}
    for group in groups:
        for row in group["table"]["rows"]:
            entry = row["entry"]
            name = entry.name.removeprefix(f"{entry.run}: ")
            facts = {run["run"]: run.get("model", "") for run in group["runs"]}
            found.setdefault((facts.get(entry.run, ""), name), {})[group["number"]] = entry
    shown = {key: cells for key, cells in found.items() if len(cells) > 1}
    if not shown:
        return None
    numbers = [group["number"] for group in groups]
    rows = [
        {"model": model, "name": name, "cells": [cells.get(i) for i in numbers]}
        for (model, name), cells in shown.items()
    ]
    return {"heads": [(group["number"], group["title"]) for group in groups], "rows": rows}


def _day(started: object) -> str:
    try:
        return datetime.fromisoformat(str(started)).date().isoformat()
    except ValueError:
        return ""


def _as_words(day: str) -> str:
    date = datetime.fromisoformat(day)
    return f"{date.day} {date:%B %Y}"
