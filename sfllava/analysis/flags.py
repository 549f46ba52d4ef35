"""Settings whose accuracy says little about them: many empty answers, or more tokens than the model knows."""

# pandas expressions have union types that a type checker cannot narrow
# pyright: reportArgumentType=false, reportCallIssue=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import pandas as pd

MANY_EMPTY = 0.1
"""The share of empty answers from which a setting is not ranked: the model says nothing there, right or wrong."""


def many_empty(results: pd.DataFrame) -> dict[str, float]:
    """Return the settings with many empty answers.

    Args:
        results: From `load_results`.

    Returns:
        Name of the setting -> share of its questions with an empty answer, from 0 to 1, in the order of the settings.
    """
    shares = results.groupby("name", sort=False, observed=True)["empty"].mean()
    return {str(name): float(share) for name, share in shares.items() if share >= MANY_EMPTY}


def beyond_known(results: pd.DataFrame) -> dict[str, tuple[int, int]]:
    """Return the settings with more visual tokens than their model is known to answer with.

    Args:
        results: From `load_results`.

    Returns:
        Name of the setting -> its visual tokens, and the most that the model knows (`ModelInfo.known_visual_tokens`).
    """
    found = {}
    pairs = results[["name", "run", "setting"]].drop_duplicates().astype(str)
    for name, run, setting in pairs.itertuples(index=False, name=None):
        facts = results.attrs["runs"][run]
        tokens = next((s.get("budget") for s in facts.get("settings") or () if s["name"] == setting), None)
        known = (facts.get("session") or {}).get("known_visual_tokens")
        if isinstance(tokens, int) and isinstance(known, int) and tokens > known:
            found[name] = (tokens, known)
    return found


def describe_flags(results: pd.DataFrame) -> list[str]:
    """Say in words which settings are not ranked for their empty answers, and which are beyond what the model knows.

    Args:
        results: From `load_results`.
    """
    empty, beyond = many_empty(results), beyond_known(results)
    lines = []
    if empty:
        listed = ", ".join(f"{name} ({100 * share:.0f} %)" for name, share in empty.items())
        lines.append(
            f"Not ranked, since many of their answers are empty: {listed}. Empty answers count as wrong, and their "
            "number says more about the model's limits than about the setting."
        )
    if beyond:
        known = min(limit for _, limit in beyond.values())
        listed = ", ".join(f"{name} ({tokens:,})" for name, (tokens, _) in beyond.items())
        lines.append(f"More visual tokens than the {known:,} that the model is known to answer with: {listed}.")
    return lines
