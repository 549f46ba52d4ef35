"""Write small question files, videos and experiment files in the layout of the published code."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

OPEN = {
    "msvd": ("MSVD_QA.csv", "MSVD_Zero_Shot_QA/val", "MSVD_Zero_Shot_QA/videos"),
    "msrvtt": ("MSRVTT_QA.csv", "MSRVTT_Zero_Shot_QA/val", "MSRVTT_Zero_Shot_QA/videos/all"),
    "tgif": ("TGIF_FrameQA.csv", "TGIF_Zero_Shot_QA/val", "TGIF_Zero_Shot_QA/mp4"),
    "activitynet": ("ActivityNet_QA.csv", "Activitynet_Zero_Shot_QA/test", "Activitynet_Zero_Shot_QA/all_test"),
}
CHOICE = {
    "nextqa": ("NExT_QA.csv", "NExTQA"),
    "egoschema": ("EgoSchema.csv", "EgoSchema"),
    "intentqa": ("IntentQA.csv", "IntentQA"),
}
VCG = ("Generic_QA.csv", "Temporal_QA.csv", "Consistency_QA1.csv", "Consistency_QA2.csv")
BENCHMARKS = (*OPEN, *CHOICE, "vcgbench")


def rows_of(path: Path, count: int, videos: list[str]) -> list[dict[str, str]]:
    """Return the first rows of a real question file, asked about other videos in turn."""
    with path.open(newline="", encoding="utf-8") as file:
        rows = [row for row, _ in zip(csv.DictReader(file), range(count))]
    return [{**row, "video_name": videos[i % len(videos)]} for i, row in enumerate(rows)]


def copy_videos(data: Path, clips: list[Path]) -> None:
    for folder in [
        *(f"video_qa/{place}" for _, _, place in OPEN.values()),
        *(f"multiple_choice_qa/{name}/video" for _, name in CHOICE.values()),
    ]:
        (data / folder).mkdir(parents=True)
        for clip in clips:
            name = f"v_{clip.name}" if folder.endswith("all_test") else clip.name
            shutil.copy(clip, data / folder / name)


def write_csv_root(root: Path, qa: Path, clips: list[Path], count: int) -> None:
    """Write the benchmarks' own CSV files, about other videos, and those videos, under one root."""
    names = [clip.stem for clip in clips]
    for kind, files in (
        ("open_ended_qa", [name for name, *_ in OPEN.values()]),
        ("multiple_choice_qa", [name for name, _ in CHOICE.values()]),
        ("text_generation_benchmark", VCG),
    ):
        (root / kind).mkdir(parents=True)
        for file in files:
            prefix = "v_" if file in VCG or file.startswith("Activity") else ""
            rows = rows_of(qa / kind / file, count, [prefix + name for name in names])
            with (root / kind / file).open("w", newline="", encoding="utf-8") as out:
                writer = csv.DictWriter(out, list(rows[0]))
                writer.writeheader()
                writer.writerows(rows)
    copy_videos(root / "data", clips)


def write_playground(root: Path, qa: Path, clips: list[Path], count: int) -> None:
    """Write playground/gt_qa_files as the published preparation does, and playground/data."""
    gt, names = root / "playground" / "gt_qa_files", [clip.stem for clip in clips]
    for file, place, _ in OPEN.values():
        rows = rows_of(qa / "open_ended_qa" / file, count, names)
        (gt / place).parent.mkdir(parents=True)
        dump(gt / f"{place}_q.json", [{k: r[k] for k in ("video_name", "question_id", "question")} for r in rows])
        answers = [
            {"answer": r["answer"], "type": int(r["question_type"]), "question_id": r["question_id"]} for r in rows
        ]
        dump(gt / f"{place}_a.json", answers)
    for file, place in CHOICE.values():
        rows = rows_of(qa / "multiple_choice_qa" / file, count, names)
        (gt / place).mkdir()
        prepared = []
        for r in rows:
            options = [r[f"a{i}"] for i in range(5)]
            at = {"answer_number": options.index(r["answer"]), "candidates": options, "answer": r["answer"]}
            asked = {"question_id": r["question_id"], "question": r["question"]}
            prepared.append({"task_name": place, "video_name": f"{r['video_name']}.mp4", **asked, **at})
        dump(gt / place / "val_qa.json", prepared)
    generic, temporal, one, two = (rows_of(qa / "text_generation_benchmark" / file, count, names) for file in VCG)
    (gt / "VCGBench").mkdir()
    for name, rows in (("generic", generic), ("temporal_understanding", temporal), ("consistency", one)):
        prepared = [{k: r[k] for k in ("video_name", "question_id", "question", "answer")} for r in rows]
        if name == "consistency":
            prepared = [{**r, "question": [r["question"], other["question"]]} for r, other in zip(prepared, two)]
        dump(gt / "VCGBench" / f"Video-ChatGPT-{name}_val_qa.json", prepared)
    copy_videos(root / "playground" / "data", clips)


def write_experiment(path: Path, **changes: object) -> Path:
    """Write an experiment file with every key; lists go over several lines and have comments."""
    values = {
        "SCRIPT": [
            "bash scripts/run_eval_videoqabench.sh",
            "bash scripts/run_eval_multiplechoiceqabench.sh",
            "bash scripts/run_eval_generativebench.sh",
        ],
        "CUDA_VISIBLE_DEVICES": "0,1",
        "CONFIG_NAME": "auto",
        "DATA_DIR": ["playground/data/video_qa", "playground/data/multiple_choice_qa", "playground/data/video_qa"],
        "GT_QA_DIR": "playground/gt_qa_files",
        "MODEL_PATH": "liuhaotian/llava-v1.6-vicuna-7b/",
        "OUTPUT_DIR": "outputs/artifacts",
        "TEMP_DIR": "outputs/eval_save_dir",
        "CONV_MODE": ["image_seq_v3", "multiple_choice_allvideo_v4", "image_seq_v3"],
        "NUM_FRAMES": "50",
        "INPUT_STRUCTURE": "image_seq",
        "IMAGE_ASPECT_RATIO": "resize",
        "TEMPORAL_AGGREGATION": "slowfast-slow_10frms_spatial_1d_max_pool-fast_4x4",
        "ROPE_SCALING_FACTOR": 2,
        "SAVE_DIR": "outputs/artifacts/logs",
    }
    lines = []
    for key, value in (values | changes).items():
        if isinstance(value, list):
            lines += [f"{key}: [", *(f"  {json.dumps(item)},  # item {i}" for i, item in enumerate(value)), "]"]
        elif value != "absent":
            lines.append(f"{key}: {json.dumps(value)}")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("\n".join(lines) + "\n")
    return path


def dump(path: Path, value: object) -> None:
    path.write_text(json.dumps(value, indent=4))


def write_outputs(folder: Path, rows: list[dict], parts: int = 2) -> None:
    """Write merge.jsonl, and next to it the files of the processes that it was merged from."""
    folder.mkdir(parents=True, exist_ok=True)
    size = -(-len(rows) // parts)
    for i in range(parts):
        lines = [json.dumps(row) + "\n" for row in rows[i * size : (i + 1) * size]]
        (folder / f"{parts}_{i}.json").write_text("".join(lines))
    (folder / "merge.jsonl").write_text("".join((folder / f"{parts}_{i}.json").read_text() for i in range(parts)))
