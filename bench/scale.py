"""A million rows of 12 settings: time and peak memory of the commands that read them, each in its own process.

Next to them is what a script would do: `pandas.read_json(lines=True)` and a groupby, which gives means without checks,
intervals or paired differences. Replies to open questions are sentences, half of them as at another setting; multiple
choice has a letter as a reply. Each judge has a verdict on every row.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

from sfllava.evaluators.judges.base import JudgeRequest
from sfllava.evaluators.judges.rubric import load_rubric
from sfllava.settings import Setting

SETTINGS, JUDGES, MOST_SECONDS, MOST_MIB = 12, ("one", "other"), 20, 1024
WORDS = [
    "man", "woman", "dog", "cat", "ball", "car", "kitchen", "guitar", "horse", "river", "child", "cake", "red", "two",
    "running", "singing", "cooking",
]  # fmt: skip
KINDS = {
    "choice": ("nextqa", 8.8, ["CW", "CH", "TN", "TC", "DC", "DL", "DO"]),
    "open": ("msrvtt", 24.7, ["what", "who", "how"]),
}
SCRIPTS = {
    "choice": "letters = ['ABCDE'[options.index(a)] for options, a in zip(table['options'], table['answer'])]\n"
    "table['right'] = table['prediction'].str[0] == letters",
    "open": "table['right'] = table['prediction'].str.lower() == table['answer']",
    "judge": "table = table.merge(pandas.read_json(f'{run}/verdicts-one.jsonl', lines=True), on=['key', 'setting'])\n"
    "table['right'] = table['correct']",
    "judges": "both = [pandas.read_json(f'{run}/verdicts-{name}.jsonl', lines=True) for name in ('one', 'other')]\n"
    "table = table.merge(both[0].merge(both[1], on=['key', 'setting']), on=['key', 'setting'])\n"
    "table['right'] = table['correct_x'] == table['correct_y']",
}
SCRIPT = """
import sys, pandas
run = sys.argv[1]
table = pandas.read_json(f'{{run}}/predictions.jsonl', lines=True)
{0}
print(table.groupby('setting')['right'].mean())
"""


def rows_of(kind: str, count: int) -> Iterator[dict]:
    """Rows in the order in which a run writes them: all settings of a video's questions together."""
    benchmark, per_video, types = KINDS[kind]
    chance = random.Random(0)
    for i in range(count // SETTINGS):
        video = int(i / per_video)
        words = chance.sample(WORDS, 6)
        answer, hard = words[0], chance.random()
        question = f"what is the {words[1]} doing with the {words[2]} after the {words[3]} in part {i % 97}?"
        options = [f"{a} the {b}" for a, b in pairwise(words)] if kind == "choice" else []
        before = ""
        for j in range(SETTINGS):
            right = chance.random() < 0.35 + 0.3 * hard + 0.01 * j
            if kind == "choice":
                correct = options[i % 5]
                reply = f"{'ABCDE'[i % 5 if right else chance.randrange(5)]}) {correct}"
            else:
                correct = answer
                said = answer if right else chance.choice(WORDS)
                reply = f"It is the {said}, with {' and '.join(chance.sample(WORDS, 3))}."
                reply = answer if right and hard > 0.5 else before if before and j % 2 else reply
            before = reply
            failed = i % 997 == 0 and j == 3
            yield {
                "key": f"{benchmark}/{i}", "setting": f"setting {j}", "video": f"video{video:05}.mp4",
                "id": str(i), "type": types[i % len(types)], "question": question, "answer": correct,
                "options": options, "prediction": None if failed else reply,
                "token_ids": [] if failed else [319 + k for k in range(len(reply) // 4)],
                "visual_tokens": None if failed else 256 * (j + 1),
                "seconds": {} if failed else {
                    "decode": 0.0123 + hard / 100, "encode": 0.2501, "prefill": 0.31, "answer": 0.0421 + hard / 10
                },
                "error": f"video{video:05}.mp4: cannot be decoded" if failed else None,
            }  # fmt: skip


def write_run(folder: Path, kind: str, count: int) -> Path:
    """Write a run and, for open questions, the verdicts of two judges that agree on 85 of 100."""
    folder.mkdir(parents=True)
    setting = {**dict(zip(("frames", "aggregation"), (50, Setting().aggregation))), "budget": 3680}
    identity = {
        "version": 3, "benchmark": KINDS[kind][0], "questions": count // SETTINGS, "asked_sha256": "0" * 64,
        "settings": [{"name": f"setting {j}", **setting} for j in range(SETTINGS)],
    }  # fmt: skip
    (folder / "run.json").write_text(json.dumps({"identity": identity, "sessions": [{}]}, default=str))
    judges = JUDGES if kind == "open" else ()
    files = [(folder / f"verdicts-{judge}.jsonl").open("w") for judge in judges]
    rubric, chance = load_rubric("open"), random.Random(1)
    with (folder / "predictions.jsonl").open("w") as out:
        for row in rows_of(kind, count):
            out.write(json.dumps(row) + "\n")
            if row["prediction"] is None:
                continue
            right = row["answer"] in row["prediction"]
            request = JudgeRequest(rubric, (row["question"],), row["answer"], (row["prediction"],)) if judges else None
            for judge, file in zip(judges, files):
                correct = right != (chance.random() < 0.08)
                file.write(json.dumps(_verdict(row, judge, correct, request and request.content)) + "\n")
    for file in files:
        file.close()
    return folder


def _verdict(row: dict, judge: str, correct: bool, content: str | None) -> dict:
    return {
        "key": row["key"], "setting": row["setting"], "rubric": "open", "video": row["video"], "content": content,
        "correct": correct, "score": 4 if correct else 1,
        "reply": json.dumps({"correct": "yes" if correct else "no", "score": 4 if correct else 1}), "judge": judge,
        "model": f"{judge}-2026-01-01", "served": f"{judge}-2026-01-01", "tokens": [240, 14], "cost": 0.000043,
        "tries": 1, "paid": True, "cut": False, "error": None,
    }  # fmt: skip


def measure(command: list[str]) -> dict:
    """Run a command; return its seconds, seconds of CPU and peak memory in MiB."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE)
    assert process.stdout is not None
    said = process.stdout.read()
    _, status, used = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode or not said:
        raise SystemExit(f"{' '.join(command)}: exit status {process.returncode}")
    cpu = used.ru_utime + used.ru_stime
    return {"seconds": round(seconds, 1), "cpu_seconds": round(cpu, 1), "peak_mib": round(used.ru_maxrss / 1024)}


def compare_all(folder: Path, scripts: bool) -> dict:
    """Measure each command, and then the script that stands for it."""
    choice, judged = str(folder / "choice"), str(folder / "open")
    out = ["--out", str(folder / "figures")]
    commands = {
        "compare, multiple choice": (["compare", choice], "choice"),
        "compare, open": (["compare", judged], "open"),
        "figures, multiple choice": (["figures", choice, *out], "choice"),
        "compare --judge": (["compare", judged, "--judge", "one"], "judge"),
        "figures --judge": (["figures", judged, *out, "--judge", "one"], "judge"),
        "verdicts": (["verdicts", judged], "judges"),
    }
    found = {}
    for name, (arguments, script) in commands.items():
        found[name] = {"sfllava": measure([sys.executable, "-m", "sfllava.cli", *arguments])}
        if scripts:
            run = [sys.executable, "-c", SCRIPT.format(SCRIPTS[script]), arguments[1]]
            found[name]["pandas"] = measure(run)
        print(name, found[name], flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--folder", help="where the runs are kept for the next call")
    parser.add_argument("--no-scripts", action="store_true", help="without the pandas scripts")
    parser.add_argument("--no-save", action="store_true", help="without a file in bench/results")
    a = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(a.folder or temporary)
        sizes = {}
        for kind in KINDS:
            if not (folder / kind).exists():
                write_run(folder / kind, kind, a.rows)
            sizes |= {f"{kind}/{file.name}": file.stat().st_size for file in (folder / kind).glob("*.jsonl")}
        found = compare_all(folder, not a.no_scripts)
    over = [
        name for name, ways in found.items()
        if ways["sfllava"]["seconds"] > MOST_SECONDS or ways["sfllava"]["peak_mib"] > MOST_MIB
    ]  # fmt: skip
    aim = {"seconds": MOST_SECONDS, "peak_mib": MOST_MIB, "missed": over}
    load = [round(each, 1) for each in os.getloadavg()]
    result = {"rows": a.rows, "settings": SETTINGS, "bytes": sizes, "aim": aim, "commands": found, "load": load}
    if a.no_save:
        print(json.dumps(result, indent=1))
    else:
        from common import save  # it imports torch, whose memory would count for each child

        save("scale", result)


if __name__ == "__main__":
    main()
