"""Regions of text in an image: how they are stored, the share of the image that they cover, and how they are masked.

N regions. A region is a quadrilateral of four corners (x, y), clockwise, as shares of the upright image's width and height. So
regions stay valid if the whole image is resized. They do not survive a crop or a border.
"""

from __future__ import annotations

import cv2
import numpy as np

from vlmdata.images.decode import decode
from vlmdata.images.facts import ImageError

STEPS = 65_535  # stored coordinates are whole multiples of 1/STEPS of a side
GRID = 1_024  # pixels of the longer side of the grid on which areas are counted
RING = 0.15  # width of the ring around a region, as a share of the region's shorter side
MIN_RING = 2  # pixels


def packed(regions: np.ndarray) -> bytes:
    """Return (N, 4, 2) regions as bytes: 16 per region, little-endian uint16. Corners outside of the image are moved in."""
    return np.round(np.clip(regions, 0, 1) * STEPS).astype("<u2").tobytes()


def unpacked(stored: bytes) -> np.ndarray:
    """Return the regions of `packed` as float64 (N, 4, 2), in 0..1."""
    return np.frombuffer(stored, "<u2").reshape(-1, 4, 2) / STEPS


def covered_share(regions: np.ndarray, width: int, height: int) -> float:
    """Return the share of an image of `width` x `height` pixels that the union of (N, 4, 2) regions covers, 0 to 1.

    It is counted on a grid of 1,024 cells along the longer side, whatever the image's size is.
    """
    if not len(regions):
        return 0.0
    scale = GRID / max(width, height)
    grid = max(1, round(width * scale)), max(1, round(height * scale))
    return float(mask_of(regions, *grid).mean())


def mask_of(regions: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return (H, W) uint8: 1 for each pixel in one of the (N, 4, 2) regions, else 0."""
    mask = np.zeros((height, width), np.uint8)
    for corners in _corners(regions, width, height):
        cv2.fillConvexPoly(mask, cv2.convexHull(corners), 1)
    return mask


def _corners(regions: np.ndarray, width: int, height: int) -> np.ndarray:
    """Return the regions as int32 indexes of pixels, (N, 4, 2). A pixel's index is the coordinate of its left or upper edge."""
    inner = np.clip(regions, 0, 1) * (width, height) - 0.5  # the centre of pixel 0 has the coordinate 0.5
    return np.clip(np.round(inner), 0, (width - 1, height - 1)).astype(np.int32)


def fill_regions(pixels: np.ndarray, regions: np.ndarray) -> np.ndarray:
    """Return (H, W, 3) uint8 pixels with each region filled with the median colour of the pixels around it.

    The pixels around a region are a ring of 15% of its shorter side, at least two pixels, without the pixels of other regions.
    The median ignores the edges of letters that reach into the ring. A region whose ring is empty gets the median of all pixels
    outside of regions, and that of its own pixels if there are none. T-MARS (Maini et al. 2023) fills with the surrounding
    colour too; ring and median are vlmdata's choice.
    """
    height, width = pixels.shape[:2]
    text = mask_of(regions, width, height)
    out = pixels.copy()
    everywhere = _median(pixels, text == 0)
    for corners in _corners(regions, width, height):
        sides = np.linalg.norm(corners - np.roll(corners, 1, axis=0), axis=1)
        reach = max(MIN_RING, round(RING * float(min(sides[0] + sides[2], sides[1] + sides[3]) / 2)))
        (left, top), (right, bottom) = corners.min(0), corners.max(0)
        window = slice(max(0, top - reach), bottom + reach + 1), slice(max(0, left - reach), right + reach + 1)
        own = np.zeros(text[window].shape, np.uint8)
        cv2.fillConvexPoly(own, cv2.convexHull(corners - (window[1].start, window[0].start)).astype(np.int32), 1)
        ring = cv2.dilate(own, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8))
        colour = _median(pixels[window], (ring == 1) & (text[window] == 0))
        if colour is None:
            colour = everywhere if everywhere is not None else _median(pixels[window], own == 1)
        out[window][own == 1] = colour
    return out


def _median(pixels: np.ndarray, chosen: np.ndarray) -> np.ndarray | None:
    """Return the median of each channel of the chosen pixels, (3,) uint8, or None if no pixel is chosen."""
    if not chosen.any():
        return None
    return np.round(np.median(pixels[chosen], axis=0)).astype(np.uint8)


def masked_image(data: bytes, regions: np.ndarray) -> bytes:
    """Return an encoded image as a PNG, upright and over white, with its regions of text filled.

    An image without regions, and one that cannot be decoded within the default limits, is returned as it is.
    """
    if not len(regions):
        return data
    try:
        pixels = decode(data).pixels
    except ImageError:
        return data
    filled = cv2.cvtColor(fill_regions(pixels, regions), cv2.COLOR_RGB2BGR)
    done, png = cv2.imencode(".png", filled, [cv2.IMWRITE_PNG_COMPRESSION, 1])  # lossless, and read again at once
    assert done, f"cv2 did not write a {filled.shape} PNG"
    return png.tobytes()
