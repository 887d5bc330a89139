"""Measures that identify blank, near-blank and blurred images. They are computed in integers, except for the final step."""

from collections.abc import Iterator

import cv2
import numpy as np

from vlmdata.images.tiles import TILE_PIXELS


def grey_of(pixels: np.ndarray) -> np.ndarray:
    """Return the luma (H, W) uint8 of (H, W, 3) uint8 RGB: BT.601 weights in 14-bit fixed point."""
    return cv2.cvtColor(pixels, cv2.COLOR_RGB2GRAY)


def variance(values: np.ndarray) -> float:
    """Return the population variance of integers, from exact sums and one division."""
    count, total, squares = values.size, 0, 0
    for part in _parts(values):
        wide = part.astype(np.int64, copy=False)
        total, squares = total + int(wide.sum()), squares + int((wide * wide).sum())
    return (count * squares - total * total) / (count * count)


def _parts(values: np.ndarray) -> Iterator[np.ndarray]:
    """Yield an image's values in pieces, because sums take eight bytes or more per value."""
    flat = values.ravel()
    return (flat[at : at + TILE_PIXELS] for at in range(0, flat.size, TILE_PIXELS))


def spread(pixels: np.ndarray) -> float:
    """Return the largest of the standard deviations of the luma and of each channel, in 0..127.5.

    A blank image has 0, and a near-blank image has less than about 5. Channels are included, so that an image of two colours of
    the same brightness does not count as blank.
    """
    return max(variance(plane) for plane in (grey_of(pixels), *cv2.split(pixels))) ** 0.5


def entropy(pixels: np.ndarray) -> float:
    """Return the Shannon entropy of the luma's histogram in bits, 0 (one level) to 8 (all levels equally frequent)."""
    counts = np.sum([np.bincount(part, minlength=256) for part in _parts(grey_of(pixels))], axis=0)
    shares = counts[counts > 0] / counts.sum()
    return float(max(0.0, -(shares * np.log2(shares)).sum()))


def sharpness(pixels: np.ndarray) -> float:
    """Return the variance of the luma's Laplacian (four neighbours), which is low for blurred images.

    100 is the usual threshold for photos in their original size. The value depends on the size, so measure all images at one
    size. Source: Pech-Pacheco et al. 2000, Diatom autofocusing in brightfield microscopy.
    """
    return variance(cv2.Laplacian(grey_of(pixels), cv2.CV_16S, ksize=1))
