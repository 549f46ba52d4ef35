"""The explorer's controls: video, setting and question. Each has a label and can be reached by keyboard."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ipywidgets as w

from sfllava.aggregators.matching import budget_methods, match_budget
from sfllava.aggregators.naming import parse_aggregation
from sfllava.aggregators.pools import SLOW_POOLS
from sfllava.aggregators.slowfast import Order, SlowFast, named_pathways
from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.explorer.pages import name_of_video
from sfllava.sampler import VIDEO_SUFFIXES
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

FAST = ("0x0", "1x1", "1x2", "2x2", "2x4", "3x6", "4x4", "4x8", "6x6", "8x8")
BY_NAME = "by name"
_PATHWAYS = ("slowfast", "slow only", "fast only")  # methods that have sliders
_WIDE = {"description_width": "110px"}


def field(kind: Any, label: str, basis: str = "280px", **options: Any) -> Any:
    """Make a control with its label, which wraps where the page is narrow."""
    return kind(
        description=label,
        style=_WIDE,
        layout=w.Layout(flex=f"1 1 {basis}", width="auto", min_width="0", max_width="100%"),
        **options,
    )


def row(*children: Any) -> w.HBox:
    """Place controls side by side, or below one another where there is no room."""
    return w.HBox(children, layout=w.Layout(flex_flow="row wrap", align_items="center", width="100%"))


def columns(*children: Any, least: str = "270px") -> w.GridBox:
    """Place controls in as many equal columns as there is room for."""
    sizes = f"repeat(auto-fit, minmax({least}, 1fr))"
    return w.GridBox(children, layout=w.Layout(grid_template_columns=sizes, width="100%", grid_gap="0 12px"))


class VideoChoice:
    """Choose a video by path, by upload, from the recent ones, or rendered here; `changed(path)` is called then."""

    def __init__(self, changed: Callable[[str], None], failed: Callable[[BaseException], None]) -> None:
        self._changed, self._failed = changed, failed
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._uploads = 0
        self.path = field(w.Text, "Video path", "360px", placeholder="video file, or folder of frame images")
        self.open = w.Button(description="Open", tooltip="Open the video at this path")
        self.upload = w.FileUpload(description="Upload video", accept=",".join(VIDEO_SUFFIXES), multiple=False)
        self.samples = w.Button(description="Render samples", tooltip="Render four ShapesQA videos to try the model")
        self.recent = field(w.Dropdown, "Recent", options=[("none yet", "")])
        self.box = row(self.path, self.open, self.upload, self.samples, self.recent)
        self.open.on_click(lambda _: self.choose(self.path.value.strip()))
        self.samples.on_click(lambda _: self._try(self.render))
        self.upload.observe(lambda change: self._try(lambda: self._uploaded(change["new"])), "value")
        self.recent.observe(lambda change: change["new"] and self.choose(change["new"]), "value")

    def choose(self, path: str) -> None:
        """Choose the video at a path, and remember it."""
        if not path:
            self._failed(SfllavaError("no video: give a path, upload one, or render the samples"))
            return
        self._remember([path])
        self.path.value = path
        if self.recent.value != path:
            self.recent.value = path  # calls this method again
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
            chosen = self.recent.value
            self.recent.options = [("choose", ""), *((name_of_video(p), p) for p in [*known, *new])]
            self.recent.value = chosen if chosen in known else ""

    def _uploaded(self, files: Any) -> None:
        for file in files:
            suffix = Path(file["name"]).suffix.lower()
            if suffix not in VIDEO_SUFFIXES:
                raise SfllavaError(f"{file['name']}: needed a video ({' '.join(VIDEO_SUFFIXES)})")
            self._uploads += 1  # a name of our own: that of the file could lead out of the folder
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
    """Choose frames, pathways, method and prompt; `changed()` is called on each change."""

    def __init__(self, grid: tuple[int, int], setting: Setting, changed: Callable[[], None]) -> None:
        self.grid, self.frame_rule = grid, setting.frame_rule
        aggregation = setting.aggregation
        known = named_pathways(aggregation)
        shown = known if known and "{}x{}".format(*known.fast) in FAST else None
        default = shown or SlowFast()
        self._order: Order = default.order
        self.frames = field(w.IntSlider, "Frames", min=1, max=max(128, setting.frames), value=setting.frames)
        self.slow = field(
            w.IntSlider, "Slow frames", min=0, max=max(64, default.slow_frames), value=default.slow_frames
        )
        self.pool = field(w.Dropdown, "Slow pool", options=SLOW_POOLS, value=default.slow)
        self.fast = field(w.Dropdown, "Fast grid", options=FAST, value="{}x{}".format(*default.fast))
        self.method = field(
            w.Dropdown, "Method", options=[*budget_methods(), BY_NAME], value="slowfast" if shown else BY_NAME
        )
        self.tokens = field(w.BoundedIntText, "Token budget", min=1, max=1_000_000, value=1024)
        self.name = field(w.Text, "Aggregation", value=str(aggregation), continuous_update=False)
        self.prompt = field(
            w.Textarea, "Prompt", "560px", value=setting.prompt, rows=2,
            placeholder="empty for the default; yours needs <video> and {question}",
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
        """All controls."""
        return [self.frames, self.slow, self.pool, self.fast, self.method, self.tokens, self.name, self.prompt]

    @property
    def setting(self) -> Setting:
        """The setting that the controls show. Raises SfllavaError where that is impossible."""
        frames, method = self.frames.value, self.method.value
        more = {"prompt": self.prompt.value, "frame_rule": self.frame_rule}
        if method == BY_NAME:
            return Setting(frames, parse_aggregation(self.name.value.strip()), **more)
        if method in _PATHWAYS:
            rows, columns = map(int, self.fast.value.split("x"))
            slow = 0 if method == "fast only" else self.slow.value
            fast = (0, 0) if method == "slow only" else (rows, columns)
            return Setting(frames, SlowFast(slow, self.pool.value, fast, order=self._order), **more)
        return Setting(frames, match_budget(method, self.tokens.value, frames, *self.grid), **more)

    def _show(self) -> None:
        method = self.method.value
        self.slow.disabled = self.pool.disabled = method not in ("slowfast", "slow only")
        self.fast.disabled = method not in ("slowfast", "fast only")
        self.name.layout.display = None if method == BY_NAME else "none"
        self.tokens.layout.display = "none" if method in (BY_NAME, *_PATHWAYS) else None


class QuestionChoice:
    """Enter the question, its options, and the longest answer; `changed()` is called on each change."""

    def __init__(self, question: str, max_new_tokens: int, changed: Callable[[], object]) -> None:
        self.text = field(w.Text, "Question", "520px", value=question, placeholder="What happens in the video?")
        self.options = field(
            w.Textarea, "Options", "300px", rows=2, placeholder="one per line; empty for an open question"
        )
        self.longest = field(w.BoundedIntText, "New tokens", "180px", min=1, max=4096, value=max_new_tokens)
        kinds = [("short answer", "open"), ("description", "describe")]
        self.kind = field(w.Dropdown, "Reply", "200px", options=kinds)
        self.box = w.VBox([row(self.text, self.options), columns(self.kind, self.longest)])
        for control in (self.text, self.options, self.kind):
            control.observe(lambda _: changed(), "value")

    @property
    def question(self) -> Question:
        """The question that the controls show."""
        options = tuple(line.strip() for line in self.options.value.splitlines() if line.strip())
        return Question(self.text.value.strip(), options=options, task="choice" if options else self.kind.value)
