"""What a run asks: the tokens of each question, which questions are answered together, and what that costs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from sfllava.aggregators.base import part_counts, prefix_key
from sfllava.aggregators.base import with_frames as with_pathways
from sfllava.benchmarks import Benchmark
from sfllava.benchmarks.base import load_spec
from sfllava.evaluators.protocols import load_protocol
from sfllava.models.base import check_generation
from sfllava.models.operations import Shape
from sfllava.models.packed_decoding import PACKED_POSITIONS
from sfllava.models.sizes import Sizes
from sfllava.planning import stages
from sfllava.planning.roofline import Roofline
from sfllava.planning.stages import Cost
from sfllava.prompts import Prompt, pack_prompt
from sfllava.runs.jobs import group_videos
from sfllava.settings import Setting
from sfllava.types import Clip, Question, SfllavaError, Task

# average number of characters of a question with its options in the published files, for a plan without them
_CHARACTERS = {"msvd": 32, "msrvtt": 37, "tgif": 43, "activitynet": 44, "nextqa": 150, "egoschema": 777}
_CHARACTERS |= {"intentqa": 163, "vcgbench": 56, "videomme": 210, "longvideobench": 483, "mlvu": 156, "nextgqa": 163}
_CHARACTERS |= {"mlvu_open": 87, "tempcompass": 112}
_TYPICAL = {"open": 40, "choice": 150, "describe": 56, "yes_no": 56, "caption_matching": 170, "captioning": 603}


@dataclass(frozen=True)
class Workload:
    """The questions of a run, by video, and the length of their answers."""

    name: str
    task: Task
    videos: tuple[tuple[Question, ...], ...]
    """The questions of each video"""
    answer_room: int
    """Positions reserved for each answer; 0 where option letters are read from the logits"""
    new_tokens: int
    """Expected length of an answer"""
    protocol: str | None = None
    """The evaluation tool whose prompts are used"""
    subtitles: bool = False
    """Whether prompts have subtitles; their text is not counted, since it depends on the videos"""

    def prompt(self, family: str) -> Prompt:
        """Return the prompt of the questions, in the chat format of a family."""
        tool = load_protocol(self.protocol) if self.protocol else None
        wording = tool.wording(self.name, self.task, self.subtitles) if tool else None
        return wording.prompt(family, f"{family}/{self.protocol}") if wording else pack_prompt(family, self.task)

    @property
    def question_count(self) -> int:
        return sum(map(len, self.videos))

    def groups(self, max_questions: int) -> list[list[int]]:
        """Return the videos that a run answers together, by number: those with up to `max_questions` in all."""
        return list(group_videos(map(len, self.videos), max_questions))


def workload_of(
    benchmark: Benchmark | str,
    videos: int | None = None,
    questions: int | None = None,
    *,
    max_new_tokens: int = 128,
    new_tokens: int | None = None,
    answer_mode: str = "generate",
    protocol: str | None = None,
    subtitles: bool = False,
) -> Workload:
    """Return the questions of a benchmark.

    Args:
        benchmark: A loaded one, or a name; by name, questions of average length take the place of the real ones.
        videos: Number of videos of a benchmark by name; None for the published number.
        questions: Number of its questions, likewise.
        max_new_tokens: Positions reserved for an answer.
        new_tokens: Expected length of an answer; None for `max_new_tokens`.
        answer_mode: "generate" or "logits".
        protocol, subtitles: As in `evaluate`.

    Raises:
        SfllavaError: There is no such protocol, the numbers do not go together, or the answer mode does not suit the
            questions.
    """
    if isinstance(benchmark, Benchmark):
        by_video: dict[tuple[str, Clip | None], list[Question]] = {}
        for question in benchmark.questions:
            by_video.setdefault((question.video, question.clip), []).append(question)
        name, task, grouped = benchmark.name, benchmark.spec.task, tuple(map(tuple, by_video.values()))
        check_generation(answer_mode, max_new_tokens, benchmark.questions)
    else:
        name, task, grouped = _placeholders(benchmark, videos, questions)
        check_generation(answer_mode, max_new_tokens, [])
    expected = max_new_tokens if new_tokens is None else new_tokens
    if not 1 <= expected <= max_new_tokens:
        raise SfllavaError(f"new_tokens must be between 1 and max_new_tokens ({max_new_tokens}), got {new_tokens}")
    if answer_mode == "logits":
        max_new_tokens, expected = 0, 1
    if protocol:
        load_protocol(protocol)  # an unknown name is an error here
    return Workload(name, task, grouped, max_new_tokens, expected, protocol, subtitles)


def _placeholders(
    benchmark: str, videos: int | None, questions: int | None
) -> tuple[str, Task, tuple[tuple[Question, ...], ...]]:
    """Return questions of average length, spread evenly over the videos."""
    spec = load_spec(benchmark)
    question_count = questions or spec.question_count or 0
    video_count = videos or (min(spec.video_count or 0, question_count) if questions is None else 0)
    if not 1 <= video_count <= question_count:
        raise SfllavaError(
            f"{spec.name}: needed a question file, or how many questions (at least one a video) about how many videos; "
            f"got {questions} and {videos}"
        )
    question = Question("x" * _CHARACTERS.get(spec.name, _TYPICAL[spec.task]), task=spec.task)
    each, rest = divmod(question_count, video_count)
    return spec.name, spec.task, tuple((question,) * (each + (i < rest)) for i in range(video_count))


@dataclass(frozen=True)
class PlannedQuestions:
    """The questions of a workload at one setting: their tokens, and which of them share a prefix."""

    setting: Setting
    workload: Workload
    visual_tokens: int
    before: int
    """Text tokens before the video"""
    suffix: int
    """Text tokens after it, on average"""
    sharing: tuple[int, ...]
    """For each video of `units`, the number of questions that share its prefix"""
    alone: int
    """Questions beyond the positions up to which a prefix may be shared: each prefills its whole prompt"""
    failing: int
    """Questions that do not fit the context"""
    shortest: int
    """Text tokens of the shortest prompt"""
    front: int = 0
    """Visual tokens at the front that all questions of a video have in common, where frames are chosen for each"""

    @cached_property
    def units(self) -> Workload:
        """The workload by what shares a prefix: the videos, or single questions where frames are chosen for each."""
        return _units(self.setting, self.workload)

    @cached_property
    def owners(self) -> list[int]:
        """For each video of `units`, the number of the video that it is about."""
        if not self.setting.question_aware:
            return list(range(len(self.workload.videos)))
        return [i for i, questions in enumerate(self.workload.videos) for _ in questions]

    @property
    def prefix_tokens(self) -> int:
        return self.before + self.visual_tokens

    @property
    def prompt_tokens(self) -> int:
        return self.prefix_tokens + self.suffix

    @property
    def answered(self) -> int:
        return sum(self.sharing) + self.alone

    @property
    def sharing_videos(self) -> int:
        """Videos of `units` whose prefix is shared"""
        return sum(count > 0 for count in self.sharing)

    def batches(self, groups: Sequence[Sequence[int]]) -> Counter[tuple[int, ...]]:
        """Count the groups of videos by the numbers of questions that share each video's prefix."""
        found = Counter(tuple(sorted(filter(None, (self.sharing[i] for i in group)))) for group in groups)
        found.pop((), None)
        return found

    def questions_at_a_time(self, batch: tuple[int, ...], max_questions: int) -> int:
        """Return how many questions of each video are decoded at a time, as `packed_decoding.split_to_fit` does."""
        fitting = PACKED_POSITIONS // len(batch) // (self.suffix + self.workload.answer_room)
        return max(1, min(fitting, max_questions, max(batch)))

    def prefill(self, shape: Shape, device: Roofline, reused: int = 0) -> Cost:
        """Return the cost of all prefixes and of the prompts that share none; `reused` visual tokens are cached."""
        cached = min(self.before + reused, self.prefix_tokens - 1) if reused else 0
        whole = stages.prefill_cost(shape, device, self.prompt_tokens) * self.alone if self.alone else Cost()
        if not self.front or reused:
            return stages.prefill_cost(shape, device, self.prefix_tokens, cached) * self.sharing_videos + whole
        first = len({owner for owner, count in zip(self.owners, self.sharing) if count})
        behind = stages.prefill_cost(shape, device, self.prefix_tokens, self.before + self.front)
        fronts = stages.prefill_cost(shape, device, self.prefix_tokens) * first
        return fronts + behind * (self.sharing_videos - first) + whole

    def decode(self, shape: Shape, device: Roofline, batches: Counter[tuple[int, ...]], max_questions: int) -> Cost:
        """Return the cost of the questions after their prefixes, and of all tokens of the answers."""
        total = Cost()
        for batch, times in batches.items():
            size = self.questions_at_a_time(batch, max_questions)
            for first in range(0, max(batch), size):
                counts = [min(size, count - first) for count in batch if count > first]
                total += self._decode_pack(shape, device, len(batch), max(counts), sum(counts)) * times
        if self.alone:
            one = stages.alone_cost(shape, device, self.prompt_tokens, self.workload.new_tokens)
            total += (one + stages.prefill_cost(shape, device, self.prompt_tokens) * -1) * self.alone
        return total

    def _decode_pack(self, shape: Shape, device: Roofline, videos: int, rows: int, answers: int) -> Cost:
        """Return the cost of one packed batch: up to `rows` questions for each of its videos, `answers` in all."""
        steps = self.workload.new_tokens - 1
        keys = self.prefix_tokens + rows * self.suffix
        cost = stages.forward_cost(shape, device, videos, rows * self.suffix, keys, answers)
        if steps:
            cost += stages.forward_cost(shape, device, videos, rows, keys + rows * steps // 2, answers) * steps
        return cost

    def one_by_one(self, shape: Shape, device: Roofline) -> Cost:
        """Return the cost of the same questions one at a time, each with its whole prompt."""
        return stages.alone_cost(shape, device, self.prompt_tokens, self.workload.new_tokens) * self.answered


def planned_questions(setting: Setting, sizes: Sizes, workload: Workload) -> PlannedQuestions:
    """Count the tokens of a workload's questions at a setting."""
    prompt = setting.prompt_or(workload.prompt(sizes.family))
    assert prompt is not None
    visual_tokens = setting.token_count(*sizes.grid)
    video_text = sizes.prompt_rows(setting) - visual_tokens
    shareable = min(sizes.shared_positions or sizes.context, sizes.context)
    befores, suffixes, sharing, alone, failing = [], [], [], 0, 0
    lengths: dict[str, int] = {}

    def count(text: str) -> int:
        if text not in lengths:
            lengths[text] = sizes.count(text)
        return lengths[text]

    for questions in _units(setting, workload).videos:
        shared = 0
        for question in questions:
            before, after = prompt.pieces(question)
            befores.append(count(before) + 1 + video_text)  # and BOS
            suffixes.append(count(after))
            length = visual_tokens + befores[-1] + suffixes[-1]
            with_answer = length + workload.answer_room
            failing += length >= sizes.context
            shared += with_answer <= shareable
            alone += with_answer > shareable and length < sizes.context
        sharing.append(shared)
    before, suffix = (round(sum(counts) / len(counts)) for counts in (befores, suffixes))
    shortest = min(map(sum, zip(befores, suffixes)))
    return PlannedQuestions(
        setting, workload, visual_tokens, before, max(1, suffix), tuple(sharing), alone, failing, shortest,
        _shared_front(setting, sizes) if setting.question_aware else 0,
    )  # fmt: skip


def _units(setting: Setting, workload: Workload) -> Workload:
    """Return a workload by what shares a prefix: where frames are chosen for each question, each may have its own."""
    if not setting.question_aware:
        return workload
    return replace(workload, videos=tuple((question,) for questions in workload.videos for question in questions))


def _shared_front(setting: Setting, sizes: Sizes) -> int:
    """Count the visual tokens at the front that do not depend on the frames chosen for the Slow pathway."""
    if setting.selection_for != "slow":
        return 0
    frames = list(range(setting.frames))
    one, other = (with_pathways(setting.aggregation, [i], frames) for i in (0, setting.frames))
    if prefix_key(one) != prefix_key(other):
        return 0
    return next(iter(part_counts(setting.aggregation, setting.frames, *sizes.grid).values()))


def with_frames(questions: PlannedQuestions, sizes: Sizes, frames: int) -> PlannedQuestions:
    """Return the same questions at another number of frames."""
    return planned_questions(replace(questions.setting, frames=frames), sizes, questions.workload)
