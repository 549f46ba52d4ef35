"""`results.sfl`: tables with intervals as bars, and figures by name."""

from __future__ import annotations

import pandas as pd
import pytest
from grouped_runs import BY_TYPE, add_benchmark, tasks_run
from written_runs import rows_of, write_run

import sfllava
from sfllava import SfllavaError, catalogue


@pytest.fixture(scope="module")
def results(tmp_path_factory):
    run = write_run(tmp_path_factory.mktemp("runs") / "run", rows_of("a<b>", 30) + rows_of("b", 10))
    return sfllava.load_results(run)


def test_tables_show_intervals_and_stay_tables(results):
    found = results.sfl.accuracy()
    assert found["accuracy"].tolist() == [75.0, 25.0] and isinstance(found, pd.DataFrame)
    html = found._repr_html_()
    assert html.count("<svg") == 2 and "a&lt;b&gt;" in html and "<b>" not in html and "75.0" in html
    assert html.count('viewBox="0 0 120 14"') == 2, "a notebook that narrows a bar must not cut off its end"
    assert "<svg" not in found.round(1)._repr_html_(), "what is computed from it is a plain table"
    differences = results.sfl.compare()
    assert differences["points"].tolist() == [50.0] and "[" in (html := differences._repr_html_()) and "<svg" in html
    assert "paired differences on 40 questions" in results.sfl.findings()
    assert len(results.sfl.costs()) == 2 and len(results.sfl.failures()) == 0 and len(results.sfl.headlines()) == 0


def test_each_number_of_a_headline_has_its_own_interval(tmp_path, monkeypatch):
    add_benchmark(monkeypatch, BY_TYPE)
    found = sfllava.load_results(tasks_run(tmp_path / "run", ("a", {"plot": 15, "needle": 6, "count": 1}))).sfl
    row, html = found.headlines().iloc[0], found.headlines()._repr_html_()
    assert html.count("<svg") == html.count('class="nowrap"') == 2
    for low, high in (("low", "high"), ("accuracy_low", "accuracy_high")):
        assert html.count(f"[{row[low]:.1f}, {row[high]:.1f}]</span>") == 1


def test_figures_by_name(results):
    plot = results.sfl.plot
    assert dir(plot) == catalogue.names("figures") and "budget" in repr(plot)
    assert type(plot.budget()).__module__.startswith("plotly")
    assert type(plot.budget(paper=True)).__module__.startswith("matplotlib")
    with pytest.raises(AttributeError, match=r"no figure is called 'budgt' \(did you mean 'budget'\?\)"):
        plot.budgt()
    with pytest.raises(SfllavaError, match="figure paper: none, since not the runs of an ablation"):
        plot("paper")


def test_other_tables_have_no_results():
    with pytest.raises(AttributeError, match=r"\.sfl is for results from load_results"):
        pd.DataFrame({"a": [1]}).sfl  # noqa: B018
