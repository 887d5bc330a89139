"""Converts colours to sRGB with the image's colour profile, such as Display P3, Adobe RGB or CMYK.

A profile that is equal to sRGB needs no conversion.
"""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

Pixels = np.ndarray  # (H, W, 3) uint8, sRGB
MAX_ICC_BYTES = 4 << 20  # printers' CMYK profiles are 0.5 to 3 MB
SAME_WITHIN = 2  # largest change in levels (0..255); the tables of sRGB profiles are rounded differently


def to_srgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bool]:
    """Return `image` (mode L, RGB or CMYK) as RGB in sRGB, and whether its profile changed the colours.

    A profile is ignored, as in browsers, if it is damaged or does not match the colour space of the pixels.
    """
    if icc:
        if image.mode == "L" and icc[16:20] == b"RGB ":
            image = image.convert("RGB")
        transform = _transform(icc, image.mode)
        if transform is not None:
            return transform.apply(image), True
    return (image if image.mode == "RGB" else image.convert("RGB")), False


def profile_changes(icc: bytes | None, mode: str) -> bool:
    """Return whether the profile visibly changes pixels in Pillow's mode `mode` (L, RGB or CMYK)."""
    return icc is not None and _transform(icc, "RGB" if icc[16:20] == b"RGB " else mode) is not None


@lru_cache(maxsize=16)
def _transform(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Return the transform from a profile to sRGB, or None if no transform is needed or possible."""
    if len(icc) > MAX_ICC_BYTES or {b"RGB ": "RGB", b"CMYK": "CMYK", b"GRAY": "L"}.get(icc[16:20]) != mode:
        return None
    try:
        transform = ImageCms.buildTransform(
            ImageCms.ImageCmsProfile(io.BytesIO(icc)), ImageCms.createProfile("sRGB"), mode, "RGB"
        )
    except (ImageCms.PyCMSError, OSError, ValueError, TypeError):
        return None
    return None if mode != "CMYK" and _is_identity(transform, mode) else transform


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    """Return whether a transform changes no test colour by more than `SAME_WITHIN` levels. Its profile then counts as sRGB."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    if mode == "L":
        grid = Image.fromarray(levels[None])
    else:
        grid = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3))
    change = np.asarray(transform.apply(grid), dtype=np.int16) - np.asarray(grid.convert("RGB"), dtype=np.int16)
    return int(np.abs(change).max()) <= SAME_WITHIN
