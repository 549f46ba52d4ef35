from __future__ import annotations

import subprocess
import sys

import pytest

import sfllava.evaluators as evaluators
from sfllava.evaluators import judges
from sfllava.evaluators.judges import JudgeOptions, find_judge, judge_names
from sfllava.types import SfllavaError


def test_each_task_has_its_evaluator():
    found = {task: evaluators.find_evaluator(task) for task in ("choice", "open", "describe")}
    assert {task: one and one.task for task, one in found.items()} == {
        "choice": "choice", "open": "open", "describe": None,
    }  # fmt: skip


def test_a_new_file_is_a_new_evaluator(tmp_path, monkeypatch):
    (tmp_path / "new_evaluator.py").write_text(
        "from sfllava.evaluators.base import Evaluator\n"
        "EVALUATOR = Evaluator('describe', lambda question, prediction: {}, lambda *_: (True, True))\n"
    )
    monkeypatch.setattr(evaluators, "__path__", [*evaluators.__path__, str(tmp_path)])
    assert evaluators.find_evaluator("describe").grade_quickly("a", (), "b") == (True, True)


def test_the_names_of_judges():
    assert judge_names() == ["llava", "local", "match-contains", "match-exact", "openai"]
    assert [name for name in judge_names() if find_judge(name).has_batch_api] == ["openai"]
    with pytest.raises(SfllavaError, match="no judge is called 'x'; choose from llava, local, match-contains"):
        find_judge("x")


def test_a_new_file_is_a_new_judge(tmp_path, monkeypatch):
    (tmp_path / "new_judge.py").write_text(
        "from sfllava.evaluators.judges import JudgeKind\n"
        "JUDGE = JudgeKind(('strict',), 'strict: no to everything', lambda name, options: (name, options.model))\n"
    )
    monkeypatch.setattr(judges, "__path__", [*judges.__path__, str(tmp_path)])
    assert find_judge("strict").make("strict", JudgeOptions(model="m")) == ("strict", "m")


def test_a_judge_is_made_from_the_options():
    options = JudgeOptions(model="m-2026", concurrency=3, price=(1.0, 2.0), max_reply_tokens=7, structured=False)
    made = find_judge("openai").make("openai", options)
    assert (made.name, made.model, made.concurrency, made.price) == ("openai-m-2026", "m-2026", 3, (1.0, 2.0))
    assert made.identity["max_reply_tokens"] == 7
    assert find_judge("match-contains").make("match-contains", JudgeOptions(name="n")).name == "n"
    for name in ("openai", "local", "llava"):
        with pytest.raises(SfllavaError, match=f"the {name} judge needs --model"):
            find_judge(name).make(name, JudgeOptions())


def test_listing_the_judges_is_cheap():
    code = (
        "import sys; from sfllava.evaluators.judges import judge_names; judge_names()\n"
        "assert not {'torch', 'openai', 'transformers'} & set(sys.modules), sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
