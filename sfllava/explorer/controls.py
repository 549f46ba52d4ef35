"""The explorer's controls: which video, which setting, which question; each has its label and reached by keyboard."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as w

from sfllava.aggregators.matching import CANDIDATES, match_budget
from sfllava.aggregators.naming import parse_aggregation
from sfllava.aggregators.pools import SLOW_POOLS
from sfllava.aggregators.slowfast import SlowFast
from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.explorer.pages import name_of_video
from sfllava.sampler import VIDEO_SUFFIXES
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

FAST = ("0x0", "1x1", "1x2", "2x2", "2x4", "3x6", "4x4", "4x8", "6x6", "8x8")
BY_NAME = "by name"
_WIDE = {"description_width": "110px"}


def field(kind: Any, label: str, basis: str = "280px", **options: Any) -> Any:
    """A control with its label, in a row that wraps where the page is narrow."""
    return kind(
        description=label,
        style=_WIDE,
        layout=w.Layout(flex=f"1 1 {basis}", width="auto", min_width="0", max_width="100%"),
        **options,
    )


def row(*children: Any) -> w.HBox:
    """Controls side by side, or below one another where there is no room."""
    return w.HBox(children, layout=w.Layout(flex_flow="row wrap", align_items="center", width="100%"))


def columns(*children: Any, least: str = "270px") -> w.GridBox:
    """Controls in as many equal columns as there is room for."""
    sizes = f"repeat(auto-fit, minmax({least}, 1fr))"
    return w.GridBox(children, layout=w.Layout(grid_template_columns=sizes, width="100%", grid_gap="0 12px"))


class VideoChoice:
    """A video by path, by upload, from the recent ones, or rendered here. `changed(path)` hears of each choice."""

    def __init__(self, changed: Callable[[str], None], failed: Callable[[BaseException], None]) -> None:
        self._changed, self._failed = changed, failed
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._uploads = 0
        self.path = field(w.Text, "Video path", "360px", placeholder="file, or folder of frame images")
        self.open = w.Button(description="Open", tooltip="Open the video at this path")
        self.upload = w.FileUpload(description="Upload video", accept=",".join(VIDEO_SUFFIXES), multiple=False)
        self.samples = w.Button(description="Render samples", tooltip="Render four ShapesQA videos to try the model on")
        self.recent = field(w.Dropdown, "Recent", options=[("none yet", "")])
        self.box = row(self.path, self.open, self.upload, self.samples, self.recent)
        self.open.on_click(lambda _: self.choose(self.path.value.strip()))
        self.samples.on_click(lambda _: self._try(self.render))
        self.upload.observe(lambda change: self._try(lambda: self._uploaded(change["new"])), "value")
        self.recent.observe(lambda change: change["new"] and self.choose(change["new"]), "value")

    def choose(self, path: str) -> None:
        """Make a path the video at hand, and remember it."""
        if not path:
            self._failed(SfllavaError("no video: give a path, upload one, or render the samples"))
            return
        self._remember([path])
        self.path.value = path
        if self.recent.value != path:
            self.recent.value = path  # comes back here
        else:
            self._changed(path)

    def render(self) -> None:
        """Render the samples, and choose the first."""
        videos = sorted((write_shapesqa(self._scratch(), videos=4) / "videos").glob("*.mp4"))
        self._remember(list(map(str, videos)))
        self.choose(str(videos[0]))

    def _remember(self, paths: list[str]) -> None:
        known = [path for _, path in self.recent.options if path]
        new = [path for path in paths if path not in known]
        if new:
            at = self.recent.value
            self.recent.options = [("choose", ""), *((name_of_video(p), p) for p in [*known, *new])]
            self.recent.value = at if at in known else ""

    def _uploaded(self, files: Any) -> None:
        for file in files:
            suffix = Path(file["name"]).suffix.lower()
            if suffix not in VIDEO_SUFFIXES:
                raise SfllavaError(f"{file['name']}: needed a video ({' '.join(VIDEO_SUFFIXES)})")
            self._uploads += 1  # a name of our own: the file's could lead out of the folder
            path = self._scratch() / f"upload-{self._uploads}{suffix}"
            path.write_bytes(bytes(file["content"]))
            self.choose(str(path))

    def _scratch(self) -> Path:
        self._folder = self._folder or tempfile.TemporaryDirectory(prefix="sfllava-")
        return Path(self._folder.name)

    def _try(self, act: Callable[[], None]) -> None:
        try:
            act()
        except Exception as error:
            self._failed(error)


class SettingChoice:
    """Frames, pathways, method and prompt. `changed()` hears of every move."""

    def __init__(self, grid: tuple[int, int], setting: Setting, changed: Callable[[], None]) -> None:
        self.grid = grid
        aggregation = setting.aggregation
        known = aggregation if isinstance(aggregation, SlowFast) else SlowFast()
        simple = isinstance(known.slow, str) and "{}x{}".format(*known.fast) in FAST and aggregation is known
        default = known if simple else SlowFast()
        self.frames = field(w.IntSlider, "Frames", min=1, max=max(128, setting.frames), value=setting.frames)
        self.slow = field(
            w.IntSlider, "Slow frames", min=0, max=max(64, default.slow_frames), value=default.slow_frames
        )
        self.pool = field(w.Dropdown, "Slow pool", options=SLOW_POOLS, value=default.slow)
        self.fast = field(w.Dropdown, "Fast grid", options=FAST, value="{}x{}".format(*default.fast))
        self.method = field(
            w.Dropdown, "Method", options=[*CANDIDATES, BY_NAME], value="slowfast" if simple else BY_NAME
        )
        self.tokens = field(w.BoundedIntText, "Token budget", min=1, max=1_000_000, value=1024)
        self.name = field(w.Text, "Aggregation", value=str(aggregation), continuous_update=False)
        self.prompt = field(
            w.Textarea, "Prompt", "560px", value=setting.prompt, rows=2,
            placeholder="empty: the package's own; yours has <video> and {question}",
        )  # fmt: skip
        self.box = w.VBox(
            [
                columns(self.frames, self.slow, self.pool, self.fast, self.method, self.tokens, self.name),
                row(self.prompt),
            ]
        )
        self._show()
        self.method.observe(lambda _: self._show(), "value")
        for control in self.all:
            control.observe(lambda _: changed(), "value")

    @property
    def all(self) -> list[Any]:
        return [self.frames, self.slow, self.pool, self.fast, self.method, self.tokens, self.name, self.prompt]

    @property
    def setting(self) -> Setting:
        """Raises SfllavaError where the controls say what cannot be."""
        frames, prompt, method = self.frames.value, self.prompt.value, self.method.value
        if method == BY_NAME:
            return Setting(frames, parse_aggregation(self.name.value.strip()), prompt=prompt)
        if method in ("slowfast", "slow only", "fast only"):
            rows, columns = map(int, self.fast.value.split("x"))
            slow = 0 if method == "fast only" else self.slow.value
            fast = (0, 0) if method == "slow only" else (rows, columns)
            return Setting(frames, SlowFast(slow, self.pool.value, fast), prompt=prompt)
        return Setting(frames, match_budget(method, self.tokens.value, frames, *self.grid), prompt=prompt)

    def _show(self) -> None:
        method = self.method.value
        self.slow.disabled = self.pool.disabled = method not in ("slowfast", "slow only")
        self.fast.disabled = method not in ("slowfast", "fast only")
        self.name.layout.display = None if method == BY_NAME else "none"
        plain = method in (BY_NAME, "slowfast", "slow only", "fast only")
        self.tokens.layout.display = "none" if plain else None


class QuestionChoice:
    """The question, its options, and how long an answer may be."""

    def __init__(self, question: str, max_new_tokens: int, changed: Callable[[], object]) -> None:
        self.text = field(w.Text, "Question", "520px", value=question, placeholder="What happens in the video?")
        self.options = field(w.Textarea, "Options", "300px", rows=2, placeholder="one a line; empty: an open question")
        self.longest = field(w.BoundedIntText, "New tokens", "180px", min=1, max=4096, value=max_new_tokens)
        kinds = [("short answer", "open"), ("description", "describe")]
        self.kind = field(w.Dropdown, "Reply", "200px", options=kinds)
        self.box = w.VBox([row(self.text, self.options), columns(self.kind, self.longest)])
        for control in (self.text, self.options, self.kind):
            control.observe(lambda _: changed(), "value")

    @property
    def question(self) -> Question:
        options = tuple(line.strip() for line in self.options.value.splitlines() if line.strip())
        return Question(self.text.value.strip(), options=options, task="choice" if options else self.kind.value)
