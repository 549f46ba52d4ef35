"""Check a benchmark's files before a run: counts against the published ones, and every video found and readable."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path

from sfllava.benchmarks import Benchmark, BenchmarkError, LinkError
from sfllava.benchmarks.subtitles import SubtitleError, read_subtitles
from sfllava.benchmarks.video_files import AmbiguousVideoError
from sfllava.display.progress import progress_bar
from sfllava.sampler.pool import DecodePool
from sfllava.sampler.sampling import SamplingError, clip_range
from sfllava.sampler.video import Video, VideoError


@dataclass(frozen=True)
class SubtitleCheck:
    """What `check` found out about the subtitles of a benchmark.

    Attributes:
        named: Number of subtitle files that the questions name.
        found: Number of these files that exist.
        unreadable: One reason for each file that exists but cannot be read.
    """

    named: int
    found: int
    unreadable: list[str]

    def __str__(self) -> str:
        without = "questions without a file are asked without subtitles"
        lines = [f"  subtitles  {self.found:,} of {self.named:,} files found; {without}"]
        return "\n".join(lines + [f"  unreadable subtitles: {reason}" for reason in self.unreadable])


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
        flaws: Flaws of the question files that do not prevent asking the questions.
        clips_outside: One reason for each clip that is outside its video, with the number of questions about it.
        clips_cut: Number of clips that end after their video and are truncated.
        subtitles: Results for the subtitles; None if there is no folder of subtitles.
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
    flaws: list[str] = field(default_factory=list)
    clips_outside: list[str] = field(default_factory=list)
    clips_cut: int = 0
    subtitles: SubtitleCheck | None = None

    @property
    def ok(self) -> bool:
        """Whether all counts match the published ones, and every video and clip can be read."""
        counts = ((self.questions, self.questions_expected), (self.videos, self.videos_expected))
        bad = self.missing or self.unreadable or self.looked_at or self.clips_outside
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
        lines += [f"  {flaw}" for flaw in self.flaws]
        if self.videos_checked:
            readable = self.videos - len(self.missing) - len(self.unreadable)
            lines.append(
                f"  found and readable {readable:,}, missing {len(self.missing):,}, unreadable {len(self.unreadable):,}"
            )
            lines += [f"  missing: {' '.join(name.split())}" for name in self.missing]  # a name may contain line breaks
            lines += [f"  unreadable: {reason}" for reason in self.unreadable]
            lines += [f"  outside: {reason}" for reason in self.clips_outside]
            lines += [f"  truncated: {self.clips_cut:,} clips that end after their video"] * bool(self.clips_cut)
        elif self.looked_at:
            lines.append(f"  MISSING: the folder of videos; looked at {', '.join(map(str, self.looked_at))}")
        else:
            lines.append("  videos were not checked: no folder of videos was given")
        return "\n".join([*lines, *([str(self.subtitles)] if self.subtitles else [])])


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
    videos: dict[str, Video] = {}
    if benchmark.videos_dir is not None:
        found = _find_videos(benchmark, names, missing, unreadable)
        with DecodePool(decoders, seconds) as pool, progress_bar(len(found), "video", shown=progress) as bar:
            futures = {name: pool.submit(path, 1, (32, 32)) for name, path in found.items()}
            for name, future in futures.items():
                try:
                    videos[name] = future.result()
                except VideoError as error:
                    unreadable.append(str(error))
                bar.update(1)
    questions_expected, videos_expected = benchmark.published_counts
    clips_outside, clips_cut = _check_clips(benchmark, videos)
    return Check(
        benchmark.name,
        len(benchmark.questions),
        questions_expected,
        len(names),
        videos_expected,
        benchmark.videos_dir is not None,
        benchmark.looked_at if benchmark.videos_dir is None else [],
        missing,
        unreadable,
        benchmark.flaws,
        clips_outside,
        clips_cut,
        _check_subtitles(benchmark),
    )


def _find_videos(
    benchmark: Benchmark, names: Iterable[str], missing: list[str], unreadable: list[str]
) -> dict[str, Path]:
    """Return the videos that exist; add the names of missing ones and the reasons for unreadable ones to the lists."""
    found: dict[str, Path] = {}
    for name in names:
        try:
            found[name] = benchmark.find_video(name)
        except (AmbiguousVideoError, LinkError) as error:
            unreadable.append(str(error))
        except BenchmarkError:
            missing.append(name)
    return found


def _check_clips(benchmark: Benchmark, videos: dict[str, Video]) -> tuple[list[str], int]:
    """Return one reason for each clip outside its video, and the number of clips that end after their video."""
    asked = Counter((question.video, question.clip) for question in benchmark.questions if question.clip)
    outside, cut = [], 0
    for (name, clip), questions in asked.items():
        if (video := videos.get(name)) is None or clip is None:
            continue
        rate = video.fps or clip.fps
        try:
            clip_range(video.total, rate, clip)
        except SamplingError as error:
            outside.append(f"{' '.join(name.split())}: {error} ({questions:,} questions)")
        else:
            # an end at the end of the last frame is not after the video
            cut += clip.end is not None and rate is not None and round(clip.end * rate) > video.total
    return outside, cut


def _check_subtitles(benchmark: Benchmark) -> SubtitleCheck | None:
    """Find and read the subtitles that the questions name."""
    names = list(dict.fromkeys(q.subtitle_file for q in benchmark.questions if q.subtitle_file))
    if benchmark.subtitles_dir is None or not names:
        return None
    found, unreadable = 0, []
    for name in names:
        try:
            path = benchmark.find_subtitles(name)
        except BenchmarkError:
            continue
        found += 1
        try:
            read_subtitles(path)
        except SubtitleError as error:
            unreadable.append(str(error))
    return SubtitleCheck(len(names), found, unreadable)
