"""PDQ, the 256-bit perceptual hash for lists of known illegal images.

Reimplements the folder pdq/ of Facebook's ThreatExchange (hashing.pdf and the reference code). Two passes of box filters in
each direction smooth the luma, which is then sampled at 64 x 64 points. The hash uses the 16 x 16 lowest DCT coefficients of
these samples, without the row and column of the mean. A bit is set if its coefficient exceeds the median. For 32 photos and
their rotated and edited copies, the package pdqhash 0.2.8 gives exactly the same bits.
"""

from __future__ import annotations

import numpy as np

SIDE, KEPT = 64, 16
STRIP_PIXELS = 1 << 18
_ROWS, _COLUMNS = np.arange(1, KEPT + 1)[:, None], np.arange(SIDE)[None, :]
DCT = np.sqrt(2 / SIDE) * np.cos(np.pi / (2 * SIDE) * _ROWS * (2 * _COLUMNS + 1))  # (16, 64)
LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)


def pdq(pixels: np.ndarray) -> tuple[int, int]:
    """Return the hash of (H, W, 3) uint8 pixels as a 256-bit integer, and its quality, 0 to 100.

    Two images count as the same if their hashes differ in at most 31 bits. An image with a quality under 50 has too little
    detail to be compared.
    """
    height, width = pixels.shape[:2]
    luma = np.empty((height, width))
    rows, columns = (max(1, STRIP_PIXELS // side) for side in (width, height))
    for top in range(0, height, rows):
        luma[top : top + rows] = (pixels[top : top + rows].astype(np.float32) @ LUMA).astype(np.float64)
    for _ in range(2):  # two box filters make a tent filter, without which 64 samples would miss most of a large image
        for top in range(0, height, rows):  # lines are averaged separately, so strips can be replaced in place
            luma[top : top + rows] = _box(luma[top : top + rows], -(-width // (2 * SIDE)), 1)
        for left in range(0, width, columns):
            luma[:, left : left + columns] = _box(luma[:, left : left + columns], -(-height // (2 * SIDE)), 0)
    middles = np.arange(SIDE) + 0.5
    small = luma[np.ix_((middles * height / SIDE).astype(int), (middles * width / SIDE).astype(int))]
    coefficients = DCT @ small @ DCT.T
    median = np.partition(coefficients, 127, axis=None)[127]  # the lower of the two middle values of 256, as in the reference
    bits = (coefficients > median).ravel()[::-1]
    return int.from_bytes(np.packbits(bits).tobytes(), "big"), _quality(small)


def pdq_bytes(width: int, height: int) -> int:
    """Return the bytes of memory that `pdq` takes in addition to the pixels."""
    return 8 * width * height + 64 * (STRIP_PIXELS + width + height)


def _box(values: np.ndarray, window: int, axis: int) -> np.ndarray:
    """Return the average over a window around each value along `axis`. The window is cut at the edges."""
    length = values.shape[axis]
    nothing = np.zeros_like(values.take([0], axis))
    sums = np.concatenate([nothing, np.cumsum(values, axis)], axis)
    ends = np.arange(length) + (window + 2) // 2
    last, first = np.minimum(ends, length), np.maximum(ends - window, 0)
    return (sums.take(last, axis) - sums.take(first, axis)) / np.expand_dims(last - first, 1 - axis)


def _quality(small: np.ndarray) -> int:
    """Return the amount of detail, 0 to 100.

    This is the sum of all differences between values that are next to each other in `small`, divided by 90. Each difference is
    first converted to a percentage of 255 and truncated to an integer.
    """
    steps = [np.abs((np.diff(small, axis=axis) * 100 / 255).astype(int)).sum() for axis in (0, 1)]
    return min(100, int(sum(steps) / 90))
