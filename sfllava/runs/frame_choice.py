"""Choosing the frames of each question, before a video is decoded for the model.

1. The candidates of a video are decoded at the scorer's size, and their features are computed and kept on disk.
2. Each question's scores are computed from them and kept on disk.
3. The setting's rule chooses frames; questions with equal frames stay together, and share a prefix.

Where all of this is on disk already, no candidate is decoded and the scorer is not loaded.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath

import numpy as np

from sfllava.aggregators.base import detailed_frames, identity_key, tier_counts
from sfllava.files import Row
from sfllava.models.scorer import Scorer, ScorerFolder, similarity
from sfllava.runs.jobs import Job, make_row, selected_key
from sfllava.runs.score_cache import ScoreCache, hash_video, make_key
from sfllava.runs.selection_source import SelectionSource
from sfllava.sampler.images import FrameSize
from sfllava.sampler.sampling import AnySample, Sample, union_indices
from sfllava.sampler.selection.frame_list import FrameList, without_suffix
from sfllava.sampler.video import Video
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

log = logging.getLogger(__name__)
_SMALL = (32, 32)  # the size of a frame that is decoded only to learn how many there are


@dataclass(frozen=True)
class Candidates:
    """The scored frames of a video or clip.

    Attributes:
        key: the key of the features in the cache.
        indices: (C) int64, in the video.
        features: (C D) float32 of the scorer, not normalised.
    """

    key: str
    indices: np.ndarray
    features: np.ndarray


@dataclass(frozen=True)
class Scene:
    """What is known of a video or clip before its frames are chosen.

    Attributes:
        first: Its first frame.
        last: Its last frame.
        fps: Frames per second; None if unknown.
        candidates: The scored frames, by the sample that they are.
    """

    first: int
    last: int
    fps: float | None
    candidates: Mapping[Sample, Candidates] = field(default_factory=dict)


class FrameChooser:
    """Chooses the frames of each question.

    Args:
        source: What they are chosen with.
        device: Where the scorer runs.
    """

    def __init__(self, source: SelectionSource, device: str) -> None:
        self._source, self._device = source, device
        self._folder = ScorerFolder(source.scorer) if source.scorer else None
        if self._folder and source.fingerprint and self._folder.fingerprint != source.fingerprint:
            raise SfllavaError(f"{self._folder.path}: this is another scorer here than where the run was started")
        self._cache = ScoreCache(str(source.cache))
        self._scorer: Scorer | None = None
        self._scenes: dict[str, Scene] = {}
        self._hashes: dict[tuple[str, int, int], str] = {}  # by path, time and size of the file

    def needed(self, job: Job) -> tuple[list[AnySample], FrameSize] | None:
        """Return the frames that must be decoded before those of a job can be chosen, and at which size.

        Returns:
            None where all that is needed is on disk.
        """
        samples = _candidates(job)
        if not samples or self._folder is None:
            return [Sample(1)], _SMALL
        if (scene := self._from_cache(job, samples)) is not None:
            self._scenes[job.video] = scene
            return None
        return list(samples), self._folder.frame_size

    def choose(self, job: Job, looked: Video | None) -> tuple[list[Job], list[Row]]:
        """Choose the frames of a job's questions.

        Args:
            job: The job.
            looked: The frames that `needed` asks for; None where it asks for none.

        Returns:
            Jobs about the same video, each with one choice of frames at each setting; rows of the questions for which
            no frames could be chosen.
        """
        scene = self.scene(job, looked)
        groups: list[list[tuple[Setting, list[Question]]]] = []
        failed: list[Row] = []
        selected: dict[tuple[str, ...], Row] = {}
        for setting, questions in job.by_setting:
            by_frames: dict[object, tuple[Setting, list[Question]]] = {}
            for question in questions:
                own = setting
                if setting.question_aware:
                    try:
                        own, facts = self.bind(setting, question, scene)
                    except SfllavaError as error:
                        failed.append(make_row(question, setting.name, error=str(error)))
                        continue
                    selected[selected_key(setting.name, question)] = facts
                key = own.chosen, identity_key(own.aggregation)
                by_frames.setdefault(key, (own, []))[1].append(question)
            groups.append(list(by_frames.values()))
        self._warn_of_few(job, scene)
        parts = max(map(len, groups), default=0)
        split = [[group[i] for group in groups if i < len(group)] for i in range(parts)]
        return [replace(job, by_setting=by_setting, selected=selected) for by_setting in split], failed

    def bind(self, setting: Setting, question: Question, scene: Scene) -> tuple[Setting, Row]:
        """Return a setting with the frames of a question, and what its row says about them."""
        scores = self.scores(setting, question, scene)

        def choose(n: int) -> list[int]:
            if not setting.frame_selection.needs_scores:
                assert isinstance(self._source.frame_list, FrameList)
                listed = list(self._source.frame_list.indices(question, scene.first, scene.last, scene.fps))
                if len(listed) > n:
                    raise SfllavaError(f"{setting.name}: needed at most {n} frames of the list, got {len(listed)}")
                return listed
            indices, values = np.array(list(scores)), np.array(list(scores.values()))
            return indices[setting.frame_selection.choose(values, n, _seed(question))].tolist()

        pathway, detailed = setting.selection_for, None
        if pathway == "slow":
            frames = union_indices(setting.uniform_sample, scene.first, scene.last, scene.fps).tolist()
        else:
            frames = choose(setting.frames)
        tiers: list[list[int]] = []
        for most in itertools.accumulate(tier_counts(setting.aggregation)):
            tiers.append([i for i in choose(min(most, setting.frames)) if not any(i in tier for tier in tiers)])
        if tiers:
            frames = sorted(itertools.chain(*tiers))
        if pathway != "all":
            detailed = choose(len(detailed_frames(setting.aggregation, setting.frames)))
        facts: Row = {"frames": frames if detailed is None else detailed, "for": pathway}
        if pathway == "both":
            facts["fast_frames"] = frames
        if tiers:
            facts["tiers"] = [next(k for k, tier in enumerate(tiers) if i in tier) for i in frames]
        if scores:
            facts["scores"] = [round(scores[i], 5) for i in facts["frames"]]
            facts |= {"candidates": len(scores), "scorer": self._source.fingerprint, "text": self._source.text}
        return (setting.with_ranked(tiers) if tiers else setting.with_chosen(frames, detailed)), facts

    def scores(self, setting: Setting, question: Question, scene: Scene) -> dict[int, float]:
        """Return the score of each candidate by its index in the video; empty for a selection without scores."""
        selection = setting.frame_selection
        if not selection.needs_scores:
            return {}
        candidates = scene.candidates[selection.selector.candidates]
        values = self._scores(candidates, question, selection.selector.similarity)
        return dict(zip(candidates.indices.tolist(), values.tolist()))

    def _scores(self, candidates: Candidates, question: Question, kind: str) -> np.ndarray:
        """Return the scores (C) of the candidates for a question, from the cache if they are there."""
        text = self._source.scored_text(question)
        key = make_key(candidates=candidates.key, text=text, similarity=kind)
        known = self._cache.get(key)
        if known and known.get("scores", np.zeros(0)).shape == candidates.indices.shape:
            return known["scores"]
        scores = similarity(candidates.features, self._loaded_scorer().text_features(text), kind)
        self._cache.put(key, {"scores": scores})
        return scores

    def scene(self, job: Job, looked: Video | None) -> Scene:
        """Return what a job's frames are chosen from; the features of decoded candidates are computed and kept.

        Args:
            job: The job.
            looked: The frames that `needed` asks for; None where it asks for none.
        """
        if looked is None:
            return self._scenes.pop(job.video)
        first, last = looked.span or (0, looked.total - 1)
        fps = looked.fps or (job.clip.fps if job.clip else None)
        samples, found = _candidates(job), {}
        if samples and self._folder is not None:
            features = self._loaded_scorer().image_features(looked.frames)
            for sample in samples:
                positions = looked.positions(sample)
                one = Candidates(self._key(job, sample), looked.indices[positions], features[positions])
                found[sample] = one
                about = np.array([first, last, fps or 0.0])
                self._cache.put(one.key, {"indices": one.indices, "features": one.features, "about": about})
        return Scene(first, last, fps, found)

    def _from_cache(self, job: Job, samples: Sequence[Sample]) -> Scene | None:
        found: dict[Sample, Candidates] = {}
        about = np.zeros(3)
        for sample in samples:
            key = self._key(job, sample)
            known = self._cache.get(key)
            if not known or {"indices", "features", "about"} - known.keys() or known["about"].shape != (3,):
                return None
            found[sample], about = Candidates(key, known["indices"], known["features"]), known["about"]
        return Scene(int(about[0]), int(about[1]), float(about[2]) or None, found)

    def _key(self, job: Job, sample: Sample) -> str:
        assert job.path is not None
        clip = vars(job.clip) if job.clip else None
        file = Path(job.path).stat()
        known = (job.path, file.st_mtime_ns, file.st_size)
        if known not in self._hashes:
            self._hashes[known] = hash_video(job.path)
        return make_key(video=self._hashes[known], clip=clip, candidates=vars(sample), scorer=self._source.fingerprint)

    def _loaded_scorer(self) -> Scorer:
        if self._scorer is None:
            assert self._folder is not None
            self._scorer = Scorer(self._folder, self._device)
        return self._scorer

    def _warn_of_few(self, job: Job, scene: Scene) -> None:
        for setting, _ in job.by_setting:
            selector = setting.frame_selection.selector
            found = scene.candidates.get(selector.candidates) if setting.frame_selection.needs_scores else None
            if found is not None and len(found.indices) < setting.frames and setting.selection_for != "slow":
                log.warning(
                    "%s: %s: %d frames of %d candidates: %s", job.video, setting.name, setting.frames,
                    len(found.indices), "some are repeated" if selector.repeats else "all are taken",
                )  # fmt: skip


def _candidates(job: Job) -> list[Sample]:
    """Return the samples of candidates that a job's settings need, each once."""
    rules = [setting.frame_selection for setting, _ in job.by_setting]
    return list(dict.fromkeys(rule.selector.candidates for rule in rules if rule.needs_scores))


def _seed(question: Question) -> int:
    """Return a seed that is the same for one question in every run, and differs between questions."""
    text = f"{PurePosixPath(without_suffix(question.video)).name}\0{question.text}".encode()
    return int.from_bytes(hashlib.sha256(text).digest()[:4], "big")
