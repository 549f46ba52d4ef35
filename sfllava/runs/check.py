"""Is everything there, before any GPU hour: counts against the published table, and each video found and readable."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sfllava.benchmarks import Benchmark, BenchmarkError, LinkError
from sfllava.progress import progress_bar
from sfllava.sampler.pool import DecodePool
from sfllava.sampler.video import VideoError


@dataclass(frozen=True)
class Check:
    """What `check` found. `looked_at`: where a folder of videos was looked for in vain."""

    benchmark: str
    questions: int
    questions_wanted: int | None
    videos: int
    videos_wanted: int | None
    videos_checked: bool
    looked_at: list[Path]
    missing: list[str]
    unreadable: list[str]

    @property
    def ok(self) -> bool:
        """All counts as published, no video missing or unreadable."""
        counts = ((self.questions, self.questions_wanted), (self.videos, self.videos_wanted))
        bad = self.missing or self.unreadable or self.looked_at
        return all(wanted in (None, got) for got, wanted in counts) and not bad

    def __str__(self) -> str:
        def count(got: int, wanted: int | None) -> str:
            state = "" if wanted is None else ", as published" if got == wanted else f", needed {wanted:,}: WRONG"
            return f"{got:,}{state}"

        lines = [
            f"{self.benchmark}",
            f"  questions  {count(self.questions, self.questions_wanted)}",
            f"  videos     {count(self.videos, self.videos_wanted)}"
            f" ({self.questions / self.videos:.1f} questions a video)",
        ]
        if self.videos_checked:
            readable = self.videos - len(self.missing) - len(self.unreadable)
            lines.append(
                f"  found and readable {readable:,}, missing {len(self.missing):,}, unreadable {len(self.unreadable):,}"
            )
            lines += [f"  missing: {' '.join(name.split())}" for name in self.missing]  # a name may have line ends
            lines += [f"  unreadable: {reason}" for reason in self.unreadable]
        elif self.looked_at:
            lines.append(f"  MISSING: the folder of videos; looked at {', '.join(map(str, self.looked_at))}")
        else:
            lines.append("  videos were not looked for: no folder of videos was given")
        return "\n".join(lines)


def check(benchmark: Benchmark, *, decoders: int = 2, seconds: float = 60.0, progress: bool = True) -> Check:
    """Count the questions, and find and open every video (one frame of each is decoded, in worker processes)."""
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
