"""The progress bar of long work, with the time left."""

from __future__ import annotations

import time
import warnings
from typing import Any


def progress_bar(total: int | None, unit: str, done: int = 0, shown: bool = True, name: str = "") -> Any:
    """A tqdm bar of `total` units, of which `done` were done before; a context manager with `update(n)`.

    A bar of bytes (unit "B") shows KiB, MiB and so on, and disappears at the end.
    """
    with warnings.catch_warnings():  # in a notebook without ipywidgets, tqdm warns and shows the bar as text
        warnings.simplefilter("ignore")
        from tqdm.auto import tqdm

    scale: dict[str, Any] = {"unit_scale": True, "unit_divisor": 1024, "leave": False} if unit == "B" else {}
    options: dict[str, Any] = {"unit": unit, "desc": name or None, "disable": not shown, "dynamic_ncols": True}
    bar: Any = tqdm(total=total, initial=done, **options, **scale)
    # tqdm goes by the wall clock: set back by a day, the bar would stand still for one
    bar._time = time.monotonic
    bar.start_t = bar.last_print_t = time.monotonic()
    return bar
