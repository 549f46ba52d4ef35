"""What `plan` finds, as data and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sfllava.planning.fitting import gib
from sfllava.planning.roofline import Roofline

_LOSS = 1.2  # times as long as one question at a time; where nothing is shared, a batch may come to some 5 % more


@dataclass(frozen=True)
class SettingPlan:
    """What one setting takes, with nothing shared with others. Operations and seconds are of an average video."""

    name: str
    frames: int
    visual_tokens: int
    prompt_tokens: int
    """With a question of average length"""
    encode_flops: float
    prefill_flops: float
    """Of the prefix, once a video; and of the whole prompts of the questions that cannot share it"""
    decode_flops: float
    """Of the questions behind the prefix, and of the tokens of their answers"""
    kv_bytes: int
    patch_bytes: int
    work_bytes: int
    peak_bytes: int
    """Weights and the three above, as in `fitting.Memory`"""
    encode_seconds: float
    prefill_seconds: float
    decode_seconds: float
    one_by_one_seconds: float
    """Prefill and decode of the same questions, one at a time"""
    alone: int
    """Questions that are answered one at a time: with their answers they pass the positions that can be shared"""
    failing: int
    """Questions that do not fit the context"""
    fits: bool
    note: str
    """What to know: what does not fit, and what would"""

    @property
    def seconds(self) -> float:
        return self.encode_seconds + self.prefill_seconds + self.decode_seconds


@dataclass(frozen=True)
class Plan:
    """What a run of one or several settings takes. Prints as a table; its sums are of the settings that fit."""

    model: str
    parameters: int
    weight_bytes: int
    benchmark: str
    videos: int
    questions: int
    new_tokens: int
    device: Roofline
    workers: int
    settings: tuple[SettingPlan, ...]
    encode_seconds: float
    """Of the whole run on one device, like the two below: each frame encoded once, equal fronts prefilled once"""
    prefill_seconds: float
    decode_seconds: float
    one_by_one_seconds: float
    """Of the same questions one at a time: encode, prefill and generate for each"""

    @property
    def fits(self) -> bool:
        return all(setting.fits for setting in self.settings)

    @property
    def seconds(self) -> float:
        return self.encode_seconds + self.prefill_seconds + self.decode_seconds

    @property
    def device_hours(self) -> float:
        """Of all devices together"""
        return self.seconds / 3600

    @property
    def hours(self) -> float:
        """By the clock, where the workers share the videos evenly"""
        return self.device_hours / self.workers

    @property
    def warnings(self) -> list[str]:
        """Reasons, in a line each, to doubt the seconds."""
        found = [self.device.warning] if self.device.warning else []
        slower = [
            s.name
            for s in self.settings
            if s.fits and s.prefill_seconds + s.decode_seconds > _LOSS * s.one_by_one_seconds
        ]
        if slower:
            found.append(
                f"{', '.join(slower)}: answering together is predicted slower than one question at a time, so the "
                "measurement is suspect: measure again when nothing else runs"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """All numbers, for JSON."""
        return asdict(self) | {
            name: getattr(self, name) for name in ("fits", "seconds", "device_hours", "hours", "warnings")
        }

    def to_frame(self) -> Any:
        """A DataFrame with a row for each setting."""
        import pandas as pd

        return pd.DataFrame([asdict(setting) for setting in self.settings])

    def __str__(self) -> str:
        notes: dict[str, list[str]] = {}
        for setting in self.settings:
            notes.setdefault(setting.note, []).append(setting.name)
        lines = [
            f"{self.model}: {self.parameters / 1e6:,.0f} million parameters, {gib(self.weight_bytes)} of weights",
            str(self.device),
            f"{self.benchmark}: {self.questions:,} questions about {self.videos:,} videos, {self.new_tokens:,} new "
            f"token{'s' * (self.new_tokens > 1)} each",
            "",
            *_table(self.settings),
            *(f"{', '.join(names)}: {note}" for note, names in notes.items() if note),
            *(f"warning: {line}" for line in self.warnings),
            "",
        ]
        done = sum(setting.fits for setting in self.settings)
        if not done:
            return "\n".join([*lines, "nothing fits"])
        of = "GPU-" if self.device.kind == "cuda" else ""
        what = "the run" if done == len(self.settings) else f"the {done} that fit"
        clock = f", {_time(self.seconds / self.workers)} with {self.workers} workers" if self.workers > 1 else ""
        each = (self.encode_seconds, self.prefill_seconds, self.decode_seconds)
        shares = ", ".join(f"{stage} {s / self.seconds:.0%}" for stage, s in zip(("encode", "prefill", "decode"), each))
        return "\n".join(
            [
                *lines,
                f"{what}: {_time(self.seconds, of)}{clock} ({shares}); decoding the video files is not in it",
                f"one question at a time: {_time(self.one_by_one_seconds, of)}, "
                f"{self.one_by_one_seconds / self.seconds:,.1f} times as long",
            ]
        )


def _time(seconds: float, of: str = "") -> str:
    """Seconds in words."""
    return f"{seconds / 3600:,.2f} {of}hours" if seconds >= 360 else f"{seconds:,.1f} {of}seconds"


def _table(settings: Sequence[SettingPlan]) -> list[str]:
    """A line for each setting under two of headings."""
    width = max(len("setting"), *(len(s.name) for s in settings))
    numbers = ("visual", "prompt", "encode", "prefill", "decode", "KV", "peak", "encode", "prefill", "decode")
    above = f"{'':{width}}  {'tokens':>16}  {'TFLOP a video':>27}  {'GiB':>16}  {'seconds a video':>27}"

    def line(name: str, cells: Iterable[str]) -> str:
        sizes = (7, 7, 9, 7, 7, 9, 6, 9, 7, 7)
        return f"{name:{width}}  " + "  ".join(f"{cell:>{size}}" for cell, size in zip(cells, sizes))

    rows = [
        line(
            s.name,
            (
                f"{s.visual_tokens:,}", f"{s.prompt_tokens:,}",
                *(f"{flops / 1e12:,.1f}" for flops in (s.encode_flops, s.prefill_flops, s.decode_flops)),
                *(f"{size / 2**30:,.2f}" for size in (s.kv_bytes, s.peak_bytes)),
                *(f"{x:,.2f}" for x in (s.encode_seconds, s.prefill_seconds, s.decode_seconds)),
            ),
        )
        + ("" if s.fits else "  does not fit")
        for s in settings
    ]  # fmt: skip
    return [above.rstrip(), line("setting", numbers), *rows]
