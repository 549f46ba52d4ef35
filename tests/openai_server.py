"""A server that speaks OpenAI's chat completions, files and batches on loopback, as its own process.

It grades by one rule (is the reference in the candidate?), fails as told at given rates, and counts what it completed
by content. Which request fails depends on the seed, the content and how often it came, not on the order of arrival.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import urllib.request
from collections import Counter
from typing import Any

FAULTS = ("rate_limit", "server_error", "cut", "reset", "wrong_json", "refusal", "duplicate")
"""429 with Retry-After, 500, half a body, a closed connection, words for JSON, a refusal, the object twice."""
_TOO_LONG = (  # vLLM's words
    "'max_tokens' or 'max_completion_tokens' is too large: 200. This model's maximum context length is 2048 tokens and "
    "your request has 2000 input tokens (200 > 2048 - 2000)."
)
_BLOCK = re.compile(r"^\[([0-9a-f]{16}) ([\w-]+)\]\n(.*?)\n\[/\1\]$", re.DOTALL | re.MULTILINE)


class Server:
    """The process, as a context manager. Options: delay, faults {name: rate}, retry_after, seed, and `_Behaviour`'s."""

    def __init__(self, **options: Any) -> None:
        self._options = options

    def __enter__(self) -> Server:
        self._process = subprocess.Popen(
            [sys.executable, __file__, json.dumps(self._options)], stdout=subprocess.PIPE, text=True
        )
        assert self._process.stdout
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}/v1"
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.communicate()

    def environment(self, key: str = "sk-none-of-your-business-0123456789") -> dict[str, str]:
        return {**os.environ, "OPENAI_API_KEY": key, "OPENAI_BASE_URL": self.url, "OPENAI_ORG": "org-ours-1234567"}

    def behave(self, **options: Any) -> None:
        """Change options; the counts stay."""
        self._ask("/behave", json.dumps(options).encode())

    def counts(self) -> dict[str, Any]:
        """requests, completed {content: times}, faults {name: times}, most (requests at a time), seen (the last)."""
        return json.loads(self._ask("/counts"))

    def _ask(self, path: str, data: bytes | None = None) -> bytes:
        with urllib.request.urlopen(self.url.removesuffix("/v1") + path, data, timeout=20) as reply:
            return reply.read()


class _Behaviour:
    def __init__(self, **options: Any) -> None:
        self.delay, self.faults, self.retry_after, self.seed = 0.0, {}, 0.05, 0
        self.schema = True  # takes response_format
        self.refuse_options: list[str] = []  # answers 400 to requests that have these
        self.refusal = "Unsupported parameter: '{}' is not supported, use 'max_completion_tokens'."
        self.context = 0  # characters of a prompt above which it is a 400
        self.key = ""  # where set, any other is a 401 that repeats what was sent
        self.status = 0  # answers every completion with this
        self.style = "json"  # json, dict, prose: as replies look without a schema
        self.model = "judge-served-2026"
        self.echo = False  # puts the candidate's text before the verdict, as a careless judge does
        self.batch_polls = 1  # retrievals until a batch is completed
        self.batch_expires = False  # half of it, then
        self.trickle = False  # a byte every 0.1 s
        self.__dict__.update(options)


class _State:
    def __init__(self, behaviour: _Behaviour) -> None:
        self.behaviour = behaviour
        self.seen: Counter[str] = Counter()
        self.completed: Counter[str] = Counter()
        self.faults: Counter[str] = Counter()
        self.requests, self.open, self.most = 0, 0, 0
        self.last: Any = None
        self.files: dict[str, bytes] = {}
        self.batches: dict[str, dict[str, Any]] = {}


def content_of(body: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(body["messages"]).encode()).hexdigest()[:24]


def verdict_of(body: dict[str, Any]) -> dict[str, Any]:
    """The server's honest opinion: by the texts between the marks, whatever they say."""
    asked = body["messages"][-1]["content"].rpartition("Reply with")[2]
    texts = {name: text.lower().strip() for _, name, text in _BLOCK.findall(body["messages"][-1]["content"])}
    if "caption" in texts:  # the option whose last quoted value is in the caption
        options = {line[0].upper(): line.split("'")[-2] for line in texts["information"].splitlines()}
        fits = [letter for letter, value in options.items() if value in texts["caption"]]
        return {"choice": fits[0] if len(fits) == 1 else "none"}
    reference = texts.get("reference", "")
    said = [text for name, text in texts.items() if name.startswith("candidate")]
    right = sum(bool(reference) and reference in text for text in said)
    score = 4.5 * right / max(1, len(said)) + 0.3
    if "from 1 to 5" in asked:
        score = 1 + 4 * right / max(1, len(said))
    wants_yes = '"correct"' in asked
    return ({"correct": "yes" if right else "no"} if wants_yes else {}) | {"score": round(score, 2)}


def complete(state: _State, body: dict[str, Any], fault: str = "") -> dict[str, Any]:
    behaviour, verdict = state.behaviour, verdict_of(body)
    text = json.dumps(verdict)
    if "response_format" not in body and behaviour.style != "json":
        text = repr(verdict) if behaviour.style == "dict" else f"I think that\n```\n{verdict!r}\n```\nis fair."
    if fault == "wrong_json":
        text = "The candidate deserves {'score': a lot"
    if fault == "zero":  # on a scale that begins at 1
        text = '{"score": 0}'
    if fault == "duplicate":
        text = text + "\n" + text
    if behaviour.echo:
        text = _BLOCK.findall(body["messages"][-1]["content"])[-1][2] + "\n" + text
    message = {"role": "assistant", "content": text, "refusal": None}
    if fault == "refusal":
        message |= {"content": None, "refusal": "I cannot grade this."}
    choice = {"index": 0, "message": message, "finish_reason": "stop"}
    prompt = sum(len(m["content"]) for m in body["messages"]) // 4
    return {
        "id": "chatcmpl-" + content_of(body),
        "object": "chat.completion",
        "created": 0,
        "model": behaviour.model,
        "choices": [choice, choice] if fault == "duplicate" else [choice],
        "usage": {"prompt_tokens": prompt, "completion_tokens": 12, "total_tokens": prompt + 12},
    }


def fault_of(state: _State, content: str) -> str:
    attempt, seed = state.seen[content], state.behaviour.seed
    state.seen[content] += 1
    digest = hashlib.sha256(f"{seed}|{content}|{attempt}".encode()).digest()
    chance = int.from_bytes(digest[:6], "big") / 2**48
    for name, rate in state.behaviour.faults.items():
        chance -= rate
        if chance < 0:
            return name
    return ""


class _Drop(Exception):
    """Close the connection, after `sent`."""

    def __init__(self, sent: bytes = b"") -> None:
        self.sent = sent


def response(status: int, value: Any, headers: dict[str, str] | None = None) -> bytes:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    lines = [f"HTTP/1.1 {status} X", "content-type: application/json", f"content-length: {len(data)}"]
    return "\r\n".join([*lines, *(f"{k}: {v}" for k, v in (headers or {}).items()), "", ""]).encode() + data


def error(status: int, text: str, code: str | None = None, **headers: str) -> bytes:
    return response(status, {"error": {"message": text, "code": code, "type": "x"}}, headers)


async def answer_chat(state: _State, body: dict[str, Any], headers: dict[str, str]) -> bytes:
    behaviour, content = state.behaviour, content_of(body)
    state.last = {"body": body, "headers": headers}
    if behaviour.key and headers.get("authorization") != f"Bearer {behaviour.key}":
        return error(401, f"Incorrect API key provided: {headers.get('authorization')} for {headers}")
    if behaviour.status:
        return error(behaviour.status, "as told", "insufficient_quota" if behaviour.status == 429 else None)
    for name in behaviour.refuse_options + ([] if behaviour.schema else ["response_format"]):
        if name in body:
            return error(400, behaviour.refusal.replace("{}", name))
    if behaviour.context and sum(len(message["content"]) for message in body["messages"]) > behaviour.context:
        return error(400, _TOO_LONG)
    fault = fault_of(state, content)
    if fault:
        state.faults[fault] += 1
    if fault == "rate_limit":
        return error(429, "slow down", **{"retry-after": str(behaviour.retry_after)})
    await asyncio.sleep(behaviour.delay)
    if fault == "server_error":
        return error(500, "it broke")
    whole = response(200, complete(state, body, fault))
    if fault == "cut":
        raise _Drop(whole[: len(whole) - 40])
    if fault == "reset":
        raise _Drop
    if fault not in ("wrong_json", "refusal", "zero"):
        state.completed[content] += 1
    return whole


def answer_files(state: _State, path: str, data: bytes, headers: dict[str, str]) -> bytes:
    if path.endswith("/content"):
        return response(200, state.files[path.split("/")[-2]])
    boundary = re.search(r"boundary=(\S+)", headers["content-type"])
    assert boundary
    part = next(p for p in data.split(b"--" + boundary[1].encode()) if b'name="file"' in p)
    name = f"file-{len(state.files)}"
    state.files[name] = part.partition(b"\r\n\r\n")[2].removesuffix(b"\r\n")
    about = {"id": name, "object": "file", "bytes": len(data), "created_at": 0, "filename": "x", "purpose": "batch"}
    return response(200, {**about, "status": "processed"})


def answer_batches(state: _State, path: str, body: dict[str, Any] | None) -> bytes:
    if body is not None:
        name = f"batch_{len(state.batches)}"
        state.batches[name] = {
            **body, "id": name, "object": "batch", "status": "in_progress", "created_at": 0, "polls": 0,
        }  # fmt: skip
        return response(200, state.batches[name])
    if path == "/v1/batches":
        return response(200, {"object": "list", "data": list(state.batches.values()), "has_more": False})
    found = state.batches[path.rsplit("/", 1)[1]]
    found["polls"] += 1
    if found["polls"] > state.behaviour.batch_polls and found["status"] == "in_progress":
        run_batch(state, found)
    return response(200, found)


def run_batch(state: _State, batch: dict[str, Any]) -> None:
    lines = [json.loads(line) for line in state.files[batch["input_file_id"]].splitlines()]
    done, errors = [], []
    if state.behaviour.batch_expires:
        lines = lines[: len(lines) // 2]
    for line in lines:
        content = content_of(line["body"])
        fault = fault_of(state, content)
        about = {"id": "r", "custom_id": line["custom_id"], "error": None}
        if fault in ("rate_limit", "server_error", "cut", "reset"):
            state.faults[fault] += 1
            reply = {"status_code": 500, "body": {"error": {"message": "it broke"}}}
            errors.append({**about, "response": reply})
            continue
        done.append({**about, "response": {"status_code": 200, "body": complete(state, line["body"], fault)}})
        if fault == "duplicate":
            done.append(done[-1])
        if fault in ("", "duplicate"):
            state.completed[content] += 1
        else:
            state.faults[fault] += 1
    for kind, found in (("output", done), ("error", errors)):
        if found:
            name = f"file-{len(state.files)}"
            state.files[name] = b"".join(json.dumps(line).encode() + b"\n" for line in reversed(found))
            batch[f"{kind}_file_id"] = name
    batch["status"] = "expired" if state.behaviour.batch_expires else "completed"


async def answer(state: _State, method: str, path: str, data: bytes, headers: dict[str, str]) -> bytes:
    path = path.partition("?")[0]
    if path == "/counts":
        counts = {k: getattr(state, k) for k in ("requests", "completed", "faults", "most")}
        return response(200, {**counts, "seen": state.last, "batches": list(state.batches.values())})
    if path == "/behave":
        state.behaviour.__dict__.update(json.loads(data))
        return response(200, {})
    state.requests += 1
    if path == "/v1/chat/completions":
        state.open += 1
        state.most = max(state.most, state.open)
        try:
            return await answer_chat(state, json.loads(data), headers)
        finally:
            state.open -= 1
    if path.startswith("/v1/files"):
        return answer_files(state, path, data, headers)
    if path.startswith("/v1/batches"):
        return answer_batches(state, path, json.loads(data) if method == "POST" else None)
    return error(404, f"no {path}")


async def serve(state: _State, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            method, path, _ = head[0].split(" ")
            headers = {k.lower(): v.strip() for k, _, v in (line.partition(":") for line in head[1:] if line)}
            data = await reader.readexactly(int(headers.get("content-length", 0)))
            try:
                sent = await answer(state, method, path, data, headers)
            except _Drop as drop:
                writer.write(drop.sent)
                break
            if state.behaviour.trickle:
                for i in range(len(sent)):
                    writer.write(sent[i : i + 1])
                    await asyncio.sleep(0.1)
            else:
                writer.write(sent)
            await writer.drain()
    with contextlib.suppress(ConnectionError):
        writer.close()


async def main() -> None:
    state = _State(_Behaviour(**json.loads(sys.argv[1])))
    server = await asyncio.start_server(lambda r, w: serve(state, r, w), "127.0.0.1", 0, limit=2**20, backlog=512)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


def run() -> None:
    asyncio.run(main())


if __name__ == "__main__":
    run()
