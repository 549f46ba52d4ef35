"""The model `sfllava` for lmms-eval, which loads it through the entry point `lmms_eval.models`.

`lmms-eval --model sfllava --model_args pretrained=...,frames=50,aggregation=... --tasks ...` runs video tasks with it.
This module imports lmms-eval only when lmms-eval requests the model.
"""

from __future__ import annotations

import importlib
import logging
import os
from collections.abc import Sequence
from typing import Any

from sfllava.types import SfllavaError

log = logging.getLogger(__name__)
_CLASS = "SfllavaModel"


def manifest() -> Any:
    """Return the `ModelManifest` that registers the model `sfllava` with lmms-eval."""
    registry = importlib.import_module("lmms_eval.models.registry_v2")
    return registry.ModelManifest(model_id="sfllava", simple_class_path=f"{__name__}.{_CLASS}")


def __getattr__(name: str) -> Any:
    if name != _CLASS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    base = importlib.import_module("lmms_eval.api.model").lmms
    made = type(base)(_CLASS, (VideoModel, base), {"__module__": __name__, "__doc__": VideoModel.__doc__})
    globals()[name] = made
    return made


class VideoModel:
    """A model for lmms-eval that answers all questions about a video together. lmms-eval's base class is added later.

    Decoding is greedy. A request that is not about a single video file, such as one with images, ends the evaluation
    with an error that says what arrived. An unreadable video does not end it: its requests get the answer "-", which
    lmms-eval counts like any other answer, so that they stay in every denominator. Each reason is logged as an error,
    and so is the number of such requests.

    Args:
        batch_size, max_batch_size: From the command line of lmms-eval; they have no effect.
        **arguments: The arguments in `--model_args`; see `arguments.check_arguments`.

    Raises:
        SfllavaError: An argument is wrong, or the checkpoint cannot be loaded.
    """

    task_dict: dict[str, Any]
    rank: int

    def __init__(self, batch_size: Any = 1, max_batch_size: Any = None, **arguments: Any) -> None:
        from sfllava.lmms_bridge.arguments import check_arguments
        from sfllava.models.load import load_model

        super().__init__()
        if str(batch_size) != "1" or max_batch_size is not None:
            log.warning(
                "batch_size has no effect: the questions about a video are answered together, as far as memory allows"
            )
        self._arguments = check_arguments(arguments)
        loading = self._arguments.loading
        if int(os.environ.get("WORLD_SIZE", 1)) > 1 and not {"device", "device_map"} & loading.keys():
            loading["device"] = _own_device(int(os.environ.get("LOCAL_RANK", 0)))
        self._model = load_model(self._arguments.pretrained, **loading)

    @property
    def device(self) -> Any:
        """The device on which lmms-eval gathers the results of several processes."""
        return self._model.info.device

    def generate_until(self, requests: Sequence[Any]) -> list[Any]:
        """Answer requests in the given order."""
        from sfllava.lmms_bridge.answering import answer_requests, read_request

        notes: dict[str, None] = {}
        read = [read_request(each.args, self.task_dict, lambda line: notes.update({line: None})) for each in requests]
        for line in notes:
            log.warning("%s", line)
        replies = answer_requests(self._model, read, self._arguments, progress=self.rank == 0)
        for each, reply in zip(requests, replies):
            if reply.error:  # lmms-eval only caches responses without sampling, so a second run asks this again
                each.args[1]["do_sample"] = True
        result = importlib.import_module("lmms_eval.api.instance").GenerationResult
        return [result(text=reply.text, token_counts=reply) for reply in replies]

    def loglikelihood(self, requests: Sequence[Any]) -> list[Any]:
        """Raise SfllavaError: tasks that compare the likelihoods of options are not supported."""
        raise _unsupported(requests, "the likelihood of given texts")

    def generate_until_multi_round(self, requests: Sequence[Any]) -> list[Any]:
        """Raise SfllavaError: tasks with several turns are not supported."""
        raise _unsupported(requests, "several turns")

    def clean(self) -> None:
        """Free the memory of the model; lmms-eval calls this when all requests are answered."""
        del self._model
        super().clean()  # type: ignore[misc]


def _own_device(local_rank: int) -> str:
    import torch

    return f"cuda:{local_rank}" if torch.cuda.is_available() else "cpu"


def _unsupported(requests: Sequence[Any], what: str) -> SfllavaError:
    tasks = ", ".join(dict.fromkeys(str(each.task_name) for each in requests))
    return SfllavaError(f"task {tasks}: needs {what}; sfllava only supports tasks whose output_type is generate_until")
