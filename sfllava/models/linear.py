"""Linear layers on a CPU in float32, for the few rows that a step of packed decoding has.

For 8 to 16 rows and a large layer, MKL takes up to twice as long for rows times transposed weights as for weights times
transposed rows. The sums are the same up to their order.
"""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn

# Where the other order was faster, for layers of 512 x 32,000 to 11,008 x 4,096 with 1 and 2 threads
ROWS = range(8, 17)
MIN_WEIGHTS = 2**20


class FewRowsLinear(nn.Linear):
    """A linear layer that computes few rows as weights times rows; all else is as in `torch.nn.Linear`."""

    def forward(self, input: Tensor) -> Tensor:
        rows, weight = input.numel() // max(1, input.shape[-1]), self.weight
        fits = rows in ROWS and weight.device.type == "cpu" and weight.dtype == input.dtype == torch.float32
        if not fits or torch.is_grad_enabled():
            return super().forward(input)
        out = torch.mm(weight, input.reshape(rows, -1).t())
        if self.bias is not None:
            out += self.bias[:, None]
        # contiguous: attention is several times slower on queries that are not
        return out.t().contiguous().view(*input.shape[:-1], -1)


def use_few_rows(*networks: nn.Module) -> None:
    """Make the large linear layers of networks on a CPU `FewRowsLinear`, in place; quantised ones stay as they are."""
    if not torch.backends.mkl.is_available():
        return
    for module in chain.from_iterable(network.modules() for network in networks):
        if type(module) is nn.Linear and module.weight.numel() >= MIN_WEIGHTS and module.weight.device.type == "cpu":
            module.__class__ = FewRowsLinear
