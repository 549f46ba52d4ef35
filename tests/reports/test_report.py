"""The report of a run and the leaderboard of several: what they say, what they refuse, and that they are one file."""

from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from grouped_runs import BY_TYPE, TASKS, add_benchmark, tasks_run
from judged_runs import quick
from openai_server import Server
from written_runs import SHAPE, rows_of, write_run

from sfllava import cli
from sfllava.analysis.differences import describe_findings, paired_differences
from sfllava.analysis.loading import load_results
from sfllava.analysis.results import accuracy, costs
from sfllava.models.load import load_model
from sfllava.reports import sections
from sfllava.reports.comparable import group_runs
from sfllava.reports.export import export_all, report
from sfllava.reports.page import make_page
from sfllava.reports.ranking import headline_sentence, make_ranking
from sfllava.reports.run_card import run_card
from sfllava.runs.judge import judge
from sfllava.runs.run_folder import RunError
from sfllava.runs.run_json import session_facts
from sfllava.settings import Setting

CHROMIUM = next((found for name in ("chromium", "chromium-browser") if (found := shutil.which(name))), None)
GRIDS = {"fast 1x1": 1030, "fast 2x4": 1380, "fast 4x4": 1780, "fast 8x8": 4180}
FACTS = {
    "ablation": "fast_grid", "model": "/data/models/tiny/weights", "device": "cpu", "prompt_source": "vicuna/open",
    "started": "2026-11-28T09:30:00+00:00", "versions": {"python": "3.11.9", "sfllava": "0.4.0", "torch": "2.13.0"},
    "known_visual_tokens": 1500, "command": ["sfllava", "ablate", "fast_grid"],
}  # fmt: skip


def settings_of(tokens):
    return [
        {"name": name, "frames": 50, "budget": n,
         "aggregation": f"slowfast-slow_10frms_spatial_1d_max_pool-fast_{name.split()[-1]}"}
        for name, n in tokens.items()
    ]  # fmt: skip


def grid_run(folder, right=(36, 30, 8, 1), **facts):
    """A sweep whose last two settings are beyond what the model knows, and mostly empty."""
    rows = []
    for (name, tokens), n in zip(GRIDS.items(), right):
        made = rows_of(name, n, visual_tokens=tokens, seconds={"answer": 0.2})
        rows += [row | {"prediction": ""} if tokens > 1500 and row["prediction"] == "no" else row for row in made]
    identity = {
        "prompt": "USER: <video> Q: {question} A:", "max_new_tokens": 16, "asked_sha256": "a" * 64,
        "model": {"shape": SHAPE, "dtype": "torch.float32", "sha256_sampled": "c" * 64},
    } | facts.pop("identity", {})  # fmt: skip
    run = write_run(folder, rows, settings=settings_of(GRIDS), identity=identity, **{**FACTS, **facts})
    costs = {name: {"seconds": 3.4, "seconds_encode": 0.12, "peak_bytes": 1.102e9} for name in GRIDS}
    (run / "costs.json").write_text(json.dumps(costs))
    return run


@pytest.fixture
def no_figures(monkeypatch):
    """Drawing takes most of a page's time, and most tests read its words only."""
    monkeypatch.setattr(sections, "figures", lambda *arguments, **options: [])


def text_of(page):
    """The words of a page, without its style, scripts and drawings."""
    page = re.sub(r"<(style|script|svg)\b.*?</\1>", " ", page, flags=re.DOTALL)
    return " ".join(re.sub(r"<[^>]+>", " ", page).split())


def test_settings_with_empty_answers_are_flagged_and_not_ranked(tmp_path, no_figures):
    run = grid_run(tmp_path / "run")
    results = load_results(run)
    assert results["empty"].sum() == 32 + 39 and not results["unparsable"].any()
    ranking = make_ranking(results)
    assert [entry.name for entry in ranking.ranked] == ["fast 1x1", "fast 2x4"]
    said = headline_sentence(ranking)
    assert said.startswith("fast 1x1 ") and "fast 8x8" not in said and "fast 4x4" not in said
    text = text_of(make_page([run]))
    assert "not ranked: 98 % of its answers are empty" in text and "unparsable" not in text.replace(
        "failed, empty and unparsable", ""
    )
    beyond = (
        "More visual tokens than the 1,500 that the model is known to answer with: fast 4x4 (1,780), fast 8x8 (4,180)."
    )
    assert beyond in text
    # in the terminal too, and before anything is said to be better
    words = describe_findings(results)
    assert words.startswith("Not ranked, since many of their answers are empty: fast 4x4 (80 %), fast 8x8 (98 %).")
    assert beyond in words and "better than fast 8x8" not in words and "corrected for 6 comparisons" in words


def test_a_model_says_what_it_knows_and_a_run_warns_beyond(tmp_path, caplog, benchmark):
    """The tiny model's folder has its range; it is recorded, and is no part of what resumes a run."""
    from sfllava.runs.evaluate import prepare

    model = load_model("tiny")
    known = model.info.known_visual_tokens
    assert known == 1500
    settings = [Setting(50, f"slowfast-slow_10frms_spatial_1d_max_pool-fast_{n}x{n}", f"fast {n}x{n}") for n in (1, 8)]
    made = prepare(model, benchmark, settings, tmp_path / "run")
    (warning,) = [record.getMessage() for record in caplog.records if "known to answer" in record.getMessage()]
    assert "fast 8x8 (3,520)" in warning and "fast 1x1" not in warning and "1,500" in warning
    assert session_facts(benchmark, model.info, {})["known_visual_tokens"] == known
    assert "known_visual_tokens" not in json.dumps(made.folder._identity)


def test_the_report_says_what_was_asked_of_which_model_and_when(tmp_path, capfd):
    run = grid_run(tmp_path / "run")
    assert cli.main(["report", str(run)]) == 0
    out = capfd.readouterr()
    assert out.out == f"{run / 'report.html'}\n" and not out.err
    page = (run / "report.html").read_text()
    text = text_of(page)
    assert "<title>fast_grid on open</title>" in page
    for shown in (
        "How many tokens does a frame need in the Fast pathway?", "the tiny model", "28 November 2026",
        "USER: &lt;video&gt; Q: {question} A:", "Prompt, vicuna/open", "SHA-256 cccc", "sfllava ablate fast_grid",
        "sfllava 0.4.0, torch 2.13.0, Python 3.11.9",
    ):  # fmt: skip
        assert shown in text, shown
    # readable numbers, and nothing of a notebook
    assert "1.0 GiB" in text and "3.4 s" in text and "120 ms" in text
    assert not re.search(r"\de[+-]\d\d|Out\[|NaN|nan ", text)
    assert "Failures" not in text, "none failed"
    assert len(page.encode()) < 1e6
    assert not re.search(r"""(src|href)=["'](?!#)|url\(["']?(?!#)|@import""", page), "it would load something"
    assert (run / "figures" / "budget.pdf").exists() and not (run / "report.ipynb").exists()
    # the same run gives the same page
    assert report(run, tmp_path / "again.html").read_text() == page


def test_what_a_paper_needs(tmp_path, no_figures):
    text = text_of(make_page([grid_run(tmp_path / "run")]))
    for said in (
        "We evaluated 4 settings of the tiny model (float32) on open, with 40 questions about 20 videos",
        "greedily decoded replies of at most 16 tokens", "corrected for 6 comparisons (Holm 1979)",
        "clustered by video", "offline, by the strict rules",
    ):  # fmt: skip
        assert said in text, said
    latex = text[text.index(r"\begin{table}") : text.index(r"\end{table}")]
    assert (
        r"fast 1x1 &amp; 1,030 &amp; \textbf{90.0} [" in latex and r"fast 8x8 &amp; 4,180 &amp; 2.5$^\ast$ [" in latex
    )


def test_failures_and_what_was_not_asked_are_on_the_page(tmp_path, no_figures):
    rows = rows_of("a", 30) + rows_of("b", 20)
    for i in (3, 7):
        rows[i] |= {"prediction": None, "error": "v1: <b>no such video</b>"}
    run = write_run(tmp_path / "run", rows, identity={"questions": 50, "asked_sha256": "a" * 64})
    page = make_page([run])
    text = text_of(page)
    assert "Failures" in text and "v1: &lt;b&gt;no such video&lt;/b&gt;" in text
    assert "2 answers failed and count as wrong" in text and "20 questions have not been asked yet" in text


def test_the_methods_say_only_what_is_known(tmp_path, no_figures):
    """Not of an unfinished run that its settings have the same questions, nor of imported answers how they were made."""
    facts = {"identity": {"asked_sha256": "a", "questions": 30}}
    part = write_run(tmp_path / "part", rows_of("a", 20, 15) + rows_of("b", 9, 10), **facts)
    text = text_of(make_page([part]))
    assert "We evaluated 2 settings of an unnamed model on open, with up to 30 questions about 15 videos." in text
    assert "listed below" not in text and "same for all" not in text
    log = {"source": "lmms-eval", "version": "0.7.3", "task": "nextqa", "model": "llava_onevision"}
    for name, imported, said in (
        ("log", log | {"model_args": "pretrained=org/llava-7b,x=1"}, "one setting of org/llava-7b on open, with 40"),
        ("class", log, "one setting of llava_onevision on open, with 40"),
        ("outputs", {"from": "published code"}, "one setting on open, with 40"),
    ):
        facts = {"identity": {"asked_sha256": "a", "imported": imported, "model": None, "read": "generate"}}
        run = write_run(tmp_path / name, rows_of("a", 20), gen_kwargs={"temperature": 0}, **facts)
        text = text_of(make_page([run]))
        assert said in text and "unnamed" not in text and "listed below" not in text and "greedily" not in text
        source = "the published code" if "from" in imported else "lmms-eval (version 0.7.3, task nextqa, "
        assert f"Answers were imported from {source}" in text and "generated with temperature=0)" in text


def test_a_run_that_was_killed_before_its_first_answer(tmp_path, capsys):
    run = write_run(tmp_path / "run", [], settings=settings_of(GRIDS), identity={"questions": 40, "asked_sha256": "a"})
    for command in (["report", str(run)], ["compare", str(run)], ["compare", str(run), "--baseline", "fast 2x4"]):
        assert cli.main(command) == 0, capsys.readouterr().err
    assert "There is no answer yet." in capsys.readouterr().out
    text = text_of((run / "report.html").read_text())
    assert "There is no answer yet." in text and "160 questions have not been asked yet" in text
    assert "We evaluated" not in text
    assert "there is no answer yet" in export_all(run, tmp_path / "out", ["budget", "types"])["budget"]
    assert "finished" in run_card(run, {})
    results = load_results(run)
    assert accuracy(results)["accuracy"].isna().tolist() == [True] * 4 and "tokens" in costs(results)


def test_all_text_is_escaped(tmp_path):
    name = '<img src=x onerror="alert(1)">'
    rows = [row | {"type": f"<u>{i % 2}</u>"} for s in (name, "b") for i, row in enumerate(rows_of(s, 30))]
    page = make_page([write_run(tmp_path / "run", rows, identity={"prompt": "</pre><script>", "asked_sha256": "a"})])
    assert "<img" not in page and "<u>0" not in page and "</pre><script>" not in page and "&lt;img src=x" in page


def test_the_matrix_is_row_minus_column(tmp_path, no_figures):
    rows = rows_of("a", 40) + rows_of("b", 20) + rows_of("c", 38)
    page = make_page([write_run(tmp_path / "run", rows, identity={"asked_sha256": "a"})])
    cells = dict(re.findall(r'title="([abc] minus [abc]): ([^"]*)"', page))
    assert cells["a minus b"].startswith("+50.0 points [") and cells["a minus b"].endswith("p = 0.006, significant")
    assert cells["b minus a"].startswith("−50.0 points [−") and "not significant" in cells["a minus c"]
    assert page.count('class="mid up"') == page.count('class="mid down"') == 2
    text = text_of(page)
    assert "a has the highest accuracy, 100.0 % [" in text and "c cannot be told apart from it" in text
    assert (
        "significantly better than b, by 50.0 points [" in text
        and "c 3,680 95.0 [" in text
        and "not distinguishable" in text
    )


@pytest.mark.parametrize("videos", [3, 6, 8, 20])
def test_intervals_of_differences_stay_in_their_range(tmp_path, no_figures, videos):
    """The flips' interval is bounded by what a difference can be, also where everything or nothing is right."""
    chance = np.random.default_rng(videos)
    counts = [0, 1, videos, 2 * videos - 1, 2 * videos]
    rows = [row for i, n in enumerate(counts) for row in rows_of(f"s{i}", n, videos)]
    rows += [
        row | {"setting": "r", "prediction": ("Yes.", "no")[chance.integers(2)]} for row in rows_of("r", 0, videos)
    ]
    table = paired_differences(load_results(write_run(tmp_path / "run", rows)))
    assert (table["low"] >= -100).all() and (table["high"] <= 100).all()
    assert ((table["low"] <= table["points"]) & (table["points"] <= table["high"])).all()
    shown = re.findall(r"\[(−?[\d.]+), (−?[\d.]+)\]", text_of(make_page([tmp_path / "run"])))
    assert shown and all(abs(float(end.replace("−", "-"))) <= 100 for pair in shown for end in pair)


def test_a_benchmarks_own_number_is_ranked(tmp_path, no_figures, monkeypatch):
    add_benchmark(monkeypatch, BY_TYPE)
    right = {"plot": 15, "needle": 6, "count": 1}, {"plot": 21, "needle": 3, "count": 1}
    run = tasks_run(tmp_path / "run", ("a", right[0]), ("b", right[1]), complete={**TASKS, "order": 10})
    text = text_of(make_page([run]))
    assert "a has the highest M-Avg, 58.3 % [" in text and "M-Avg is not that of the whole benchmark" in text


def test_comparable_runs_are_one_ranking(tmp_path, capsys, monkeypatch):
    one = grid_run(tmp_path / "one")
    two = grid_run(tmp_path / "two", right=(20, 16, 8, 1), model="/hub/models--org--large-7b/snapshots/1")
    monkeypatch.chdir(tmp_path)
    assert cli.main(["report", str(one), str(two)]) == 0
    assert capsys.readouterr().out == "leaderboard.html\n"
    text = text_of((tmp_path / "leaderboard.html").read_text())
    assert "one: fast 1x1" in text and "two: fast 1x1" in text and "org/large-7b" in text and "not all" not in text
    assert "We evaluated 8 settings of the tiny model (float32) and org/large-7b (float32)" in text


def test_runs_that_are_not_comparable_are_not_ranked_together(tmp_path, no_figures):
    runs = [grid_run(tmp_path / "a"), grid_run(tmp_path / "b", identity={"asked_sha256": "b" * 64})]
    runs += [grid_run(tmp_path / "c", protocol="lmms-eval"), grid_run(tmp_path / "d")]
    groups = group_runs(runs)
    assert [[run.name for run in folders] for _, folders in groups] == [["a", "d"], ["b"], ["c"]]
    first = groups[0][0]
    assert [conditions.differing(first) for conditions, _ in groups] == [[], ["questions"], ["protocol"]]
    text = text_of(make_page(runs))
    assert "4 runs in 3 rankings, since not all of them are comparable" in text
    assert "other questions than ranking 1" in text and "other protocol than ranking 1" in text
    # no sentence compares across rankings
    assert not re.search(r"b: fast \S+ minus", text)


def test_two_judges_of_one_name_are_not_one(tmp_path, no_figures):
    runs = [grid_run(tmp_path / name) for name in "ab"]
    with Server() as server, pytest.MonkeyPatch.context() as patch:
        for name, value in server.environment().items():
            patch.setenv(name, value)
        for run, model in zip(runs, ("judge-2026-01-01", "judge-2026-02-02")):
            judge(run, quick(model, name="mine"), progress=False)
    (first, _), (second, _) = group_runs(runs, "mine")
    assert second.differing(first) == ["judge"] and str(second).endswith("judged by mine (judge-2026-02-02)")
    assert "judged by mine (judge-2026-01-01)" in text_of(make_page(runs, "mine"))


def test_errors_are_one_line(tmp_path, capsys):
    run = grid_run(tmp_path / "run")
    assert cli.main(["report", str(run), "--judge", "nobody"]) == 1
    assert "verdicts-nobody.jsonl: no verdicts by this judge" in capsys.readouterr().err
    assert not (run / "report.html").exists() and not (run / "figures").exists()
    with pytest.raises(RunError, match="needed a file to write for a report of 2 runs"):
        report([run, run])


@pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium")
def test_the_page_in_a_browser(tmp_path):
    """It asks for no other file, fits a small window, follows the reader's dark colours, and copies."""
    playwright = pytest.importorskip("playwright.sync_api", reason="no playwright here: pip install playwright")
    page_file = report(grid_run(tmp_path / "run"), tmp_path / "report.html")
    with playwright.sync_playwright() as p:
        browser = p.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        context = browser.new_context(viewport={"width": 800, "height": 900}, color_scheme="dark")
        page, asked = context.new_page(), []
        page.on("request", lambda request: asked.append(request.url))
        page.goto(page_file.as_uri())
        assert asked == [page_file.as_uri()]
        assert page.evaluate("document.documentElement.scrollWidth") <= 800
        assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(20, 23, 27)"
        page.click("button[data-copy^=latex]")
        answered = page.locator("button[data-copy^=latex]", has_text=re.compile("^(copied|selected)"))
        answered.wait_for(timeout=10_000)
        browser.close()
