"""Hooks of MkDocs: run the notebooks, describe the command line, and add the figures of the repository.

Nothing is read from the network, neither while the site is built nor by its pages. The tutorials are the notebooks,
executed with the tiny model. They are run before a build, unless the folder SFLLAVA_TUTORIALS has them already.
"""

from __future__ import annotations

import argparse
import base64
import html
import json
import os
import re
import tempfile
import textwrap
from pathlib import Path
from typing import Any

from mkdocs.plugins import event_priority
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
PARAMETERS: dict[str, dict[str, Any]] = {"demo": {"videos": 6}}
"""What the tutorials change of the notebooks' own parameters, for a build that takes a minute"""
_SCRIPT = re.compile(r"<script[^>]*>.*?</script>", re.DOTALL)
_STYLE = re.compile(r"<style[^>]*>(.*?)</style>", re.DOTALL)
_LARGE = 20_000
_styles: dict[str, str] = {}
_serving = False


def notebooks() -> list[str]:
    """Return the names of the notebooks in the repository."""
    return sorted(path.stem for path in (ROOT / "notebooks").glob("*.ipynb"))


def execute(folder: Path, name: str) -> Path:
    """Run a notebook as the tutorials show it.

    Args:
        folder: where the executed notebook is written; its samples and runs are in it, too.
        name: the notebook's name.

    Returns:
        The executed notebook.
    """
    import papermill

    out = folder / f"{name}.ipynb"
    papermill.execute_notebook(
        ROOT / "notebooks" / f"{name}.ipynb", out, PARAMETERS.get(name, {}), cwd=str(folder), progress_bar=False,
        log_output=False,
    )  # fmt: skip
    return out


def on_startup(command: str, **_: Any) -> None:
    """Remember whether this is `mkdocs serve`, which shows the tutorials of the last build again."""
    global _serving
    _serving = command == "serve"


@event_priority(100)
def on_files(files: Files, config: Any) -> Files:
    """Add the tutorials, the page of the command line, the figures, and plotly's script."""
    ready = os.environ.get("SFLLAVA_TUTORIALS")
    pages = Path(ready or ROOT) / ".tutorials"
    (pages / "tutorials").mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as fresh:
        for name in notebooks():
            uri = f"tutorials/{name}.ipynb"
            if not (_serving and (pages / uri).exists()):
                path = Path(ready, f"{name}.ipynb") if ready else execute(Path(fresh), name)
                (pages / uri).write_text(json.dumps(as_page(json.loads(path.read_text("utf-8")))), encoding="utf-8")
            files.append(File(uri, str(pages), config.site_dir, config.use_directory_urls))
    files.append(File.generated(config, "reference/command-line.md", content=command_line()))
    for path in sorted((ROOT / "figures").glob("*.png")):
        files.append(File.generated(config, f"figures/{path.name}", content=path.read_bytes()))
    from plotly.offline import get_plotlyjs

    files.append(File.generated(config, "assets/plotly.min.js", content=get_plotlyjs()))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Point links to the repository's folder figures/, which is beside docs/, to its copy in the site."""
    up = "../" * page.file.src_uri.count("/")
    return re.sub(r'(\]\(|src=")(?:\.\./)+figures/', rf"\g<1>{up}figures/", markdown)


def on_page_content(content: str, page: Any, config: Any, files: Files) -> str:
    """Take out of a tutorial what loads scripts from the network, and share the large styles between tutorials."""
    if not page.file.src_uri.endswith(".ipynb"):
        return content
    page.meta.setdefault("hide", [] if page.toc.items[1:] else ["toc"])
    content = _SCRIPT.sub(lambda match: "" if _is_remote(match[0]) else match[0], content)
    return _STYLE.sub(lambda match: _share_style(match, config, files), content)


def _is_remote(script: str) -> bool:
    data = script.startswith('<script type="application/json"')
    return not data and ("https://" in script or "mathjax" in script)


def _share_style(match: re.Match[str], config: Any, files: Files) -> str:
    text = match[1]
    if len(text) < _LARGE:
        return match[0]
    if text not in _styles:
        _styles[text] = f"assets/notebook-{len(_styles)}.css"
    if files.get_file_from_path(_styles[text]) is None:
        files.append(File.generated(config, _styles[text], content=text))
    return f'<link rel="stylesheet" href="../{_styles[text]}">'


# 1) an executed notebook as a page


def as_page(notebook: dict[str, Any]) -> dict[str, Any]:
    """Return an executed notebook with outputs that need no network and no kernel.

    Progress bars and logs are left out. A figure of plotly becomes its data, for the script of the site. The explorer
    becomes a picture of it.
    """
    notebook["metadata"].pop("widgets", None)
    for cell in notebook["cells"]:
        cell.get("metadata", {}).pop("tags", None)
        if cell["cell_type"] == "code":
            shown = [_output(output, "".join(cell["source"])) for output in cell["outputs"]]
            cell["outputs"] = [output for output in shown if output is not None]
    return notebook


def _output(output: dict[str, Any], source: str) -> dict[str, Any] | None:
    if output["output_type"] == "stream":
        lines = "".join(output["text"]).splitlines()
        return output | {"text": "\n".join(map(_wrap, lines)) + "\n"} if output["name"] == "stdout" else None
    data = output.get("data", {})
    if figure := data.get("application/vnd.plotly.v1+json"):
        return output | {"data": {"text/html": _figure(figure)}}
    if "application/vnd.jupyter.widget-view+json" in data:
        if "explorer" not in source:
            return None  # a progress bar
        picture = base64.b64encode((ROOT / "figures" / "explorer.png").read_bytes()).decode()
        return output | {"data": {"image/png": picture}, "metadata": {}}
    text = "".join(data.get("text/html", ""))
    return None if "<script" in text else output  # the script that draws figures of plotly in a notebook


def _wrap(line: str) -> str:
    """Return a sentence in lines that fit a page; a line of a table, which has columns, stays as it is."""
    return line if "  " in line.strip() else textwrap.fill(line, 110, break_long_words=False)


def _figure(figure: dict[str, Any]) -> str:
    layout = figure["layout"]
    layout.pop("template", None)
    data = json.dumps({"data": figure["data"], "layout": layout}).replace("</", "<\\/")
    height = layout.get("height", 450)
    return f'<div class="sfl-figure" style="height: {height}px"><script type="application/json">{data}</script></div>'


# 2) the command line


def command_line() -> str:
    """Return the page of all commands, made of the parser."""
    from sfllava.cli import make_parser

    parser = make_parser()
    commands = next(action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    lines = [
        "# Command line", "",
        "Made from the commands themselves; `sfllava COMMAND --help` prints the same. `-v` logs what is done.", "",
        "| command | |", "|---|---|",
    ]  # fmt: skip
    lines += [f"| [`{name}`](#{name}) | {_cell(sub.description)} |" for name, sub in commands.choices.items()]
    for name, sub in commands.choices.items():
        sub.formatter_class = lambda prog: argparse.HelpFormatter(prog, width=110)
        usage = sub.format_usage().removeprefix("usage: ").rstrip().replace("\n       ", "\n")
        lines += ["", f"## {name}", "", _escape(sub.description), "", "```text", usage, "```", ""]
        lines += _options(sub)
    return "\n".join(lines) + "\n"


def _options(parser: argparse.ArgumentParser) -> list[str]:
    """Return a table of all arguments, and one more for each group that has a title of its own."""
    tables: dict[str, list[argparse.Action]] = {}
    for group in parser._action_groups:
        general = group.title in ("positional arguments", "options")
        for action in group._group_actions:
            if action.help != argparse.SUPPRESS and not {"--help", "--verbose"} & {*action.option_strings}:
                tables.setdefault("" if general else group.title or "", []).append(action)
    lines: list[str] = []
    for title, actions in tables.items():
        lines += [f"**{_escape(title)}**", ""] if title else []
        lines += ["| argument | meaning |", "|---|---|"]
        lines += [f"| {_name(action)} | {_cell(_help(parser, action))} |" for action in actions] + [""]
    return lines


def _name(action: argparse.Action) -> str:
    named = action.dest.upper() if action.option_strings else action.dest
    value = action.metavar or ("" if action.nargs == 0 else named)
    if action.choices and not action.metavar:
        value = f"{{{','.join(map(str, action.choices))}}}"
    value = " ".join(value) if isinstance(value, tuple) else value
    if not action.option_strings:
        return f"`{value}`".replace("|", "\\|")
    more = " ..." if action.nargs in ("+", "*") else ""
    return ", ".join(f"`{f'{option} {value}{more}'.strip()}`" for option in action.option_strings)


def _help(parser: argparse.ArgumentParser, action: argparse.Action) -> str:
    return parser._get_formatter()._expand_help(action) if action.help else ""


def _escape(text: str | None) -> str:
    found = html.escape(text or "", quote=False)
    return re.sub(r"([*_`\[\]])", r"\\\1", found)


def _cell(text: str | None) -> str:
    return " ".join(_escape(text).replace("|", "\\|").split())
