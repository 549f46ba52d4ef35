"""Select numbers of the paper, and the runs that measure them: one for each model and benchmark."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from sfllava.published.reproduction.paper import MAIN_TABLE, SIZES, PaperNumber, benchmarks, paper_numbers, tables
from sfllava.settings import Setting
from sfllava.types import SfllavaError

ABLATIONS = "ablations"


@dataclass(frozen=True)
class Experiment:
    """One run: a model on a benchmark, at the settings of all selected tables.

    Attributes:
        size: The model, a name in `paper.SIZES`.
        benchmark: The name of the benchmark.
        numbers: The numbers of the paper that the run measures.
    """

    size: str
    benchmark: str
    numbers: tuple[PaperNumber, ...]

    @property
    def name(self) -> str:
        """Its name, which is also its folder inside the folder of the reproduction."""
        return self.numbers[0].run

    @property
    def settings(self) -> list[Setting]:
        """Its settings, without duplicates."""
        return list({number.setting.name: number.setting for number in self.numbers}.values())


def choices() -> list[str]:
    """Return the names that --only accepts: main, ablations, the benchmarks and the ablations."""
    return [MAIN_TABLE, ABLATIONS, *benchmarks(), *(table for table in tables() if table != MAIN_TABLE)]


def choose_experiments(sizes: Iterable[str] = SIZES, only: Sequence[str] = ()) -> list[Experiment]:
    """Select numbers of the paper, and group them by run.

    Args:
        sizes: The models, names in `paper.SIZES`.
        only: Names in `choices()`. Names of tables (main, ablations, an ablation) select the numbers in these tables,
            names of benchmarks the numbers on these benchmarks; both together select their intersection. Empty selects
            everything.

    Returns:
        The runs, model by model.

    Raises:
        SfllavaError: A name is unknown, or no number is selected.
    """
    if unknown := [name for name in only if name not in choices()]:
        raise SfllavaError(f"--only {unknown[0]}: choose from {', '.join(choices())}")
    wanted_benchmarks = {name for name in only if name in benchmarks()} or set(benchmarks())
    wanted_tables = {name for name in only if name not in benchmarks()} or set(tables())
    if ABLATIONS in wanted_tables:
        wanted_tables |= set(tables()) - {MAIN_TABLE}
    runs: dict[tuple[str, str], list[PaperNumber]] = {}
    for size in sizes:
        for number in paper_numbers():
            if number.size == size and number.table in wanted_tables and number.benchmark in wanted_benchmarks:
                runs.setdefault((size, number.benchmark), []).append(number)
    if not runs:
        raise SfllavaError(f"--only {' '.join(only)}: the paper has no such numbers")
    return [Experiment(size, benchmark, tuple(numbers)) for (size, benchmark), numbers in runs.items()]
