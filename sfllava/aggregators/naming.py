"""From a name to an aggregator."""

from __future__ import annotations

import re

from sfllava.aggregators.base import Aggregator
from sfllava.aggregators.methods import methods
from sfllava.types import SfllavaError


def parse_aggregation(name: str) -> Aggregator:
    """Make an aggregator from its name; `str()` of the result is the name again.

    Args:
        name: such as `slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4`, `merged-1024` or `concat`.

    Returns:
        The aggregator.

    Raises:
        SfllavaError: there is no such name; the message lists all forms of names.
    """
    known = methods()
    for method in known:
        if found := re.fullmatch(method.pattern, name, re.ASCII):
            return method.make(*found.groups())
    raise SfllavaError(f"no aggregation is called {name!r}; needed {', '.join(method.usage for method in known)}")
