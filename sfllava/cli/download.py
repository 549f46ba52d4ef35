"""Download question files and, where that is allowed, videos; the same command resumes."""

from __future__ import annotations

import argparse
import math
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from sfllava.cli import options
from sfllava.cli.parser import group
from sfllava.types import SfllavaError

if TYPE_CHECKING:
    from sfllava.benchmarks.downloads import Outcome, Target
    from sfllava.benchmarks.remote_files import Downloads

ORDER = 3
EXAMPLES = (
    "sfllava download questions --root DATA",
    "sfllava download questions nextqa mlvu --root DATA --dry-run",
    "sfllava download videos nextqa --root DATA",
)


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("what", choices=["questions", "videos"], help="which files to fetch")
    benchmarks = parser.add_argument(
        "benchmarks", nargs="*", metavar="BENCHMARK", help="names (default: the questions of all that have any)"
    )
    options.complete_with(benchmarks, options.benchmark_names)
    inputs, speed = group(parser, "input"), group(parser, "speed and failures")
    group(parser, "output").add_argument("--root", required=True, metavar="DIR", help="folder below which the files go")
    inputs.add_argument("--videos", action="store_true", help="with questions: the videos, too")
    inputs.add_argument(
        "--source", metavar="URL", help="mirror: this instead of https://HOST of each file (hub only: HF_ENDPOINT)"
    )
    group(parser, "output").add_argument(
        "--dry-run", action="store_true", help="list files, sizes and licences; fetch nothing"
    )
    speed.add_argument(
        "--tries",
        type=int,
        default=5,
        metavar="N",
        help="give up a file after N attempts in a row without new data, or N starts from its beginning (default: 5)",
    )
    speed.add_argument(
        "--timeout",
        type=float,
        default=60,
        metavar="S",
        help="longest silence of a server, in seconds (default: %(default)s)",
    )


def run(arguments: argparse.Namespace) -> int:
    from sfllava.benchmarks.downloads.addresses import check_source
    from sfllava.benchmarks.downloads.downloading import Kind, benchmarks_with_downloads, download, find_targets
    from sfllava.benchmarks.downloads.fetch import FetchOptions

    kinds: list[Kind] = [arguments.what]
    if arguments.videos and arguments.what == "questions":
        kinds.append("videos")
    if arguments.tries < 1 or not 0 < arguments.timeout < math.inf:
        raise SfllavaError(
            "needed --tries of 1 or more and --timeout above 0 and finite, "
            f"got {arguments.tries} and {arguments.timeout}"
        )
    if "videos" in kinds and not (arguments.benchmarks or arguments.dry_run):
        raise SfllavaError(
            "videos take hundreds of gigabytes: name the benchmarks (--dry-run lists all with their sizes)"
        )
    if arguments.source:
        check_source(arguments.source)
    declared = benchmarks_with_downloads(arguments.benchmarks)
    targets = find_targets(declared, kinds)
    if arguments.dry_run:
        return _list(targets, declared, Path(arguments.root), arguments.source)
    fetching = FetchOptions(arguments.tries, arguments.timeout, progress=sys.stderr.isatty())
    outcomes = download(targets, arguments.root, source=arguments.source, options=fetching, report=_report)
    missing = [name for name, each in declared.items() if not each.videos.files] if "videos" in kinds else []
    print(_summary(outcomes, missing))
    print(*(_about_videos(name, each) for name, each in declared.items()), sep="\n")
    return 1 if missing or any(outcome.state == "failed" for outcome in outcomes) else 0


def _list(targets: list[Target], declared: dict[str, Downloads], root: Path, source: str | None) -> int:
    from sfllava.benchmarks.downloads.addresses import resolve
    from sfllava.benchmarks.downloads.downloading import state_of

    bad = 0
    for target in targets:
        file = target.file
        try:
            state = state_of(file, root)
        except SfllavaError as error:
            state, bad = str(error), bad + 1
        print(f"{target.benchmark}  {file.path}  {_size(file.size)}  {state}\n  from {resolve(file.url, source).url}")
    known = [target.file.size for target in targets if target.file.size is not None]
    print(f"{len(targets)} files, {_size(sum(known))}" + _of_unknown_size(len(targets) - len(known)))
    for name, each in declared.items():
        print(f"{name}: questions: {each.licence}", _about_videos(name, each), sep="\n")
    return 1 if bad else 0


def _report(outcome: Outcome) -> None:
    path = outcome.target.file.path
    if outcome.state == "failed":
        print(f"sfllava: {path} failed: {outcome.note}", file=sys.stderr, flush=True)
        return
    done = "there already" if outcome.state == "there" else f"fetched ({_size(outcome.received)} received)"
    print(f"{path}: {done}" + (f"; {outcome.note}" if outcome.note else ""), flush=True)


def _summary(outcomes: list[Outcome], missing: list[str]) -> str:
    counts = {state: sum(outcome.state == state for outcome in outcomes) for state in ("fetched", "there", "failed")}
    received = sum(outcome.received for outcome in outcomes)
    text = (
        f"{counts['fetched']} fetched ({_size(received)}), {counts['there']} there already, {counts['failed']} failed"
    )
    if failed := [outcome.target.file.path for outcome in outcomes if outcome.state == "failed"]:
        text += f": {', '.join(failed)}\nstarted again, the same command fetches what is missing"
    if missing:
        text += f"\nnot fetched, since these videos need a login, a form or another site: {', '.join(missing)}"
    return text


def _about_videos(name: str, downloads: Downloads) -> str:
    videos = downloads.videos
    how = f"`sfllava download videos {name}` fetches them" if videos.files else "not fetched by this command"
    return f"{name}: videos: {videos.size}, {videos.place} ({how}); {videos.licence}"


def _size(size: int | None) -> str:
    from sfllava.files import format_bytes

    if size is None:
        return "size unknown"
    return format_bytes(size) if size >= 2**20 / 10 else f"{size:,} bytes"


def _of_unknown_size(count: int) -> str:
    return f" and {count} of unknown size" if count else ""
