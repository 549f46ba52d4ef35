"""Shell completion, asked for as bash does it."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest


def complete(line, tmp_path):
    """The completions of a command line whose cursor is at its end."""
    found = tmp_path / "completions"
    environment = {
        **os.environ,
        **{"_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n", "_ARGCOMPLETE_STDOUT_FILENAME": str(found)},
        **{"COMP_LINE": line, "COMP_POINT": str(len(line.encode())), "COMP_TYPE": "9"},
    }
    # completion must be fast, so importing any of these fails
    code = "import sys\nfor name in ('torch', 'numpy', 'pandas', 'transformers'): sys.modules[name] = None\n"
    code += "import sfllava.cli\nsfllava.cli.main()"
    subprocess.run([sys.executable, "-c", code], env=environment, check=True, cwd=tmp_path, timeout=60)
    return {name.strip() for name in found.read_text().split("\n")}


@pytest.mark.parametrize(
    ("line", "some"),
    [
        ("sfllava ", {"ask", "evaluate", "ablate", "verdicts", "import", "plan"}),
        ("sfllava ver", {"verdicts"}),
        ("sfllava evaluate --r", {"--root", "--read", "--ray", "--retry-failed"}),
        ("sfllava evaluate --read ", {"generate", "logits"}),
        ("sfllava evaluate ", {"msvd", "nextqa", "shapesqa", "vcgbench"}),
        ("sfllava ablate ", {"fast_grid", "methods", "slow_pooling"}),
        ("sfllava ablate fast", {"fast_grid"}),
        ("sfllava ablate mine", {"mine.py"}),
        ("sfllava plan --ablation pool", {"pool_operation"}),
        ("sfllava figures run --out figures --only b", {"budget"}),
        ("sfllava notebook ev", {"evaluate"}),
        ("sfllava judge run --judge match", {"match-exact", "match-contains"}),
        ("sfllava ask a.mp4 what --aggregation slowfast", {"slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4"}),
    ],
)
def test_the_shell_completes_commands_flags_and_names(tmp_path, line, some):
    (tmp_path / "mine.py").touch()
    found = complete(line, tmp_path)
    assert some <= found
    assert all(name.startswith(line.rpartition(" ")[2]) for name in found)
