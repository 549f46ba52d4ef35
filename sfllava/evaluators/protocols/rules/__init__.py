"""Prompts and rules that several evaluation tools share."""
