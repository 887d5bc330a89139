"""The header of a WebP, GIF or BMP by Pillow, which reads it without decoding a pixel, in time that grows with the file."""

import io
import re
from collections.abc import Callable
from contextlib import AbstractContextManager

from PIL import Image, UnidentifiedImageError

from vlmdata.images.budget import MAX_MEMORY_MB, hold_memory
from vlmdata.images.exif import orientation_of
from vlmdata.images.facts import ImageError, ImageHeader
from vlmdata.untrusted import errors_as

MODES = {"1": "grey", "L": "grey", "P": "palette", "RGB": "rgb", "RGBA": "rgb_alpha"}
SHORTEST = 64  # bytes; no header is longer
OPEN_COPIES = 3  # of a WebP's bytes: as given, and two that Pillow makes
LEAST_BYTES = 4  # of memory that a pixel takes in every format: one as the decoder has it, three handed out


def read_lazily(data: bytes) -> ImageHeader:
    """Return what Pillow tells of a WebP, GIF or BMP. Raises ImageError."""
    if data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise ImageError("truncated", "the RIFF container is longer than the data")
    hold_memory(OPEN_COPIES * len(data), MAX_MEMORY_MB, f"opening {len(data)} bytes")

    def reason(error: Exception) -> str:
        is_cut = isinstance(error, EOFError) or (isinstance(error, UnidentifiedImageError) and len(data) < SHORTEST)
        return "truncated" if is_cut and data[:4] != b"RIFF" else "corrupt"  # a RIFF container states its length

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
    """Whether a WebP is decoded as an animation is, be it of one frame."""
    return data[12:16] == b"VP8X" and bool(data[20] & 0x02)


def pillow_errors(reason: Callable[[Exception], str], by: str | None = None) -> AbstractContextManager[None]:
    """Have whatever Pillow's plugins raise over damaged bytes become ImageError, for the reason that `reason` finds.

    ImageError passes, and MemoryError: that is the machine's trouble and no verdict on the image. `by` stands in the message in
    place of the error's type.
    """

    def becomes(error: Exception) -> ImageError:
        if isinstance(error, Image.DecompressionBombError):
            return _over_pillows_limit(error)
        return ImageError(reason(error), f"{by or type(error).__name__}: {error}")

    return errors_as(becomes, passes=(ImageError, MemoryError))


def _over_pillows_limit(error: Image.DecompressionBombError) -> ImageError:
    """Return the error of an image over Pillow's own limit, 179 million pixels, which holds whatever limits are set here."""
    told = re.search(r"\d+", str(error))
    assert Image.MAX_IMAGE_PIXELS is not None and told is not None
    pixels, most = int(told[0]), 2 * Image.MAX_IMAGE_PIXELS
    value, threshold = (round(LEAST_BYTES * count / 1e6, 1) for count in (pixels, most))
    return ImageError("too_large", str(error), value=value, threshold=threshold)
