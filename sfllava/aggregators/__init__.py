"""Patch grid (T h w D) -> visual tokens (N D): one file per method."""
