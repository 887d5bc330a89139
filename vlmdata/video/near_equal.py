"""Says whether two frames of a video are nearly equal, by PDQ."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from vlmdata.images.pdq import pdq
from vlmdata.images.resize import fitted, scale_to

QUALITY = 50  # PDQ's authors: a hash of lower quality says nothing
SIDE = 256  # longer side of the copy that is hashed; PDQ samples 64 x 64 points
FLAT_SIDE, FLAT_DIFFERENCE = 16, 2.0  # for frames without detail: side of a thumbnail, and mean difference of 0..255


@dataclass(frozen=True)
class Look:
    """What is compared of a frame: its PDQ, the quality of the hash, and a thumbnail (16, 16, 3)."""

    hash: int
    quality: int
    thumbnail: np.ndarray


def look_of(pixels: np.ndarray) -> Look:
    """Return what is compared of a frame, (H, W, 3) uint8."""
    small = scale_to(pixels, fitted(pixels.shape[1], pixels.shape[0], SIDE))
    return Look(*pdq(small), scale_to(small, (FLAT_SIDE, FLAT_SIDE)).astype(np.int16))


def are_near(one: Look, other: Look, min_distance: int) -> bool:
    """Return whether the hashes of two frames differ in fewer than `min_distance` bits.

    Frames with too little detail for PDQ, such as black ones, are near if their thumbnails differ by at most 2 of 255 on
    average.
    """
    if min_distance and min(one.quality, other.quality) < QUALITY:
        return bool(np.abs(one.thumbnail - other.thumbnail).mean() <= FLAT_DIFFERENCE)
    return (one.hash ^ other.hash).bit_count() < min_distance
