"""What holds for the repository as a whole: imports, sizes, public names, dependencies, notebooks."""

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

PACKAGE = ROOT / "sfllava"
# Data flows down this list, and so do imports: a part of the package may import those above it only.
PARTS = [
    "display", "types", "catalogue", "files", "sampler", "aggregators", "prompts", "settings", "benchmarks", "models",
    "evaluators", "runs", "analysis", "ablation", "planning", "attribution", "plots", "notebooks", "reports", "explorer",
    "published", "lmms_bridge", "__init__", "cli",
]  # fmt: skip
MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(PACKAGE.rglob("*.py"))
}


def part(module: str) -> str:
    return [*module.split("."), "__init__"][1]


def imports(path: Path) -> set[str]:
    """The modules that a file imports: at its top, in functions, and for type checkers."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.module:
            names = {f"{node.module}.{name.name}" for name in node.names}
            found |= {name if name in MODULES else node.module for name in names}
        elif isinstance(node, ast.Import):
            found |= {name.name for name in node.names}
    return found


IMPORTS = {module: imports(path) for module, path in MODULES.items()}


def reachable(module: str) -> set[str]:
    """The modules that a module imports, and those that they import, and so on."""
    found: set[str] = set()
    waiting = [module]
    while waiting:
        new = (IMPORTS[waiting.pop()] & MODULES.keys()) - found
        found |= new
        waiting += new
    return found


def test_no_module_imports_itself_through_others():
    assert [module for module in MODULES if module in reachable(module)] == []


@pytest.mark.parametrize("module", MODULES)
def test_imports_flow_one_way(module):
    for other in IMPORTS[module] & MODULES.keys():
        down = PARTS.index(part(other)) < PARTS.index(part(module))
        assert down or part(other) == part(module), f"{module} may not import {other}"


def test_every_part_has_a_place():
    assert {part(module) for module in MODULES} == set(PARTS)
    entries = [path.name for path in PACKAGE.iterdir() if path.name != "__pycache__"]
    assert len(entries) <= 25, sorted(entries)


def test_files_and_functions_are_short():
    too_long = []
    for path in MODULES.values():
        name, text = path.relative_to(ROOT), path.read_text()
        if (lines := len(text.splitlines())) > 300:
            too_long.append(f"{name}: {lines} lines, needed at most 300")
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.FunctionDef) and (lines := node.end_lineno - node.lineno + 1) > 50:
                too_long.append(f"{name}, {node.name}: {lines} lines, needed at most 50")
    assert not too_long, "\n".join(too_long)


@pytest.mark.parametrize(
    ("library", "homes"),
    [
        ("decord", {"sampler"}),
        ("av", {"sampler"}),
        ("transformers", {"models", "planning"}),
        ("papermill", {"notebooks"}),
        ("matplotlib", {"plots"}),
        ("seaborn", {"plots"}),
        ("plotly", {"plots"}),
        ("anywidget", {"explorer"}),
        ("scipy", {"analysis"}),
        ("openai", {"evaluators"}),
        ("yaml", {"published"}),
        ("jinja2", {"reports"}),
        ("ray", {"runs"}),
        ("vllm", {"models"}),
        ("argcomplete", {"cli"}),
        ("filelock", {"benchmarks", "models", "runs"}),
    ],
)
def test_each_library_has_one_home(library, homes):
    users = {part(module) for module, names in IMPORTS.items() if any(n.split(".")[0] == library for n in names)}
    assert users == homes


def test_importing_is_cheap():
    heavy = "assert not {'torch', 'transformers', 'numpy', 'decord', 'av', 'ray', 'pandas'} & set(sys.modules)"
    for code in ("import sys, sfllava", "import sys, sfllava.cli; sfllava.cli.make_parser().format_help()"):
        subprocess.run([sys.executable, "-c", f"{code}\n{heavy}"], check=True)


def test_public_names():
    assert len(sfllava.__all__) <= 18 and set(dir(sfllava)) == set(sfllava.__all__)
    for name in sfllava.__all__:
        assert getattr(sfllava, name).__doc__, name
    for module in MODULES:  # importing a submodule binds its name on the package: it must not hide a public one
        importlib.import_module(module)
    assert not any(isinstance(getattr(sfllava, name), types.ModuleType) for name in sfllava.__all__)
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        sfllava.nothing  # noqa: B018


@pytest.mark.parametrize("name", ["analysis", "plots", "planning"])
def test_a_module_of_the_package_needs_no_import_of_its_own(name):
    code = f"import sfllava; print(sfllava.{name}.__name__, sfllava.__version__)"
    out = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert re.fullmatch(rf"sfllava\.{name} \d.*\n", out)


def test_environment_agrees_with_pyproject():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    environment = yaml.safe_load((ROOT / "environment.yml").read_text())
    plain, pip = environment["dependencies"][:-1], environment["dependencies"][-1]["pip"]
    assert f"python{project['requires-python']}" in plain
    extras = re.fullmatch(r"-e \.\[(.+)\]", pip[0])
    assert extras and set(extras[1].split(",")) <= set(project["optional-dependencies"])
    assert environment["name"] == project["name"]


def test_the_changelog_has_the_version():
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize(
    "path", sorted((ROOT / "sfllava" / "prompts" / "templates").rglob("*.txt")), ids=lambda p: p.parent.name + p.stem
)
def test_packs_end_where_the_reply_starts(path):
    data = path.read_bytes()
    ends = {"video": (b"{request}", b"{reply}")}.get(path.stem, (b"{question}",))
    assert data.count(b"<video>") == 1 and all(field in data for field in ends) and b"\r" not in data
    assert (b"{options}" in data) == (path.stem == "choice")
    data = data.removesuffix(b"{reply}")
    # Llama 3's turns begin behind an empty line
    assert not data.endswith((b" ",) if path.parent.name == "llama3" else (b"\n\n", b" "))


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
