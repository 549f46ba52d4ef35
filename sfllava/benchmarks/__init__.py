"""Benchmarks, one module each: where questions and videos are, how many there must be, how they are scored."""

from __future__ import annotations

from sfllava.benchmarks.base import (
    Benchmark,
    BenchmarkError,
    LinkError,
    Spec,
    benchmark_names,
    find_benchmark,
    load_benchmark,
)

__all__ = ["Benchmark", "BenchmarkError", "LinkError", "Spec", "benchmark_names", "find_benchmark", "load_benchmark"]
