"""Check a benchmark's files before a run: counts against the published ones, and every video found and readable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfllava.benchmarks import Benchmark, BenchmarkError, LinkError
from sfllava.progress import progress_bar
from sfllava.sampler.pool import DecodePool
from sfllava.sampler.video import VideoError


@dataclass(frozen=True)
class Check:
    """The result of `check`.

    Attributes:
        benchmark: The name of the benchmark.
        questions: Number of questions.
        questions_expected: The published number, or None if unknown.
        videos: Number of videos that the questions name.
        videos_expected: The published number, or None if unknown.
        videos_checked: Whether there is a folder of videos to check.
        looked_at: If there is none: the places where it could have been.
        missing: Names of videos that were not found.
        unreadable: One reason for each video that cannot be read.
    """

    benchmark: str
    questions: int
    questions_expected: int | None
    videos: int
    videos_expected: int | None
    videos_checked: bool
    looked_at: list[Path]
    missing: list[str]
    unreadable: list[str]

    @property
    def ok(self) -> bool:
        """Whether all counts are as published and no video is missing or unreadable."""
        counts = ((self.questions, self.questions_expected), (self.videos, self.videos_expected))
        bad = self.missing or self.unreadable or self.looked_at
        return all(expected in (None, got) for got, expected in counts) and not bad

    def __str__(self) -> str:
        def count(got: int, expected: int | None) -> str:
            if expected is None:
                return f"{got:,}"
            return f"{got:,}, as published" if got == expected else f"{got:,}, expected {expected:,}: WRONG"

        lines = [
            f"{self.benchmark}",
            f"  questions  {count(self.questions, self.questions_expected)}",
            f"  videos     {count(self.videos, self.videos_expected)}"
            f" ({self.questions / self.videos:.1f} questions per video)",
        ]
        if self.videos_checked:
            readable = self.videos - len(self.missing) - len(self.unreadable)
            lines.append(
                f"  found and readable {readable:,}, missing {len(self.missing):,}, unreadable {len(self.unreadable):,}"
            )
            lines += [f"  missing: {' '.join(name.split())}" for name in self.missing]  # a name may contain line breaks
            lines += [f"  unreadable: {reason}" for reason in self.unreadable]
        elif self.looked_at:
            lines.append(f"  MISSING: the folder of videos; looked at {', '.join(map(str, self.looked_at))}")
        else:
            lines.append("  videos were not checked: no folder of videos was given")
        return "\n".join(lines)


def check(benchmark: Benchmark, *, decoders: int = 2, seconds: float = 60.0, progress: bool = True) -> Check:
    """Count a benchmark's questions and videos, and decode one frame of every video in worker processes.

    Args:
        benchmark: The benchmark; without a folder of videos only the counts are checked.
        decoders: Number of worker processes.
        seconds: The time allowed for decoding one video.
        progress: Show a progress bar.
    """
    names = list(dict.fromkeys(question.video for question in benchmark.questions))
    missing: list[str] = []
    unreadable: list[str] = []
    if benchmark.videos_dir is not None:
        found: dict[str, Path] = {}
        for name in names:
            try:
                found[name] = benchmark.find_video(name)
            except BenchmarkError:
                missing.append(name)
            except LinkError as error:
                unreadable.append(str(error))
        with DecodePool(decoders, seconds) as pool, progress_bar(len(found), "video", shown=progress) as bar:
            futures = {name: pool.submit(path, 1, (32, 32)) for name, path in found.items()}
            for future in futures.values():
                try:
                    future.result()
                except VideoError as error:
                    unreadable.append(str(error))
                bar.update(1)
    spec = benchmark.spec
    return Check(
        benchmark.name,
        len(benchmark.questions),
        spec.question_count,
        len(names),
        spec.video_count,
        benchmark.videos_dir is not None,
        benchmark.looked_at if benchmark.videos_dir is None else [],
        missing,
        unreadable,
    )
