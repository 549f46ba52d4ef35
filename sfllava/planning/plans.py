"""The result of planning, as data and as a table."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from sfllava.files import format_bytes
from sfllava.planning.roofline import Roofline

# batching is suspect if it takes so many times as long as one question at a time; with nothing shared 5 % is normal
_SUSPECT_RATIO = 1.2


@dataclass(frozen=True)
class SettingPlan:
    """What one setting takes on its own. Operations and seconds are for an average video."""

    name: str
    frames: int
    visual_tokens: int
    prompt_tokens: int
    """With a question of average length"""
    encode_flops: float
    prefill_flops: float
    """For the prefix, once per video, and for the whole prompts of questions that cannot share it"""
    decode_flops: float
    """For the questions after the prefix, and for the tokens of their answers"""
    kv_bytes: int
    patch_bytes: int
    work_bytes: int
    peak_bytes: int
    """Weights plus the three above, as in `fitting.Memory`"""
    encode_seconds: float
    prefill_seconds: float
    decode_seconds: float
    one_by_one_seconds: float
    """Prefill and decode of the same questions, one at a time"""
    alone: int
    """Questions answered one at a time, because with their answers they pass the positions that can be shared"""
    failing: int
    """Questions that do not fit the context"""
    fits: bool
    note: str
    """What does not fit, and what would"""
    scores: bool = False
    """Whether a scorer chooses frames for each question; its work is not planned"""

    @property
    def seconds(self) -> float:
        return self.encode_seconds + self.prefill_seconds + self.decode_seconds


@dataclass(frozen=True)
class Plan:
    """What a run of one or several settings takes. It prints as a table; its sums are over the settings that fit."""

    model: str
    parameters: int
    weight_bytes: int
    quantize: str | None
    """How the matrices of the language model are quantised"""
    benchmark: str
    videos: int
    questions: int
    new_tokens: int
    device: Roofline
    workers: int
    settings: tuple[SettingPlan, ...]
    encode_seconds: float
    """For the whole run on one device, as the two below: each frame encoded once, each shared prefix prefilled once"""
    prefill_seconds: float
    decode_seconds: float
    one_by_one_seconds: float
    """For the same questions one at a time: encode, prefill and generate for each"""
    notes: tuple[str, ...] = ()
    """Which text of the prompts is counted, where that is not obvious"""

    @property
    def fits(self) -> bool:
        return all(setting.fits for setting in self.settings)

    @property
    def seconds(self) -> float:
        return self.encode_seconds + self.prefill_seconds + self.decode_seconds

    @property
    def device_hours(self) -> float:
        """Hours summed over devices"""
        return self.seconds / 3600

    @property
    def hours(self) -> float:
        """Wall-clock hours if the workers share the videos evenly"""
        return self.device_hours / self.workers

    @property
    def warnings(self) -> list[str]:
        """Reasons to doubt the seconds, one line each."""
        found = [self.device.warning] if self.device.warning else []
        slower = [
            s.name
            for s in self.settings
            if s.fits and s.prefill_seconds + s.decode_seconds > _SUSPECT_RATIO * s.one_by_one_seconds
        ]
        if slower:
            found.append(
                f"{', '.join(slower)}: answering together is predicted slower than one question at a time, so the "
                "measurement is suspect: measure again when nothing else runs"
            )
        return found

    def to_dict(self) -> dict[str, Any]:
        """Return all numbers, for JSON."""
        return asdict(self) | {
            name: getattr(self, name) for name in ("fits", "seconds", "device_hours", "hours", "warnings")
        }

    def to_frame(self) -> Any:
        """Return a DataFrame with one row per setting."""
        import pandas as pd

        return pd.DataFrame([asdict(setting) for setting in self.settings])

    def heading(self, device: str = "") -> str:
        """Return the lines about the model, the device and the questions."""
        weights = f"{self.parameters / 1e6:,.0f} million parameters, {format_bytes(self.weight_bytes)} of weights"
        weights += f" (language model in {self.quantize})" if self.quantize else ""
        answers = f"{self.new_tokens:,} new token{'s' * (self.new_tokens > 1)} each"
        about = f"{self.benchmark}: {self.questions:,} questions about {self.videos:,} videos, {answers}"
        notes = [f"note: {line}" for line in self.notes]
        return "\n".join([f"{self.model}: {weights}", *([device] if device else []), about, *notes])

    def __str__(self) -> str:
        notes: dict[str, list[str]] = {}
        for setting in self.settings:
            notes.setdefault(setting.note, []).append(setting.name)
        lines = [
            self.heading(str(self.device)),
            "",
            *_table(self.settings),
            *(f"{', '.join(names)}: {note}" for note, names in notes.items() if note),
            *(f"warning: {line}" for line in self.warnings),
            "",
            *self._totals(),
        ]
        return "\n".join(lines)

    def _totals(self) -> list[str]:
        fitting = sum(setting.fits for setting in self.settings)
        if not fitting:
            return ["nothing fits"]
        unit = "GPU-" if self.device.kind == "cuda" else ""
        what = "the run" if fitting == len(self.settings) else f"the {fitting} that fit"
        clock = f", {_duration(self.seconds / self.workers)} with {self.workers} workers" if self.workers > 1 else ""
        stages = {"encode": self.encode_seconds, "prefill": self.prefill_seconds, "decode": self.decode_seconds}
        shares = ", ".join(f"{stage} {seconds / self.seconds:.0%}" for stage, seconds in stages.items())
        return [
            f"{what}: {_duration(self.seconds, unit)}{clock} ({shares}); decoding the video files is not in it"
            + (", nor is the scorer's work on one frame per second" if any(s.scores for s in self.settings) else ""),
            f"one question at a time: {_duration(self.one_by_one_seconds, unit)}, "
            f"{self.one_by_one_seconds / self.seconds:,.1f} times as long",
        ]


def format_devices(plans: Mapping[str, Plan]) -> str:
    """Return one line per device: whether the settings fit, the largest peak of those that do, and the time."""
    rows = [["device", "memory", "settings that fit", "peak", "time", "one at a time"]]
    for name, plan in plans.items():
        fitting = [setting for setting in plan.settings if setting.fits]
        row = [name, format_bytes(plan.device.free_bytes), f"{len(fitting)} of {len(plan.settings)}"]
        if fitting:
            row.append(format_bytes(max(setting.peak_bytes for setting in fitting)))
            row += [_duration(plan.seconds / plan.workers), _duration(plan.one_by_one_seconds)]
        rows.append(row + [""] * (len(rows[0]) - len(row)))
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return "\n".join(
        "  ".join(
            f"{cell:{'<' if i == 0 else '>'}{width}}" for i, (cell, width) in enumerate(zip(row, widths))
        ).rstrip()
        for row in rows
    )


def _duration(seconds: float, unit: str = "") -> str:
    """Return a duration in hours or seconds, as text."""
    return f"{seconds / 3600:,.2f} {unit}hours" if seconds >= 360 else f"{seconds:,.1f} {unit}seconds"


def _table(settings: Sequence[SettingPlan]) -> list[str]:
    """Return two lines of headings and one line per setting."""
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
