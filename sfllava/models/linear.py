"""Linear layers on a CPU in float32, for the few rows that a step of packed decoding has.

MKL multiplies 7 to 32 rows with the transposed weights of a layer at 0.4 to 0.9 times the speed at which it multiplies
the weights, in blocks, with the transposed rows (slowest at 12 rows). The sums are the same up to their order.
"""

from __future__ import annotations

from itertools import chain

import torch
from torch import Tensor, nn

# Where the other order was measured to be faster, for layers of 512 x 32,000 to 11,008 x 4,096 with 1 and 2 threads
ROWS = range(7, 33)
MIN_WEIGHTS = 2**20
_BLOCK = 512  # outputs for each thread


class FewRowsLinear(nn.Linear):
    """A linear layer that computes few rows as weights times rows; all else is as in `torch.nn.Linear`."""

    def forward(self, input: Tensor) -> Tensor:
        rows, weight = input.numel() // max(1, input.shape[-1]), self.weight
        fits = rows in ROWS and weight.device.type == "cpu" and weight.dtype == input.dtype == torch.float32
        if not fits or torch.is_grad_enabled():
            return super().forward(input)
        columns = input.reshape(rows, -1).t()
        out = weight.new_empty(len(weight), rows)
        size = _BLOCK * torch.get_num_threads()
        for block, part in zip(weight.split(size), out.split(size)):
            torch.mm(block, columns, out=part)
        if self.bias is not None:
            out += self.bias[:, None]
        return out.t().reshape(*input.shape[:-1], -1)


def use_few_rows(*networks: nn.Module) -> None:
    """Make the large linear layers of networks on a CPU `FewRowsLinear`, in place; quantised ones stay as they are."""
    if not torch.backends.mkl.is_available():
        return
    for module in chain.from_iterable(network.modules() for network in networks):
        if type(module) is nn.Linear and module.weight.numel() >= MIN_WEIGHTS and module.weight.device.type == "cpu":
            module.__class__ = FewRowsLinear
