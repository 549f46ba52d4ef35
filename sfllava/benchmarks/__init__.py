"""Benchmarks, one module each: its `SPEC` says where questions and videos are and how many there should be.

A module with a `SPEC` is a benchmark of that name. The other modules: base.py (definition and loading of a benchmark),
rows.py (reading CSV, JSON and parquet), question_files.py (rows -> questions), choices.py (formats of options),
video_files.py (finding videos by name), subtitles.py, remote_files.py (download addresses), ig_vlm.py (IG-VLM's files).
"""

from __future__ import annotations

from sfllava.benchmarks.base import Benchmark, Spec, benchmark_names, find_benchmark, load_benchmark
from sfllava.benchmarks.rows import BenchmarkError
from sfllava.benchmarks.video_files import LinkError

__all__ = ["Benchmark", "BenchmarkError", "LinkError", "Spec", "benchmark_names", "find_benchmark", "load_benchmark"]
