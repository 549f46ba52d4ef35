"""Asking one video, and evaluating or judging many: rows on disk that are resumable and complete."""
