"""Reads the header of a WebP, GIF or BMP with Pillow, which decodes no pixels. The time grows with the size of the file."""

import io
import re
from collections.abc import Callable
from contextlib import AbstractContextManager

from PIL import Image, UnidentifiedImageError

from vlmdata.images.budget import MAX_MEMORY_MB, check_memory
from vlmdata.images.exif import orientation_of
from vlmdata.images.facts import ImageError, ImageHeader
from vlmdata.untrusted import errors_as

MODES = {"1": "grey", "L": "grey", "P": "palette", "RGB": "rgb", "RGBA": "rgb_alpha"}
MIN_BYTES = 64  # bytes; the headers of these formats are not longer
OPEN_COPIES = 3  # copies of a WebP's bytes: the input and two copies in Pillow
MIN_PIXEL_BYTES = 4  # bytes per pixel in any format: one in the decoder, and three in the result


def read_lazily(data: bytes) -> ImageHeader:
    """Return the header of a WebP, GIF or BMP, read by Pillow. Raises ImageError for an invalid image."""
    if data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise ImageError("truncated", "the RIFF container is longer than the data")
    check_memory(OPEN_COPIES * len(data), MAX_MEMORY_MB, f"opening {len(data)} bytes")

    def reason(error: Exception) -> str:
        is_cut = isinstance(error, EOFError) or (isinstance(error, UnidentifiedImageError) and len(data) < MIN_BYTES)
        return "truncated" if is_cut and data[:4] != b"RIFF" else "corrupt"  # a RIFF container is complete, as checked above

    with pillow_errors(reason), Image.open(io.BytesIO(data), formats=["WEBP", "GIF", "BMP"]) as image:
        assert image.format is not None
        return ImageHeader(
            image.format.lower(),
            *image.size,
            orientation=orientation_of(image.info.get("exif", b"")),
            is_animated=getattr(image, "is_animated", False) or _is_for_animation(data),
            mode=MODES[image.mode],
            icc=image.info.get("icc_profile"),
        )


def _is_for_animation(data: bytes) -> bool:
    """Return whether a WebP is decoded as an animation, even if it has only one frame."""
    return data[12:16] == b"VP8X" and bool(data[20] & 0x02)


def pillow_errors(reason: Callable[[Exception], str], by: str | None = None) -> AbstractContextManager[None]:
    """Convert errors of Pillow's plugins in the block to ImageError. `reason` returns the reason for an error.

    ImageError is not converted. MemoryError is not converted either, because the machine causes it and not the image. If `by`
    is given, it replaces the type of the error in the message.
    """

    def image_error(error: Exception) -> ImageError:
        if isinstance(error, Image.DecompressionBombError):
            return _over_pillows_limit(error)
        return ImageError(reason(error), f"{by or type(error).__name__}: {error}")

    return errors_as(image_error, passes=(ImageError, MemoryError))


def _over_pillows_limit(error: Image.DecompressionBombError) -> ImageError:
    """Return the error for an image over Pillow's own limit of 179 million pixels, which no setting changes."""
    found = re.search(r"\d+", str(error))
    assert Image.MAX_IMAGE_PIXELS is not None and found is not None
    pixels, most = int(found[0]), 2 * Image.MAX_IMAGE_PIXELS
    value, threshold = (round(MIN_PIXEL_BYTES * count / 1e6, 1) for count in (pixels, most))
    return ImageError("too_large", str(error), value=value, threshold=threshold)
