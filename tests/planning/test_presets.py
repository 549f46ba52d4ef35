"""Published figures of devices, and plans with them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from sfllava.planning import plan, plan_presets, preset_roofline
from sfllava.planning.presets import find_preset, is_preset, preset_names
from sfllava.planning.roofline import load_roofline
from sfllava.settings import Setting
from sfllava.types import SfllavaError


@pytest.mark.parametrize(
    ("said", "name"),
    [
        ("h100", "h100-80g"), ("H100-80G", "h100-80g"), ("NVIDIA H100 80GB HBM3", "h100-80g"), ("a100", "a100-80g"),
        ("NVIDIA A100-SXM4-40GB", "a100-40g"), ("4090", "rtx-4090"), ("NVIDIA GeForce RTX 4090", "rtx-4090"),
        ("rtx3090", "rtx-3090"), ("NVIDIA L4", "l4"), ("l40s", "l40s"), ("H200", "h200"), ("h300", None), ("rtx", None),
    ],
)  # fmt: skip
def test_a_device_by_the_names_that_people_and_drivers_use(said, name):
    found = find_preset(said)
    assert (found and found.name) == name


def test_each_preset_cites_the_vendor_and_is_never_faster_than_published():
    for name in preset_names():
        preset = find_preset(name)
        assert preset and preset.source.startswith("https://") and ".nvidia.com/" in preset.source
        for dtype, peak in preset.tflops.items():
            device = preset_roofline(name, dtype)
            assert device.dtype == dtype and device.free_bytes < device.memory_bytes == preset.memory_gb * 2**30
            assert device.read < preset.bandwidth_gb * 1e9
            tables = (device.linear, device.masked, device.causal)
            assert all(0 < speed < peak * 1e12 for table in tables for *_, speed in table)
            # one row takes no less than reading the weights
            assert 2 * 4096**2 / {row[:2]: row[2] for row in device.linear}[1, 4096] == pytest.approx(
                4096**2 * device.itemsize / device.read
            )
            assert "not measured" in str(device) and preset.source in str(device) and "60%" in str(device)


def test_a_preset_is_saved_as_what_it_is(tmp_path):
    device = preset_roofline("l4")
    assert load_roofline(device.save(tmp_path / "l4.json")) == device
    assert "estimates from published peak figures" in device.warning


def test_faster_devices_take_less_time_and_larger_ones_fit_more():
    plans = plan_presets("34b", Setting(), "egoschema", new_tokens=5)
    fitting = {name for name, made in plans.items() if made.fits}
    assert {"h200"} <= fitting and not {"l4", "rtx-4090", "a100-40g", "l40s"} & fitting
    seconds = {name: made.seconds for name, made in plan_presets("7b", Setting(), "egoschema", new_tokens=5).items()}
    assert seconds["h200"] <= seconds["h100-80g"] < seconds["a100-80g"] < seconds["rtx-4090"] < seconds["l4"]
    assert plan("7b", Setting(), "egoschema", preset_roofline("l4"), new_tokens=5).seconds == seconds["l4"]


def test_an_unknown_device_and_dtype():
    with pytest.raises(SfllavaError, match=r"no device is called 'h20' \(did you mean 'h200'\?\); needed auto, cpu"):
        preset_roofline("h20")
    with pytest.raises(SfllavaError, match="h200: no published figure for int8, only for bfloat16, float16, float32"):
        preset_roofline("h200", "int8")
    assert is_preset("h100") and not any(map(is_preset, ("auto", "cpu", "cuda", "cuda:1")))


def test_a_protocol_s_wording_is_counted_and_subtitles_are_said_not_to_be():
    device = replace(preset_roofline("h200"), source="")

    def made(**more):
        return plan("7b", Setting(), "videomme", device, **more)

    own, theirs, with_subtitles = made(), made(protocol="lmms-eval"), made(subtitles=True)
    assert theirs.settings[0].prompt_tokens != own.settings[0].prompt_tokens
    assert "note: prompts are counted in the wording of the protocol lmms-eval" in str(theirs)
    assert with_subtitles.settings[0].prompt_tokens == own.settings[0].prompt_tokens and not own.notes
    assert "note: subtitles are not counted" in str(with_subtitles)
    with pytest.raises(SfllavaError, match="no protocol is called 'lmmseval'"):
        made(protocol="lmmseval")
