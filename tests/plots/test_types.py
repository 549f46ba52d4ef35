"""The figure of types: a panel for each column of groups, and the headline beside the accuracy over all questions."""

from __future__ import annotations

import json

import pytest
from grouped_runs import BY_TYPE, FORMS, TASKS, add_benchmark, form_rows, tasks_run
from written_runs import rows_of, write_run

from sfllava.analysis.loading import load_results
from sfllava.plots import draw_chart, interactive, static
from sfllava.plots.chart import Panel, Series, arrange

A, B = {"plot": 15, "needle": 6, "count": 1}, {"plot": 21, "needle": 3, "count": 1}


@pytest.fixture
def tasks(monkeypatch, tmp_path):
    add_benchmark(monkeypatch, BY_TYPE)
    return tasks_run(tmp_path / "run", ("a", A), ("b", B), complete={**TASKS, "order": 10})


def many(tmp_path, kinds, groups=(), name="open", settings="ab"):
    """Questions of so many types, and with these groups of so many values; two of each type."""
    rows = []
    for setting in settings:
        made = rows_of(setting, 30, videos=kinds)
        for i, row in enumerate(made):
            row["type"] = f"a rather long name of type {i // 2:02}"
            row["groups"] = {group: str(i % count + 1) for group, count in groups}
        rows += made
    return load_results(write_run(tmp_path / "run", rows, name))


def test_each_column_of_groups_has_a_panel_after_the_headline(tasks):
    overall, types, durations = draw_chart("types", load_results(tasks)).panels
    assert [panel.x_label for panel in (overall, types, durations)] == ["", "type (questions)", "duration (questions)"]
    a, b = overall.series
    assert list(a.x) == ["M-Avg (3 types)", "all questions (40)"] and (a.name, b.name) == ("a", "b")
    assert list(a.y) == pytest.approx([58.333, 55], abs=0.01)
    assert all(low < y < high for s in (a, b) for low, y, high in zip(s.low, s.y, s.high))
    assert a.hover[0].startswith("a: M-Avg 58.3 % [") and a.hover[0].endswith("], no questions of: order")
    assert list(types.series[0].x) == ["plot (30)", "needle (6)", "count (4)"]
    # as the questions have them, not by the alphabet
    assert list(durations.series[0].x) == ["short (20)", "long (20)"]


def test_a_setting_that_was_not_begun_has_no_bar(tasks):
    about = json.loads((tasks / "run.json").read_text())
    about["identity"]["settings"].append({"name": "c"})
    (tasks / "run.json").write_text(json.dumps(about))
    chart = draw_chart("types", load_results(tasks))
    assert [series.name for series in chart.panels[0].series] == ["a", "b"]
    static.render(chart)


def test_without_a_headline_the_types_are_alone(tmp_path):
    chart = draw_chart("types", many(tmp_path, 3))
    assert [panel.x_label for panel in chart.panels] == ["type (questions)"] and not chart.note
    assert static.render(chart).get_size_inches()[0] == pytest.approx(3.3)


def test_groups_alone_are_drawn_and_no_groups_are_not(tmp_path):
    results = many(tmp_path, 1, [("duration", 2)])
    assert [panel.x_label for panel in draw_chart("types", results).panels] == ["duration (questions)"]
    assert draw_chart("types", results[results["duration"] == "1"]) == "there are fewer than two question types"


def test_numbers_are_in_their_own_order(tmp_path):
    chart = draw_chart("types", many(tmp_path, 20, [("duration", 11)]))
    durations = next(panel for panel in chart.panels if panel.x_label == "duration (questions)")
    assert [x.split()[0] for x in durations.series[0].x] == [str(i) for i in range(1, 12)]


def test_the_dimensions_of_a_benchmark_are_drawn_once(monkeypatch, tmp_path):
    add_benchmark(monkeypatch, FORMS)
    run = write_run(tmp_path / "run", form_rows("a", lambda form, *_: form == "yes_no"), "forms")
    labels = [panel.x_label for panel in draw_chart("types", load_results(run)).panels]
    assert labels == ["", "type (questions)", "form (questions)"]


def test_too_many_groups_or_panels_are_said(tmp_path):
    groups = [(f"group_{i}", i + 2) for i in range(6)]
    chart = draw_chart("types", many(tmp_path, 30, groups))
    assert len(chart.panels) == 5 and [panel.wide for panel in chart.panels] == [False] * 4 + [True]
    assert len(chart.panels[-1].series[0].x) == 24
    assert chart.note == "the 24 largest of 30 groups by type; not shown: group_4, group_5"


@pytest.mark.parametrize("kinds", [2, 7, 12, 24])
@pytest.mark.parametrize("groups", [(), (("duration", 3),), (("duration", 3), ("form", 4), ("place", 9))])
def test_nothing_is_cut_off_and_nothing_overlaps(tmp_path, kinds, groups):
    figure = static.render(draw_chart("types", many(tmp_path, kinds, groups)))
    figure.draw_without_rendering()
    width, height = figure.get_size_inches()
    box = figure.get_tightbbox()
    assert box.x0 >= -0.01 and box.y0 >= -0.01 and box.x1 <= width + 0.01 and box.y1 <= height + 0.01
    boxes = [axis.get_tightbbox() for axis in figure.axes] + [figure.legends[0].get_window_extent()]
    for i, one in enumerate(boxes):
        for other in boxes[i + 1 :]:
            across = min(one.x1, other.x1) - max(one.x0, other.x0)
            down = min(one.y1, other.y1) - max(one.y0, other.y0)
            assert across < 2 or down < 2, "pixels"
    for axis in figure.axes:
        assert axis.yaxis.label.get_window_extent().height <= axis.get_window_extent().height + 2
        assert axis.get_window_extent().height > 1.1 * figure.dpi  # an inch of bars at least


def test_the_page_for_the_screen_has_the_same_panels(tasks):
    chart = draw_chart("types", load_results(tasks))
    figure = interactive.render(chart)
    names = [axis.ticktext for axis in figure.select_xaxes()]
    assert names[0] == ("M-Avg (3 types)", "all questions (40)") and len(names) == 3
    assert sum(trace.showlegend for trace in figure.data) == 2


def panel(wide):
    return Panel("x", "y", [Series("s", ["a"], [1.0])], wide=wide)


@pytest.mark.parametrize(
    ("widths", "places"),
    [
        ("n", (1, 1, [(0, 0, 1)])),
        ("nnn", (1, 3, [(0, 0, 1), (0, 1, 1), (0, 2, 1)])),
        ("nnnnn", (3, 2, [(0, 0, 1), (0, 1, 1), (1, 0, 1), (1, 1, 1), (2, 0, 2)])),
        ("w", (1, 1, [(0, 0, 1)])),
        ("nw", (2, 1, [(0, 0, 1), (1, 0, 1)])),
        ("nnw", (2, 2, [(0, 0, 1), (0, 1, 1), (1, 0, 2)])),
        ("nnnww", (4, 2, [(0, 0, 1), (0, 1, 1), (1, 0, 2), (2, 0, 2), (3, 0, 2)])),
        ("wnnw", (3, 2, [(0, 0, 2), (1, 0, 1), (1, 1, 1), (2, 0, 2)])),
    ],
)
def test_where_panels_go(widths, places):
    assert arrange([panel(width == "w") for width in widths]) == places
