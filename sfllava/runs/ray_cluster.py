"""Join or start a Ray cluster, plan its workers, and read what Ray reports about them."""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import re
import sys
from collections import deque
from collections.abc import Iterable
from typing import Any

from sfllava.types import SfllavaError

log = logging.getLogger(__name__)


def connect(address: str | None, stack: contextlib.ExitStack) -> Any:
    """Connect to a cluster, or start one, and return the module `ray`; the stack stops what was started."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    options: dict[str, Any] = {"address": address, "log_to_driver": False, "logging_level": "ERROR"}
    if address is None:
        # all ports on the loopback, in Ray's own words; and whoever else is on this machine needs the token
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")
        os.environ.setdefault("RAY_AUTH_MODE", "token")
        options |= {"address": "local", "_node_ip_address": "127.0.0.1", "include_dashboard": False}
        options["object_store_memory"] = 2**27  # jobs and rows are small
    elif address.startswith("ray://"):
        raise SfllavaError(f"--ray {address}: needed auto or HOST:PORT, on a node of the cluster itself")
    try:
        import ray
    except ImportError as error:
        raise SfllavaError("running on many GPUs needs Ray: pip install 'sfllava[cluster]'") from error
    if ray.is_initialized():  # by a notebook, which keeps it
        return ray
    try:
        ray.init(**options)
    except Exception as error:  # Ray raises many kinds
        where = "Ray cannot be started here" if address is None else f"no Ray cluster can be joined at {address}"
        raise SfllavaError(f"{where}: {one_line(error)}") from error
    stack.callback(ray.shutdown)
    return ray


def plan_workers(
    nodes: list[dict[str, Any]], wanted: int | None, gpus: int, device: str, local: bool
) -> tuple[int, dict[str, int]]:
    """Return the number of workers, and what each needs: GPUs, or the largest share of the CPUs that fits them all."""
    rooms = [(int(r.get("CPU", 0)), int(r.get("GPU", 0))) for r in (n["Resources"] for n in nodes if n["Alive"])]
    if device == "cpu" or (device == "auto" and not any(g for _, g in rooms)):
        count = wanted or max(1, sum(1 for cpus, _ in rooms if cpus))
        most = max((cpus for cpus, _ in rooms), default=1)
        share = next((n for n in range(most, 0, -1) if sum(cpus // n for cpus, _ in rooms) >= count), 1)
        needs, room = {"CPU": share}, sum(cpus // share for cpus, _ in rooms)
    else:
        needs, room = {"CPU": 1, "GPU": gpus}, sum(min(cpus, g // gpus) for cpus, g in rooms)
        count = wanted or max(1, room)
    if local and not room:
        raise SfllavaError(f"needed {gpus} GPUs for a worker, and Ray sees {sum(g for _, g in rooms)} here")
    if room < count:
        log.warning("there is room for %d of %d workers; the others join when there is more", room, count)
    return count, needs


def check_sendable(value: Any) -> None:
    """Raise SfllavaError if a value, which has the settings of a job, cannot be sent to the workers."""
    from ray import cloudpickle

    try:
        cloudpickle.dumps(value)
    except (TypeError, AttributeError, pickle.PicklingError) as error:
        raise SfllavaError(f"a setting cannot be sent to the workers: {one_line(error)}") from error


def unwrapped(error: Exception) -> SfllavaError:
    """Return the error that Ray wrapped, as an SfllavaError."""
    cause = getattr(error, "cause", None)
    if isinstance(cause, SfllavaError):
        return cause
    return SfllavaError(f"{type(cause or error).__name__}: {one_line(cause or error)}")


def one_line(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def exit_reason(processes: list[str], messages: Iterable[str]) -> str:
    """Say why these processes ended, in Ray's words if it reported it."""
    pids, names = [process.split()[1] for process in processes], ", ".join(processes)
    for text in messages:
        if (found := re.search(r"PID: (\d+)\b.*?exit detail: (.*)", text)) and found[1] in pids:
            return f"{found[2][:300]} ({names})"
    return names


def ray_output_aside(messages: deque[str]) -> Any:
    """A context in which Ray's messages about its processes go to the log and to `messages` instead of the screen."""
    printer: Any = _RayOutput(sys.stdout, messages)
    return contextlib.redirect_stdout(printer)


class _RayOutput:
    def __init__(self, stdout: Any, messages: deque[str]) -> None:
        self._stdout, self._messages, self._skip = stdout, messages, False

    def write(self, text: str) -> int:
        if self._skip and text == "\n":  # print writes the line's end separately
            self._skip = False
        elif "(raylet)" in text or "(autoscaler" in text:
            self._skip = True
            self._messages.append(" ".join(re.sub(r"\x1b\[\d+m", "", text).split()))
            log.info("Ray: %s", self._messages[-1][:300])
        else:
            self._stdout.write(text)
        return len(text)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stdout, name)
