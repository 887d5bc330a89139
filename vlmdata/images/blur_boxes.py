"""Faces made unrecognisable: a Gaussian blur inside boxes, softly joined to the rest, in integers only.

The method is that of the face-blurred ImageNet, which DataComp's images were made with: each box grows by a tenth of its
longer side, one blur serves the picture, its sigma a tenth of the longest side, and the mask is blurred by the same.
Source: Yang et al. 2021, A Study of Face Obfuscation in ImageNet, section 3. img2dataset 1.47 hands albumentations a kernel
of that size without the sigma, so that it now blurs with 0.03 times the side: weaker than what it says, and not copied.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from vlmdata.images.resize import Box
from vlmdata.images.tiles import tiles

GROWTH, SIGMA = 0.1, 0.1  # of the longer side


def blur_boxes(pixels: np.ndarray, boxes: Sequence[Box]) -> np.ndarray:
    """Return (H, W, 3) uint8 pixels with `boxes` (in these pixels) blurred. Without a box the same array comes back.

    No side counts for more than the picture's longest, however far a box reaches beyond it.
    """
    if not boxes:
        return pixels
    height, width = pixels.shape[:2]
    longest = max(height, width)
    boxes = [(_near(x0, longest), _near(y0, longest), _near(x1, longest), _near(y1, longest)) for x0, y0, x1, y1 in boxes]
    sides = [min(max(int(x1) - int(x0), int(y1) - int(y0)), longest) for x0, y0, x1, y1 in boxes]
    mask = np.zeros((height, width), np.uint8)
    for (x0, y0, x1, y1), side in zip(boxes, sides, strict=True):
        more = GROWTH * side
        mask[max(0, int(y0 - more)) : int(np.ceil(y1 + more)), max(0, int(x0 - more)) : int(np.ceil(x1 + more))] = 255
    sigma = max(SIGMA * max(sides), 0.8)  # a face of eight pixels: a blur of less would be none
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return pixels
    reach = int(np.ceil(6 * sigma)) + 2  # the blur and the blurred mask each reach three sigma
    part = (
        slice(max(0, rows[0] - reach), rows[-1] + 1 + reach),
        slice(max(0, columns[0] - reach), columns[-1] + 1 + reach),
    )
    out = pixels.copy()
    _blend(out[part], mask[part], sigma)
    return out


def _near(place: float, longest: int) -> float:
    """Return a coordinate, or one beyond the picture that is not endlessly far."""
    return min(max(place, -longest), 2 * longest)


def _blend(pixels: np.ndarray, mask: np.ndarray, sigma: float) -> None:
    """Blur pixels where they lie, as far as the blurred mask (0..255) says."""
    # On uint8 cv2's Gaussian is fixed-point and the same on every processor; on floats it is not.
    blurred = cv2.GaussianBlur(pixels, (0, 0), sigma)
    shares = cv2.GaussianBlur(mask, (0, 0), sigma)
    for at in tiles(*mask.shape):
        share = shares[at][:, :, None].astype(np.uint16)
        pixels[at] = (pixels[at] * (255 - share) + blurred[at] * share + 127) // 255
