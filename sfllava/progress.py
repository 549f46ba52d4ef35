"""The progress bar of long work, with the time left."""

from __future__ import annotations

import time
from typing import Any


def progress_bar(total: int, unit: str, done: int = 0, shown: bool = True) -> Any:
    """A tqdm bar of `total` units, of which `done` were done before; a context manager with `update(n)`."""
    from tqdm.auto import tqdm

    bar: Any = tqdm(total=total, initial=done, unit=unit, disable=not shown, dynamic_ncols=True)
    # tqdm goes by the wall clock: set back by a day, the bar would stand still for one
    bar._time = time.monotonic
    bar.start_t = bar.last_print_t = time.monotonic()
    return bar
