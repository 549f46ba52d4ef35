"""Engines other than the package's own: vLLM runs the language model, the rest of a model stays here."""
