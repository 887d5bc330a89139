"""One picture in each format that a dataset can hold: animated, of 16 bits, of four colours, rotated, and in rare files."""

from __future__ import annotations

import functools
import io
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
from PIL import Image

ROTATED = 6  # the orientation of a camera held upright: a viewer turns the pixels by 90 degrees
WIDTH, HEIGHT = 120, 80


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    """Return an image as a file."""
    out = io.BytesIO()
    image.save(out, kind, **options)
    return out.getvalue()


def drawn(shade: int) -> Image.Image:
    """Return an image with a gradient in each direction. Images of different shades differ."""
    down, right = np.mgrid[0:HEIGHT, 0:WIDTH]
    return Image.fromarray(np.stack([right * 2, down * 3, np.full_like(down, shade)], axis=2).astype(np.uint8))


def moving(kind: str) -> bytes:
    """Return an animation of three frames."""
    frames = [drawn(shade) for shade in (0, 120, 240)]
    return saved(frames[0], kind, save_all=True, append_images=frames[1:], duration=100)


def rotated() -> bytes:
    """Return a JPEG that is stored on its side."""
    exif = Image.Exif()
    exif[0x0112] = ROTATED
    return saved(drawn(7), "JPEG", exif=exif)


def deep(channels: int) -> bytes:
    """Return a PNG with 16 bits for each channel."""
    values = np.asarray(drawn(9), np.uint16)[:, :, :channels] * 257
    return cv2.imencode(".png", np.ascontiguousarray(values.squeeze()))[1].tobytes()


RARE: dict[str, Callable[[], bytes]] = {
    "JPEG": lambda: saved(drawn(1), "JPEG"),
    "CMYK JPEG": lambda: saved(drawn(2).convert("CMYK"), "JPEG"),
    "progressive JPEG": lambda: saved(drawn(3), "JPEG", progressive=True),
    "rotated JPEG": rotated,
    "PNG": lambda: saved(drawn(4), "PNG"),
    "PNG of 16 bits": lambda: deep(3),
    "grey PNG of 16 bits": lambda: deep(1),
    "PNG of 1 bit": lambda: saved(drawn(5).convert("1"), "PNG"),
    "grey PNG with alpha": lambda: saved(drawn(6).convert("LA"), "PNG"),
    "animated PNG": lambda: moving("PNG"),
    "WebP": lambda: saved(drawn(8), "WEBP"),
    "animated WebP": lambda: moving("WEBP"),
    "GIF": lambda: saved(drawn(10), "GIF"),
    "animated GIF": lambda: moving("GIF"),
    "AVIF": lambda: saved(drawn(11), "AVIF"),
    "animated AVIF": lambda: moving("AVIF"),
    "TIFF": lambda: saved(drawn(12), "TIFF", compression="tiff_lzw"),
    "CMYK TIFF": lambda: saved(drawn(13).convert("CMYK"), "TIFF"),
    "BMP": lambda: saved(drawn(14), "BMP"),
}


@functools.cache  # an animated AVIF states when it was made
def rare_pictures() -> tuple[tuple[bytes, str], ...]:
    """Return (file, name) of each rare picture."""
    return tuple((made(), name) for name, made in RARE.items())
