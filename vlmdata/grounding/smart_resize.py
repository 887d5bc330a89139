"""The size to which Qwen2-VL and Qwen2.5-VL resize a picture. Boxes in pixels of the model's picture need it."""

from __future__ import annotations

import math

FACTOR = 28  # pixels: two patches of 14
MOST_RATIO = 200  # of the longer to the shorter side


def smart_resize(width: int, height: int, min_pixels: int, max_pixels: int) -> tuple[int, int] | None:
    """Return the size (width, height) that the model sees, or None for a picture that its code refuses.

    Each side is the nearest multiple of 28. If their product lies outside of the limits, the sides are scaled by the same
    factor and rounded to multiples of 28, down or up. Source: `smart_resize` of QwenLM/Qwen2.5-VL (Apache-2.0).
    """
    if min(width, height) < 1 or max(width, height) > MOST_RATIO * min(width, height):
        return None
    wide, high = (max(round(side / FACTOR) * FACTOR, FACTOR) for side in (width, height))
    if wide * high > max_pixels:
        scale = math.sqrt(width * height / max_pixels)
        wide, high = (max(math.floor(side / scale / FACTOR) * FACTOR, FACTOR) for side in (width, height))
    elif wide * high < min_pixels:
        scale = math.sqrt(min_pixels / (width * height))
        wide, high = (math.ceil(side * scale / FACTOR) * FACTOR for side in (width, height))
    return wide, high
