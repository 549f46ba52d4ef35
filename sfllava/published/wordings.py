"""Import the exact prompts of a checkout of the published code into a prompt pack, a folder of your own.

The checkout is parsed; none of it is imported or executed, and none of its prompts are in this package.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from sfllava.evaluators.judges.rubric import USER
from sfllava.files import file_sha256
from sfllava.published.inference_wordings import INFERENCE_FILE, read_inference
from sfllava.published.judge_wordings import (
    FIELDS_FILE,
    MESSAGES_FILE,
    RUBRICS,
    RUBRICS_FILE,
    read_messages,
    read_rubrics,
)
from sfllava.published.templates import Unreadable, Wording
from sfllava.types import SfllavaError

_READERS = {INFERENCE_FILE: read_inference, RUBRICS_FILE: read_rubrics, MESSAGES_FILE: read_messages}
_WANTED = (
    "image_seq_v3/open.txt",
    "image_seq_34b_v3/open.txt",
    "multiple_choice_allvideo_v4/choice.txt",
    "multiple_choice_allvideo_34b_v4/choice.txt",
    *(f"judge/{rubric}.txt" for rubric in ("open", *RUBRICS.values())),
)


@dataclass(frozen=True)
class PromptPack:
    """The prompts found in a checkout, and the reasons why others were not."""

    checkout: Path
    wordings: tuple[Wording, ...]
    missing: tuple[str, ...]

    def __str__(self) -> str:
        found = [f"  {wording.file}  from {wording.source}" for wording in self.wordings]
        missing = [f"  not found: {reason}" for reason in self.missing]
        return "\n".join([f"{self.checkout}: {len(found)} wordings", *found, *missing])


def read_wordings(checkout: str | Path) -> PromptPack:
    """Parse the files of a checkout that have its prompts for inference and for the judge.

    Args:
        checkout: The folder of a checkout of the published code.

    Returns:
        The prompts, and what could not be read.

    Raises:
        SfllavaError: There is no such folder.
    """
    checkout = Path(checkout)
    if not checkout.is_dir():
        raise SfllavaError(f"{checkout}: needed the folder of a checkout of the published code")
    found: dict[str, Wording] = {}
    missing: list[str] = []
    for name, reader in _READERS.items():
        try:
            for item in reader(checkout):
                if isinstance(item, str):
                    missing.append(f"{name}: {item}")
                elif (before := found.setdefault(item.file, item)) != item and before.text != item.text:
                    missing.append(f"{item.source}: another text for {item.file}; the first, {before.source}, counts")
        except (Unreadable, RecursionError) as error:
            missing.append(f"{name}: {error}")
    wordings = [*_joined(found, missing)]
    missing += [file for file in _WANTED if file not in {wording.file for wording in wordings}]
    return PromptPack(checkout, tuple(wordings), tuple(missing))


def _joined(found: dict[str, Wording], missing: list[str]) -> Iterator[Wording]:
    """Yield the wordings, a judge's system and user parts joined in one file, as `sfllava judge --rubrics` reads it."""
    for file, wording in found.items():
        stem, role = re.fullmatch(r"(.*?)(?:\.(system|user))?\.txt", file).groups()  # type: ignore[union-attr]
        if not role:
            yield wording
        elif (other := found.get(f"{stem}.{'user' if role == 'system' else 'system'}.txt")) is None:
            missing.append(f"{stem}.txt: its {role} part alone was found ({wording.source})")
        elif role == "system":
            text = f"{wording.text}\n{USER}{other.text}"
            yield Wording(f"{stem}.txt", text, f"{wording.source}, and {other.source}")


def write_pack(pack: PromptPack, folder: str | Path) -> None:
    """Write the prompts byte for byte, and pack.json, which says where they are from.

    Raises:
        SfllavaError: The folder has other texts under the same names, or cannot be written.
    """
    folder = Path(folder)
    texts = {wording.file: wording.text.encode() for wording in pack.wordings}
    about = {
        "checkout": str(pack.checkout.absolute()),
        "sha256": {
            name: file_sha256(pack.checkout / name)
            for name in (*_READERS, FIELDS_FILE)
            if (pack.checkout / name).exists()
        },
        "wordings": {wording.file: wording.source for wording in pack.wordings},
        "not_found": list(pack.missing),
    }
    try:
        if other := [
            name for name, data in texts.items() if (folder / name).exists() and (folder / name).read_bytes() != data
        ]:
            raise SfllavaError(f"{folder}: has other texts already: {', '.join(other)}; use a new folder")
        for name, data in texts.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pack.json").write_text(json.dumps(about, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    except OSError as error:
        raise SfllavaError(f"{error.filename or folder}: cannot write the pack: {error.strerror}") from error
