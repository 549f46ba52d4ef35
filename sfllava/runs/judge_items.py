"""What a run has to judge: one item per prediction and rubric, and for a pair one per two predictions."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from sfllava.benchmarks.base import load_spec
from sfllava.benchmarks.spec import Spec
from sfllava.evaluators.judges.base import JudgeRequest, content_hash
from sfllava.evaluators.judges.options import read_information, right_option
from sfllava.evaluators.judges.rubric import load_rubric
from sfllava.files import RunError
from sfllava.prompts import LETTERS
from sfllava.runs.coded import Coded, combine, join_blocks
from sfllava.runs.run_folder import read_row_blocks, read_run


@dataclass(frozen=True)
class JudgeItem:
    """A prediction to judge by a rubric (for a pair, such as VCGBench's consistency: two), or why there is none.

    Attributes:
        key: The key of the question.
        setting: The name of the setting.
        rubric: The name of the rubric.
        video: The video of the question.
        request: What to send to a judge; None if inference failed.
        error: Why inference failed.
        type: The type of the question.
    """

    key: str
    setting: str
    rubric: str
    video: str
    request: JudgeRequest | None
    error: str | None = None
    type: str = ""

    @property
    def row_key(self) -> tuple[str, str, str]:
        """The key of the item's row in a verdict file, as `verdict_key` returns it."""
        return self.key, self.setting, self.rubric


class JudgeItems:
    """The items of a run as columns, in the order of its predictions.

    A pair of which one question is not asked yet is left out.

    Args:
        run: The run folder.
        rubrics: A folder with your own rubrics, one NAME.txt each.

    Attributes:
        rows: The predictions of the run, as columns.
        first: (N) the row of each item; of a pair, the first of its two.
        second: (N) the second row of a pair, otherwise `first`.
        keys: (N) the key of each item.
        rubrics: The rubrics.
        rubric: (N) the index of each item's rubric.
        failed: (N) whether inference failed.

    Raises:
        RunError: The run's benchmark needs no judge, or a question has an unknown type or no options to choose from.
    """

    def __init__(self, run: str | Path, rubrics: str | Path | None = None) -> None:
        chosen = rubrics_by_type(run)
        names = list(dict.fromkeys(name for listed in chosen.values() for name in listed))
        self.run, self.rubrics = run, [load_rubric(name, rubrics) for name in names]
        self.rows = join_blocks(read_row_blocks(run))
        kinds = self.rows["type"]
        for code, row in kinds.first_rows().items():
            if kinds.values[code] not in chosen and "" not in chosen:
                key = self.rows["key"].at(row)
                raise RunError(f"{run}: question {key}: type must be {', '.join(chosen)}, got {kinds.values[code]!r}")
        named = [chosen.get(kind, chosen.get("", ())) for kind in kinds.values]
        self._keys = self.rows["key"].values
        parts = [
            self._rows_of(np.flatnonzero(kinds.map([rubric.name in each for each in [*named, ()]], bool)), rubric.pair)
            for rubric in self.rubrics
        ]
        # an item is as late as the later of its rows; those of one row are in the order of its type's rubrics
        rubric = np.repeat(np.arange(len(parts)), [len(part[0]) for part in parts])
        first, second, stems = (np.concatenate([part[i] for part in parts]) for i in range(3))
        last = np.maximum(first, second)
        place = np.array([[each.index(name) if name in each else 0 for name in names] for each in [*named, ()]], int)
        order = np.lexsort((place[kinds.codes[last], rubric], last))
        self.first, self.second, self.rubric = first[order], second[order], rubric[order]
        self.keys = Coded(stems[order].astype(np.int32), self._keys)
        error = self.rows["error"]
        self._unsaid = unsaid = error.map([bool(text) for text in [*error.values, ""]], bool) | (
            self.rows["prediction"].codes < 0
        )
        self.failed = unsaid[self.first] | unsaid[self.second]
        self._numbers, self._distinct = self._number_requests()
        chooses = np.array([rubric.head.chooses for rubric in self.rubrics])
        for item in np.sort(self._distinct[chooses[self.rubric[self._distinct]]]):
            self.request(item)  # an error if it has no options to choose from

    def __len__(self) -> int:
        return len(self.first)

    def _rows_of(self, rows: np.ndarray, pair: bool) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return the first and the second row of each item of a rubric, and the code of its key."""
        keys, settings = self.rows["key"].codes[rows], self.rows["setting"].codes[rows]
        if not pair:
            return rows, rows, keys
        parts = [key.rpartition("/") for key in self._keys]
        codes = {key: code for code, key in enumerate(self._keys)}
        stems = np.array([codes.setdefault(stem, len(codes)) for stem, _, _ in parts], np.int32)[keys]
        begins = np.array([part == "1" for _, _, part in parts], bool)[keys]
        self._keys = list(codes)
        places, _ = combine(stems, settings)
        order = np.argsort(places, kind="stable")
        # of the rows of one pair, each second one completes it
        starts = np.flatnonzero(np.diff(places[order], prepend=-1))
        rank = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
        done = np.flatnonzero(rank % 2 == 1)
        early, late = order[done - 1], order[done]
        return (
            np.where(begins[late], rows[late], rows[early]),
            np.where(begins[late], rows[early], rows[late]),
            stems[late],
        )

    def _number_requests(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the number of each item's request, -1 if inference failed, and an item of each distinct request."""
        asked = np.flatnonzero(~self.failed)
        first, second = self.first[asked], self.second[asked]
        codes = {name: self.rows[name].codes for name in ("question", "answer", "options", "prediction")}
        parts = [self.rubric[asked], *(each[first] for each in codes.values())]
        numbers = np.full(len(self), -1)
        numbers[asked], items = combine(*parts, codes["question"][second], codes["prediction"][second])
        return numbers, asked[items]

    def item(self, i: int) -> JudgeItem:
        """Return an item."""
        row, rubric = self.first[i], self.rubrics[self.rubric[i]]
        texts = {name: self.rows[name].at(row) for name in ("setting", "video", "type")}
        error, request = None, None
        if self.failed[i]:
            errors = [self.rows["error"].at(each) for each in (row, self.second[i]) if self._unsaid[each]]
            error = errors[0] or "no prediction"
        else:
            request = self.request(i)
        return JudgeItem(self.keys.at(i), rubric=rubric.name, request=request, error=error, **texts)

    def request(self, i: int) -> JudgeRequest:
        """Return the request of an item on which inference did not fail."""
        rubric, row = self.rubrics[self.rubric[i]], self.first[i]
        rows = [row, self.second[i]] if rubric.pair else [row]
        questions, predictions = (tuple(map(self.rows[name].at, rows)) for name in ("question", "prediction"))
        answer = self.rows["answer"].at(row)
        request = JudgeRequest(rubric, questions, answer, predictions)
        if rubric.head.chooses:
            options = self.rows["options"].at(row) or read_information(questions[0])
            where = f"{self.run}: question {self.keys.at(i)}"
            if not 1 < len(options) <= len(LETTERS):
                raise RunError(f"{where}: needed 2 to {len(LETTERS)} options, got {len(options)}")
            right = right_option(answer, options)
            if right is None:
                raise RunError(f"{where}: {answer!r} is none of its {len(options)} options")
            request = replace(request, options=options, right=right)
        return request

    def contents(self) -> np.ndarray:
        """Return (N) the hash of the content of each item's request; 0 where inference failed."""
        texts = {name: list(map(json.dumps, self.rows[name].values)) for name in ("question", "answer", "prediction")}

        def encoded(name: str, rows: np.ndarray) -> Iterator[str]:
            return map(texts[name].__getitem__, self.rows[name].codes[rows].tolist())

        items = self._distinct
        first, second = self.first[items], self.second[items]
        one = (encoded(name, first) for name in ("question", "answer", "prediction"))
        other = (encoded(name, second) for name in ("question", "prediction"))
        found = []
        for i, (number, question, answer, prediction, question2, prediction2) in enumerate(
            zip(self.rubric[items].tolist(), *one, *other)
        ):
            rubric = self.rubrics[number]
            if rubric.head.chooses:
                content = self.request(items[i]).content
            elif rubric.pair:
                content = content_hash(rubric.name, (question, question2), (prediction, prediction2), answer)
            else:
                content = content_hash(rubric.name, (question,), (prediction,), answer)
            found.append(hash(content))
        return np.array([*found, 0], np.int64)[self._numbers]  # the last is that of number -1


def read_items(run: str | Path, rubrics: str | Path | None = None) -> list[JudgeItem]:
    """Read the items that a run has to judge, in the order of its predictions; `JudgeItems` has the arguments."""
    items = JudgeItems(run, rubrics)
    return [items.item(i) for i in range(len(items))]


def rubrics_by_type(run: str | Path) -> dict[str, tuple[str, ...]]:
    """Return the names of the rubrics by which a run is judged, by the type of question; "" has those for all types.

    Raises:
        RunError: The run's benchmark needs no judge.
    """
    spec = load_spec(read_run(run)["identity"]["benchmark"])
    if found := rubrics_of(spec):
        return found
    if spec.task == "choice":
        raise RunError(f"{run}: multiple choice is scored by its letters and needs no judge")
    raise RunError(f"{run}: {spec.name} names no rubrics: its predictions need no judge")


def rubrics_of(spec: Spec) -> dict[str, tuple[str, ...]]:
    """Return the names of a benchmark's rubrics by the type of question; empty if its predictions need no judge."""
    return dict(spec.rubrics) or ({"": ("open",)} if spec.task == "open" else {})
