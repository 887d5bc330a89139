"""Blurs the faces inside boxes with a Gaussian blur. The boxes get soft edges. All arithmetic on pixels is in integers.

The method is that of the face-blurred ImageNet, which was also used for DataComp's images. Each box grows by a tenth of its
longer side. The image is blurred, and so is a mask that is white inside the boxes. Then the blurred image is blended with the
original by the blurred mask. Both blurs have the same sigma, a tenth of the longest side of all boxes. Source: Yang et al.
2021, A Study of Face Obfuscation in ImageNet, section 3.

img2dataset 1.47 gives albumentations a kernel size but no sigma. For this kernel size, albumentations uses a sigma of only 0.03
times the longest side. vlmdata does not copy this weaker blur.
"""

from collections.abc import Sequence

import cv2
import numpy as np

from vlmdata.images.resize import Box
from vlmdata.images.tiles import tiles

GROWTH, SIGMA = 0.1, 0.1  # as a share of a box's longer side


def blur_boxes(pixels: np.ndarray, boxes: Sequence[Box], *, separately: bool = False) -> np.ndarray:
    """Return (H, W, 3) uint8 pixels with the boxes blurred.

    The coordinates of `boxes` are in pixels of this image. All boxes are blurred with the same strength. The strength grows
    with the longest side of any box, up to the longer side of the image. The mask is blurred as strongly, so a box that is much
    smaller than the longest stays almost sharp. With `separately`, each box is blurred with the strength of its own side.
    """
    if not boxes:
        return pixels
    out = pixels.copy()
    for some in [[box] for box in boxes] if separately else [boxes]:
        _blur_together(out, some)
    return out


def _blur_together(pixels: np.ndarray, boxes: Sequence[Box]) -> None:
    """Blur the boxes in place, all with the same strength."""
    height, width = pixels.shape[:2]
    longest = max(height, width)
    boxes = [(_clamp(x0, longest), _clamp(y0, longest), _clamp(x1, longest), _clamp(y1, longest)) for x0, y0, x1, y1 in boxes]
    sides = [min(max(int(x1) - int(x0), int(y1) - int(y0)), longest) for x0, y0, x1, y1 in boxes]
    mask = np.zeros((height, width), np.uint8)
    for (x0, y0, x1, y1), side in zip(boxes, sides, strict=True):
        margin = GROWTH * side
        mask[max(0, int(y0 - margin)) : int(np.ceil(y1 + margin)), max(0, int(x0 - margin)) : int(np.ceil(x1 + margin))] = 255
    sigma = max(SIGMA * max(sides), 0.8)  # 0.8 is the sigma for a face of eight pixels; a smaller sigma has no effect
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    if not len(rows):
        return
    reach = int(np.ceil(6 * sigma)) + 2  # the blur and the blurred mask each reach three sigma
    area = (
        slice(max(0, rows[0] - reach), rows[-1] + 1 + reach),
        slice(max(0, columns[0] - reach), columns[-1] + 1 + reach),
    )
    _blend(pixels[area], mask[area], sigma)


def _clamp(coordinate: float, longest: int) -> float:
    """Return a coordinate, which may be infinite, limited to the range from -`longest` to 2 * `longest`."""
    return min(max(coordinate, -longest), 2 * longest)


def _blend(pixels: np.ndarray, mask: np.ndarray, sigma: float) -> None:
    """Blend pixels with their blurred version in place, weighted by the blurred mask (0..255)."""
    # cv2's Gaussian blur is fixed-point on uint8, so its result is the same on every processor. On floats, the result differs.
    blurred = cv2.GaussianBlur(pixels, (0, 0), sigma)
    weights = cv2.GaussianBlur(mask, (0, 0), sigma)
    for at in tiles(*mask.shape):
        weight = weights[at][:, :, None].astype(np.uint16)
        pixels[at] = (pixels[at] * (255 - weight) + blurred[at] * weight + 127) // 255
