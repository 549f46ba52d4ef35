"""Videos x settings x questions -> rows on disk; resumable; never drops a question."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import logging
import platform
import random
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfllava.benchmarks import Benchmark, BenchmarkError
from sfllava.prompts import Prompt, pack_prompt
from sfllava.runfolder import RunError, RunFolder
from sfllava.sampler import Video, VideoError
from sfllava.scoring import format_scores, score
from sfllava.slowfast import front
from sfllava.types import Question, Setting, SfllavaError, check_options, name_of
from sfllava.workers import DecodePool

if TYPE_CHECKING:
    from sfllava.models.llava_next import LlavaNext, Prefix

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What `evaluate` did: the run folder, and its scores by setting."""

    path: Path
    scores: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.path}\n{format_scores(self.scores)}"


@dataclass(frozen=True)
class _Job:
    """One video, and what is still to be asked of it: (setting, questions), settings of one front side by side."""

    video: str
    asks: list[tuple[Setting, list[Question]]]

    @property
    def frames(self) -> list[int]:
        return sorted({setting.frames for setting, _ in self.asks})

    @property
    def size(self) -> int:
        return sum(len(questions) for _, questions in self.asks)


def evaluate(
    model: LlavaNext,
    benchmark: Benchmark,
    settings: Setting | Iterable[Setting],
    out: str | Path,
    *,
    limit: int | None = None,
    seed: int | None = None,
    prompt: Prompt | None = None,
    max_new_tokens: int = 128,
    read: str = "generate",
    workers: int = 2,
    decode_seconds: float = 120.0,
    retry_failed: bool = False,
    progress: bool = True,
    ablation: str | None = None,
) -> Run:
    """Ask every question of a benchmark at every setting, and score.

    Called again with the same arguments it goes on where it stopped, however it stopped. limit: the first so many
    questions, or with `seed` a random choice of them. read: "generate", or "logits" for choice questions. workers:
    decoding processes; decode_seconds: what one video may take. retry_failed: ask again what failed before.
    ablation: its name, for the run's record.
    Raises before any compute where a setting's tokens do not fit the context.
    """
    settings = [settings] if isinstance(settings, Setting) else list(settings)
    names = [setting.name for setting in settings]
    if not settings or len(set(names)) < len(names):
        raise SfllavaError(f"needed settings with names of their own, got {names}")
    benchmark.require_videos()
    questions = choose_questions(benchmark.questions, limit, seed)
    check_options(read, max_new_tokens, questions)
    if workers < 1 or decode_seconds <= 0:
        raise SfllavaError(f"workers and decode_seconds must be above 0, got {workers} and {decode_seconds}")
    prompt = prompt or pack_prompt(model.family, questions[0].task)
    prompts = {s.name: Prompt(s.prompt, s.name) if s.prompt else prompt for s in settings}
    for setting in settings:
        shortest = min(sum(map(len, model.prompt_ids(q, prompts[setting.name]))) for q in questions)
        model.check_context(setting.budget(*model.grid), shortest, setting.name)
    identity = {
        "benchmark": benchmark.name,
        "questions_sha256": benchmark.fingerprint,
        "limit": limit,
        "seed": seed,
        "questions": len(questions),
        "settings": [_describe(s, model) for s in settings],
        "model": {
            "sha256_sampled": model.fingerprint,
            "dtype": str(model.dtype),
            "context": model.context,
            "rope": model.network.config.text_config.rope_parameters,
            "shape": dataclasses.asdict(model.shape),
        },
        "prompt": prompt.text,
        "max_new_tokens": max_new_tokens,
        "read": read,
    }
    facts = {
        "model": str(model.path),
        "layout": model.layout,
        "device": str(model.device),
        "prompt_source": prompt.source,
        "question_files": [str(f) for f in benchmark.files],
        "videos": str(benchmark.videos_dir),
        "ablation": ablation,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "command": sys.argv,
        "versions": versions(),
    }
    with RunFolder(out, identity, facts) as folder:
        log.info("started: %s, %d questions, settings %s", benchmark.name, len(questions), ", ".join(names))
        if retry_failed and (dropped := folder.drop_failed()):
            log.info("asking %d failed questions again", dropped)
        done = {(row["key"], row["setting"]) for row in folder.rows()}
        jobs = list(_jobs(questions, settings, done))
        try:
            with DecodePool(workers, decode_seconds) as pool, _bar(jobs, len(done), progress) as bar:
                how = _How(model, prompts, max_new_tokens, read)
                for job, path, future in _decoded_ahead(jobs, benchmark, pool, model.image_size, 2 * workers):
                    _run_job(how, job, path, future, pool, folder, bar)
        finally:
            scores = score(questions, names, folder.rows())
            folder.write_scores(scores)
            log.info("ended:\n%s", format_scores(scores))
    return Run(Path(out), scores)


def choose_questions(questions: Sequence[Question], limit: int | None, seed: int | None) -> list[Question]:
    """The first `limit` questions, or with a seed a random choice of them, in the file's order."""
    if limit is None or limit >= len(questions):
        return list(questions)
    if limit < 1:
        raise SfllavaError(f"limit must be at least 1, got {limit}")
    chosen = range(limit) if seed is None else sorted(random.Random(seed).sample(range(len(questions)), limit))
    return [questions[i] for i in chosen]


def versions() -> dict[str, str]:
    """Of Python and the packages that a result may depend on."""
    packages = ("sfllava", "torch", "transformers", "decord", "av", "pillow", "numpy", "sentencepiece")
    found = {"python": platform.python_version()}
    for package in packages:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _describe(setting: Setting, model: LlavaNext) -> dict[str, Any]:
    facts = {"name": setting.name, "frames": setting.frames, "aggregation": name_of(setting.aggregation)}
    facts["budget"] = setting.budget(*model.grid)
    return facts | ({"prompt": setting.prompt} if setting.prompt else {})


def _jobs(questions: list[Question], settings: list[Setting], done: set[tuple[str, str]]) -> Iterator[_Job]:
    by_video: dict[str, list[Question]] = {}
    for question in questions:
        by_video.setdefault(question.video, []).append(question)
    # settings of one front stand side by side, so that its keys and values are still there for the next
    fronts: dict[object, list[Setting]] = {}
    for setting in settings:
        fronts.setdefault((setting.prompt, setting.frames, front(setting.aggregation)), []).append(setting)
    for video, asked in by_video.items():
        asks = [
            (setting, left)
            for group in fronts.values()
            for setting in group
            if (left := [q for q in asked if (q.key, setting.name) not in done])
        ]
        if asks:
            yield _Job(video, asks)


def _decoded_ahead(
    jobs: list[_Job], benchmark: Benchmark, pool: DecodePool, side: int, ahead: int
) -> Iterator[tuple[_Job, Path | None, Future[Video]]]:
    """Jobs in order, while workers decode the next `ahead` of them."""
    waiting: deque[tuple[_Job, Path | None, Future[Video]]] = deque()
    for job in jobs:
        path = None
        try:
            path = benchmark.find_video(job.video)
            future = pool.submit(path, job.frames, (side, side))
        except BenchmarkError as error:
            future = Future()
            future.set_exception(error)
        waiting.append((job, path, future))
        if len(waiting) > ahead:
            yield waiting.popleft()
    while waiting:
        yield waiting.popleft()


@dataclass(frozen=True)
class _How:
    """What is the same for all jobs of a run."""

    model: LlavaNext
    prompts: dict[str, Prompt]
    max_new_tokens: int
    read: str


class _Seen:
    """A decoded video's patch grids: each frame is encoded once, whatever settings it is in."""

    def __init__(self, model: LlavaNext, video: Video) -> None:
        self._model, self._video, self._tiled = model, video, {}
        self._all: Any = None
        self.seconds = 0.0

    def grid(self, setting: Setting) -> Any:
        """(T h w D) as the setting's aggregation needs it."""
        start = time.perf_counter()
        at = self._video.positions(setting.frames)
        frames = self._video.frames[at]
        images = setting.images(frames)
        if images is frames:
            self._all = self._model.encode(self._video.frames) if self._all is None else self._all
            grid = self._all[at]
        else:
            key = (setting.frames, name_of(setting.aggregation))
            if key not in self._tiled:
                self._tiled[key] = self._model.encode(images)
            grid = self._tiled[key]
        self.seconds += time.perf_counter() - start
        return grid


def _run_job(
    how: _How, job: _Job, path: Path | None, future: Future[Video], pool: DecodePool, folder: RunFolder, bar: Any
) -> None:
    """Answer one job's questions; what fails is tried once more, each setting by itself, then written with its reason.

    A setting too large for the memory thus costs its own questions and no other's.
    """
    left = list(job.asks)

    def write(ask: tuple[Setting, list[Question]], rows: list[dict[str, Any]]) -> None:
        folder.append(rows)
        left.remove(ask)
        bar.update(len(rows))

    try:
        _ask_all(how, future.result(), left[:], write)
        return
    except RunError:
        raise
    except Exception as error:
        reason = _reason(error)
        log.warning("%s: attempt 1 failed: %s", job.video, reason)
        again = None
        if path is not None:
            size = (how.model.image_size, how.model.image_size)
            again = pool.submit(path, job.frames, size, "pyav" if isinstance(error, VideoError) else "auto")
    for ask in left[:]:
        setting, questions = ask
        try:
            if again is not None:
                _ask_all(how, again.result(), [ask], write)
                continue
        except RunError:
            raise
        except Exception as error:
            reason = _reason(error)
            log.warning("%s: %s: attempt 2 failed: %s", job.video, setting.name, reason)
        write(ask, [_row(q, setting, error=reason) for q in questions])


def _reason(error: Exception) -> str:
    text = str(error) if isinstance(error, SfllavaError) else f"{type(error).__name__}: {error}"
    return " ".join(text.split())[:500]


def _ask_all(how: _How, video: Video, asks: list[tuple[Setting, list[Question]]], write: Callable[..., None]) -> None:
    seen, prefix = _Seen(how.model, video), how.model.new_prefix()
    for setting, questions in asks:
        before = seen.seconds
        tokens = setting.tokens(seen.grid(setting))
        encoding = (seen.seconds - before) / len(questions)
        write((setting, questions), list(_answer(how, video, tokens, setting, questions, encoding, prefix)))


def _answer(
    how: _How,
    video: Video,
    tokens: Any,
    setting: Setting,
    questions: list[Question],
    encoding: float,
    prefix: Prefix,
) -> Iterator[dict[str, Any]]:
    model, prompt = how.model, how.prompts[setting.name]
    fits = []
    for question in questions:
        try:
            model.check_context(len(tokens), sum(map(len, model.prompt_ids(question, prompt))), question.text)
            fits.append(question)
        except SfllavaError as error:
            yield _row(question, setting, error=str(error))
    if not fits:
        return
    start, prefix.reused = time.perf_counter(), 0
    options = {"max_new_tokens": how.max_new_tokens, "prompt": prompt, "read": how.read, "prefix": prefix}
    answers = model.answer(tokens, fits, **options)
    seconds = {"encode": round(encoding, 6), "answer": round((time.perf_counter() - start) / len(fits), 6)}
    for answer in answers:
        yield _row(
            answer.question,
            setting,
            prediction=answer.text,
            token_ids=list(answer.token_ids),
            visual_tokens=answer.visual_tokens,
            reused_tokens=prefix.reused,
            frames=len(video.positions(setting.frames)),
            seconds=seconds,
            **({"letters": answer.letters} if answer.letters else {}),
            **({"damage": video.damage} if video.damage else {}),
        )


def _row(question: Question, setting: Setting, error: str | None = None, **result: Any) -> dict[str, Any]:
    return {
        "key": question.key,
        "setting": setting.name,
        "video": question.video,
        "id": question.id,
        "type": question.type,
        "question": question.text,
        "answer": question.answer,
        "options": list(question.options),
        "prediction": None,
        "token_ids": [],
        "visual_tokens": None,
        "seconds": {},
        "error": error,
        **result,
    }


def _bar(jobs: list[_Job], done: int, progress: bool) -> Any:
    from tqdm.auto import tqdm

    left = sum(job.size for job in jobs)
    return tqdm(total=done + left, initial=done, unit="question", disable=not progress, dynamic_ncols=True)
