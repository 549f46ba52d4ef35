"""Run folders written by hand, with the rows that a test needs."""

from __future__ import annotations

import json

SHAPE = {
    "language": {
        "count": 32,
        "width": 4096,
        "inner": 11008,
        "heads": 32,
        "kv_heads": 32,
        "head_width": 128,
        "gated": True,
    },
    "vision": {
        "count": 23,
        "width": 1024,
        "inner": 4096,
        "heads": 16,
        "kv_heads": 16,
        "head_width": 64,
        "gated": False,
    },
    "vocabulary": 32000,
    "grid": [24, 24],
    "patch": 14,
}


def write_run(folder, rows, benchmark="open", settings=(), **facts):
    folder.mkdir(parents=True)
    names = dict.fromkeys(row["setting"] for row in rows)
    about = [
        {"name": name, "frames": 50, "aggregation": "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4", "budget": 3680}
        for name in names
    ]
    identity = {
        "benchmark": benchmark, "questions_sha256": "f" * 64, "limit": None, "seed": None,
        "questions": len({row["key"] for row in rows}), "settings": list(settings) or about, "model": {"shape": SHAPE},
    } | facts.pop("identity", {})  # fmt: skip
    (folder / "run.json").write_text(json.dumps({"identity": identity, "sessions": [facts]}))
    common = {
        "type": "x",
        "question": "?",
        "options": [],
        "visual_tokens": 8,
        "error": None,
        "prediction": "no",
        "seconds": {},
    }
    text = "".join(json.dumps({**common, **row}) + "\n" for row in rows)
    (folder / "predictions.jsonl").write_text(text)
    return folder


def rows_of(setting, right, videos=20, **more):
    """Two questions a video; the first `right` questions are answered."""
    return [
        {
            "key": f"open/{i}",
            "setting": setting,
            "video": f"v{i // 2}",
            "answer": "yes",
            "prediction": "Yes." if i < right else "no",
            **more,
        }
        for i in range(2 * videos)
    ]
