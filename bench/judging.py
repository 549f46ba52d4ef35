"""Judging through a server that fails, killed three times; and what concurrency 64 gives at 200 ms a reply.

The server is the tests' own, a process on loopback. It counts what it completed by content: a content counted twice
was paid for twice. `--small` is a quick look; only the whole is kept.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import random
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import save

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))

from openai_server import FAULTS, Server

from sfllava.evaluators.judges.openai import OpenAIJudge
from sfllava.runs.judge import judge
from sfllava.runs.verdicts import read_verdicts

MODEL, PLACES = "judge-2026-01-01", 64


def write_run(folder: Path, n: int) -> Path:
    """n predictions of the length of MSVD-QA's, six of ten right."""
    folder.mkdir()
    about = {"benchmark": "open", "questions": n, "settings": [{"name": "s"}]}
    (folder / "run.json").write_text(json.dumps({"identity": about, "sessions": []}))
    rows = (
        {
            "key": f"open/{i}", "setting": "s", "video": f"v{i // 25}", "type": "what", "options": [], "error": None,
            "visual_tokens": 8, "seconds": {},
            "question": f"what is the man in scene {i} doing?", "answer": f"thing {i}",
            "prediction": f"He is doing thing {i}." if i % 10 < 6 else "He is riding a horse.",
        }
        for i in range(n)
    )  # fmt: skip
    (folder / "predictions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def killed(folder: Path, n: int, kills: int = 3) -> dict:
    """Run the command, kill it at random moments between its first and its last verdict, then until all is judged."""
    run, chance, calls, done_at_kill = write_run(folder / "killed", n), random.Random(0), 0, []
    file = run / f"verdicts-openai-{MODEL}.jsonl"
    arguments = ["judge", str(run), "--judge", "openai", "--model", MODEL, "--concurrency", str(PLACES), "--yes"]
    start = time.perf_counter()
    with Server(faults=dict.fromkeys(FAULTS, 0.2 / len(FAULTS)), delay=0.2, retry_after=0.5, seed=1) as server:
        while True:
            calls += 1
            process = subprocess.Popen(
                [sys.executable, "-m", "sfllava.cli", *arguments], env=server.environment(),
                stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            )  # fmt: skip
            if len(done_at_kill) < kills:
                wanted = n * (len(done_at_kill) + chance.random()) / (kills + 1)
                while process.poll() is None and (not file.exists() or file.read_bytes().count(b"\n") < wanted):
                    time.sleep(0.02)
                time.sleep(chance.random() * 0.2)
                if process.poll() is None:
                    process.send_signal(signal.SIGKILL)
                    done_at_kill.append(file.read_bytes().count(b"\n"))
            if process.wait() == 0:
                break
        counts = server.counts()
    seconds = time.perf_counter() - start
    rows = list(read_verdicts(file))
    completed = counts["completed"]
    return {
        "what": f"{n} predictions, a server that fails 20 % of the requests, {PLACES} at a time, {kills} SIGKILLs",
        "rows_on_disk_at_each_kill": done_at_kill,
        "calls_until_all_was_judged": calls,
        "verdicts": len(rows),
        "distinct": len({row["key"] for row in rows}),
        "with_an_error": sum(bool(row["error"]) for row in rows),
        "as_they_should_be": sum(row["correct"] == (int(row["key"][5:]) % 10 < 6) for row in rows),
        "requests": counts["requests"],
        "faults": counts["faults"],
        "completed": sum(completed.values()),
        "contents_completed": len(completed),
        "paid_for_twice": sum(times - 1 for times in completed.values()),
        "most_that_were_in_flight_at_the_kills": kills * PLACES,
        "seconds": round(seconds, 1),
    }


def throughput(folder: Path, n: int, repeats: int) -> dict:
    """One call of `judge` after another on new runs, from reading the predictions to the last synced row."""
    shares = []
    ideal = n / PLACES * 0.2
    with Server(delay=0.2) as server:
        os.environ.update(server.environment())
        for i in range(repeats):
            run = write_run(folder / f"run-{i}", n)
            start = time.perf_counter()
            done = judge(run, OpenAIJudge(MODEL, concurrency=PLACES), progress=False)
            shares.append(ideal / (time.perf_counter() - start))
            assert done.complete and done.requests == n
        counts = server.counts()
    return {
        "what": f"{n} predictions, {PLACES} at a time, a server that replies after 200 ms; share of the ideal rate",
        "ideal_seconds": round(ideal, 1),
        "ideal_per_second": PLACES / 0.2,
        "shares": [round(share, 3) for share in shares],
        "median_share": round(statistics.median(shares), 3),
        "most_requests_at_a_time": counts["most"],
    }


def main() -> None:
    small = "--small" in sys.argv
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = {
            "openai": importlib.metadata.version("openai"),
            "killed": killed(folder, 500 if small else 5000),
            "throughput": throughput(folder, 640 if small else 6400, 1 if small else 3),
        }
    if small:
        print(json.dumps(result, indent=1))
    else:
        save("judging", result)


if __name__ == "__main__":
    main()
