from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
from scorers import write_colours, write_scorer
from small_runs import plain, questions_csv

from sfllava import catalogue, cli
from sfllava.ablation import ablate, load_ablation, measure_costs
from sfllava.analysis.loading import load_results
from sfllava.analysis.results import accuracy, costs
from sfllava.benchmarks import BenchmarkError, load_benchmark
from sfllava.models.language_model import LanguageModel
from sfllava.models.video_lm import TransformersVideoLM
from sfllava.notebooks import run_batch, run_notebook
from sfllava.runs.ask import ask
from sfllava.runs.evaluate import evaluate
from sfllava.runs.run_folder import read_rows
from sfllava.runs.selection_source import SelectionSource
from sfllava.sampler.reading import read_video
from sfllava.sampler.sampling import sample_indices
from sfllava.settings import Setting
from sfllava.types import SfllavaError

# three Slow pathways by three Fast grids, two frame counts, and a way that tiles frames before they are encoded
MINE = '''"""Which is best?"""

from sfllava import Setting, SlowFast

BENCHMARK = "open"
SETTINGS = [
    *(Setting(6, SlowFast(n, "spatial_2d_avg_pool", (g, g)), f"slow {n} fast {g}") for g in (1, 2, 3) for n in (1, 2, 3)),
    Setting(4, "slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2", "four"),
    Setting(6, "image_grid-2x3", "tiled"),
    Setting(6, "slowfast-slow_1frms_spatial_2d_avg_pool-fast_1x1", "asked otherwise", "<video> So, {question}"),
]
'''


@pytest.fixture
def mine(tmp_path) -> Path:
    path = tmp_path / "mine.py"
    path.write_text(MINE)
    return path


@pytest.fixture
def benchmark(videos, tmp_path):
    return load_benchmark("open", questions_csv(tmp_path / "q.csv", each=2), videos)


@pytest.mark.parametrize("name", catalogue.names("ablations"))
def test_every_ablation_asks_something_and_fits_the_model(models, name):
    ablation = load_ablation(name)
    assert ablation.question.endswith("?") and ablation.benchmark in ("egoschema", "videomme")
    model = models()
    settings = ablation.settings(model.info, "choice")
    assert 2 <= len(settings) == len({setting.name for setting in settings})
    assert set(ablation.paper) <= {setting.name for setting in settings}
    for setting in settings:
        model.info.check_context(setting.token_count(*model.info.grid), 100, setting.name)


def test_the_papers_tokens_are_those_of_its_settings():
    sizes = {s.name: s.token_count() for s in load_ablation("slow_pooling").settings(None)}
    assert sizes["slow 10, half"] == 3680 and sizes["slow 5, a quarter"] == 5 * 144 + 800
    grids = {s.name: s.token_count() for s in load_ablation("fast_grid").settings(None)}
    assert grids["fast 8x8"] == 2880 + 3200 and list(grids) == list(load_ablation("fast_grid").paper)


def test_a_budget_is_for_ablations_that_match_one(models):
    sizes = {s.name: s.token_count() for s in load_ablation("methods").settings(models().info, "choice", 1200)}
    whole = [size for name, size in sizes.items() if "%" not in name]
    assert len(whole) == 13 and all(500 < size <= 1200 for size in whole)
    assert all(sizes[name] == 600 for name in ("visionzip, 50 %", "dyto, 50 %")) and sizes["fastvid, 25 %"] == 300
    assert "merged, 25 %" not in sizes and max(n for name, n in sizes.items() if "25 %" in name) <= 300
    with pytest.raises(SfllavaError, match="fast_grid has settings of its own and takes no token budget"):
        load_ablation("fast_grid").settings(models().info, "choice", 1200)


def test_prompt_parts(models):
    for family in ("vicuna", "mistral"):
        settings = load_ablation("prompt_parts").settings(models(family).info, "choice")
        texts = {s.name: s.prompt for s in settings}
        assert "The right option is (" in texts["whole prompt"] and "The right" not in texts["no start of the reply"]
        assert "Reply with" not in texts["no instruction"] and "in order" not in texts["no word on the frames"]
        assert all("{question}" in text and "{options}" in text and "<video>" in text for text in texts.values())


@pytest.mark.parametrize("family", ["vicuna", "mistral"])
def test_a_sweep_equals_separate_runs_token_for_token(models, benchmark, mine, tmp_path, family):
    model = models(family)
    settings = load_ablation(mine).settings(model)
    options = {"max_new_tokens": 6, "progress": False}
    swept = {
        (r["key"], r["setting"]): r for r in read_rows(ablate(mine, model, benchmark, tmp_path / "all", **options).path)
    }
    alone = {}
    for i, setting in enumerate(settings):
        run = evaluate(model, benchmark, setting, tmp_path / str(i), **options)
        alone |= {(r["key"], r["setting"]): r for r in read_rows(run.path)}
    assert swept.keys() == alone.keys() and len(swept) == 6 * len(settings)
    for key, row in swept.items():
        assert row["token_ids"] == alone[key]["token_ids"] and row["error"] is None, key
        assert row["visual_tokens"] == alone[key]["visual_tokens"] and alone[key]["reused_tokens"] == 0
    # of the three settings of one Slow pathway the later two find it there
    reused = {key[1]: row["reused_tokens"] for key, row in swept.items()}
    assert all(reused[f"slow {n} fast {g}"] == 144 * n for n in (1, 2, 3) for g in (2, 3))
    assert reused["slow 1 fast 1"] == reused["tiled"] == reused["asked otherwise"] == 0


def test_answers_of_the_plain_way_on_a_real_video(models, shared, tmp_path, mine):
    model, clips = models(), shared / "clips"
    benchmark = load_benchmark("open", next(clips.glob("*open*.csv")), clips)
    run = ablate(mine, model, benchmark, tmp_path / "run", limit=2, max_new_tokens=6, progress=False, measure=False)
    rows = {(r["key"], r["setting"]): r for r in read_rows(run.path)}
    for question in benchmark.questions[:2]:
        path = benchmark.find_video(question.video)
        for setting in load_ablation(mine).settings(model)[:10]:
            grid = model.encode(read_video(path, setting.frames).frames)
            answer = model.answer(setting.tokens(grid), [question], max_new_tokens=6, share_prefix=False)
            assert rows[question.key, setting.name]["token_ids"] == list(answer[0].token_ids), setting.name


def test_a_sweep_decodes_encodes_and_prefills_once(models, benchmark, mine, tmp_path, monkeypatch):
    encoded, prefilled = [], []
    encode, forward = TransformersVideoLM.encode, LanguageModel.forward
    monkeypatch.setattr(TransformersVideoLM, "encode", lambda self, f: encoded.append(len(f)) or encode(self, f))
    monkeypatch.setattr(
        LanguageModel, "forward", lambda self, e, **o: prefilled.append(e.shape[1]) or forward(self, e, **o)
    )
    ablate(mine, models(), benchmark, tmp_path / "run", max_new_tokens=1, progress=False, measure=False)
    union = [len(set(sample_indices(n, 6)) | set(sample_indices(n, 4))) for n in (20, 21, 22)]
    assert sorted(encoded) == sorted([1, 1, 1, *union])
    settings = load_ablation(mine).settings(models())
    # the prompt before the video aside, which is fewer than 60 tokens a prefill
    separate = 3 * sum(s.token_count() for s in settings)
    slow, fast = 3 * sum(n * 144 for n in (1, 2, 3)), 3 * 3 * sum(6 * g * g for g in (1, 2, 3))
    others = 3 * sum(s.token_count() for s in settings[9:])
    shared = sum(n for n in prefilled if n > 40)
    assert slow + fast + others <= shared + 3 * 9 * 40 and shared < 0.72 * separate


def test_costs_are_measured_alone(models, benchmark, mine, tmp_path):
    run = ablate(mine, models(), benchmark, tmp_path / "run", max_new_tokens=1, progress=False)
    table = costs(load_results(run.path)).set_index("name")
    assert (table["seconds"] > 0).all() and set(table["video"]) == {"a"}
    assert (table["seconds"] >= table["seconds_encode"] + table["seconds_prefill"] - 1e-9).all()
    assert table.loc["slow 3 fast 3", "prefill_flops"] > table.loc["slow 1 fast 1", "prefill_flops"] > 0


def test_an_ablation_that_grew_is_asked_and_timed_where_it_is_new(models, benchmark, mine, tmp_path):
    options = {"max_new_tokens": 1, "progress": False}
    mine.write_text(MINE.replace("for n in (1, 2, 3))", "for n in (1, 2))"))
    ablate(mine, models(), benchmark, tmp_path / "run", **options)
    file, rows = tmp_path / "run" / "costs.json", tmp_path / "run" / "predictions.jsonl"
    before, asked = json.loads(file.read_text()), rows.read_bytes()
    mine.write_text(MINE)
    scores = ablate(mine, models(), benchmark, tmp_path / "run", **options).scores
    after = json.loads(file.read_text())
    assert after | before == after and after.keys() == scores.keys()
    assert after.keys() - before.keys() == {f"slow 3 fast {n}" for n in (1, 2, 3)}
    assert rows.read_bytes().startswith(asked) and all(s["answered"] == 6 for s in scores.values())
    file.write_text("{")
    with pytest.raises(SfllavaError, match=r"costs\.json: not the costs"):
        ablate(mine, models(), benchmark, tmp_path / "run", **options)


def test_a_benchmark_by_its_name(models, videos, tmp_path):
    options = {"questions": questions_csv(tmp_path / "q.csv", each=1), "max_new_tokens": 1, "progress": False}
    with pytest.raises(BenchmarkError, match="open: no folder of videos was given or found"):
        evaluate(models(), "open", Setting(4), tmp_path / "run", **options)
    with pytest.raises(BenchmarkError, match="nextqa: needed a question file, or a root folder"):
        ablate("frames", models(), "nextqa", tmp_path / "run")
    options["videos"] = videos
    benchmark = load_benchmark("open", options["questions"], videos)
    with pytest.raises(BenchmarkError, match="open: root, questions, videos and subtitles are for a benchmark by name"):
        evaluate(models(), benchmark, Setting(4), tmp_path / "run", **options)
    small = Setting(4, "slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2")
    assert evaluate(models(), "open", small, tmp_path / "run", **options).scores[small.name]["answered"] == 3
    assert ablate("pool_operation", models(), "open", tmp_path / "all", measure=False, **options).scores


def test_a_setting_that_fails_costs_its_own_questions_only(models, benchmark, mine, tmp_path, monkeypatch):
    answer = TransformersVideoLM.answer_batch

    def fails(self, films, **options):
        if any(len(tokens) == 3 * 144 + 6 * 9 for tokens, _ in films):
            raise MemoryError("too large")
        return answer(self, films, **options)

    monkeypatch.setattr(TransformersVideoLM, "answer_batch", fails)
    run = ablate(mine, models(), benchmark, tmp_path / "run", max_new_tokens=2, progress=False, measure=False)
    failed = {name: s["failed"] for name, s in run.scores.items() if s["failed"]}
    assert failed == {"slow 3 fast 3": 6} and run.scores["slow 3 fast 3"]["reasons"] == {"MemoryError: too large": 6}
    table = accuracy(load_results(run.path)).set_index("name")
    assert table.loc["slow 3 fast 3", "failed"] == 6 and table["questions"].eq(6).all()


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SETTINGS = []", "needed a docstring that asks the question"),
        ('"""Why?"""\nBENCHMARK = "open"', "needed either SETTINGS or a function settings"),
        ('"""Why?"""\n1 / 0', "ZeroDivisionError: division by zero"),
        ('"""Why?"""\nfrom sfllava import Setting\nSetting(50, "best")', "no aggregation is called 'best'"),
    ],
)
def test_a_spoilt_ablation_is_an_error_that_names_it(tmp_path, text, message):
    path = tmp_path / "mine.py"
    path.write_text(text)
    with pytest.raises(SfllavaError, match=re.escape(message)):
        load_ablation(path)


def test_unknown_ablations(tmp_path):
    with pytest.raises(
        SfllavaError, match="no ablation is called 'best'; choose from fast_grid, frame_rules, frames, methods"
    ):
        load_ablation("best")
    with pytest.raises(SfllavaError, match=r"gone\.py: no such ablation"):
        load_ablation(tmp_path / "gone.py")


@pytest.fixture(scope="module")
def shapes(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    assert cli.main(["render", str(folder), "--videos", "4"]) == 0
    return folder


def test_the_command_and_the_notebook_do_the_same(shapes, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    common = ["--benchmark", "shapesqa", "--root", str(shapes), "--model", "tiny", "--limit", "9", "--seed", "0"]
    assert cli.main(["ablate", "slow_pooling", *common, "--out", str(tmp_path / "cli"), "--max-new-tokens", "6"]) == 0
    said = capsys.readouterr().out
    assert (
        re.search(r"9 questions at \d settings, \d+ answered, 0 failed\n", said)
        and "slow 10, half" in said
        and said.endswith("report.html\n")
    )
    report = (tmp_path / "cli" / "report.html").read_text()
    assert "9 questions about 4 videos: too few videos" in report and "slow 5, a quarter" in report
    assert "plotly" in report and "none, since the paper has no numbers of slow_pooling on shapesqa" in report
    parameters = {
        "ablation": "slow_pooling",
        "benchmark": "shapesqa",
        "root": str(shapes),
        "limit": 9,
        "max_new_tokens": 6,
    }
    out = run_notebook("ablate", tmp_path / "nb.ipynb", parameters | {"out": str(tmp_path / "nb")}, progress=False)
    assert (
        plain(read_rows(tmp_path / "nb")) == plain(read_rows(tmp_path / "cli"))
        and len(list(read_rows(tmp_path / "nb"))) == 54
    )
    assert "too few videos to tell settings apart" in out.read_text() and "plotly" in out.read_text()


def test_a_batch_of_notebooks_runs_side_by_side(shapes, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    common = ["-p", "benchmark=shapesqa", "-p", f"root={shapes}", "-p", "limit=2", "-p", "max_new_tokens=4"]
    grid = ["--grid", "ablation=pool_operation,fast_gird", "--jobs", "2"]
    assert cli.main(["batch", "ablate", "--out", str(tmp_path / "runs"), *common, *grid]) == 1
    said = capsys.readouterr().out
    assert "pool_operation: done" in said
    assert (
        "fast_gird: failed" in said
        and "no ablation is called 'fast_gird' (did you mean 'fast_grid'?); choose from fast_grid" in said
    )
    folder = tmp_path / "runs" / "pool_operation"
    assert len(list(read_rows(folder / "run"))) == 8 and json.loads((folder / "ablate.ipynb").read_text())["cells"]
    with pytest.raises(SfllavaError, match="at least one job"):
        run_batch("ablate", tmp_path, [], jobs=1)


def test_costs_of_chosen_frames_are_measured_at_these_frames(models, tmp_path, monkeypatch):
    """As many images as the pathways of the first question have, and not those of a later one."""
    videos, scorer = write_colours(tmp_path / "videos"), write_scorer(tmp_path / "clip")
    benchmark = load_benchmark("open", questions_csv(tmp_path / "q.csv", "ab"), videos)
    source = SelectionSource(str(scorer), cache=tmp_path / "scores")
    uniform = Setting(6, "slowfast-slow_2frms_spatial_2d_avg_pool-fast_2x2", "uniform")
    settings = [uniform, replace(uniform, label="slow", selection="topk", selection_for="slow")]
    settings.append(replace(uniform, label="mine", selection="listed"))
    (tmp_path / "list.json").write_text(json.dumps({"b": {benchmark.questions[-1].text: [1]}}))
    listed = replace(source, frame_list=tmp_path / "list.json")
    encoded, model = [], models()
    encode = TransformersVideoLM.encode
    monkeypatch.setattr(
        TransformersVideoLM, "encode", lambda self, frames: encoded.append(len(frames)) or encode(self, frames)
    )
    found = measure_costs(model, benchmark, settings, listed)
    first = ask(model, videos / "a.mp4", [benchmark.questions[0]], settings[1], max_new_tokens=1, selection=source)
    wanted = len(first.video.frames)
    assert encoded == [6, 6, wanted, wanted] and wanted > 6  # a warm-up, both settings, and the question alone
    assert set(found) == {"uniform", "slow"}, "no frames are listed for the first question: a warning, and no cost"
    assert found["slow"]["without_scoring"] is True and "without_scoring" not in found["uniform"]
