"""What is asked of a setting: how many tokens each question takes, which are answered together, and what that costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from sfllava.benchmarks import Benchmark
from sfllava.benchmarks.base import load_spec
from sfllava.models.base import check_generation
from sfllava.models.operations import Shape
from sfllava.models.packed_decoding import PACKED_POSITIONS
from sfllava.models.sizes import Sizes
from sfllava.planning import stages
from sfllava.planning.roofline import Roofline
from sfllava.planning.stages import Cost
from sfllava.prompts import pack_prompt
from sfllava.runs.jobs import group_videos
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError, Task

# Characters of a question with its options, on average in the published files; for a plan without them
_CHARACTERS = {"msvd": 32, "msrvtt": 37, "tgif": 43, "activitynet": 44, "nextqa": 150, "egoschema": 777}
_CHARACTERS |= {"intentqa": 163, "vcgbench": 56}
_TYPICAL = {"open": 40, "choice": 150, "describe": 56}


@dataclass(frozen=True)
class Workload:
    """The questions of a run, by video, and how they are answered."""

    name: str
    task: Task
    asked: tuple[tuple[Question, ...], ...]
    room: int
    """Positions that are kept for each answer; none where letters are read"""
    steps: int
    """Tokens that an answer is expected to take"""

    @property
    def questions(self) -> int:
        return sum(map(len, self.asked))

    def groups(self, together: int) -> list[list[int]]:
        """Videos, by number, that are answered together where a group has up to so many questions."""
        return list(group_videos(map(len, self.asked), together))


def workload_of(
    benchmark: Benchmark | str,
    videos: int | None = None,
    questions: int | None = None,
    *,
    max_new_tokens: int = 128,
    new_tokens: int | None = None,
    answer_mode: str = "generate",
) -> Workload:
    """The questions of a loaded benchmark; or of one by name, as many as were published unless numbers say others."""
    if isinstance(benchmark, Benchmark):
        by_video: dict[str, list[Question]] = {}
        for question in benchmark.questions:
            by_video.setdefault(question.video, []).append(question)
        name, task, asked = benchmark.name, benchmark.spec.task, tuple(map(tuple, by_video.values()))
    else:
        spec = load_spec(benchmark)
        name, task = spec.name, spec.task
        count = questions or spec.question_count
        films = videos or (min(spec.video_count or 0, count or 0) if questions is None else None)
        if not count or not films or films > count or min(count, films) < 1:
            raise SfllavaError(
                f"{name}: needed a question file, or how many questions (at least one a video) about how many videos; "
                f"got {questions} and {videos}"
            )
        text = "x" * _CHARACTERS.get(name, _TYPICAL[task])
        asked = tuple((Question(text, task=task),) * (count // films + (i < count % films)) for i in range(films))
    check_generation(
        answer_mode, max_new_tokens, [q for qs in asked for q in qs] if isinstance(benchmark, Benchmark) else []
    )
    steps = max_new_tokens if new_tokens is None else new_tokens
    if not 1 <= steps <= max_new_tokens:
        raise SfllavaError(f"new_tokens must be between 1 and max_new_tokens ({max_new_tokens}), got {new_tokens}")
    letters = answer_mode == "logits"
    return Workload(name, task, asked, 0 if letters else max_new_tokens, 1 if letters else steps)


@dataclass(frozen=True)
class PlannedQuestions:
    """A setting with its questions: tokens, who shares a prefix, and who cannot."""

    setting: Setting
    load: Workload
    visual: int
    before: int
    """Text tokens before the video"""
    suffix: int
    """Text tokens behind it, on average"""
    sharing: tuple[int, ...]
    """Of each video, the questions that share its prefix"""
    alone: int
    """Questions that pass the positions up to which a prefix may be shared: each prefills its whole prompt"""
    failing: int
    """Questions that do not fit the context"""
    shortest: int
    """Text tokens of the shortest prompt"""

    @property
    def start(self) -> int:
        """Tokens of the prefix"""
        return self.before + self.visual

    @property
    def prompt(self) -> int:
        return self.start + self.suffix

    @property
    def answered(self) -> int:
        return sum(self.sharing) + self.alone

    @property
    def videos(self) -> int:
        """Videos with a prefix that is shared"""
        return sum(count > 0 for count in self.sharing)

    def counts(self, groups: Sequence[Sequence[int]]) -> Counter[tuple[int, ...]]:
        """Of each group of videos, by number, the questions that share prefixes."""
        found = Counter(tuple(sorted(filter(None, (self.sharing[i] for i in group)))) for group in groups)
        found.pop((), None)
        return found

    def pack(self, counts: tuple[int, ...], most: int) -> int:
        """Questions of one video that are decoded at a time, as `models.packed.parts` cuts them."""
        room = PACKED_POSITIONS // len(counts) // (self.suffix + self.load.room)
        return max(1, min(room, most, max(counts)))

    def prefill(self, shape: Shape, device: Roofline, reused: int = 0) -> Cost:
        """Of all prefixes, of which so many visual tokens are there already, and of what cannot share them."""
        kept = min(self.before + reused, self.start - 1) if reused else 0
        whole = stages.prefill_cost(shape, device, self.prompt) * self.alone if self.alone else Cost()
        return stages.prefill_cost(shape, device, self.start, kept) * self.videos + whole

    def decode(self, shape: Shape, device: Roofline, counts: Counter[tuple[int, ...]], most: int) -> Cost:
        """Of all questions behind their prefixes, and the tokens of all answers."""
        steps, total = self.load.steps - 1, Cost()
        for group, times in counts.items():
            size = self.pack(group, most)
            for first in range(0, max(group), size):
                now = [min(size, count - first) for count in group if count > first]
                rows, said = max(now), sum(now)
                behind = self.start + rows * self.suffix
                cost = stages.forward_cost(shape, device, len(group), rows * self.suffix, behind, said)
                if steps:
                    cost += (
                        stages.forward_cost(shape, device, len(group), rows, behind + rows * steps // 2, said) * steps
                    )
                total += cost * times
        if self.alone:
            one = stages.alone_cost(shape, device, self.prompt, self.load.steps)
            total += (one + stages.prefill_cost(shape, device, self.prompt) * -1) * self.alone
        return total

    def one_by_one(self, shape: Shape, device: Roofline) -> Cost:
        """Of all questions, each with a prompt and an answer of its own."""
        return stages.alone_cost(shape, device, self.prompt, self.load.steps) * self.answered


def planned_questions(setting: Setting, sizes: Sizes, load: Workload) -> PlannedQuestions:
    """The questions of a load at a setting."""
    prompt = setting.prompt_or(pack_prompt(sizes.family, load.task))
    visual = setting.token_count(*sizes.grid)
    limit = min(sizes.shared_positions or sizes.context, sizes.context)
    fronts, suffixes, sharing, alone, failing = [], [], [], 0, 0
    lengths: dict[str, int] = {}

    def count(text: str) -> int:
        if text not in lengths:
            lengths[text] = sizes.count(text)
        return lengths[text]

    for questions in load.asked:
        shared = 0
        for question in questions:
            front, behind = prompt.pieces(question)
            fronts.append(count(front) + 1)  # and BOS
            suffixes.append(count(behind))
            length = visual + fronts[-1] + suffixes[-1]
            failing += length >= sizes.context
            shared += length + load.room <= limit
            alone += limit < length + load.room and length < sizes.context
        sharing.append(shared)
    before, suffix = (round(sum(numbers) / len(numbers)) for numbers in (fronts, suffixes))
    shortest = min(map(sum, zip(fronts, suffixes)))
    return PlannedQuestions(setting, load, visual, before, max(1, suffix), tuple(sharing), alone, failing, shortest)


def with_frames(asked: PlannedQuestions, sizes: Sizes, frames: int) -> PlannedQuestions:
    """The same with another number of frames."""
    return planned_questions(replace(asked.setting, frames=frames), sizes, asked.load)
