"""Your own open-ended questions: a CSV with video_name, question, answer (and question_id, question_type)."""

from __future__ import annotations

from sfllava.benchmarks.base import Spec

SPEC = Spec(name="open", task="open")
