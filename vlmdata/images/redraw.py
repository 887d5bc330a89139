"""Changes the pixels of an image and encodes it again, within the limits of memory and size."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from vlmdata.images.budget import MAX_MEMORY_MB, check_memory, writing_bytes
from vlmdata.images.decode import decode
from vlmdata.images.encode import LARGEST_SIDE, encode
from vlmdata.images.facts import ImageError
from vlmdata.images.header import read_header
from vlmdata.images.phash import phash
from vlmdata.images.resize import FORMATS


@dataclass(frozen=True)
class Redrawn:
    """A changed image: its bytes, format, size in pixels and perceptual hash."""

    data: bytes
    format: str
    width: int
    height: int
    phash: int


def redraw(data: bytes, quality: int, change: Callable[[np.ndarray], bool]) -> Redrawn | None:
    """Return an image after `change` has changed its pixels, or None if `change` returns false. Raises ImageError.

    `change` gets the upright pixels, (H, W, 3) uint8 sRGB, and changes them in place. The format stays if it is JPEG, PNG or
    WebP, and else becomes JPEG. Of an animation the first frame is changed. `quality` is that of JPEG and WebP.
    """
    header = read_header(data)
    kind = header.format if header.format in FORMATS else "jpeg"
    width, height = header.upright_size
    longest = LARGEST_SIDE[kind]
    if max(width, height) > longest:
        text = f"the image has a side of more than {longest} pixels, the most of {kind}"
        raise ImageError("too_many_pixels", text, value=max(width, height), threshold=longest)
    check_memory(writing_bytes(width * height, kind, quality), MAX_MEMORY_MB, f"writing {width * height} pixels")
    pixels = decode(data, header=header).pixels
    if not pixels.flags.writeable:
        pixels = pixels.copy()
    if not change(pixels):
        return None
    return Redrawn(encode(pixels, kind, quality), kind, width, height, phash(pixels))
