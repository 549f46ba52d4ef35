"""Videos x settings x questions -> rows on disk; resumable; never drops a question."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import logging
import platform
import random
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sfllava.benchmarks import Benchmark
from sfllava.disk import RunError
from sfllava.jobs import Here, How, Runner, make_jobs
from sfllava.progress import progress_bar
from sfllava.prompts import Prompt, pack_prompt
from sfllava.runfolder import RunFolder
from sfllava.scoring import format_scores, score
from sfllava.types import Question, Setting, SfllavaError, check_options, name_of

if TYPE_CHECKING:
    from sfllava.models.llava_next import LlavaNext
    from sfllava.models.outline import Outline

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Run:
    """What `evaluate` did: the run folder, and its scores by setting."""

    path: Path
    scores: dict[str, Any]

    def __str__(self) -> str:
        return f"{self.path}\n{format_scores(self.scores)}"


def evaluate(
    model: LlavaNext | Runner,
    benchmark: Benchmark,
    settings: Setting | Iterable[Setting],
    out: str | Path,
    *,
    limit: int | None = None,
    seed: int | None = None,
    prompt: Prompt | None = None,
    max_new_tokens: int = 128,
    read: str = "generate",
    decoders: int = 2,
    decode_seconds: float = 120.0,
    retry_failed: bool = False,
    progress: bool = True,
    ablation: str | None = None,
) -> Run:
    """Ask every question of a benchmark at every setting, and score.

    model: a loaded one, or several on many GPUs (`cluster.Workers`), which give the same rows in another order.
    Called again with the same arguments it goes on where it stopped, however it stopped. limit: the first so many
    questions, or with `seed` a random choice of them. read: "generate", or "logits" for choice questions. decoders:
    processes that decode, for each model; decode_seconds: what one video may take. retry_failed: ask again what
    failed before. ablation: its name, for the run's record.
    Raises before any compute where a setting's tokens do not fit the context.
    """
    settings = [settings] if isinstance(settings, Setting) else list(settings)
    names = [setting.name for setting in settings]
    if not settings or len(set(names)) < len(names):
        raise SfllavaError(f"needed settings with names of their own, got {names}")
    benchmark.require_videos()
    questions = choose_questions(benchmark.questions, limit, seed)
    check_options(read, max_new_tokens, questions)
    if decoders < 1 or decode_seconds <= 0:
        raise SfllavaError(f"decoders and decode_seconds must be above 0, got {decoders} and {decode_seconds}")
    runner = model if isinstance(model, Runner) else Here(model)
    known = runner.outline
    prompt = prompt or pack_prompt(known.family, questions[0].task)
    prompts = {s.name: Prompt(s.prompt, s.name) if s.prompt else prompt for s in settings}
    for setting in settings:
        shortest = min(sum(map(len, known.prompt_ids(q, prompts[setting.name]))) for q in questions)
        known.check_context(setting.budget(*known.grid), shortest, setting.name)
    identity = {
        "benchmark": benchmark.name,
        "questions_sha256": benchmark.fingerprint,
        "limit": limit,
        "seed": seed,
        "questions": len(questions),
        "settings": [_describe(s, known) for s in settings],
        "model": {
            "sha256_sampled": known.fingerprint,
            "dtype": str(known.dtype),
            "context": known.context,
            "rope": known.rope,
            "shape": dataclasses.asdict(known.shape),
        },
        "prompt": prompt.text,
        "max_new_tokens": max_new_tokens,
        "read": read,
    }
    facts = {
        "model": str(known.path),
        "layout": known.layout,
        "device": str(known.device),
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
        jobs = list(make_jobs(questions, settings, done, benchmark))
        total = len(done) + sum(job.size for job in jobs)
        how = How(prompts, max_new_tokens, read, decoders, decode_seconds)
        try:
            bar = progress_bar(total, "question", len(done), progress)
            with bar, contextlib.closing(runner.run(how, jobs)) as answered:
                for rows in answered:
                    folder.append(rows)
                    bar.update(len(rows))
        except BaseException:
            with contextlib.suppress(RunError):  # a disk that takes no more rows takes no scores: the rows are named
                _conclude(folder, questions, names)
            raise
        scores = _conclude(folder, questions, names)
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


def _conclude(folder: RunFolder, questions: Sequence[Question], names: Sequence[str]) -> dict[str, Any]:
    scores = score(questions, names, folder.rows())
    folder.write_scores(scores)
    log.info("ended:\n%s", format_scores(scores))
    return scores


def _describe(setting: Setting, model: Outline) -> dict[str, Any]:
    facts = {"name": setting.name, "frames": setting.frames, "aggregation": name_of(setting.aggregation)}
    facts["budget"] = setting.budget(*model.grid)
    return facts | ({"prompt": setting.prompt} if setting.prompt else {})
