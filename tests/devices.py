"""Made-up devices to plan for."""

from __future__ import annotations

from dataclasses import replace

from sfllava.planning.roofline import Roofline

FLAT = tuple((rows, width, 1e14) for rows in (1, 512) for width in (64, 4096))
GPU = Roofline(
    "a GPU", "cuda", "float16", 80 * 2**30, 78 * 2**30, 2e12, ((1, 2**20, 1.5e12),), FLAT, FLAT, FLAT, 1e14, 3e-4, 1e-4
)
CPU = replace(GPU, kind="cpu", dtype="float32")
