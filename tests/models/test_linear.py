"""Few rows times large layers on a CPU: the same numbers, and the same answers on a real clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn
from video_questions import QUESTIONS, token_ids

from sfllava.aggregators.slowfast import SlowFast
from sfllava.models import linear
from sfllava.models.linear import FewRowsLinear, use_few_rows
from sfllava.models.load import load_model
from sfllava.models.tiny.random_checkpoint import write_random_checkpoint
from sfllava.types import Question

pytestmark = pytest.mark.skipif(not torch.backends.mkl.is_available(), reason="this build of torch has no MKL")
# layers of more than 2**20 weights; 12 questions are 12 rows in each step
WIDE = {"hidden_size": 512, "intermediate_size": 2560, "num_hidden_layers": 2}
ASKED = [Question(f"{text} ({i})") for i in range(3) for text in QUESTIONS[1:]]


@pytest.mark.parametrize("rows", [1, 7, 8, 12, 16, 17])
@pytest.mark.parametrize("bias", [True, False])
def test_products_equal_those_of_torch(rows, bias):
    layer, plain = nn.Linear(1030, 1500, bias=bias), nn.Linear(1030, 1500, bias=bias)
    plain.load_state_dict(layer.state_dict())
    use_few_rows(layer)
    assert type(layer) is FewRowsLinear
    for shape in ((rows, 1030), (1, rows, 1030), (rows, 2060)):
        given = torch.randn(shape)[..., :1030]
        with torch.inference_mode():
            expected, found = plain(given), layer(given)
        assert found.shape == expected.shape and found.is_contiguous()
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=2e-6)


def test_only_large_plain_layers_in_float32_are_changed():
    small, half, subclass = nn.Linear(64, 64), nn.Linear(1024, 1024).bfloat16(), nn.modules.linear.NonDynamicallyQuantizableLinear(1024, 1024)  # fmt: skip
    use_few_rows(nn.ModuleList([small, half, subclass]))
    assert type(small) is nn.Linear and not isinstance(subclass, FewRowsLinear)
    given = torch.randn(12, 1024).bfloat16()
    with torch.inference_mode():
        assert torch.equal(half(given), nn.functional.linear(given, half.weight, half.bias))


def test_gradients_pass():
    layer = nn.Linear(1024, 1024)
    use_few_rows(layer)
    layer(torch.randn(12, 1024)).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.abs().sum() > 0


def test_answers_equal_plain_generation_on_a_clip(tmp_path, frames, monkeypatch):
    checkpoint = write_random_checkpoint(tmp_path, text=WIDE)
    used = []
    multiply = torch.mm
    monkeypatch.setattr(linear.torch, "mm", lambda *a, **o: used.append(len(a[0])) or multiply(*a, **o))
    model = load_model(checkpoint, "cpu", "float32")
    tokens = SlowFast()(model.encode(frames))
    together = model.answer(tokens, ASKED, max_new_tokens=24)
    assert used
    used.clear()
    alone = model.answer(tokens, ASKED, max_new_tokens=24, share_prefix=False)
    assert not used  # one row in each step, many in the prefill
    assert token_ids(together) == token_ids(alone)
    # and without the layers of this package
    monkeypatch.setattr(linear, "MIN_WEIGHTS", np.inf)
    plain = load_model(checkpoint, "cpu", "float32")
    assert token_ids(plain.answer(tokens, ASKED, max_new_tokens=24)) == token_ids(together)
    assert len(set(token_ids(together))) > 3
