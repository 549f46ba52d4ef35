"""What tests share: real clips where they are, rendered videos, small random checkpoints in the real layouts."""

from __future__ import annotations

import gc
import os
from pathlib import Path

os.environ["HF_HUB_OFFLINE"] = "1"  # a forgotten download fails at once
# one process a core runs the tests: more threads in each would only wait for one another
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest
import warm

from sfllava.benchmarks import load_benchmark
from sfllava.sampler.reading import read_video
from sfllava.sampler.writing import write_video

# torch and transformers are imported where they are used: the process that hands out the tests needs none of them
warm.install()
ROOT = Path(__file__).parents[1]
CLIPS = ("QzulzuWr0Zw_20_45", "rlQ2kW-FvMk_66_79", "ysTmUTQ5wZE_17_45")


# the longest files, in seconds of a core: they begin, so that at the end no process waits for another
LONGEST = [
    f"{name}.py" for name in (
        "test_kills", "test_disk", "test_browser", "test_published_run", "test_notebooks", "test_docs", "test_ablation",
        "test_tracking", "test_lmms_eval", "test_new_benchmarks", "test_reproduce", "test_videos",
        "test_two_processes", "test_grounding", "test_records",
        "test_judge", "test_tiny", "test_quantization", "test_one_file", "test_packed_decoding", "test_backbones",
        "test_frame_choice", "test_explorer", "test_session", "test_failures", "test_clips",
    )
]  # fmt: skip


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    order = {name: i for i, name in enumerate(LONGEST)}
    items.sort(key=lambda item: order.get(item.path.name, len(order)))


def pytest_collection_finish() -> None:
    """Let the garbage collector look no more through the libraries, which all tests keep."""
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real clips and question files, beside the repository."""
    path = ROOT.parent / "shared"
    if not (path / "clips").is_dir():
        pytest.skip("no folder of real clips beside the repository")
    return path


@pytest.fixture(scope="session")
def clip(shared: Path) -> Path:
    return shared / "clips" / f"{CLIPS[0]}.mp4"


@pytest.fixture(scope="session")
def frames(clip: Path) -> np.ndarray:
    """50 frames of a real clip."""
    return read_video(clip, 50).frames


def moving_square(frames: int = 30, size: tuple[int, int] = (96, 128)) -> np.ndarray:
    """(T H W 3): the red channel counts frames, a white-green square moves to the right."""
    out = np.zeros((frames, *size, 3), np.uint8)
    for i in range(frames):
        out[i, ..., 0] = 8 * i % 256
        out[i, 10:30, 10 + 2 * i % 80 : 30 + 2 * i % 80] = (8 * i % 256, 255, 255)
    return out


class FirstFrames(list):
    """A method of a user's own, the first [n] frames: a list, so that it has no hash; all of them print one name."""

    def make_images(self, frames):
        return frames[: self[0]]

    def __call__(self, grid):
        return grid.flatten(0, 2)

    def __str__(self):
        return "own"


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of three rendered videos, a.mp4 b.mp4 c.mp4, that differ."""
    folder = tmp_path_factory.mktemp("videos")
    for i, name in enumerate("abc"):
        write_video(folder / f"{name}.mp4", np.roll(moving_square(20 + i), 40 * i, axis=2))
    return folder


@pytest.fixture(scope="session")
def checkpoints(tmp_path_factory: pytest.TempPathFactory):
    """checkpoints(family, layout) -> the folder of a small random checkpoint, made once."""
    from sfllava.models.tiny.random_checkpoint import write_random_checkpoint

    made: dict[tuple[str, str], Path] = {}

    def get(family: str = "vicuna", layout: str = "transformers") -> Path:
        if (family, layout) not in made:
            folder = tmp_path_factory.mktemp(f"{family}-{layout}")
            made[family, layout] = write_random_checkpoint(folder, layout, family)  # type: ignore[arg-type]
        return made[family, layout]

    return get


@pytest.fixture(scope="session")
def models(checkpoints):
    """models(family, layout) -> a loaded model, loaded once."""
    from sfllava.models.load import load_model

    loaded = {}

    def get(family: str = "vicuna", layout: str = "transformers"):
        if (family, layout) not in loaded:
            loaded[family, layout] = load_model(checkpoints(family, layout))
        return loaded[family, layout]

    return get


@pytest.fixture(scope="session")
def backbone_folders(tmp_path_factory):
    """A function from the name of a backbone to its checkpoint folder, which is written once."""
    from sfllava.models.tiny.random_backbones import write_random_backbone

    root, known = tmp_path_factory.mktemp("backbones"), {}

    def get(backbone: str):
        if backbone not in known:
            known[backbone] = write_random_backbone(root / backbone, backbone)
        return known[backbone]

    return get


@pytest.fixture(scope="session")
def backbones(backbone_folders):
    """A function from the name of a backbone to its model, which is loaded once."""
    from sfllava.models.load import load_model

    known = {}

    def get(backbone: str):
        if backbone not in known:
            known[backbone] = load_model(backbone_folders(backbone))
        return known[backbone]

    return get


@pytest.fixture
def benchmark(videos, tmp_path):
    from small_runs import questions_csv

    return load_benchmark("open", questions_csv(tmp_path / "q.csv"), videos)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch):
    """server(**options) -> a running OpenAI-compatible server, named by the environment as a user would."""
    from openai_server import Server

    running: list[Server] = []

    def start(**options) -> Server:
        running.append(Server(**options).__enter__())
        for name, value in running[-1].environment().items():
            if name.startswith("OPENAI_"):
                monkeypatch.setenv(name, value)
        return running[-1]

    yield start
    for one in running:
        one.__exit__()


@pytest.fixture(scope="session")
def tiny():
    """The small model in the package, loaded once."""
    from sfllava.models.load import load_model

    return load_model("tiny")


@pytest.fixture(scope="session")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A rendered video that the small model can describe."""
    from sfllava.benchmarks.shapesqa import write_shapesqa

    return write_shapesqa(tmp_path_factory.mktemp("shapes"), videos=1) / "videos" / "test_0_0000.mp4"
