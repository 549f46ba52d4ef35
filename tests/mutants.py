"""Mutation testing of the core modules: `python tests/mutants.py [--count 70] [--seed 0]`, or `make mutants`.

A mutant changes one comparison, operator or constant of one module (cosmic-ray's operators), chosen at random with a
fixed seed: first a place in the code, so that each place is equally likely, then a change. The tests of that module
should notice it. Everything happens in a copy of the working tree. Exit status 1 where fewer than 9 of 10 are noticed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cosmic_ray.ast import ast_nodes, get_ast
from cosmic_ray.mutating import mutate_code
from cosmic_ray.plugins import get_operator, operator_names

ROOT = Path(__file__).parents[1]
DECODING = " ".join(f"tests/models/test_{name}.py" for name in ("packed_decoding", "kv_cache", "video_lm", "replay"))
# module or folder of modules -> its tests
CORE = {
    "sampler/sampling.py": "tests/sampler",
    "sampler/reading.py": "tests/sampler",
    "sampler/decord.py": "tests/sampler",
    "sampler/pyav.py": "tests/sampler",
    "aggregators": "tests/aggregators",
    "analysis/stats.py": "tests/analysis",
    "analysis/strata.py": "tests/analysis",
    "analysis/results.py": "tests/analysis",
    "analysis/agreement.py": "tests/analysis",
    "runs/scoring.py": "tests/runs/test_scoring.py tests/runs/test_evaluate.py",
    "runs/run_folder.py": "tests/runs/test_run_folder.py tests/runs/test_identity.py tests/runs/test_evaluate.py",
    "models/packed_decoding.py": DECODING,
    "models/kv_cache.py": DECODING,
    "evaluators/choice.py": "tests/evaluators tests/analysis/test_results.py",
}
KINDS = ("ReplaceComparisonOperator", "ReplaceBinaryOperator", "ReplaceUnaryOperator", "NumberReplacer")
# `|` in an annotation is no operator, and `is` instead of `==` between small numbers changes nothing
LEFT_OUT = ("BitOr_", "_Is", "_IsNot")
SECONDS = 300.0


def places(code: str) -> dict[tuple[int, int], list[tuple[Any, int]]]:
    """Line and column -> the changes there: an operator, and which of its occurrences."""
    found: dict[tuple[int, int], list[tuple[Any, int]]] = {}
    tree = get_ast(code)
    for name in sorted(operator_names()):
        if not any(kind in name for kind in KINDS) or any(part in name for part in LEFT_OUT):
            continue
        operator = get_operator(name)()
        positions = [position for node in ast_nodes(tree) for position in operator.mutation_positions(node)]
        for occurrence, (start, _) in enumerate(positions):
            found.setdefault(start, []).append((operator, occurrence))
    return found


def choose(count: int, seed: int) -> list[tuple[Path, str, tuple[int, int], Any, int]]:
    """Mutants: file, tests, place, operator and occurrence."""
    everywhere = []
    for name, tests in CORE.items():
        path = ROOT / "sfllava" / name
        for file in sorted(path.glob("*.py")) if path.is_dir() else [path]:
            everywhere += [(file, tests, place, changes) for place, changes in places(file.read_text()).items()]
    chance = random.Random(seed)
    return [
        (file, tests, place, *chance.choice(changes))
        for file, tests, place, changes in chance.sample(everywhere, min(count, len(everywhere)))
    ]


def noticed(tree: Path, tests: str) -> bool:
    """Whether the tests fail, or take so long that something must be wrong."""
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "-x", *tests.split()]
    environment = {**os.environ, "PYTHONPATH": str(tree), "PYTHONDONTWRITEBYTECODE": "1"}
    try:
        done = subprocess.run(command, cwd=tree, env=environment, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return True
    return done.returncode != 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=70)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    mutants = choose(options.count, options.seed)
    found = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        shutil.copytree(ROOT, tree, ignore=shutil.ignore_patterns(".git", ".venv", "__pycache__", "demo"))
        (Path(folder) / "shared").symlink_to(ROOT.parent / "shared")
        for tests in dict.fromkeys(tests for _, tests, *_ in mutants):
            if noticed(tree, tests):
                raise SystemExit(f"{tests}: fails without any change")
        for i, (file, tests, place, operator, occurrence) in enumerate(mutants, 1):
            target = tree / file.relative_to(ROOT)
            code, start = target.read_text(), time.perf_counter()
            mutant = mutate_code(code, operator, occurrence)
            assert mutant is not None and mutant != code
            target.write_text(mutant)
            seen = noticed(tree, tests)
            target.write_text(code)
            found += seen
            old, new = (text.splitlines()[place[0] - 1].strip() for text in (code, mutant))
            line = f"{'noticed' if seen else 'SURVIVED'} {file.relative_to(ROOT)}:{place[0]}"
            print(f"{i:3} {time.perf_counter() - start:5.0f} s {line}: {old}  ->  {new}", flush=True)
    print(f"{found} of {len(mutants)} noticed")
    return found < 0.9 * len(mutants)


if __name__ == "__main__":
    sys.exit(main())
