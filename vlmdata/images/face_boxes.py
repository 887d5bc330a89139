"""Boxes of faces as fractions of an image, and the image with these faces blurred.

A face is a list: x0, y0, x1 and y1, as fractions 0..1 of the upright image's width and height, and its probability.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from vlmdata.images.decode import decode
from vlmdata.images.header import read_header
from vlmdata.images.process import Processed, process
from vlmdata.images.resize import FORMATS, ResizeRule, scale_to

Face = list[float]
DIGITS = 4  # of stored fractions and probabilities
DETECTING_BYTES = 64  # per pixel of the picture that a detector gets: the pixels as floats, and the first layer of a network


def as_faces(boxes: Sequence[Sequence[float | None] | None], width: float = 1, height: float = 1) -> list[Face] | None:
    """Return boxes in units of 1/`width` and 1/`height` as faces, clipped at the edges of the image.

    A box has four numbers, or five with its probability, which is else 1. A box outside the image is left out. The result is
    None if a box has another length, a value that is no number, or its right or lower edge before the other one, because nobody
    knows where its face is.
    """
    faces = []
    for box in boxes:
        if box is None:  # a box that `resize` has cut off
            continue
        values = [math.nan if value is None else float(value) for value in box]
        if len(values) not in (4, 5) or not all(map(math.isfinite, values)):
            return None
        x0, y0, x1, y1, *rest = values
        if x1 < x0 or y1 < y0:  # perhaps x, y, width and height
            return None
        edges = x0 / width, y0 / height, x1 / width, y1 / height
        x0, y0, x1, y1 = (round(min(max(edge, 0.0), 1.0), DIGITS) for edge in edges)
        if x1 > x0 and y1 > y0:
            faces.append([x0, y0, x1, y1, round(rest[0], DIGITS) if rest else 1.0])
    return faces


def largest_share(faces: Sequence[Face]) -> float:
    """Return the largest share of the image's area that one face covers, 0 to 1."""
    return max(((x1 - x0) * (y1 - y0) for x0, y0, x1, y1, _ in faces), default=0.0)


def pixels_within(data: bytes, side: int) -> np.ndarray:
    """Return an image as (H, W, 3) uint8 RGB, scaled down so that no side is longer than `side`. Raises ImageError."""
    header = read_header(data)
    width, height = header.upright_size
    share = min(1.0, side / max(width, height))
    target = max(1, round(width * share)), max(1, round(height * share))
    beside = DETECTING_BYTES * target[0] * target[1]
    return scale_to(decode(data, target=target, beside=beside, header=header).pixels, target)


def blur_faces(data: bytes, faces: Sequence[Face], quality: int) -> Processed | None:
    """Return the image with blurred faces, in its format if that is JPEG, PNG or WebP, else as JPEG. Raises ImageError.

    The result is None if the image has no face and can stay. An animation cannot stay: only its first frame was examined, so
    the result is this frame. Each face is blurred with its own strength, because a common one leaves small faces sharp.
    """
    header = read_header(data)
    if not faces and not header.is_animated:
        return None
    kind = header.format if header.format in FORMATS else "jpeg"
    rule = ResizeRule(mode="no", format=kind, quality=quality)  # type: ignore[arg-type]
    return process(data, rule, blur=[(x0, y0, x1, y1) for x0, y0, x1, y1, _ in faces], separately=True)
