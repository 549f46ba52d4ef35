"""A sweep of 12 settings (3 Slow x 4 Fast at 50 frames) against 12 separate `sfllava evaluate` runs.

Same weights, same videos, each way as a user would start it: one `sfllava ablate` process, or twelve `sfllava evaluate`
processes. The model is a small one with random weights whose vision tower and language model have the proportions of
the 7B's (1 to 22 in operations a token), with the real 24x24 patches and token counts; float32.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from common import sample_video, save

from sfllava.ablation import load_ablation
from sfllava.aggregators.base import name_of
from sfllava.models.tiny.random_checkpoint import write_random_checkpoint
from sfllava.runs.run_folder import read_rows

TEXT = {"hidden_size": 512, "intermediate_size": 1376, "num_hidden_layers": 8, "num_attention_heads": 8}
TEXT["num_key_value_heads"] = 8
VISION = {"hidden_size": 160, "intermediate_size": 640, "num_hidden_layers": 5}
QUESTIONS = ("what is it?", "where does it take place?", "what color is the raft?", "how many animals are there?")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--videos", type=int, default=2)
    parser.add_argument("--new-tokens", type=int, default=8)
    a = parser.parse_args()
    settings = load_ablation("slow_by_fast").settings(None)  # type: ignore[arg-type]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        model = write_random_checkpoint(folder / "model", text=TEXT, vision=VISION)
        video = sample_video(folder)
        rows = ["video_name,question,answer"]
        (folder / "videos").mkdir()
        for i in range(a.videos):
            shutil.copy(video, folder / "videos" / f"v{i}.mp4")
            rows += [f"v{i},{question},x" for question in QUESTIONS]
        (folder / "q.csv").write_text("\n".join(rows) + "\n")
        common = ["--questions", folder / "q.csv", "--videos", folder / "videos", "--model", model, "--device", "cpu"]
        common += ["--max-new-tokens", a.new_tokens]

        def run(*arguments: object) -> float:
            start = time.perf_counter()
            command = [sys.executable, "-m", "sfllava.cli", *map(str, [*arguments, *common])]
            subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
            return time.perf_counter() - start

        separate = []
        for i, setting in enumerate(settings):
            how = ["--frames", setting.frames, "--aggregation", name_of(setting.aggregation)]
            separate.append(run("evaluate", "open", "--out", folder / "separate" / str(i), *how))
        sweep = run("ablate", "slow_by_fast", "--benchmark", "open", "--rows-only", "--out", folder / "sweep")
        said = {(r["key"], r["setting"]): r["token_ids"] for r in read_rows(folder / "sweep")}
        for i, setting in enumerate(settings):
            for row in read_rows(folder / "separate" / str(i)):
                assert said[row["key"], setting.name] == row["token_ids"], "the two ways do not say the same"
    save("sweep", {
        "what": "12 settings (slow 4, 8, 10 x fast 1x1, 2x4, 3x6, 4x4) at 50 frames, start to end, seconds",
        "videos": a.videos, "questions_a_video": len(QUESTIONS), "new_tokens": a.new_tokens, "token_ids_equal": True,
        "visual_tokens": {setting.name: setting.token_count() for setting in settings},
        "seconds": {"separate": [round(t, 1) for t in separate], "sweep": round(sweep, 1)},
        "ratio_of_time": round(sweep / sum(separate), 3),
    })  # fmt: skip


if __name__ == "__main__":
    main()
