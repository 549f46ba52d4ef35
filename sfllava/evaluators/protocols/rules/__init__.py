"""Requests and rules that several evaluation tools have in common."""
