"""Reads the chunks of a PNG: size, mode, orientation, and whether the data can contain the pixels."""

import zlib

from PIL import PngImagePlugin

from vlmdata.images.exif import orientation_of
from vlmdata.images.facts import ImageError, ImageHeader

MODES = {0: "grey", 2: "rgb", 3: "palette", 4: "grey_alpha", 6: "rgb_alpha"}
CHANNELS = {"grey": 1, "rgb": 3, "palette": 1, "grey_alpha": 2, "rgb_alpha": 4}
DEPTHS = {
    "grey": (1, 2, 4, 8, 16),
    "rgb": (8, 16),
    "palette": (1, 2, 4, 8),
    "grey_alpha": (8, 16),
    "rgb_alpha": (8, 16),
}
TEXTS = (b"zTXt", b"iTXt", b"tEXt", b"iCCP")  # chunks that Pillow decompresses and keeps
MAX_CHUNKS = 100_000
DEFLATE_RATIO = 1032  # zlib's documentation: deflate compresses at most 1032 to 1


def read_png(data: bytes) -> ImageHeader:
    """Return the header of a PNG. Raises ImageError for an invalid PNG.

    A PNG whose pixel data cannot decompress to the stated size is refused as truncated, so a false size costs no memory.
    """
    if len(data) < 33:
        raise ImageError("truncated", "the PNG is shorter than its header")
    if data[12:16] != b"IHDR" or data[8:12] != b"\0\0\0\x0d":
        raise ImageError("corrupt", "the PNG does not start with IHDR")
    if zlib.crc32(data[12:29]) != int.from_bytes(data[29:33], "big"):
        raise ImageError("corrupt", "the PNG header has a wrong checksum")
    width, height = int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")
    depth, mode = data[24], MODES.get(data[25], "")
    if not mode or depth not in DEPTHS[mode]:
        raise ImageError("corrupt", f"the PNG has colour type {data[25]} with {depth} bits, which is invalid")
    orientation, is_animated, packed_bytes, text_bytes = _rest(data)
    row_bytes = (width * CHANNELS[mode] * depth + 7) // 8
    if height * row_bytes > DEFLATE_RATIO * packed_bytes:
        raise ImageError("truncated", f"{packed_bytes} bytes of PNG data cannot hold {width} x {height} pixels")
    return ImageHeader(
        format="png",
        width=width,
        height=height,
        orientation=orientation,
        is_animated=is_animated,
        mode=mode,
        bit_depth=depth,
        held_bytes=min(DEFLATE_RATIO * text_bytes, 2 * PngImagePlugin.MAX_TEXT_MEMORY) + 3 * row_bytes,
    )


def _rest(data: bytes) -> tuple[int, bool, int, int]:
    """Return (orientation, whether the PNG is animated, compressed bytes of the pixels, compressed bytes of the texts)."""
    at, orientation, is_animated, packed_bytes, text_bytes = 33, 1, False, 0, 0
    for _ in range(MAX_CHUNKS):
        if at + 8 > len(data):
            break
        length, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if kind == b"IDAT":
            packed_bytes += min(length, len(data) - at - 8)
        elif kind in TEXTS:
            text_bytes += min(length, len(data) - at - 8)
        elif kind == b"acTL":
            is_animated = int.from_bytes(data[at + 8 : at + 12], "big") > 1
        elif kind == b"eXIf":
            orientation = orientation_of(data[at + 8 : at + 8 + length])
        elif kind == b"IEND":
            break
        at += 12 + length
    return orientation, is_animated, packed_bytes, text_bytes
