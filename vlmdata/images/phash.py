"""Two perceptual hashes of 64 bits.

`phash` is computed in integers, so it is the same on every processor. `phash_imagededup` is the hash of imagededup.
"""

import cv2
import numpy as np
from PIL import Image

SIDE, KEPT = 32, 8
_ROWS = np.arange(KEPT)[:, None]
_COLUMNS = np.arange(SIDE)[None, :]
EDGES = np.arange(SIDE + 1)
BAND_PIXELS = 1 << 21
MAX_INT32_PIXELS = (2**31 - 1) // 255
# Cosines of a 32-point DCT-II as integers of 14 bits: sums stay under 2^16 * 32 * 32 * 2^28 = 2^54.
COSINES = np.rint(np.cos(np.pi * (2 * _COLUMNS + 1) * _ROWS / (2 * SIDE)) * (1 << 14)).astype(np.int64)  # (8, 32)


def phash(pixels: np.ndarray) -> int:
    """Return the hash of (H, W, 3) uint8 pixels as a 64-bit integer. Its highest bit belongs to the first coefficient.

    The luma is averaged over 32 x 32 blocks. The hash uses the 8 x 8 lowest DCT-II coefficients of these means, in int64. A bit
    is set if its coefficient exceeds the median of the 63 coefficients that are not the mean. The hash of a flat image is
    2**63. In a test with 191 photos and figures, resizing to 201 pixels at JPEG quality 50 changed at most 4 bits of each hash.
    """
    coefficients = (COSINES @ block_means(pixels) @ COSINES.T).ravel()
    median = np.partition(coefficients[1:], 31)[31]  # the 32nd of 63 values
    return int.from_bytes(np.packbits(coefficients > median).tobytes(), "big")


def block_means(pixels: np.ndarray) -> np.ndarray:
    """Return the mean luma, times 256, of each of 32 x 32 equal blocks: (32, 32) int64.

    A block may end inside a pixel. If it ends i/32 of the way through the pixel, it takes i/32 of that pixel. The sums of
    pixels come from an integral image of integers, so they are exact, and only the final division rounds down. This method
    takes half the time of an area resize, and its result changes less if the image is resized.
    """
    height, width = pixels.shape[:2]
    y, y_part = np.divmod(EDGES * height, SIDE)
    x, x_part = np.divmod(EDGES * width, SIDE)
    columns, below = np.concatenate([x, np.minimum(x + 1, width)]), np.minimum(y + 1, height)
    sums = np.zeros((SIDE + 1, 2 * len(x)), np.int64)  # sums from the image's corner to each edge, times SIDE
    above = np.zeros(2 * len(x), np.int64)  # sums of the rows above the current band
    step = min(SIDE, max(1, SIDE * BAND_PIXELS // (height * width)))
    for first in range(0, SIDE, step):  # bands save memory: sums of the whole image would take four to eight bytes per pixel
        edges = slice(first, min(first + step, SIDE) + 1)
        band = pixels[y[first] : below[edges][-1]]
        depth = cv2.CV_32S if band.shape[0] * width <= MAX_INT32_PIXELS else cv2.CV_64F  # doubles are exact up to 2^53
        found = cv2.integral(cv2.cvtColor(band, cv2.COLOR_RGB2GRAY), sdepth=depth)
        at, after = (found[rows[edges] - y[first]][:, columns].astype(np.int64) for rows in (y, below))
        sums[edges] = SIDE * above + at * (SIDE - y_part[edges, None]) + after * y_part[edges, None]
        above = above + at[-1]
    corners = sums[:, : len(x)] * (SIDE - x_part) + sums[:, len(x) :] * x_part  # (33, 33), times SIDE squared
    blocks = corners[1:, 1:] - corners[:-1, 1:] - corners[1:, :-1] + corners[:-1, :-1]
    return blocks * 256 // (height * width)


def phash_imagededup(pixels: np.ndarray) -> int:
    """Return the PHash of imagededup 0.3 for (H, W, 3) uint8 pixels, to compare it with hashes that imagededup computed.

    imagededup writes this value as 16 hex digits, `f"{value:016x}"`. Pillow resizes the image to 32 x 32 with Lanczos and
    converts it to grey. The 64 bits belong to the 8 x 8 lowest coefficients of a DCT-II in floating point. The first
    coefficient is the mean. A bit is set if its coefficient is at least the median of the other 63. Floats may differ between
    processors. Source: imagededup, methods/hashing.py.
    """
    from scipy.fft import dct  # imported here, because the import takes a quarter of a second

    small = Image.fromarray(pixels).resize((SIDE, SIDE), Image.Resampling.LANCZOS).convert("L")
    grey = np.asarray(small, dtype=np.float64)
    coefficients = dct(dct(grey, axis=0), axis=1)[:KEPT, :KEPT].ravel()
    return int.from_bytes(np.packbits(coefficients >= np.median(coefficients[1:])).tobytes(), "big")
