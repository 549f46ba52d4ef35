"""README.md fits on a few screens, its links lead somewhere, and CITATION.cff says what the package says."""

from __future__ import annotations

import re
import tomllib

import pytest
import yaml
from conftest import ROOT

README = (ROOT / "README.md").read_text()


def test_the_readme_is_short():
    lines = README.splitlines()
    assert len(lines) <= 150
    assert [line for line in lines if len(line) > 120] == []


@pytest.mark.parametrize("page", ["README.md", *sorted(path.name for path in (ROOT / "docs/how-to").glob("*.md"))])
def test_every_link_leads_to_a_file(page):
    path = ROOT / page if page == "README.md" else ROOT / "docs/how-to" / page
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", path.read_text())
    gone = [link for link in links if "://" not in link and not (path.parent / link).exists()]
    assert gone == []


def test_the_citation_is_of_this_version():
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert (citation["title"].partition(":")[0], citation["version"]) == (project["name"], project["version"])
    assert citation["license"] == (ROOT / "LICENSE").read_text().split()[0]
    (paper,) = citation["references"]
    assert paper["title"] in README and paper["journal"] in README
    assert all(f"{a['family-names']}, {a['given-names']}" in README.replace("\n", " ") for a in paper["authors"])
