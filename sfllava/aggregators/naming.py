"""From a name to an aggregator."""

from __future__ import annotations

import difflib
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
        SfllavaError: there is no such name; the message has the form that is meant, or all forms.
    """
    known = methods()
    for method in known:
        if found := re.fullmatch(method.pattern, name, re.ASCII):
            return method.make(*found.groups())
    forms = [method.usage for method in known]
    # a name is recognised by its first word, such as "merged" in merged-{TOKENS}
    meant = difflib.get_close_matches(_first_word(name), map(_first_word, forms), n=1, cutoff=0.7)
    if not meant:  # some names are whole words, such as concat
        words = [(method, word) for method in known for word in re.findall(r"[\w-]+", method.usage)]
        whole = [word for method, word in words if re.fullmatch(method.pattern, word, re.ASCII)]
        if close := difflib.get_close_matches(name, whole, n=1, cutoff=0.8):
            raise SfllavaError(f"no aggregation is called {name!r} (did you mean {close[0]!r}?)")
    needed = [form for form in forms if _first_word(form) in meant] or forms
    raise SfllavaError(f"no aggregation is called {name!r}; needed {', '.join(needed)}")


def _first_word(name: str) -> str:
    return re.split(r"[-_{]", name, maxsplit=1)[0]
