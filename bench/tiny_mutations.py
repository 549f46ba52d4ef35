"""What each mutation of tests/models/test_tiny.py does to accuracy: `python bench/tiny_mutations.py [--card]`."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from pathlib import Path

import pytest

from sfllava import load_model
from sfllava.benchmarks.shapesqa import write_shapesqa
from sfllava.models.placement import TINY

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "models"))
import test_tiny as tests


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--card", action="store_true", help="put the table into the model card")
    options = parser.parse_args()
    model = load_model("tiny", device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        films = tests.films_of(write_shapesqa(folder, tests.VIDEOS, tests.SEED))
        counts = {family: sum(len(film.questions[family]) for film in films) for family in tests.LEAST}
        lines = [
            f"`tests/models/test_tiny.py`: {tests.VIDEOS} videos, `{tests.SLOWFAST.name}`; *top* asks for",
            "what is in the upper half and is shown its patches alone. Percent right; in bold what the test notices.",
            "",
            "| | " + " | ".join(f"{family} (n = {n})" for family, n in counts.items()) + " |",
            "|---|" + "---:|" * len(counts),
            "| the test wants at least | " + " | ".join(f"{least:.0f}" for least in tests.LEAST.values()) + " |",
            _row("as it should be", tests.accuracy(model, films), ()),
        ]
        for mutation, noticed in tests.MUTATIONS.items():
            with pytest.MonkeyPatch.context() as patch:
                mutation(model, patch)
                lines.append(_row(mutation.__name__.replace("_", " "), tests.accuracy(model, films), noticed))
    text = "\n".join(lines) + "\n"
    print(text)
    if options.card:
        card = TINY / "MODEL_CARD.md"
        marked = re.compile(r"(?<=<!-- mutations -->\n).*?(?=<!-- /mutations -->)", re.DOTALL)
        card.write_text(marked.sub(lambda _: text, card.read_text()))


def _row(name: str, found: dict[str, float], noticed: tuple[str, ...]) -> str:
    cells = (f"**{value:.0f}**" if family in noticed else f"{value:.0f}" for family, value in found.items())
    return f"| {name} | " + " | ".join(cells) + " |"


if __name__ == "__main__":
    main()
