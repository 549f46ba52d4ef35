"""A local web server in a thread of the test. It misbehaves as configured and records the requests."""

from __future__ import annotations

import gzip
import hashlib
import re
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Behaviour:
    """How one file is served."""

    statuses: list[tuple[int, dict[str, str]]] = field(default_factory=list)  # responses to the first requests
    cuts: list[int] = field(default_factory=list)  # for the next requests: close after this many bytes of the body
    ranges: bool = True
    etag: str | None = None  # None: computed from the contents; "": no ETag
    date: str = ""
    kind: str = "application/octet-stream"
    pause_seconds: float = 0.0  # after each block
    block: int = 16_384
    length: bool = True  # send Content-Length
    redirect: str = ""
    shift: int = 0  # respond with a range that begins this many bytes later
    encode: bool = False  # gzip, where the client allows it
    headers: dict[str, str] = field(default_factory=dict)


@dataclass
class Request:
    path: str
    headers: dict[str, str]
    status: int = 0
    sent: int = 0


class FileServer:
    """A context manager. `files`: path -> contents."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.behaviour: dict[str, Behaviour] = {}
        self.default = Behaviour()
        self.requests: list[Request] = []

    def __enter__(self) -> FileServer:
        files = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                files.answer(self)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, args=(0.02,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()

    def asked(self, path: str) -> list[Request]:
        return [request for request in self.requests if request.path.endswith(path)]

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        path = re.sub(r"^http://[^/]+", "", handler.path)  # a proxy receives the whole URL
        request = Request(handler.path, {name.lower(): value for name, value in handler.headers.items()})
        self.requests.append(request)
        behaviour = self.behaviour.get(path, self.default)
        data = self.files.get(path)
        if behaviour.statuses:
            return self._plain(handler, request, *behaviour.statuses.pop(0))
        if behaviour.redirect:
            return self._plain(handler, request, 302, {"Location": behaviour.redirect, **behaviour.headers})
        if data is None:
            return self._plain(handler, request, 404, {})
        self._send(handler, request, behaviour, data)

    def _plain(self, handler: BaseHTTPRequestHandler, request: Request, status: int, headers: dict[str, str]) -> None:
        request.status = status
        handler.send_response(status)
        for name, value in {**headers, "Content-Length": "0"}.items():
            handler.send_header(name, value)
        handler.end_headers()

    def _send(self, handler: BaseHTTPRequestHandler, request: Request, behaviour: Behaviour, data: bytes) -> None:
        etag = f'"{hashlib.md5(data).hexdigest()}"' if behaviour.etag is None else behaviour.etag
        headers = {"Content-Type": behaviour.kind, "ETag": etag, "Last-Modified": behaviour.date, **behaviour.headers}
        start, status = 0, 200
        asked = re.fullmatch(r"bytes=(\d+)-", request.headers.get("range", ""))
        if asked and behaviour.ranges and request.headers.get("if-range", etag) in (etag, behaviour.date or etag):
            start, status = int(asked[1]) + behaviour.shift, 206
            headers["Content-Range"] = f"bytes {start}-{len(data) - 1}/{len(data)}"
            if start >= len(data):
                return self._plain(handler, request, 416, {"Content-Range": f"bytes */{len(data)}"})
        if behaviour.encode and "gzip" in request.headers.get("accept-encoding", ""):
            data, headers["Content-Encoding"] = gzip.compress(data), "gzip"
        request.status = status
        handler.send_response(status)
        if behaviour.length:
            headers["Content-Length"] = str(len(data) - start)
        else:
            headers["Connection"] = "close"
        for name, value in headers.items():
            if value:
                handler.send_header(name, value)
        handler.end_headers()
        until = start + behaviour.cuts.pop(0) if behaviour.cuts else len(data)
        try:
            for at in range(start, min(until, len(data)), behaviour.block):
                piece = data[at : min(at + behaviour.block, until)]
                handler.wfile.write(piece)
                request.sent += len(piece)
                time.sleep(behaviour.pause_seconds)
        except OSError:  # the client was killed
            handler.close_connection = True
        if until < len(data) or not behaviour.length:
            handler.close_connection = True
