"""A wheel has what a checkout has, and what is added to it as one file, without a change to pyproject.toml."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tarfile
import zipfile

import pytest
from conftest import ROOT
from hatchling.builders.sdist import SdistBuilder
from hatchling.builders.wheel import WheelBuilder

COMMAND = '''"""Say hello."""

ORDER = 99


def add_arguments(parser):
    parser.add_argument("name")


def run(arguments):
    print("hello", arguments.name)
    return 0
'''
ADDED = {
    "ablations/mine.py": "",
    "figures/mine.py": "",
    "notebooks/mine.ipynb": "",
    "sfllava/prompts/templates/mine/open.txt": "<video> {question}",
    "sfllava/evaluators/judges/rubrics/mine.txt": "",
    "sfllava/cli/mine.py": COMMAND,
}


@pytest.fixture(scope="module")
def tree(tmp_path_factory):
    """A copy of the checkout with a file of each kind added."""
    root = tmp_path_factory.mktemp("tree")
    for name in ("sfllava", "ablations", "figures", "notebooks"):
        shutil.copytree(ROOT / name, root / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, root)
    for name, text in ADDED.items():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_text(text)
    return root


@pytest.fixture(scope="module")
def wheel(tree):
    (path,) = WheelBuilder(str(tree)).build(directory=str(tree / "dist"), versions=["standard"])
    return path


def test_a_wheel_has_every_file_of_the_package_and_every_added_one(tree, wheel):
    names = set(zipfile.ZipFile(wheel).namelist())
    for name in ADDED:
        assert name in names or f"sfllava/bundled/{name}" in names
    package = {str(path.relative_to(tree)) for path in (tree / "sfllava").rglob("*") if path.is_file()}
    assert package <= names and "sfllava/py.typed" in names
    assert not [name for name in names if name.endswith((".png", ".svg", ".pyc")) or name.startswith("tests")]


def test_what_was_added_is_found_from_an_installed_wheel(wheel, tmp_path):
    zipfile.ZipFile(wheel).extractall(tmp_path)

    def run(*arguments):
        command = [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n{arguments[0]}"]
        out = subprocess.run([*command, *arguments[1:]], capture_output=True, text=True, cwd=tmp_path)
        assert out.returncode == 0, out.stderr
        return out.stdout.split()

    main = "from sfllava.cli import main; sys.exit(main())"
    assert run(main, "mine", "you") == ["hello", "you"]
    assert "mine" in run(main, "--help")
    code = "from sfllava import catalogue; print(*map('mine'.__eq__, catalogue.names({!r})))"
    for kind in ("ablations", "figures", "notebooks"):
        assert run(code.format(kind)).count("True") == 1
    assert "mine" in run("from sfllava.prompts import families; print(*families())")


def test_an_sdist_builds_the_same_wheel(tree, wheel, tmp_path):
    (path,) = SdistBuilder(str(tree)).build(directory=str(tmp_path), versions=["standard"])
    with tarfile.open(path) as file:
        file.extractall(tmp_path, filter="data")
    (unpacked,) = (folder for folder in tmp_path.iterdir() if folder.is_dir())
    (again,) = WheelBuilder(str(unpacked)).build(directory=str(tmp_path / "dist"), versions=["standard"])
    assert set(zipfile.ZipFile(again).namelist()) == set(zipfile.ZipFile(wheel).namelist())
