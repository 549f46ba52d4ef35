"""What frames are chosen with for each question: a scorer and its texts, or a list of frames."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal, get_args

from sfllava.files import Row
from sfllava.runs.score_cache import ScoreCache, default_folder
from sfllava.sampler.selection.frame_list import FrameList, read_frame_list
from sfllava.settings import Setting
from sfllava.types import Question, SfllavaError

ScoreText = Literal["question", "options"]
SCORE_TEXTS: tuple[ScoreText, ...] = get_args(ScoreText)


@dataclass(frozen=True)
class SelectionSource:
    """What frames are chosen with for each question.

    Attributes:
        scorer: A folder or hub name of a CLIP or SigLIP; None if no setting needs scores.
        text: What candidates are compared with: the "question" alone, or the question with its "options".
        cache: The folder in which scores are kept; None for sfllava/scores in the user's cache folder.
        frame_list: A file with the frames of each question, or what was read from it; None if no setting needs it.
        fingerprint: The scorer's hash; `prepared` fills it in.
    """

    scorer: str | None = None
    text: ScoreText = "question"
    cache: str | Path | None = None
    frame_list: str | Path | FrameList | None = None
    fingerprint: str = ""

    def prepared(
        self, settings: Sequence[Setting], questions: Sequence[Question], asked: Sequence[Question]
    ) -> SelectionSource | None:
        """Check that there is what the settings need; neither weights nor videos are read.

        Args:
            settings: The settings of a run.
            questions: All questions of the benchmark, in order.
            asked: Those that the run asks.

        Returns:
            The source with its scorer's fingerprint and the frames of its list; None if no setting needs one.

        Raises:
            SfllavaError: Something is missing, or is of another kind; the message says which option gives it.
        """
        if self.text not in SCORE_TEXTS:
            raise SfllavaError(f"the text that is scored must be {' or '.join(SCORE_TEXTS)}, got {self.text!r}")
        scored = [setting for setting in settings if setting.frame_selection.needs_scores]
        listed = [setting for setting in settings if setting.frame_selection.selector.from_list]
        fingerprint, frame_list = "", None
        if scored:
            fingerprint = self._check_scorer(scored[0])
        if listed:
            if self.frame_list is None:
                raise SfllavaError(
                    f"{listed[0].name}: selection {listed[0].selection} needs a list of frames: pass --frame-list FILE"
                )
            loaded = isinstance(self.frame_list, FrameList)
            frame_list = self.frame_list if loaded else read_frame_list(str(self.frame_list), list(questions))
            assert isinstance(frame_list, FrameList)
            frame_list.check(list(asked))
        if not scored and not listed:
            return None
        return replace(
            self, scorer=self.scorer if scored else None, frame_list=frame_list, fingerprint=fingerprint,
            cache=str(self.cache or default_folder()),
        )  # fmt: skip

    def _check_scorer(self, setting: Setting) -> str:
        from sfllava.models.scorer import ScorerFolder

        if self.scorer is None:
            raise SfllavaError(
                f"{setting.name}: selection {setting.selection} needs a scorer: pass --scorer with the folder or hub "
                "name of a CLIP or SigLIP, such as openai/clip-vit-large-patch14"
            )
        ScoreCache(self.cache or default_folder())  # raises if it is a file
        return ScorerFolder(self.scorer).fingerprint

    def identity(self) -> dict[str, Any]:
        """Return the part of a run's identity that says what frames are chosen with."""
        found: Row = {}
        if self.scorer is not None:
            found |= {"scorer": self.fingerprint, "text": self.text}
        if isinstance(self.frame_list, FrameList):
            found |= {"frame_list": self.frame_list.sha256}
        return {"selection": found}

    def facts(self) -> dict[str, Any]:
        """Return where things are in this session; a later session may find them elsewhere."""
        found: Row = {} if self.scorer is None else {"scorer": self.scorer, "scores": str(self.cache)}
        return found | ({"frame_list": self.frame_list.path} if isinstance(self.frame_list, FrameList) else {})

    def scored_text(self, question: Question) -> str:
        """Return the text that candidates are compared with."""
        return " ".join([question.text, *(question.options if self.text == "options" else ())])
