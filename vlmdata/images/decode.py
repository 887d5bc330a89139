"""Decodes JPEG with simplejpeg and shrink-on-load, still WebP with cv2, and other formats and unusual JPEGs with Pillow.

The result is the first frame, always as upright (H, W, 3) uint8 sRGB pixels. Alpha is blended with white, and 16 bits are
scaled to 8. Damaged data raise an error. cv2.imdecode is not used for JPEG, because it fills the rest of a truncated JPEG with
grey. For a still WebP, cv2 gives the same pixels as Pillow in half the memory.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from vlmdata.images.budget import (
    MAX_COST,
    MAX_MEMORY_MB,
    MAX_PIXELS,
    check_cost,
    check_memory,
    check_pixels,
    decoding_bytes,
    decoding_cost,
)
from vlmdata.images.colour import profile_changes, to_srgb
from vlmdata.images.decode_pillow import decode_pillow, over_white
from vlmdata.images.facts import ImageError, ImageHeader
from vlmdata.images.header import read_header
from vlmdata.images.tiles import tiles

# A JPEG shrinks by 8, 4 or 2 while decoding if the decoded sides are at least this multiple of the target's sides. With a
# multiple of 1.0, the PSNR of the worst photos falls to 23 dB. For 8 and 4, a multiple of 1.5 takes 2 to 5% more time and
# raises the worst 8-megapixel image from 24.7 to 32.3 dB, which is about the difference between two resize filters. For 2, a
# multiple of 1.5 would take 14% more time and improve nothing (bench/images.py). libjpeg-turbo has no fast path for other
# multiples of 1/8.
SHRINK_GAPS = {8: 1.5, 4: 1.5, 2: 1.25}
MAX_PADDING = 4  # bytes that an encoder may leave before the end marker; more bytes mean lost pixels


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """A decoded image. `pixels` are upright (H, W, 3) uint8 sRGB and C-contiguous.

    The pixels may be 2, 4 or 8 times smaller than the original. `original_width` and `original_height` are the size of the
    upright original. `decoder` is cv2, pillow, simplejpeg, or simplejpeg_lenient for a JPEG with harmless damage between
    segments. `is_plain` is true if the pixels of the file needed no conversion: the file has one frame of 8 bits, and no colour
    profile, alpha, CMYK, orientation or damage.
    """

    pixels: np.ndarray
    original_width: int
    original_height: int
    format: str
    decoder: str
    header: ImageHeader
    is_plain: bool


def decode(
    data: bytes,
    *,
    max_pixels: int = MAX_PIXELS,
    max_memory_mb: float = MAX_MEMORY_MB,
    max_cost: float = MAX_COST,
    target: tuple[int, int] | None = None,
    beside: int = 0,
    header: ImageHeader | None = None,
) -> DecodedImage:
    """Return the decoded image. The header is checked against the limits before memory is allocated: see budget.py.

    `target` is the upright (width, height) to which the caller resizes the image. A JPEG is decoded at 1/2, 1/4 or 1/8 of its
    size if this leaves enough pixels for the target (see `SHRINK_GAPS`). `beside` is the number of bytes that the caller
    allocates while it holds the pixels. `header` is the image's header if the caller has already read it. Pillow decodes at
    most 179 million pixels of formats other than JPEG, even if the limits are higher. Raises no exception other than
    ImageError.
    """
    header = header or read_header(data)
    factor = shrink_factor(header, target)
    subject = f"a {header.format} of {header.width} x {header.height} pixels"
    check_pixels(max(header.width * header.height, header.coded_pixels), max_pixels, subject)
    check_memory(decoding_bytes(header, len(data), factor) + beside, max_memory_mb, subject)
    check_cost(decoding_cost(header), max_cost, subject)
    pixels, decoder, is_plain = _pixels(data, header, factor)
    if pixels is None:
        check_memory(decoding_bytes(header, len(data), factor, by_pillow=True) + beside, max_memory_mb, subject)
        pixels, is_plain = decode_pillow(data, header, factor)
    elif profile_changes(header.icc, "L" if header.mode == "grey" else "RGB"):
        _apply_profile(pixels, header)
        is_plain = False
    width, height = header.upright_size
    if header.format != "tiff":  # Pillow has already rotated the pixels of a TIFF
        pixels = upright(pixels, header.orientation)
    is_plain = is_plain and header.orientation == 1 and not header.is_animated
    return DecodedImage(pixels, width, height, header.format, decoder, header, is_plain)


def _pixels(data: bytes, header: ImageHeader, factor: int) -> tuple[np.ndarray | None, str, bool]:
    """Return (pixels as stored, name of the decoder, whether the pixels needed no conversion or repair).

    The pixels are None if Pillow must decode the image.
    """
    if header.format == "jpeg" and header.mode != "cmyk":
        decoded = _decode_simplejpeg(data, header, factor)
        if decoded is not None:
            return *decoded, decoded[1] == "simplejpeg"
    if header.format == "webp" and not header.is_animated:
        pixels, is_plain = _decode_webp(data, header)
        return pixels, "cv2", is_plain
    return None, "pillow", True


def shrink_factor(header: ImageHeader, target: tuple[int, int] | None) -> int:
    """Return the factor, 1, 2, 4 or 8, by which a JPEG can shrink while it is decoded for an upright target (width, height)."""
    if target is None or header.format != "jpeg":
        return 1
    if header.orientation >= 5:
        target = target[1], target[0]
    for factor, gap in SHRINK_GAPS.items():
        if header.width >= gap * factor * target[0] and header.height >= gap * factor * target[1]:
            return factor
    return 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Return stored pixels, rotated and mirrored as the EXIF orientation (1..8) requires."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return pixels if flip is None else cv2.flip(pixels, flip, pixels if orientation >= 5 else None)


def _decode_simplejpeg(data: bytes, header: ImageHeader, factor: int) -> tuple[np.ndarray, str] | None:
    """Return (pixels, name of the decoder), or None if simplejpeg cannot decode a JPEG that may be valid.

    Raises ImageError for a damaged JPEG.
    """
    smallest = {
        "min_width": -(-header.width // factor),
        "min_height": -(-header.height // factor),
        "min_factor": factor,
    }
    try:
        return simplejpeg.decode_jpeg(data, **smallest), "simplejpeg"
    except ValueError as error:
        message = str(error)
    if message.startswith("Premature end") and not header.is_progressive:
        # Perhaps only the end marker is missing. If decoding also fails with an appended end marker, pixels are lost.
        try:
            return simplejpeg.decode_jpeg(data + b"\xff\xd9", **smallest), "simplejpeg_lenient"
        except ValueError:
            raise ImageError("truncated", message) from None
    if _is_harmless(message, data):
        try:
            return simplejpeg.decode_jpeg(data, **smallest, strict=False), "simplejpeg_lenient"
        except ValueError:
            return None  # simplejpeg is strict about the header even with strict=False
    if "subsampling" in message or "Unsupported color conversion" in message:
        return None
    has_end_marker = data.rstrip(b"\0").endswith(b"\xff\xd9")
    is_cut = message.startswith("Premature end") or ("premature end" in message and not has_end_marker)
    raise ImageError("truncated" if is_cut else "corrupt", message)


def _is_harmless(message: str, data: bytes) -> bool:
    """Return whether a warning of libjpeg is harmless. Extra bytes between segments or before the end marker lose no pixels."""
    if "extraneous bytes before marker" not in message:
        return False
    count = int(message.split("data: ")[1].split()[0])
    marker = int(message.rsplit(" ", 1)[1], 16)
    if 0xD0 <= marker <= 0xD7:
        return False
    if marker != 0xD9 or count <= MAX_PADDING:
        return True
    end = data.rfind(b"\xff\xd9")
    return len(set(data[end - count : end])) == 1


def _decode_webp(data: bytes, header: ImageHeader) -> tuple[np.ndarray, bool]:
    """Return the pixels of a still WebP, blended with white, and whether the WebP has no alpha.

    Raises ImageError for damaged data.
    """
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)  # BGR or BGRA, not rotated
    if stored is None:
        np.empty((header.height, header.width, 8), np.uint8)  # raises MemoryError if decoding failed for lack of memory
        raise ImageError("truncated", "libwebp refused the data")
    if stored.shape[2] == 3:
        cv2.cvtColor(stored, cv2.COLOR_BGR2RGB, stored)
        return stored, True
    pixels = np.empty((*stored.shape[:2], 3), np.uint8)
    for tile in tiles(*stored.shape[:2]):
        pixels[tile] = over_white(stored[tile][:, :, 2::-1], stored[tile][:, :, 3])
    return pixels, False


def _apply_profile(pixels: np.ndarray, header: ImageHeader) -> None:
    """Convert pixels to sRGB in place, with the colour profile in the header."""
    is_grey = header.mode == "grey" and header.icc is not None and header.icc[16:20] == b"GRAY"
    for tile in tiles(*pixels.shape[:2]):
        image = Image.fromarray(np.ascontiguousarray(pixels[tile]))
        pixels[tile] = to_srgb(image.getchannel(0) if is_grey else image, header.icc)[0]
