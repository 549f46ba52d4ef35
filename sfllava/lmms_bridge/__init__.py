"""lmms-eval: its video tasks with our encoding, and its sample logs as run folders.

lmms-eval loads plugin.py, arguments.py checks its --model_args, answering.py answers its requests. samples.py reads a
sample log, documents.py reconstructs its questions, importing.py writes it as a run folder.
"""
