"""What the browser sends besides the controls: clicks, uploads, and requests for pictures and files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from sfllava.explorer.session import csv
from sfllava.explorer.strip import large_picture
from sfllava.explorer.videos import playable
from sfllava.explorer.widget import CLICKED, MOST_UPLOADED_BYTES
from sfllava.types import SfllavaError


def connect(explorer: Any) -> None:
    """Answer what the browser sends to an `Explorer`. Only what is listed here can be called."""
    upload = _Upload()
    known: dict[str, Callable[[Mapping[str, Any]], object]] = {
        "ask": lambda _: explorer.ask(),
        "stop": lambda _: explorer.stop(),
        "compare": lambda _: explorer.compare(),
        "add": lambda _: explorer.add(),
        "remove": lambda said: _remove(explorer, int(said["place"])),
        "clear": lambda _: explorer.set_compared([]),
        "look": lambda _: explorer.look(),
        "leave_out": lambda said: explorer.leave_out(str(said["part"])),
        "open": lambda said: explorer.open(str(said["path"]).strip()),
        "render": lambda _: explorer.open(explorer.videos.render()),
        "picture": lambda said: _send_picture(explorer, str(said["of"]), int(said["place"])),
        "play": lambda _: _send_video(explorer),
        "csv": lambda _: _download(explorer, "answers.csv", "text/csv", csv(explorer.answers)),
        "save": lambda _: _download(explorer, "explorer.html", "text/html", explorer.snapshot()),
    }

    def heard(_: Any, said: Mapping[str, Any], buffers: list[Any]) -> None:
        action = str(said.get("action"))
        try:
            state = said.get("state", {})
            explorer.widget.set_state({name: state[name] for name in CLICKED if name in state})
            if action == "upload":
                upload.add(explorer, said, bytes(buffers[0]) if buffers else b"")
            elif action in known:
                known[action](said)
        except Exception as error:
            explorer.failed(error, "video" if action in ("open", "render", "upload") else "answer")

    explorer.widget.on_msg(heard)


def _remove(explorer: Any, place: int) -> None:
    explorer.set_compared([setting for i, setting in enumerate(explorer.compared) if i != place])


class _Upload:
    """The pieces of the file that is being uploaded: a server takes messages of a few megabytes only."""

    def __init__(self) -> None:
        self._id, self._pieces = "", bytearray()

    def add(self, explorer: Any, said: Mapping[str, Any], content: bytes) -> None:
        """Add a piece, and open the file with the last one. Pieces of another upload or a refused one are dropped."""
        name, offset = str(said["name"]), int(said["offset"])
        if offset == 0:  # the page may have been reloaded, or another file chosen, before the last piece
            self._id, self._pieces = str(said["id"]), bytearray()
        elif said["id"] != self._id:
            return
        if max(int(said["size"]), offset + len(content)) > MOST_UPLOADED_BYTES:
            self._take()
            raise SfllavaError(f"{name}: an upload has at most 1 GiB: copy the file to this machine and give its path")
        if offset != len(self._pieces):
            self._take()
            raise SfllavaError(f"{name}: a part of the upload was lost: upload it again")
        self._pieces += content
        if len(self._pieces) >= int(said["size"]):
            explorer.open(explorer.videos.upload(name, self._take()))

    def _take(self) -> bytes:
        """Return the pieces so far, and end the upload."""
        content = bytes(self._pieces)
        self._id, self._pieces = "", bytearray()
        return content


def _send_picture(explorer: Any, of: str, place: int) -> None:
    found = explorer.attribution() if of == "attention" else None
    video = found.video if found is not None else explorer.strip.video
    if video is not None and 0 <= place < len(video.frames):
        sent = {"kind": "picture", "of": of, "index": int(video.indices[place])}
        explorer.widget.send({**sent, "picture": large_picture(video, place)})


def _send_video(explorer: Any) -> None:
    found = playable(explorer.video)
    kind, content = found or ("", b"")
    explorer.widget.send({"kind": "file", "type": kind}, [content] if content else None)


def _download(explorer: Any, name: str, kind: str, text: str) -> None:
    explorer.widget.send({"kind": "download", "name": name, "type": kind, "text": text})
