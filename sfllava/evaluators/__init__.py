"""Evaluators: (question, prediction) -> Verdicts."""
