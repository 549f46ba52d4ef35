"""The repository's own promises: imports in one direction, notebooks without outputs, two lists that agree."""

from __future__ import annotations

import ast
import importlib
import json
import re
import subprocess
import sys
import tomllib
import types
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

import sfllava

# Data flows down this list, and so do imports: a part of the package may import those above it only.
PARTS = [
    "types", "progress", "catalogue", "files", "sampler", "aggregators", "prompts", "settings", "benchmarks", "models",
    "evaluators", "runs", "analysis", "ablation", "planning", "attribution", "plots", "notebooks", "report", "explorer",
    "published", "cli",
]  # fmt: skip
MODULES = sorted((ROOT / "sfllava").rglob("*.py"))


def part(path: Path) -> str:
    return path.relative_to(ROOT / "sfllava").parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module == "sfllava":
            found |= {f"sfllava.{name.name}" for name in node.names if name.name != "__version__"}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_flow_one_way(path):
    own = part(path)
    if own == "__init__":
        return
    for module in imports(path):
        if module.startswith("sfllava"):
            other = [*module.split("."), "__init__"][1]
            assert other == own or PARTS.index(other) < PARTS.index(own), f"{own} may not import {other}"


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("decord", {"sampler"}),
        ("av", {"sampler"}),
        ("transformers", {"models"}),
        ("papermill", {"notebooks"}),
        ("matplotlib", {"plots"}),
        ("seaborn", {"plots"}),
        ("plotly", {"plots"}),
        ("ipywidgets", {"explorer"}),
        ("scipy", {"analysis"}),
        ("openai", {"evaluators"}),
        ("yaml", {"published"}),
        ("ray", {"runs"}),
    ],
)
def test_each_library_has_one_home(library, homes):
    users = {part(path) for path in MODULES if any(m.split(".")[0] == library for m in imports(path))}
    assert users == homes


def test_importing_is_cheap():
    heavy = "assert not {'torch', 'transformers', 'numpy', 'decord', 'av', 'ray', 'pandas'} & set(sys.modules)"
    for code in ("import sys, sfllava", "import sys, sfllava.cli; sfllava.cli.make_parser().format_help()"):
        subprocess.run([sys.executable, "-c", f"{code}\n{heavy}"], check=True)


def test_public_names():
    assert len(sfllava.__all__) <= 21 and set(dir(sfllava)) == set(sfllava.__all__)
    for name in sfllava.__all__:
        assert getattr(sfllava, name).__doc__, name
    for path in MODULES:  # importing a submodule binds its name on the package: it must not hide a public one
        importlib.import_module(".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"))
    assert not any(isinstance(getattr(sfllava, name), types.ModuleType) for name in sfllava.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        sfllava.nothing  # noqa: B018


@pytest.mark.parametrize("name", ["results", "plots", "planning"])
def test_a_module_of_the_package_needs_no_import_of_its_own(name):
    code = f"import sfllava; print(sfllava.{name}.__name__, sfllava.__version__)"
    said = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert re.fullmatch(rf"sfllava\.{name} \d.*\n", said)


def test_a_wheel_tells_type_checkers_of_its_types():
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel["packages"] == ["sfllava"] and (ROOT / "sfllava" / "py.typed").exists()


def test_environment_agrees_with_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain, pip = environment["dependencies"][:-1], environment["dependencies"][-1]["pip"]
    assert f"python{project['requires-python']}" in plain
    extras = re.fullmatch(r"-e \.\[(.+)\]", pip[0])
    assert extras and set(extras[1].split(",")) <= set(project["optional-dependencies"])
    assert environment["name"] == project["name"]


def test_the_version_stands_in_the_changelog():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "sfllava" / "prompts" / "templates").rglob("*.txt")), ids=lambda p: p.parent.name + p.stem
)
def test_packs_end_where_the_reply_starts(path):
    data = path.read_bytes()
    assert data.count(b"<video>") == 1 and b"{question}" in data and b"\r" not in data
    assert (b"{options}" in data) == (path.stem == "choice")
    assert not data.endswith((b"\n\n", b" "))


@pytest.mark.parametrize("path", sorted((ROOT / "notebooks").glob("*.ipynb")), ids=lambda p: p.stem)
def test_notebooks_are_short_and_without_outputs(path):
    cells = json.loads(path.read_text())["cells"]
    code = [cell for cell in cells if cell["cell_type"] == "code"]
    assert code and sum("parameters" in cell["metadata"].get("tags", []) for cell in code) == 1
    assert len(cells) <= 12
    for cell in code:
        assert cell["outputs"] == [] and cell["execution_count"] is None
        tree = ast.parse("".join(cell["source"]))
        assert not any(isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Lambda) for node in ast.walk(tree))
