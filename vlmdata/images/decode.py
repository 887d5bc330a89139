"""Bytes to pixels: JPEG by simplejpeg with shrink-on-load, everything else and odd JPEGs by Pillow.

Every picture comes out the same way: (H, W, 3) uint8 sRGB, upright, alpha over white, 16 bits scaled, first frame only.
Damaged data raise; they are never filled with grey. cv2.imdecode is not used: it returns a truncated JPEG as a whole one
with grey below, and applies the orientation itself.
"""

from dataclasses import dataclass

import cv2
import numpy as np
import simplejpeg
from PIL import Image

from vlmdata.images.colour import profile_changes, to_srgb
from vlmdata.images.decode_pillow import decode_pillow
from vlmdata.images.facts import Header, ImageError
from vlmdata.images.header import read_header

# How many times the target must remain in each direction after shrinking by 8, 4 or 2 while decoding. At 1.0 the worst
# photos fall to 23 dB. For 8 and 4 it is 1.5, which costs 2 to 5% and lifts the worst 8-megapixel picture from 24.7 to
# 32.3 dB, where a change of filter to Lanczos leaves it; for 2 it would cost 14% and lift nothing (bench/images.py).
# Other eighths have no fast path in libjpeg-turbo.
SHRINK_GAPS = {8: 1.5, 4: 1.5, 2: 1.25}
MAX_PADDING = 4  # stray bytes before the end marker that an encoder may leave; more are lost pixels


@dataclass(frozen=True, slots=True)
class Decoded:
    """Pixels (H, W, 3) uint8 sRGB, C-contiguous, upright. They may be 2, 4 or 8 times smaller than the original.

    `original_width` and `original_height` are those of the upright picture. `decoder` is simplejpeg, simplejpeg_lenient
    (harmless damage between segments) or pillow. `is_plain` says that the pixels are the file's own: no profile applied,
    no alpha laid over white, no CMYK, no orientation, no leniency, one frame of 8 bits.
    """

    pixels: np.ndarray
    original_width: int
    original_height: int
    format: str
    decoder: str
    header: Header
    is_plain: bool


def decode(data: bytes, *, max_pixels: int, target: tuple[int, int] | None = None, header: Header | None = None) -> Decoded:
    """Decode an image of at most `max_pixels` (checked in the header before any memory is taken).

    `target` is the width and height, upright, that the caller will resize to: a JPEG is then decoded at 1/2, 1/4 or 1/8
    while enough over the target remains (SHRINK_GAPS). A `header` read already is not read again.
    Of formats other than JPEG Pillow takes no more than 179 million pixels, whatever `max_pixels` says.
    Raises ImageError, and nothing else, for any bytes.
    """
    header = header or read_header(data)
    if max(header.width * header.height, header.coded_pixels) > max_pixels:
        raise ImageError("too_many_pixels", f"{header.width} x {header.height} is over {max_pixels} pixels")
    if target is not None and header.orientation >= 5:
        target = target[1], target[0]
    factor = shrink_factor(header, target) if header.format == "jpeg" else 1
    is_plain = header.orientation == 1 and not header.is_animated
    decoded = _decode_simplejpeg(data, header, factor) if header.format == "jpeg" and header.mode != "cmyk" else None
    if decoded is None:
        pixels, was_plain = decode_pillow(data, header, factor, max_pixels)
        decoder, is_plain = "pillow", is_plain and was_plain
    else:
        pixels, decoder = decoded
        is_plain = is_plain and decoder == "simplejpeg"
        if profile_changes(header.icc, "L" if header.mode == "grey" else "RGB"):
            pixels, is_plain = _with_profile(pixels, header), False
    width, height = header.upright_size
    if header.format != "tiff":  # Pillow has turned that one
        pixels = upright(pixels, header.orientation)
    return Decoded(pixels, width, height, header.format, decoder, header, is_plain)


def shrink_factor(header: Header, target: tuple[int, int] | None) -> int:
    """Return 1, 2, 4 or 8: the most a JPEG can be shrunk while decoding and still leave enough over the target."""
    if target is None:
        return 1
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
    return pixels if flip is None else cv2.flip(pixels, flip)


def _decode_simplejpeg(data: bytes, header: Header, factor: int) -> tuple[np.ndarray, str] | None:
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


def _with_profile(pixels: np.ndarray, header: Header) -> np.ndarray:
    image = Image.fromarray(pixels)
    if header.mode == "grey" and header.icc is not None and header.icc[16:20] == b"GRAY":
        image = image.getchannel(0)
    return np.ascontiguousarray(to_srgb(image, header.icc)[0])
