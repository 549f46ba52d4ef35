"""`sfllava list` names all that there is, and an unknown name gets the one that was probably meant."""

from __future__ import annotations

import pytest
from shell import sfllava

from sfllava import catalogue
from sfllava.aggregators.naming import parse_aggregation
from sfllava.benchmarks import benchmark_names
from sfllava.types import SfllavaError


def test_all_kinds_are_listed():
    said = sfllava("list").stdout
    blocks = dict(block.split("\n", 1) for block in said.strip().split("\n\n"))
    assert list(blocks) == [
        "ablations", "benchmarks", "methods", "selections", "models", "judges", "protocols", "figures", "notebooks",
        "devices",
    ]  # fmt: skip
    for kind in ("ablations", "figures", "notebooks"):
        names = [line.split()[0] for line in blocks[kind].splitlines()]
        assert names == catalogue.names(kind) and all(len(line.split()) > 1 for line in blocks[kind].splitlines())
    assert [line.split()[0] for line in blocks["benchmarks"].splitlines()] == benchmark_names()
    assert "videomme  " in blocks["benchmarks"] and "2,700 questions, 900 videos" in blocks["benchmarks"]
    assert "visionzip-{TOKENS}" in blocks["methods"] and "bolt" in blocks["selections"] and "7b" in blocks["models"]
    assert all(len(line.split()) > 2 for line in blocks["methods"].splitlines())
    assert {"native", "concat"} <= {line.split()[0] for line in blocks["methods"].splitlines()}
    assert "h200" in blocks["devices"] and "4,800 GB/s; published peak figures" in blocks["devices"]
    one = sfllava("list", "protocols").stdout.splitlines()
    assert [line.split()[0] for line in one] == ["lmms-eval", "official", "strict", "vlmevalkit"]


@pytest.mark.parametrize(
    ("command", "wanted"),
    [
        (("check", "videome"), "no benchmark is called 'videome' (did you mean 'videomme'?); choose from "),
        (
            ("ablate", "Methods", "--model", "tiny", "--out", "run"),
            "no ablation is called 'Methods' (did you mean 'methods'?)",
        ),
        (("models", "qwen2.5-vl-7"), "(did you mean 'qwen2.5-vl-7b'?)"),
        (("check", "zzzzzz"), "no benchmark is called 'zzzzzz'; choose from activitynet"),
        (
            ("ask", "a.mp4", "what?", "--model", "tiny", "--aggregation", "slwofast-slow_10frms_concat-fast_4x4"),
            "no aggregation is called 'slwofast-slow_10frms_concat-fast_4x4'; needed slowfast-slow_{FRAMES}frms_",
        ),
    ],
)
def test_a_typo_gets_the_name_that_is_meant(command, wanted, tmp_path):
    done = sfllava(*command, cwd=tmp_path)
    lines = [line for line in done.stderr.splitlines() if not line.startswith("loading ")]
    assert wanted in done.stderr and len(lines) == 1 and len(lines[0]) < 400


def test_a_typo_in_an_aggregation_gets_its_own_form():
    with pytest.raises(SfllavaError) as error:
        parse_aggregation("slowfast-slow_10frm_spatial_1d_max_pool-fast_4x4")
    assert str(error.value).endswith("needed slowfast-slow_{FRAMES}frms_{POOL}-fast_{ROWS}x{COLUMNS}[-fast_first]")
    with pytest.raises(SfllavaError, match="did you mean 'spatial_1d_max_pool'"):
        parse_aggregation("slowfast-slow_10frms_spatial_1d_max_pol-fast_4x4")
    for name, meant in {"concatt": "concat", "nativ": "native", "spatial_1d_max_pol": "spatial_1d_max_pool"}.items():
        with pytest.raises(SfllavaError) as error:
            parse_aggregation(name)
        assert str(error.value) == f"no aggregation is called {name!r} (did you mean {meant!r}?)"
