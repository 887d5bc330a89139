"""Colour profiles to sRGB: Display P3, Adobe RGB, a printer's CMYK. Profiles that are sRGB already cost nothing."""

import io
from functools import lru_cache

import numpy as np
from PIL import Image, ImageCms

Pixels = np.ndarray  # (H, W, 3) uint8, sRGB
MAX_ICC_BYTES = 4 << 20  # printers' CMYK profiles are 0.5 to 3 MB
SAME_WITHIN = 2  # of 255; the many profiles named sRGB differ from each other by rounding of their tables


def to_srgb(image: Image.Image, icc: bytes | None) -> tuple[Image.Image, bool]:
    """Return `image` (mode L, RGB or CMYK) as RGB in sRGB, and whether its profile changed the colours.

    A profile that is damaged, or for another kind of colours than the pixels have, is left out, as browsers do.
    """
    if icc:
        if image.mode == "L" and icc[16:20] == b"RGB ":
            image = image.convert("RGB")
        transform = _transform(icc, image.mode)
        if transform is not None:
            return transform.apply(image), True
    return (image if image.mode == "RGB" else image.convert("RGB")), False


def profile_changes(icc: bytes | None, mode: str) -> bool:
    """Whether applying the profile to pixels of Pillow's `mode` (L, RGB, CMYK) would change the colours visibly."""
    return icc is not None and _transform(icc, "RGB" if icc[16:20] == b"RGB " else mode) is not None


@lru_cache(maxsize=16)
def _transform(icc: bytes, mode: str) -> ImageCms.ImageCmsTransform | None:
    """Build the way from a profile to sRGB; None when it is not needed or not possible. A few profiles serve most images."""
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
    """Try a grid of colours: a profile that moves none of them by more than rounding is sRGB, whatever it calls itself."""
    levels = np.arange(0, 256, 15, dtype=np.uint8)
    if mode == "L":
        grid = Image.fromarray(levels[None])
    else:
        grid = Image.fromarray(np.stack(np.meshgrid(levels, levels, levels), axis=-1).reshape(1, -1, 3))
    moved = np.asarray(transform.apply(grid), dtype=np.int16) - np.asarray(grid.convert("RGB"), dtype=np.int16)
    return int(np.abs(moved).max()) <= SAME_WITHIN
