"""Benchmarks, one module each: its `SPEC` says where questions and videos are and how many there should be.

A module with a `SPEC` is a benchmark of that name. The others: spec.py (what is fixed about a benchmark), base.py
(loading one), rows.py (reading CSV, JSON and parquet), question_files.py (questions from rows), choices.py (options as
benchmarks write them), video_files.py (finding videos by name), subtitles.py, groups.py (groups of a headline),
remote_files.py and ig_vlm.py (where files can be downloaded).
"""

from __future__ import annotations

from sfllava.benchmarks.base import Benchmark, benchmark_names, find_benchmark, load_benchmark
from sfllava.benchmarks.rows import BenchmarkError
from sfllava.benchmarks.spec import Spec
from sfllava.benchmarks.video_files import LinkError

__all__ = ["Benchmark", "BenchmarkError", "LinkError", "Spec", "benchmark_names", "find_benchmark", "load_benchmark"]
