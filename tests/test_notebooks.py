from __future__ import annotations

import html
import importlib.util
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import papermill
import pytest
from click.testing import CliRunner
from papermill.cli import papermill as papermill_command
from scorers import write_colours
from small_runs import questions_csv
from written_runs import rows_of, write_run

from sfllava import SfllavaError, catalogue, run_notebook
from sfllava.cli import find_commands, main
from sfllava.notebooks import run_batch, run_paths, values_of
from sfllava.reports.export import report
from sfllava.runs.run_folder import read_rows

from conftest import ROOT  # isort: skip

_spec = importlib.util.spec_from_file_location("hooks", ROOT / "docs/hooks.py")
hooks = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(hooks)
SMALL = "slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2"


@pytest.fixture(autouse=True)
def _quiet(monkeypatch, tmp_path):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")


def cells_of(path) -> list:
    return json.loads(path.read_text())["cells"]


def data_of(cell) -> list:
    return [output.get("data", {}) for output in cell.get("outputs", [])]


def outputs(path) -> str:
    return "".join(json.dumps(cell.get("outputs", "")) for cell in cells_of(path))


def test_ask(checkpoints, videos, tmp_path):
    out = run_notebook(
        ROOT / "notebooks/ask.ipynb",
        tmp_path / "ask.ipynb",
        {
            "video": str(videos / "a.mp4"),
            "questions": ["what is it?", "where <b>is</b> it?"],
            "model": str(checkpoints()),
            "frames": 6,
            "aggregation": SMALL,
            "max_new_tokens": 4,
        },
        progress=False,
    )
    seen = outputs(out)
    assert "312 visual tokens of 8192 positions" in seen and "what is it?" in seen and "image/jpeg" in seen
    shown = [data.get("text/html", "") for cell in cells_of(out) for data in data_of(cell)]
    assert "where &lt;b&gt;is" in str(shown) and "<b>is</b>" not in str(shown), "not escaped"


def test_ask_with_chosen_frames(tmp_path, monkeypatch):
    """With the small scorer in the package; without one, the notebook stops with one line."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    parameters = {
        "questions": ["Which colour flashed first?"], "frames": 3, "selection": '["topk", "uniform"]', "max_new_tokens": 2,
        "aggregation": SMALL, "video": str(write_colours(tmp_path / "videos") / "a.mp4"),
    }  # fmt: skip
    out = tmp_path / "ask.ipynb"
    with pytest.raises(SfllavaError, match="needs a scorer: pass --scorer"):
        run_notebook(ROOT / "notebooks/ask.ipynb", out, parameters, progress=False)
    run_notebook(ROOT / "notebooks/ask.ipynb", out, {**parameters, "scorer": "tiny"}, progress=False)
    assert f"3frms-topk-{SMALL}" in outputs(out)


def test_evaluate_and_go_on(checkpoints, videos, tmp_path):
    parameters = {
        "benchmark": "open",
        "questions": str(questions_csv(tmp_path / "q.csv")),
        "videos": str(videos),
        "out": str(tmp_path / "run"),
        "model": str(checkpoints()),
        "frames": [6],
        "aggregation": [SMALL],
        "max_new_tokens": 4,
    }
    path = ROOT / "notebooks/evaluate.ipynb"
    out = run_notebook(path, tmp_path / "out" / "1.ipynb", parameters, progress=False)
    assert "12 of 12 questions answered" in outputs(out) and len(list(read_rows(tmp_path / "run"))) == 12
    again = [f"-p{name}={value if isinstance(value, str) else json.dumps(value)}" for name, value in parameters.items()]
    assert main(["notebook", str(path), str(tmp_path / "2.ipynb"), *again]) == 0
    assert len(list(read_rows(tmp_path / "run"))) == 12


def test_explore(videos, tmp_path):
    parameters = {"video": str(videos / "a.mp4"), "frames": 6, "aggregation": SMALL}
    out = run_notebook(ROOT / "notebooks/explore.ipynb", tmp_path / "explore.ipynb", parameters, progress=False)
    assert "application/vnd.jupyter.widget-view+json" in outputs(out)


TUTORIALS = {
    "figures": "ablate . ablation pool_operation . benchmark shapesqa . 22 questions",
    "ablate": "22 questions about 4 videos: too few videos",
    "ask": "visual tokens of 8192 positions",
    "demo": "plotly.*At 256 tokens: Of 2 paired differences",
    "evaluate": "22 questions, 22 answered, 0 failed|22 of 22 questions answered",
    "explore": "widget-view",
}
"""What each notebook shows with its own parameters; the first of them makes the run that the second continues"""
on_one_worker = pytest.mark.xdist_group("tutorials")  # so that each notebook is executed once


@pytest.fixture(scope="session")
def tutorials(tmp_path_factory) -> Path:
    """A folder with the notebooks as papermill alone runs them, which the documentation shows as tutorials."""
    folder = tmp_path_factory.mktemp("tutorials")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("IPYTHONDIR", str(folder / "ipython"))
        environment.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
        for name in TUTORIALS:
            hooks.execute(folder, name)
    return folder


@on_one_worker
@pytest.mark.parametrize(("name", "shown"), TUTORIALS.items(), ids=TUTORIALS)
def test_each_notebook_runs_with_its_own_parameters(tutorials, name, shown):
    assert set(TUTORIALS) == set(hooks.notebooks())
    assert re.search(shown, outputs(tutorials / f"{name}.ipynb"))


@on_one_worker
def test_the_demo_draws_the_budget_figure(tutorials):
    assert (tutorials / "demo/budget.png").stat().st_size > 20_000
    rows = [len(list(read_rows(tutorials / "demo" / form))) for form in ("open", "choice")]
    assert rows[0] == rows[1] and rows[0] % 9 == 0


@pytest.fixture(scope="session")
def site(tutorials, tmp_path_factory) -> Path:
    """The documentation, built as `make docs` does."""
    folder = tmp_path_factory.mktemp("docs") / "site"
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--strict", "--site-dir", str(folder)]
    environment = {
        **os.environ,
        "SFLLAVA_TUTORIALS": str(tutorials),
        "PYTHONPATH": str(ROOT),
        "NO_MKDOCS_2_WARNING": "1",
    }
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return folder


@on_one_worker
def test_the_pages_of_the_documentation_load_nothing_from_the_network(site):
    pages = sorted(site.rglob("*.html"))
    assert len(pages) > 40
    loads = re.compile(
        r"""<(?:script|img|iframe|link(?! rel="canonical"))[^>]*(?:src|href)=["']?(?:https?:)?//|import\(|url\(["']?http"""
    )
    for page in pages:
        found = loads.search(page.read_text())
        assert found is None, f"{page.relative_to(site)}: {found[0]}"


@on_one_worker
def test_tutorials_have_their_outputs_and_figures(site):
    for name in TUTORIALS:
        page = (site / "tutorials" / f"{name}.html").read_text()
        assert len(page) < 2_000_000 and "Traceback" not in page
        for file in re.findall(r'(?:src|href)="(\.\./[^"#?]+)', page):
            assert (site / "tutorials" / file).exists(), file
    assert "sfl-figure" in (site / "tutorials/demo.html").read_text() and (site / "assets/plotly.min.js").exists()
    assert "image/png;base64" in (site / "tutorials/explore.html").read_text()


@on_one_worker
def test_the_reference_has_the_docstrings_and_all_commands(site):
    for module in (
        "sampler.reading.read_video",
        "settings.Setting",
        "runs.evaluate.evaluate",
        "analysis.stats.proportion",
    ):
        page = site / "reference" / f"{module.split('.')[0]}.html"
        assert f'id="sfllava.{module}"' in page.read_text(), module
    commands = (site / "reference/command-line.html").read_text()
    for name, command in find_commands().items():
        assert f'<h2 id="{name}">' in commands, name
        assert html.escape(command.__doc__.partition("\n")[0], quote=False) in commands


@pytest.mark.parametrize(
    ("name", "parameters", "shown"),
    [
        ("ask", {"frames": "[4, 8]", "aggregation": "concat", "questions": '["Which digit?", "Where, then?"]'}, "4frms-concat: 256 visual.*8frms-concat: 512 visual.*Where, then"),
        ("evaluate", {"frames": "4,8", "aggregation": '["concat", "none"]', "limit": 2}, "4frms-concat.*4frms-none.*8frms-concat.*8frms-none.*4 settings, 8 of 8 questions answered"),
        ("explore", {"frames": "[4, 8]", "aggregation": "concat"}, "widget-view"),
    ],
)  # fmt: skip
def test_papermill_alone_takes_lists_as_text(tmp_path, name, parameters, shown):
    out = tmp_path / f"{name}.ipynb"
    path = ROOT / "notebooks" / f"{name}.ipynb"
    papermill.execute_notebook(path, out, parameters, cwd=str(tmp_path), progress_bar=False, log_output=False)
    assert re.search(shown, outputs(out))


@pytest.mark.parametrize(
    ("name", "parameters", "message"),
    [
        ("ask", {"frames": "eight"}, "frames: needed whole numbers, such as 8, [8, 16] or 8,16, got 'eight'"),
        ("ablate", {"benchmark": "nextqa"}, "nextqa: needed a question file, or a root folder that has it"),
        ("evaluate", {"aggregation": "[concat]"}, "no aggregation is called '[concat]'"),
        ("explore", {"frames": 0}, "frames must be a whole number of at least 1, got 0"),
    ],
)
def test_parameters_are_checked_before_the_model_is_loaded(tmp_path, monkeypatch, name, parameters, message):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(SfllavaError, match=rf"cell 3 failed: \w+: {re.escape(message)}"):
        run_notebook(name, tmp_path / "out.ipynb", parameters | {"model": "gone"}, progress=False)


@pytest.mark.parametrize("name", catalogue.names("notebooks"))
def test_papermill_shows_what_each_parameter_is(name):
    path = ROOT / "notebooks" / f"{name}.ipynb"
    shown = CliRunner().invoke(papermill_command, ["--help-notebook", str(path)]).output
    found = re.findall(r"^ +(\w+): (str|int|float|list) \(default .*?\)\s+\S.{5,}", shown, re.MULTILINE)
    parameters = papermill.inspect_notebook(str(path))
    assert [known for known, _ in found] == list(parameters), shown
    assert all(parameter["help"] and parameter["inferred_type_name"] != "None" for parameter in parameters.values())


@pytest.mark.parametrize("given", [8, "8", [8], "[8]", " 8 "])
def test_one_value_is_a_list_of_one(given):
    assert values_of(given, "frames", int) == [8]


def test_several_values():
    for given in ([8, 16], (8, 16), "[8, 16]", "8,16", ["8", 16]):
        assert values_of(given, "frames", int) == [8, 16]
    assert values_of("a,b", "aggregation") == values_of('["a", "b"]', "aggregation") == ["a", "b"]
    assert values_of("Where, then?", "questions", commas=False) == ["Where, then?"]
    assert values_of('["Where, then?", "[sic]?"]', "questions", commas=False) == ["Where, then?", "[sic]?"]
    assert values_of("[sic] what?", "questions", commas=False) == ["[sic] what?"]
    for bad in ("", [], "8,x", 8.5, True, "[8, null]", None, {"a": 1}):
        with pytest.raises(SfllavaError, match="frames: needed whole numbers"):
            values_of(bad, "frames", int)


def test_a_comma_in_the_path_of_a_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = write_run(tmp_path / "7b, first", rows_of("a", 30) + rows_of("b", 10))
    assert run_paths("7b, first") == run_paths(["7b, first"]) == run_paths('["7b, first"]') == ["7b, first"]
    assert run_paths("one,two") == ["one", "two"] and run_paths(Path("one")) == ["one"]
    assert "40 questions about 20 videos" in report(run).read_text()


def test_batches_are_checked_before_their_first_run(tmp_path):
    with pytest.raises(
        SfllavaError, match=r"no parameter is called 'framse' .did you mean 'frames'..; choose from benchmark"
    ):
        run_batch("evaluate", tmp_path / "runs", [{"limit": 1}, {"framse": 3}])
    with pytest.raises(SfllavaError, match="needed a folder of its own for each run, got out = runs/x for several"):
        run_batch("evaluate", tmp_path / "runs", [{"frames": n, "out": "runs/x"} for n in (4, 8)])
    assert not (tmp_path / "runs").exists()


def test_figures_of_two_runs(tmp_path):
    for i in (1, 2):
        write_run(tmp_path / f"run{i}", rows_of("a", 30) + rows_of("b", 10 * i))
    parameters = {"runs": f"{tmp_path / 'run1'},{tmp_path / 'run2'}", "out": str(tmp_path / "figures")}
    seen = outputs(run_notebook("figures", tmp_path / "f.ipynb", parameters, progress=False))
    assert "Of 6 paired differences on 40 questions" in seen and "run1: a" in seen and "plotly" in seen
    assert (tmp_path / "figures" / "budget.svg").exists() and (tmp_path / "figures" / "differences.tex").exists()


def test_a_failing_cell_is_one_line(checkpoints, tmp_path):
    parameters = {"model": str(checkpoints()), "video": "gone.mp4"}
    with pytest.raises(SfllavaError, match=r"out\.ipynb: cell 4 failed: VideoError: gone\.mp4: no such video"):
        run_notebook(ROOT / "notebooks/ask.ipynb", tmp_path / "out.ipynb", parameters, progress=False)


def test_unknown_parameters_are_refused(tmp_path, capsys):
    path = ROOT / "notebooks/ask.ipynb"
    with pytest.raises(
        SfllavaError,
        match=r"ask\.ipynb: no parameter is called 'framse' \(did you mean 'frames'\?\); choose from video, questions",
    ):
        run_notebook(path, tmp_path / "out.ipynb", {"framse": 3})
    assert main(["notebook", str(path), str(tmp_path / "out.ipynb"), "-p", "framse=3"]) == 1
    assert main(["notebook", str(path), str(tmp_path / "out.ipynb"), "-p", "frames"]) == 1
    assert main(["notebook", str(tmp_path / "gone.ipynb"), str(tmp_path / "out.ipynb")]) == 1
    (tmp_path / "bad.ipynb").write_text("no notebook")
    assert main(["notebook", str(tmp_path / "bad.ipynb"), str(tmp_path / "out.ipynb")]) == 1
    (tmp_path / "bad.ipynb").unlink()
    errors = capsys.readouterr().err
    assert "bad.ipynb: not a notebook" in errors
    assert "framse" in errors and "needed NAME=VALUE" in errors and "no such notebook" in errors
    assert not (tmp_path / "out.ipynb").exists() and not list(tmp_path.iterdir())
