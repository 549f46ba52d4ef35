from __future__ import annotations

import os
import re
import subprocess
import sys

import pandas as pd
import pytest
from written_runs import rows_of, write_run

from sfllava import catalogue, cli
from sfllava.analysis.loading import load_results
from sfllava.plots import draw_chart, interactive, kind_of, static

from conftest import ROOT  # isort: skip


def setting(name, frames, aggregation, budget):
    return {"name": name, "frames": frames, "aggregation": aggregation, "budget": budget}


def sweep(folder, benchmark="open", order="", **facts):
    """Slow frames by Fast grids, and each pathway alone."""
    settings, rows = [], []
    for i, (slow, grid, frames) in enumerate(
        [(s, g, 32) for s in (2, 4, 8) for g in ("1x1", "2x2", "0x0")] + [(0, "2x2", 16), (0, "2x2", 32)]
    ):
        name = f"slow <{slow}> fast {grid} of {frames}"
        tokens = slow * 64 + frames * int(grid[0]) ** 2
        settings.append(setting(name, frames, f"slowfast-slow_{slow}frms_concat-fast_{grid}{order}", tokens))
        kinds = ("colour", "place", "order")
        made = rows_of(name, 20 + i, visual_tokens=tokens)
        rows += [row | {"type": kinds[j % 3]} for j, row in enumerate(made)]
    rows[0] |= {"error": "v0: no such video", "prediction": None, "visual_tokens": None}
    return write_run(folder, rows, benchmark, settings, **facts)


def paper(folder, benchmark):
    row = {"answer": "x", "options": ["y", "x"], "video": "v0"}
    said = {"fast 1x1": "B", "fast 4x4": "B", "fast 8x8": "A"}
    rows = [
        row | {"key": f"q/{i}", "setting": n, "prediction": p, "video": f"v{i}"}
        for n, p in said.items()
        for i in range(9)
    ]
    return write_run(folder, rows, benchmark, ablation="fast_grid")


def test_all_figures_are_drawn_or_say_why_not(tmp_path, capsys):
    run = sweep(tmp_path / "run")
    assert cli.main(["figures", str(run), "--out", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "paper: not the runs of an ablation" in said
    for name in ("budget", "cost", "frames", "heat", "types"):
        for kind, start in (("svg", b"<?xml"), ("pdf", b"%PDF"), ("png", b"\x89PNG"), ("html", b"<!doctype html>")):
            data = (tmp_path / "out" / f"{name}.{kind}").read_bytes()
            assert data.startswith(start) and len(data) > 3000, (name, kind)
    assert (tmp_path / "out" / "accuracy.tex").read_text().count(r"\\") == 12
    assert "paired differences" in (tmp_path / "out" / "findings.txt").read_text()
    assert cli.main(["figures", str(run), "--out", str(tmp_path / "one"), "--only", "heat"]) == 0
    assert sorted(p.stem for p in (tmp_path / "one").glob("*.svg")) == ["heat"]


def test_equal_input_gives_equal_bytes(tmp_path):
    run = sweep(tmp_path / "run")
    for i in (1, 2):  # in another process, with another hash seed
        command = [sys.executable, "-m", "sfllava.cli", "figures", str(run), "--out", str(tmp_path / str(i))]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, env={**os.environ, "PYTHONHASHSEED": str(i)})
    files = sorted(
        p.name for p in (tmp_path / "1").iterdir() if p.suffix in (".svg", ".pdf", ".png", ".csv", ".tex", ".txt")
    )
    assert len([f for f in files if f.endswith(".svg")]) == 5
    for name in files:
        assert (tmp_path / "1" / name).read_bytes() == (tmp_path / "2" / name).read_bytes(), name


def test_a_column_of_a_paper_holds_it(tmp_path):
    figure = static.render(draw_chart("budget", load_results(sweep(tmp_path / "run"))))
    assert figure.get_size_inches()[0] == pytest.approx(3.3)
    axis = figure.axes[0]
    assert axis.get_xlabel() == "visual tokens" and axis.get_ylabel() == "accuracy, % (95 % interval)"
    names = [text.get_text() for text in figure.legends[0].get_texts()]
    assert set(names) == {"slow + fast", "slow only", "fast only", "Pareto front"}
    points = [(x, round(y, 1)) for line in axis.lines for x, y in zip(*line.get_data())]
    # 20 right of 40, of which one has failed; then 28 and 29 with the Fast pathway alone; drawn a little aside
    for tokens, accuracy in ((2 * 64 + 32, 47.5), (64, 72.5), (128, 75.0)):
        assert any(y == accuracy and abs(x / tokens - 1) < 0.1 for x, y in points), (tokens, points)
    figure.draw_without_rendering()
    box = figure.get_tightbbox()
    assert box.x0 >= -0.01 and box.y0 >= -0.01 and box.x1 <= 3.31  # nothing is cut off


def test_hovering_shows_setting_interval_n_and_failed(tmp_path):
    figure = interactive.render(draw_chart("budget", load_results(sweep(tmp_path / "run"))))
    texts = [text for trace in figure.data for text in trace.hovertext or ()]
    one = next(text for text in texts if "2&gt; fast 1x1" in text)
    assert re.fullmatch(
        r"slow &lt;2&gt; fast 1x1 of 32: 47\.5 % \[\d\d\.\d, \d\d\.\d\], n = 40, failed 1, empty 0, unparsable 0, 160 tokens",
        one,
    )
    assert not any("<2>" in text for text in texts), "not escaped"


def test_lines_along_which_one_number_of_frames_changes(tmp_path):
    chart = draw_chart("frames", load_results(sweep(tmp_path / "run")))
    lines = {(panel.x_label, s.name): list(s.x) for panel in chart.panels for s in panel.series}
    assert lines == {
        ("Fast frames", "fast only, 2x2"): [16, 32],
        ("Slow frames", "+ fast 32, 1x1"): [2, 4, 8],
        ("Slow frames", "+ fast 32, 2x2"): [2, 4, 8],
        ("Slow frames", "slow only"): [2, 4, 8],
    }


def test_settings_in_another_order_have_lines_of_their_own(tmp_path):
    chart = draw_chart("frames", load_results(sweep(tmp_path / "run", order="-fast_first")))
    assert {s.name for panel in chart.panels for s in panel.series} == {
        "fast only, 2x2", "+ fast 32, 1x1, fast first", "+ fast 32, 2x2, fast first", "slow only",
    }  # fmt: skip
    heat = draw_chart("heat", load_results(sweep(tmp_path / "heat", order="-fast_first")))
    assert heat.panels[0].title == "32 frames, slow concat, fast first"
    assert kind_of("slowfast-slow_2frms_concat-fast_0x0-fast_first") == "slow only"


def test_the_heat_map_is_the_table_of_both(tmp_path):
    heat = draw_chart("heat", load_results(sweep(tmp_path / "run"))).panels[0].heat
    assert heat.rows == ["2", "4", "8"] and heat.columns == ["1x1", "2x2"]
    assert [pytest.approx(row) for row in heat.values] == [[47.5, 52.5], [57.5, 60.0], [65.0, 67.5]]


@pytest.mark.parametrize(
    ("benchmark", "note"), [("egoschema", "come without intervals"), ("activitynet", "is retired")]
)
def test_the_papers_numbers_lie_over_ours_with_a_word_on_their_judge(tmp_path, benchmark, note):
    chart = draw_chart("paper", load_results(paper(tmp_path / "run", benchmark)))
    assert note in chart.note
    ours, seven, large = chart.panels[0].series
    assert list(ours.x) == ["fast 1x1", "fast 4x4", "fast 8x8"] and seven.name == "paper, 7B"
    numbers = dict(zip(seven.x, seven.y))
    assert numbers["fast 8x8"] == {"egoschema": 48.6, "activitynet": 54.9}[benchmark]
    assert "fast 8x8" not in large.x, "it ran out of memory there"
    text = static.render(chart)._suptitle.get_text().replace("\n", " ")
    assert note in text


def test_benchmarks_are_not_pooled(tmp_path):
    one, two = sweep(tmp_path / "one"), sweep(tmp_path / "two", "msvd")
    assert cli.main(["figures", str(one), str(two), "--out", str(tmp_path / "out")]) == 0
    table = pd.read_csv(tmp_path / "out" / "accuracy.csv")
    assert table.groupby("benchmark").size().to_dict() == {"msvd": 11, "open": 11} and set(table["questions"]) == {40}
    assert set(pd.read_csv(tmp_path / "out" / "differences.csv")["benchmark"]) == {"msvd", "open"}
    assert "open: Of 55 paired" in (tmp_path / "out" / "findings.txt").read_text()
    results = load_results([one, two])
    titles = {name: [panel.title for panel in draw_chart(name, results).panels] for name in ("budget", "types", "heat")}
    assert titles["budget"] == titles["types"] == ["open", "msvd"] and titles["heat"][0].startswith("open, 32 frames")


def test_a_killed_sweep_is_drawn_as_far_as_it_is(tmp_path, capsys):
    run = sweep(tmp_path / "run")
    rows = (run / "predictions.jsonl").read_text().splitlines(keepends=True)
    (run / "predictions.jsonl").write_text("".join(rows[:70]))  # of 11 settings one is done, one half done
    assert cli.main(["figures", str(run), "--out", str(tmp_path / "out")]) == 0
    assert "differences (table): none, since" in capsys.readouterr().out
    table = pd.read_csv(tmp_path / "out" / "accuracy.csv")
    assert table["questions"].tolist() == [40, 30, *[0] * 9] and table["not_asked"].tolist() == [0, 10, *[40] * 9]
    assert table["accuracy"].isna().sum() == 9
    assert "were not asked the same questions" in (tmp_path / "out" / "findings.txt").read_text()


def test_files_appear_all_together_or_not_at_all(tmp_path, capsys):
    run, out = sweep(tmp_path / "run"), tmp_path / "out"
    assert cli.main(["figures", str(run), "--out", str(out)]) == 0
    before = {path.name: path.read_bytes() for path in out.iterdir()}
    (tmp_path / "broken.py").write_text("def draw(results):\n    raise ValueError('no')\n")
    with (run / "predictions.jsonl").open("r+") as file:
        text = file.read().replace('"Yes."', '"no"')
        file.seek(0)
        file.truncate()
        file.write(text)
    assert cli.main(["figures", str(run), "--out", str(out), "--only", "budget", str(tmp_path / "broken.py")]) == 1
    assert {path.name: path.read_bytes() for path in out.iterdir()} == before
    # the error of a figure of one's own is its own
    (tmp_path / "lost.py").write_text("def draw(results):\n    open('gone.csv')\n")
    capsys.readouterr()
    assert cli.main(["figures", str(run), "--out", str(out), "--only", str(tmp_path / "lost.py")]) == 1
    assert "gone.csv" in capsys.readouterr().err
    (out / "types.csv").unlink()
    (out / "types.csv").mkdir()
    del before["types.csv"]
    assert cli.main(["figures", str(run), "--out", str(out)]) == 1
    assert "types.csv: needed a file name, got a folder" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


def test_a_figure_of_one_s_own(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("def draw(results):\n    return f'{len(results)} rows'\n")
    assert draw_chart(path, load_results(sweep(tmp_path / "run"))) == "440 rows"
    assert catalogue.names("figures") == ["budget", "cost", "frames", "heat", "paper", "types"]
    assert {p.stem for p in (ROOT / "figures").glob("*.py")} == set(catalogue.names("figures"))


def test_selections_have_colours_of_their_own_and_equal_budgets_name_the_settings(tmp_path):
    chosen = ("uniform", "topk", "bolt")
    settings = [
        setting(f"{name} {n}", n, "slowfast-slow_0frms_concat-fast_8x8", 64 * n)
        | ({"selection": name} if name != "uniform" else {})
        for name in chosen for n in (4, 8)
    ]  # fmt: skip
    rows = {s["name"]: rows_of(s["name"], 20 + i, visual_tokens=s["budget"]) for i, s in enumerate(settings)}
    results = load_results(
        write_run(tmp_path / "all", [row for made in rows.values() for row in made], "open", settings)
    )
    (panel,) = draw_chart("budget", results).panels
    assert [series.name for series in panel.series] == [*chosen, "Pareto front"]
    assert [list(series.x) for series in panel.series[:3]] == [[256, 512]] * 3 and not panel.names
    equal = [s for s in settings if s["frames"] == 8]
    made = [row for s in equal for row in rows[s["name"]]]
    chart = draw_chart("budget", load_results(write_run(tmp_path / "equal", made, "open", equal)))
    assert sorted(chart.panels[0].names) == ["bolt 8", "topk 8", "uniform 8"]
    assert chart.panels[0].x_label == "512 visual tokens each" and len(chart.panels[0].series) == 3
    figure = static.render(chart)
    figure.draw_without_rendering()
    edge = figure.bbox
    for text in [*figure.axes[0].get_xticklabels(), figure.axes[0].yaxis.label]:  # nothing is cut off
        box = text.get_window_extent()
        assert box.x0 >= edge.x0 and box.x1 <= edge.x1 and box.y0 >= edge.y0 and box.y1 <= edge.y1, text


def test_two_runs_have_names_of_their_own_and_points_those_of_their_settings(tmp_path):
    runs = [sweep(tmp_path / name) for name in ("seven", "large")]
    chart = draw_chart("budget", load_results(runs))
    assert chart.title == "Accuracy by visual tokens, open"
    series = [one for one in chart.panels[0].series if one.mark == "points"]
    assert {one.name.split(": ")[0] for one in series} == {"seven", "large"}
    assert len({one.colour for one in series}) == len(series) == 6
    assert all(label.startswith("slow <") for one in series for label in one.labels), "the run is in the legend"
    (axis,) = static.render(draw_chart("budget", load_results(runs[0])), width=8).axes
    assert any(text.get_text().startswith("slow <") for text in axis.texts)
    figure = static.render(draw_chart("cost", load_results(runs[0])))
    figure.draw_without_rendering()
    for axis in figure.axes:
        for text in [*axis.get_xticklabels(), *axis.texts]:  # nothing is cut off
            box = text.get_window_extent()
            assert box.x0 >= -1 and box.x1 <= figure.bbox.x1 + 1, text
