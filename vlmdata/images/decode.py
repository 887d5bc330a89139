"""Bytes to pixels: JPEG by simplejpeg with shrink-on-load, still WebP by cv2, everything else and odd JPEGs by Pillow.

Every picture comes out the same way: (H, W, 3) uint8 sRGB, upright, alpha over white, 16 bits scaled, first frame only.
Damaged data raise; they are never filled with grey. cv2.imdecode is not used for JPEG: it returns a truncated one as a whole
one with grey below. Of a still WebP it makes the pixels that Pillow makes, in half of the memory.
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
    decoding_bytes,
    decoding_cost,
    hold_cost,
    hold_memory,
    hold_pixels,
)
from vlmdata.images.colour import profile_changes, to_srgb
from vlmdata.images.decode_pillow import decode_pillow, over_white
from vlmdata.images.facts import ImageError, ImageHeader
from vlmdata.images.header import read_header
from vlmdata.images.tiles import tiles

# How many times the target must remain in each direction after shrinking by 8, 4 or 2 while decoding. At 1.0 the worst
# photos fall to 23 dB. For 8 and 4 it is 1.5, which costs 2 to 5% and lifts the worst 8-megapixel picture from 24.7 to
# 32.3 dB, where a change of filter to Lanczos leaves it; for 2 it would cost 14% and lift nothing (bench/images.py).
# Other eighths have no fast path in libjpeg-turbo.
SHRINK_GAPS = {8: 1.5, 4: 1.5, 2: 1.25}
MAX_PADDING = 4  # stray bytes before the end marker that an encoder may leave; more are lost pixels


@dataclass(frozen=True, slots=True)
class DecodedImage:
    """Pixels (H, W, 3) uint8 sRGB, C-contiguous, upright. They may be 2, 4 or 8 times smaller than the original.

    `original_width` and `original_height` are those of the upright picture. `decoder` is simplejpeg, simplejpeg_lenient
    (harmless damage between segments), cv2 or pillow. `is_plain` says that the pixels are the file's own: no profile applied,
    no alpha laid over white, no CMYK, no orientation, no leniency, one frame of 8 bits.
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
    """Decode an image within limits that its header is held to before any memory is taken: see budget.py.

    `target` is the width and height, upright, that the caller will resize to: a JPEG is then decoded at 1/2, 1/4 or 1/8
    while enough over the target remains (SHRINK_GAPS). `beside` are bytes that the caller takes while it has the pixels. A
    `header` read already is not read again. Of formats other than JPEG Pillow takes no more than 179 million pixels, whatever
    the limits. Raises ImageError, and nothing else, for any bytes.
    """
    header = header or read_header(data)
    factor = shrink_factor(header, target)
    said = f"a {header.format} of {header.width} x {header.height}"
    hold_pixels(max(header.width * header.height, header.coded_pixels), max_pixels, said)
    hold_memory(decoding_bytes(header, len(data), factor) + beside, max_memory_mb, said)
    hold_cost(decoding_cost(header), max_cost, said)
    pixels, decoder, is_plain = _pixels(data, header, factor)
    if pixels is None:
        hold_memory(decoding_bytes(header, len(data), factor, by_pillow=True) + beside, max_memory_mb, said)
        pixels, is_plain = decode_pillow(data, header, factor)
    elif profile_changes(header.icc, "L" if header.mode == "grey" else "RGB"):
        _apply_profile(pixels, header)
        is_plain = False
    width, height = header.upright_size
    if header.format != "tiff":  # Pillow has turned that one
        pixels = upright(pixels, header.orientation)
    is_plain = is_plain and header.orientation == 1 and not header.is_animated
    return DecodedImage(pixels, width, height, header.format, decoder, header, is_plain)


def _pixels(data: bytes, header: ImageHeader, factor: int) -> tuple[np.ndarray | None, str, bool]:
    """Return pixels as stored, the decoder and whether they are plain; no pixels where Pillow is to decode."""
    if header.format == "jpeg" and header.mode != "cmyk":
        decoded = _decode_simplejpeg(data, header, factor)
        if decoded is not None:
            return *decoded, decoded[1] == "simplejpeg"
    if header.format == "webp" and not header.is_animated:
        pixels, is_plain = _decode_webp(data, header)
        return pixels, "cv2", is_plain
    return None, "pillow", True


def shrink_factor(header: ImageHeader, target: tuple[int, int] | None) -> int:
    """Return 1, 2, 4 or 8: the most a JPEG can be shrunk while decoding and still leave enough over the upright target."""
    if target is None or header.format != "jpeg":
        return 1
    if header.orientation >= 5:
        target = target[1], target[0]
    for factor, gap in SHRINK_GAPS.items():
        if header.width >= gap * factor * target[0] and header.height >= gap * factor * target[1]:
            return factor
    return 1


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Turn or mirror stored pixels as EXIF orientation 1..8 says, so that the picture stands as it was taken."""
    if orientation == 1:
        return pixels
    if orientation >= 5:
        pixels = cv2.transpose(pixels)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return pixels if flip is None else cv2.flip(pixels, flip, pixels if orientation >= 5 else None)


def _decode_simplejpeg(data: bytes, header: ImageHeader, factor: int) -> tuple[np.ndarray, str] | None:
    """Return pixels and the decoder's name, or None for a JPEG that simplejpeg cannot take though it may be sound."""
    smallest = {
        "min_width": -(-header.width // factor),
        "min_height": -(-header.height // factor),
        "min_factor": factor,
    }
    try:
        return simplejpeg.decode_jpeg(data, **smallest), "simplejpeg"
    except ValueError as error:
        complaint = str(error)
    if complaint.startswith("Premature end") and not header.is_progressive:
        # Perhaps only the end marker is missing: with one put on, lost pixels are told from none.
        try:
            return simplejpeg.decode_jpeg(data + b"\xff\xd9", **smallest), "simplejpeg_lenient"
        except ValueError:
            raise ImageError("truncated", complaint) from None
    if _is_harmless(complaint, data):
        try:
            return simplejpeg.decode_jpeg(data, **smallest, strict=False), "simplejpeg_lenient"
        except ValueError:
            return None  # simplejpeg is strict about the header whatever it is told
    if "subsampling" in complaint or "Unsupported color conversion" in complaint:
        return None
    ends_whole = data.rstrip(b"\0").endswith(b"\xff\xd9")
    is_cut = complaint.startswith("Premature end") or ("premature end" in complaint and not ends_whole)
    raise ImageError("truncated" if is_cut else "corrupt", complaint)


def _is_harmless(complaint: str, data: bytes) -> bool:
    """Whether libjpeg's warning is of stray bytes that cost no pixel: between segments, or padding before the end."""
    if "extraneous bytes before marker" not in complaint:
        return False
    count = int(complaint.split("data: ")[1].split()[0])
    marker = int(complaint.rsplit(" ", 1)[1], 16)
    if 0xD0 <= marker <= 0xD7:
        return False
    if marker != 0xD9 or count <= MAX_PADDING:
        return True
    end = data.rfind(b"\xff\xd9")
    return len(set(data[end - count : end])) == 1


def _decode_webp(data: bytes, header: ImageHeader) -> tuple[np.ndarray, bool]:
    """Return the pixels of a still WebP, alpha laid over white, and whether it has none. Raises ImageError."""
    stored = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)  # BGR or BGRA, and no orientation
    if stored is None:
        np.empty((header.height, header.width, 8), np.uint8)  # raises MemoryError where that was the trouble, not the data
        raise ImageError("truncated", "libwebp refused the data")
    if stored.shape[2] == 3:
        cv2.cvtColor(stored, cv2.COLOR_BGR2RGB, stored)
        return stored, True
    pixels = np.empty((*stored.shape[:2], 3), np.uint8)
    for part in tiles(*stored.shape[:2]):
        pixels[part] = over_white(stored[part][:, :, 2::-1], stored[part][:, :, 3])
    return pixels, False


def _apply_profile(pixels: np.ndarray, header: ImageHeader) -> None:
    """Bring pixels of the header's profile to sRGB where they lie."""
    is_grey = header.mode == "grey" and header.icc is not None and header.icc[16:20] == b"GRAY"
    for part in tiles(*pixels.shape[:2]):
        image = Image.fromarray(np.ascontiguousarray(pixels[part]))
        pixels[part] = to_srgb(image.getchannel(0) if is_grey else image, header.icc)[0]
