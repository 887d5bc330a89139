"""Chooses colours of marks that can be seen on a picture, and whose names in a question are right.

Distances are those of CIE 1976 (Delta E) in CIE Lab, which cv2 computes in integers for pixels of 8 bits.
"""

from __future__ import annotations

import cv2
import numpy as np

from vlmdata.images.mark_shapes import Stroke, blended

Rgb = tuple[int, int, int]
COLOURS: dict[str, Rgb] = {
    "red": (240, 0, 0),
    "orange": (255, 140, 0),
    "yellow": (255, 255, 0),
    "green": (0, 200, 0),
    "cyan": (0, 255, 255),
    "blue": (0, 0, 255),
    "purple": (170, 0, 200),
    "pink": (255, 50, 150),
}
CONTRAST = 35.0  # Delta E between a mark and the pixels under it, vlmdata's choice; about 2 can just be seen
SEEN = 0.8  # the least share of a mark's pixels, without its soft border, that must have this contrast
NAMED = 0.95  # the least share of them whose nearest colour of COLOURS must be the mark's own
NEAR = 40.0  # a pixel of the picture has about the colour of a mark below this Delta E
SAME_HUE, STRONG, BRIGHT = 9, 128, 128  # so does one whose hue is within 18 degrees, if it is neither pale nor dark
RARE = 0.002  # the largest share of such pixels in a picture
SIDE = 128  # a picture is searched for colours in a grid of at most this many pixels a side
SAMPLED = 20_000  # about the largest number of pixels under a mark that are examined


def lab(colours: np.ndarray) -> np.ndarray:
    """Return (N, 3) uint8 sRGB colours as L, a and b in units of Delta E: (N, 3) float64."""
    found = cv2.cvtColor(np.ascontiguousarray(colours).reshape(-1, 1, 3), cv2.COLOR_RGB2LAB).reshape(-1, 3)
    return found.astype(np.float64) * (100 / 255, 1.0, 1.0) - (0.0, 128.0, 128.0)


_NAMES = tuple(COLOURS)
_LAB = lab(np.array(list(COLOURS.values()), np.uint8))
_HUES = cv2.cvtColor(np.array([list(COLOURS.values())], np.uint8), cv2.COLOR_RGB2HSV)[0, :, 0].astype(np.int32)


def distances(colours: np.ndarray) -> np.ndarray:
    """Return the squared Delta E of (N, 3) uint8 colours to each of COLOURS: (N, 8)."""
    return np.asarray(((lab(colours)[:, None] - _LAB[None]) ** 2).sum(axis=2))


def rare_colours(pixels: np.ndarray) -> list[str]:
    """Return the names of colours that hardly occur in (H, W, 3) pixels, so that a mark is the only thing of its colour."""
    step = max(1, -(-max(pixels.shape[:2]) // SIDE))
    grid = np.ascontiguousarray(pixels[::step, ::step]).reshape(-1, 3)
    shares = ((distances(grid) < NEAR**2) | _same_hue(grid)).mean(axis=0)
    return [name for name, share in zip(_NAMES, shares.tolist(), strict=True) if share <= RARE]


def _same_hue(colours: np.ndarray) -> np.ndarray:
    """Return where (N, 3) uint8 colours are strong and bright and have the hue of one of COLOURS: (N, 8) bool.

    People call them by the same name, although their distance may be large: a blue cloth is far from the blue of a mark.
    """
    hue, saturation, value = _hsv(colours).T
    apart = np.abs(hue[:, None] - _HUES[None])
    near = np.minimum(apart, 180 - apart) <= SAME_HUE
    return near & ((saturation >= STRONG) & (value >= BRIGHT))[:, None]


def _hsv(colours: np.ndarray) -> np.ndarray:
    """Return hue (0 to 179, in units of two degrees), saturation and value (0 to 255) of (N, 3) uint8 colours as integers."""
    return cv2.cvtColor(colours.reshape(-1, 1, 3), cv2.COLOR_RGB2HSV).reshape(-1, 3).astype(np.int32)


def is_clear(pixels: np.ndarray, stroke: Stroke, name: str, alpha: int) -> bool:
    """Return whether a mark of this colour would stand out from the pixels under it, and still have the colour's name."""
    rows, columns = stroke.solid()
    if not len(rows):
        return False
    step = 1 + len(rows) // SAMPLED
    under = pixels[rows[::step], columns[::step]]
    drawn = blended(under, np.full(len(under), 255), COLOURS[name], alpha)
    contrast = ((lab(drawn) - lab(under)) ** 2).sum(axis=1)
    nearest = distances(drawn).argmin(axis=1) == _NAMES.index(name)
    return bool((contrast >= CONTRAST**2).mean() >= SEEN and nearest.mean() >= NAMED)


def border_of(name: str) -> Rgb:
    """Return black or white, whichever contrasts more with a colour. A mark with such a border is seen on any picture."""
    light = lab(np.array([COLOURS[name]], np.uint8))[0, 0]
    return (0, 0, 0) if light >= 50 else (255, 255, 255)
