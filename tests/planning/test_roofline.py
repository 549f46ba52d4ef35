"""Measuring a device, and files of measurements."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
import torch
from devices import GPU

from sfllava.cli import main
from sfllava.planning import plan, probes
from sfllava.planning.roofline import Roofline, load_roofline, measure, rate
from sfllava.settings import Setting
from sfllava.types import SfllavaError

DEFAULT = Setting()


def test_this_device_is_measured(tmp_path):
    found = measure("cpu")
    assert found.kind == "cpu" and found.dtype == "float32" and 0 < found.free_bytes <= found.memory_bytes
    assert load_roofline(found.save(tmp_path / "here" / "cpu.json")) == found
    assert all(speed > 0 for table in (found.move, found.linear, found.masked, found.causal) for *_, speed in table)
    with pytest.raises(SfllavaError, match="dtype must be auto, float32, float16, bfloat16, got 'int8'"):
        measure("cpu", "int8")


class Ticks:
    """A clock by which everything takes equally long, and 50 times as long while something else runs."""

    def __init__(self, *busy: range) -> None:
        self.busy, self.calls, self.now = busy, 0, 0.0

    def __call__(self) -> float:
        self.calls += 1
        self.now += 0.2 * (50 if any(self.calls in calls for calls in self.busy) else 1)
        return self.now


def test_a_short_disturbance_changes_no_plan_and_a_long_one_is_told(tmp_path, capsys, monkeypatch):
    # by this clock it makes no difference what is done
    monkeypatch.setattr(probes, "linear", lambda *_: None)
    monkeypatch.setattr(probes, "scaled_dot_product_attention", lambda *_, **__: None)
    monkeypatch.setattr(torch, "randn", torch.empty)
    clock = Ticks()
    alone, third = measure("cpu", clock=clock), clock.calls // 3
    assert alone.spread == 1 and not alone.warning and "differed" not in str(alone)

    def seconds(found: Roofline) -> float:
        return plan("tiny", DEFAULT, "nextqa", replace(found, free_bytes=2**40)).seconds

    for start in range(0, clock.calls, third):
        short = measure("cpu", clock=Ticks(range(start, start + third)))
        assert seconds(short) == pytest.approx(seconds(alone)) and not short.warning
    long = measure("cpu", clock=Ticks(range(2 * third)))
    assert long.spread == pytest.approx(50) and "the repeats differed by up to 50.00 times" in str(long)
    file = long.save(tmp_path / "busy.json")
    assert load_roofline(file) == long
    assert main(["plan", "nextqa", "--model", "tiny", "--roofline", str(file)]) == 0
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert "the device was busy while it was measured" in warning and "measure it again" in warning


def test_a_roofline_of_the_first_version_loads(tmp_path):
    values = json.loads(GPU.save(tmp_path / "gpu.json").read_text())
    del values["spread"]
    (tmp_path / "gpu.json").write_text(json.dumps(values))
    assert load_roofline(tmp_path / "gpu.json") == GPU and not GPU.warning


def test_speeds_between_sizes():
    table = ((1, 64, 1.0), (1, 256, 4.0), (100, 64, 100.0), (100, 256, 400.0))
    assert rate(table, 1, 64) == 1 and rate(table, 0.5, 8) == 1 and rate(table, 1000, 1000) == pytest.approx(400)
    assert rate(table, 10, 128) == pytest.approx(20) and rate(((1, 8, 3.0),), 5, 5) == pytest.approx(3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda v: v.pop("read"), "gpu.json: not a roofline: without read"),
        (lambda v: v.update(more=1), "gpu.json: not a roofline: what is more"),
        (lambda v: v.update(read="fast"), "gpu.json: read must be a number above 0, got 'fast'"),
        (lambda v: v.update(read=-1), "read must be a number above 0"),
        (lambda v: v.update(free_bytes=float("nan")), "free_bytes must be a number"),
        (lambda v: v.update(linear=[]), r"linear must be a list of \[rows, width, speed\]"),
        (lambda v: v.update(linear=[[1, 2, 3], [1, 4, 3], [2, 2, 3]]), "linear must have every width at every"),
        (lambda v: v.update(dtype="int8"), "dtype must be one of float32"),
        (lambda v: v.update(kind="tpu"), "kind must be cpu or cuda, got 'tpu'"),
    ],
)
def test_a_damaged_roofline_names_the_field(tmp_path, change, message):
    values = json.loads(GPU.save(tmp_path / "gpu.json").read_text())
    change(values)
    (tmp_path / "gpu.json").write_text(json.dumps(values))
    with pytest.raises(SfllavaError, match=message):
        load_roofline(tmp_path / "gpu.json")


def test_a_roofline_that_is_not_there(tmp_path):
    with pytest.raises(SfllavaError, match="no such roofline; `sfllava plan --measure"):
        load_roofline(tmp_path / "none.json")
    (tmp_path / "bad.json").write_text("{")
    with pytest.raises(SfllavaError, match=r"bad\.json: not readable as JSON"):
        load_roofline(tmp_path / "bad.json")
    (tmp_path / "list.json").write_text("[]")
    with pytest.raises(SfllavaError, match=r"list\.json: not a roofline: without"):
        load_roofline(tmp_path / "list.json")
