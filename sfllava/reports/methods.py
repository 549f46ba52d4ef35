"""What a paper says of a ranking: a paragraph on how it was measured, and a table in LaTeX."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import PurePath
from typing import Any

from sfllava.analysis.tables import latex_escape, latex_table
from sfllava.reports.comparable import Conditions
from sfllava.reports.ranking import Entry, Ranking

_PACKAGES = ("sfllava", "torch", "transformers", "python")


def methods_paragraph(ranking: Ranking, conditions: Conditions, facts: Iterable[Mapping[str, Any]]) -> str:
    """Return a paragraph for a paper: questions, models, scores, intervals, tests and versions.

    Args:
        ranking: The ranking.
        conditions: Those of its runs.
        facts: The facts of each run, from `load_results(...).attrs["runs"]`.
    """
    facts = list(facts)
    sentences = [
        _evaluated(ranking, conditions, facts),
        _answers(conditions, facts),
        _scores(conditions, ranking),
        "Intervals are 95 % intervals of a binomial proportion at the effective sample size (Korn and Graubard 1998), "
        "with standard errors clustered by video.",
    ]
    if ranking.gaps:
        compared = f"{ranking.pairs} comparisons" if ranking.pairs > 1 else "1 comparison"
        sentences.append(
            "Settings were compared on the same questions by a randomization test that flips the signs of the "
            f"differences of whole videos; p-values are corrected for {compared} (Holm 1979), and differences with "
            "p < 0.05 are called significant. Intervals of differences are those of the same test, and are not "
            "corrected."
        )
    if ranking.detectable is not None:
        sentences.append(
            f"After this correction these questions reveal a true difference of {ranking.detectable:.1f} points in "
            "four of five cases."
        )
    versions = _versions(facts)
    return " ".join([*sentences, *([f"Software: {versions}."] if versions else [])])


def _evaluated(ranking: Ranking, conditions: Conditions, facts: list[Mapping[str, Any]]) -> str:
    """Say what was evaluated; that all settings have the same questions only where they do."""
    asked = [entry.counts for entry in ranking.entries if entry.counts["questions"]]
    each = f"{len(asked)} settings" if len(asked) > 1 else "one setting"
    models = [model_text(run) for run in facts]
    known = f" of {_listed(models)}" if models and all(models) else ""
    alike = not ranking.reason and not any(entry.counts["not_asked"] for entry in ranking.entries)
    most = "up to " if len({counts["questions"] for counts in asked}) > 1 else ""
    return (
        f"We evaluated {each}{known} on {conditions.benchmark}, with {most}{ranking.questions:,} questions about "
        f"{ranking.videos:,} videos{', the same for all settings' if len(asked) > 1 and alike else ''}."
    )


def _answers(conditions: Conditions, facts: list[Mapping[str, Any]]) -> str:
    """Say how the answers were made, and of imported ones what their files say."""
    own = [run for run in facts if not _imported(run)]
    sentences = [_own_answers(conditions, own)] if own else []
    sources = [_source(run) for run in facts if _imported(run)]
    if sources:
        sentences.append(f"{'Other answers' if own else 'Answers'} were imported from {_listed(sources)}.")
    return " ".join(sentences)


def _own_answers(conditions: Conditions, facts: list[Mapping[str, Any]]) -> str:
    listed = ", to the prompts listed below" if all(run.get("prompt") for run in facts) else ""
    prompts = f", to the prompts of {conditions.protocol}" if conditions.protocol else listed
    if conditions.answers == "logits":
        how = "the option letter of highest probability after one forward pass"
    else:
        lengths = sorted({n for run in facts if isinstance(n := run.get("max_new_tokens"), int)})
        most = f" of at most {' or '.join(map(str, lengths))} tokens" if lengths else ""
        how = f"greedily decoded replies{most}"
    return f"Answers are {how}{prompts}{', with subtitles' if conditions.subtitles else ''}."


def _imported(run: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return what a run says of the files that it was imported from; empty for a run of this package."""
    found = run.get("imported")
    return found if isinstance(found, dict) else {}


def _source(run: Mapping[str, Any]) -> str:
    """Return in words what a run was imported from, such as "lmms-eval (version 0.7.3, task videomme)"."""
    imported, options = _imported(run), (run.get("session") or {}).get("gen_kwargs")
    if isinstance(options, dict):
        options = ",".join(f"{name}={value}" for name, value in options.items())
    version, task = imported.get("version"), imported.get("task")
    known = [f"version {version}" if version and version != "unknown" else "", f"task {task}" if task else ""]
    known.append(f"generated with {str(options)[:200]}" if options else "")
    name = "the published code" if imported.get("from") == "published code" else str(imported.get("source") or "files")
    about = ", ".join(filter(None, known))
    return f"{name} ({about})" if about else name


def _scores(conditions: Conditions, ranking: Ranking) -> str:
    by = conditions.judge.removeprefix("judged by ")
    offline = by == conditions.judge
    who = "offline, by the strict rules of sfllava" if offline else f"by {by}"
    text = f"They were scored {who}; failed, empty and unparsable answers count as wrong."
    if ranking.measure == "accuracy":
        return text
    return f"{text} {ranking.measure} is the mean of the accuracies of the benchmark's groups of questions."


def model_text(run: Mapping[str, Any]) -> str:
    """Return a model's name with its number format, quantisation and engine, as far as they are known.

    It is empty for an imported run whose files do not name the model.
    """
    model = run.get("model") if isinstance(run.get("model"), dict) else {}
    assert isinstance(model, dict)
    facts = [str(model.get("dtype") or "").removeprefix("torch."), str(model.get("quantize") or "")]
    engine = str((run.get("session") or {}).get("engine") or "")
    facts += [engine] if engine and "packed" not in engine else []
    known = ", ".join(filter(None, facts))
    name = model_name(run)
    return f"{name} ({known})" if name and known else name


def model_name(run: Mapping[str, Any]) -> str:
    """Return the name of a run's model: the name on the hub where it is known, else that of the folder.

    It is empty for an imported run whose files do not name the model.
    """
    imported = _imported(run)
    path = str((run.get("session") or {}).get("model") or _imported_model(imported))
    parts = PurePath(path).parts
    for part in parts:
        if part.startswith("models--"):
            return part.removeprefix("models--").replace("--", "/")
    if parts[-2:] == ("tiny", "weights"):
        return "the tiny model"
    if imported and len(parts) == 2 and parts[0] not in ("/", "..", "~"):
        return path  # a name on the hub
    return parts[-1] if parts else "" if imported else "an unnamed model"


def _imported_model(imported: Mapping[str, Any]) -> str:
    """Return the checkpoint that a log of lmms-eval names, or else the name of its model class."""
    arguments = imported.get("model_args")
    pairs = arguments.split(",") if isinstance(arguments, str) else []
    given = dict(pair.split("=", 1) for pair in pairs if "=" in pair)
    named = (given.get("pretrained"), given.get("model"), given.get("model_version"), imported.get("model"))
    return next((name for name in named if isinstance(name, str) and name), "")


def _versions(facts: list[Mapping[str, Any]]) -> str:
    found: dict[str, set[str]] = {}
    for run in facts:
        for package, version in ((run.get("session") or {}).get("versions") or {}).items():
            found.setdefault(package, set()).add(str(version))
    shown = [f"{name} {' and '.join(sorted(found[name]))}" for name in _PACKAGES if name in found]
    return ", ".join(shown).replace("python ", "Python ")


def _listed(names: Iterable[str]) -> str:
    names = list(dict.fromkeys(names))
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def latex_of(ranking: Ranking, conditions: Conditions) -> str:
    """Return the ranking as a LaTeX table with a caption: the best in bold, those like it with a dagger."""
    rows = [
        [latex_escape(entry.name), "--" if entry.tokens is None else f"{entry.tokens:,}", _latex_value(entry)]
        for entry in ranking.entries
    ]
    measure = "accuracy" if ranking.measure == "accuracy" else latex_escape(ranking.measure)
    table = latex_table(["setting", "visual tokens", rf"{measure}, \% [95\,\% interval]"], rows, "lrr")
    notes = [
        f"{ranking.questions:,} questions about {ranking.videos:,} videos of {latex_escape(conditions.benchmark)}."
    ]
    if any(entry.status == "tied" for entry in ranking.entries):
        notes.append(r"$^\dagger$ not significantly worse than the best.")
    if any(entry.counts["questions"] and entry.why for entry in ranking.entries):
        notes.append(r"$^\ast$ not ranked, since many answers are empty.")
    caption = " ".join(notes)
    return "\n".join(
        [r"\begin{table}", r"  \centering", *(f"  {line}" for line in table.splitlines()),
         rf"  \caption{{{caption}}}", r"\end{table}"]
    )  # fmt: skip


def _latex_value(entry: Entry) -> str:
    if entry.value is None:
        return "--"
    number = f"{entry.value:.1f}"
    number = rf"\textbf{{{number}}}" if entry.status == "best" else number
    mark = r"$^\dagger$" if entry.status == "tied" else r"$^\ast$" if entry.why else ""
    return f"{number}{mark} [{entry.low:.1f}, {entry.high:.1f}]"
