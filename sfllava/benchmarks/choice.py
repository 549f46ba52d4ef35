"""Your own multiple-choice questions: a CSV with video_name, question, answer and options a0, a1, ...

Optional columns: question_id, question_type, start and end in seconds, subtitles (a file name).
"""

from __future__ import annotations

from sfllava.benchmarks.spec import Spec

SPEC = Spec(name="choice", task="choice")
