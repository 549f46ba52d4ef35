"""lmms-eval: its video tasks with our encoding, and its sample logs as run folders.

plugin.py is what lmms-eval loads, arguments.py checks its --model_args, answering.py answers its requests. samples.py
reads a sample log, documents.py finds out what it asked, importing.py writes it as a run folder.
"""
