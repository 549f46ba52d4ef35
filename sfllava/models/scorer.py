"""Scorers: a CLIP or SigLIP of transformers that compares frames with the text of a question."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import AutoTokenizer, CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from sfllava.models.checkpoint import (
    CheckpointError,
    check_sizes,
    drop_buffers,
    read_json,
    read_weights,
    weight_files,
)
from sfllava.models.family import from_dict, normalize, read_preprocessor, read_statistics
from sfllava.models.load import first_line
from sfllava.models.memory import frames_per_batch, retry_with_smaller_batch
from sfllava.models.network import quiet
from sfllava.models.placement import device_of, local_or_hub_folder
from sfllava.models.tiny import SCORER as TINY_SCORER
from sfllava.sampler.images import FrameSize, resize_frames

_KINDS: dict[str, tuple[Any, Any]] = {"clip": (CLIPConfig, CLIPModel), "siglip": (SiglipConfig, SiglipModel)}
_EXAMPLE, _FILES = "openai/clip-vit-large-patch14", ["merges.txt"]
_CLIP_STATISTICS = ((0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711))
_SIGLIP_STATISTICS = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
_SPANS, _SPAN_BYTES = 64, 4096  # of a weight file that are hashed


class ScorerFolder:
    """What a scorer's folder says without its weights being loaded.

    Args:
        path_or_name: a folder in the transformers layout, a hub name such as openai/clip-vit-large-patch14, or `tiny`
            for the small one in the package, which knows only ShapesQA.

    Attributes:
        path: the folder.
        kind: `clip` or `siglip`.
        image_size: height and width of the images that it takes, in pixels.
        fingerprint: a hash of its text files and of samples of its weights.

    Raises:
        CheckpointError: there is no such folder, or it has no CLIP or SigLIP.
    """

    def __init__(self, path_or_name: str | Path) -> None:
        name = str(path_or_name)
        self.path = TINY_SCORER if name == "tiny" else local_or_hub_folder(path_or_name, "scorer", _EXAMPLE, _FILES)
        self.config = read_json(self.path / "config.json")
        self.kind = str(self.config.get("model_type"))
        if self.kind not in _KINDS:
            raise CheckpointError(f"{self.path}: needed a scorer of type {' or '.join(_KINDS)}, got {self.kind!r}")
        for part in ("text_config", "vision_config"):
            check_sizes(self.config.get(part) or {}, f"{self.path / 'config.json'}: {part}")
        self.parsed = from_dict(_KINDS[self.kind][0], self.config, self.path)
        self.image_size: int = self.parsed.vision_config.image_size
        preprocessor = read_preprocessor(self.path)
        default = _CLIP_STATISTICS if self.kind == "clip" else _SIGLIP_STATISTICS
        self.statistics = read_statistics(preprocessor, self.path, default)
        self.crops = bool(preprocessor.get("do_center_crop", self.kind == "clip"))
        self.fingerprint = _fingerprint(self.path)

    @property
    def frame_size(self) -> FrameSize:
        """The size at which frames are decoded: the shorter side, where the middle is cut out, or both sides."""
        return self.image_size if self.crops else (self.image_size, self.image_size)


class Scorer:
    """A loaded scorer.

    Args:
        folder: its folder.
        device: "auto", or a name that torch knows.

    Raises:
        CheckpointError: the weights or the tokenizer cannot be loaded.
    """

    def __init__(self, folder: ScorerFolder, device: str = "auto") -> None:
        self.folder = folder
        self._device = torch.device(device_of(device))
        try:
            self._network = _load(folder).to(self._device).eval()
            self._tokenizer = AutoTokenizer.from_pretrained(str(folder.path), local_files_only=True)
        except (CheckpointError, MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # a damaged folder can fail anywhere in three libraries
            raise CheckpointError(
                f"{folder.path}: cannot be loaded: {type(error).__name__}: {first_line(error)}"
            ) from error
        patches = (folder.image_size // folder.parsed.vision_config.patch_size) ** 2
        self._batch = frames_per_batch(self._device, patches, 32)

    @torch.inference_mode()
    def image_features(self, frames: np.ndarray) -> np.ndarray:
        """Return the features (T D) float32 of uint8 frames (T H W 3), not normalised."""
        pixels = torch.from_numpy(
            np.ascontiguousarray(_crop(resize_frames(frames, self.folder.frame_size), self.folder))
        )

        def run(batch: int) -> Tensor:
            parts = [
                _features(self._network.get_image_features(normalize(part.to(self._device), self.folder.statistics)))
                for part in pixels.split(batch)
            ]
            return torch.cat(parts)

        found, self._batch = retry_with_smaller_batch(run, self._batch, "frames")
        return found.float().cpu().numpy()

    @torch.inference_mode()
    def text_features(self, text: str) -> np.ndarray:
        """Return the features (D) float32 of a text, not normalised; what is too long for the scorer is cut off."""
        longest = self.folder.parsed.text_config.max_position_embeddings
        # SigLIP was trained on texts padded to the full length, and without an attention mask
        padding = "max_length" if self.folder.kind == "siglip" else False
        ids = self._tokenizer([text], padding=padding, truncation=True, max_length=longest, return_tensors="pt")
        return _features(self._network.get_text_features(ids["input_ids"].to(self._device)))[0].float().cpu().numpy()


def similarity(images: np.ndarray, text: np.ndarray, kind: str) -> np.ndarray:
    """Return the scores (T) float64 of image features (T D) and text features (D): their `cosine` or `dot` product."""
    a, b = images.astype(np.float64), text.astype(np.float64)
    if kind == "cosine":
        a, b = a / np.linalg.norm(a, axis=-1, keepdims=True), b / np.linalg.norm(b)
    return a @ b


def _features(output: Any) -> Tensor:
    """Return the features of a forward pass; transformers before 5 returns them without a wrapper."""
    return output if isinstance(output, Tensor) else output.pooler_output


def _crop(frames: np.ndarray, folder: ScorerFolder) -> np.ndarray:
    """Cut the middle out of frames (T H W 3), as CLIP's own preprocessing does."""
    size = folder.image_size
    top, left = ((side - size) // 2 for side in frames.shape[1:3])
    return frames[:, top : top + size, left : left + size]


def _load(folder: ScorerFolder) -> Any:
    weights = drop_buffers(read_weights(folder.path))
    with quiet():
        network, info = _KINDS[folder.kind][1].from_pretrained(
            None, config=folder.parsed, state_dict=weights, dtype=torch.float32, output_loading_info=True,
            ignore_mismatched_sizes=True,
        )  # fmt: skip
    problems = {
        **dict.fromkeys(info["missing_keys"], "missing"),
        **dict.fromkeys(info["mismatched_keys"], "wrong shape"),
    }
    if problems:
        listed = ", ".join(f"{name} ({what})" for name, what in list(problems.items())[:6])
        raise CheckpointError(f"{folder.path}: the weights do not fit the config: {listed}")
    return network


def _fingerprint(folder: Path) -> str:
    """Hash the text files of a folder and samples of its weight files."""
    digest = hashlib.sha256()
    try:
        for path in sorted(folder.iterdir()):
            if path.suffix in (".json", ".model", ".txt") and not path.name.endswith(".index.json"):
                digest.update(f"{path.name}\0".encode() + path.read_bytes())
        for path in weight_files(folder):
            size = path.stat().st_size
            digest.update(f"{path.name}\0{size}\0".encode())
            with path.open("rb") as file:
                for i in range(_SPANS):
                    file.seek(max(0, size - _SPAN_BYTES) * i // (_SPANS - 1))
                    digest.update(file.read(_SPAN_BYTES))
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be read: {error.strerror}: {error.filename}") from error
    return digest.hexdigest()
