"""Your own open-ended questions: a CSV with video_name, question, answer.

Optional columns: question_id, question_type, start and end in seconds, subtitles (a file name).
"""

from __future__ import annotations

from sfllava.benchmarks.spec import Spec

SPEC = Spec(name="open", task="open")
