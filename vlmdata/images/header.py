"""From the first bytes of an image to its facts, before any pixel is decoded: format, size, orientation, frames."""

import struct

from vlmdata.images.exif import orientation_of, read_tiff
from vlmdata.images.facts import Header, ImageError
from vlmdata.images.header_avif import read_avif
from vlmdata.images.header_jpeg import read_jpeg
from vlmdata.images.header_png import read_png

__all__ = ["Header", "ImageError", "read_header", "sniff"]

OTHER_IMAGES = {
    b"\0\0\1\0": "ico",
    b"8BPS": "psd",
    b"\0\0\0\x0cjP  ": "jpeg2000",
    b"\xff\x4f\xff\x51": "jpeg2000",
    b"\xff\x0a": "jpegxl",
    b"\0\0\0\x0cJXL ": "jpegxl",
    b"qoif": "qoi",
    b"#?RADIANCE": "hdr",
    b"v/1\x01": "exr",
}
HEIF_BRANDS = {b"heic", b"heix", b"hevc", b"heim", b"heis", b"mif1", b"msf1"}
MAX_GIF_BLOCKS = 100_000


def sniff(data: bytes) -> str:
    """Return the format of `data` by its first bytes: jpeg, png, webp, gif, avif, tiff or bmp. Raises ImageError."""
    if not data:
        raise ImageError("empty")
    if data[:3] == b"\xff\xd8\xff":
        return "jpeg"
    if data[:8] == b"\x89PNG\r\n\x1a\n":
        return "png"
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp"
    if data[:6] in (b"GIF87a", b"GIF89a"):
        return "gif"
    if data[4:8] == b"ftyp":
        return _sniff_boxes(data)
    if data[:4] in (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+"):
        return "tiff"
    if data[:2] == b"BM" and data[6:10] == b"\0\0\0\0":
        return "bmp"
    for magic, name in OTHER_IMAGES.items():
        if data.startswith(magic):
            raise ImageError("unsupported_format", name)
    raise ImageError("not_an_image", f"begins {data[:16]!r}")


def read_header(data: bytes) -> Header:
    """Return the facts of an image without decoding its pixels. Raises ImageError, and nothing else, for any bytes."""
    name = sniff(data)
    reader = {
        "jpeg": read_jpeg,
        "png": read_png,
        "tiff": read_tiff,
        "webp": _webp,
        "gif": _gif,
        "bmp": _bmp,
        "avif": read_avif,
    }
    try:
        header = reader[name](data)
    except (struct.error, IndexError):
        raise ImageError("truncated", f"the {name} header runs past the end") from None
    if header.width < 1 or header.height < 1:
        raise ImageError("corrupt", f"a {name} of {header.width} x {header.height} pixels")
    return header


def _sniff_boxes(data: bytes) -> str:
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, min(int.from_bytes(data[:4], "big"), 128), 4))}
    if brands & {b"avif", b"avis"}:
        return "avif"
    if brands & HEIF_BRANDS:
        raise ImageError("unsupported_format", "heif")
    raise ImageError("not_an_image", "a film or another file of boxes")


def _webp(data: bytes) -> Header:
    """WebP, plain (VP8), lossless (VP8L) or extended (VP8X: canvas, animation, alpha, EXIF)."""
    if int.from_bytes(data[4:8], "little") + 8 > len(data):
        raise ImageError("truncated", "the RIFF container is longer than the data")
    kind, at = data[12:16], 20
    if kind == b"VP8 ":
        if data[at + 3 : at + 6] != b"\x9d\x01\x2a":
            raise ImageError("corrupt", "a VP8 frame without its start code")
        width, height = struct.unpack_from("<HH", data, at + 6)
        return Header("webp", width & 0x3FFF, height & 0x3FFF)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, at + 1)
        mode = "rgb_alpha" if bits >> 28 & 1 else "rgb"
        return Header("webp", (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1, mode=mode)
    if kind != b"VP8X":
        raise ImageError("corrupt", f"a WebP that begins with {kind!r}")
    flags = data[at]
    width, height = (int.from_bytes(data[at + n : at + n + 3], "little") + 1 for n in (4, 7))
    orientation = 1
    at += 10
    while flags & 0x08 and at + 8 <= len(data):
        length = int.from_bytes(data[at + 4 : at + 8], "little")
        if data[at : at + 4] == b"EXIF":
            orientation = orientation_of(data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    mode = "rgb_alpha" if flags & 0x10 else "rgb"
    return Header("webp", width, height, orientation, is_animated=bool(flags & 0x02), mode=mode)


def _gif(data: bytes) -> Header:
    """GIF: the screen, grown to the first frame where that is larger; animated when a second frame follows."""
    width, height, flags = struct.unpack_from("<HHB", data, 6)
    at = 13 + (3 << (flags & 7) + 1 if flags & 0x80 else 0)
    frames = 0
    for _ in range(MAX_GIF_BLOCKS):
        if at >= len(data) or data[at] == 0x3B:
            break
        if data[at] == 0x2C:
            left, top, frame_width, frame_height, local = struct.unpack_from("<HHHHB", data, at + 1)
            frames += 1
            if frames == 2:
                break
            width, height = max(width, left + frame_width), max(height, top + frame_height)
            at = _gif_sub_blocks(data, at + 11 + (3 << (local & 7) + 1 if local & 0x80 else 0))
        elif data[at] == 0x21:
            at = _gif_sub_blocks(data, at + 2)
        else:
            at += 1
    if not frames:
        raise ImageError("truncated", "a GIF without a frame")
    return Header("gif", width, height, is_animated=frames > 1, mode="palette")


def _gif_sub_blocks(data: bytes, at: int) -> int:
    while at < len(data) and data[at]:
        at += 1 + data[at]
    return at + 1


def _bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    if size == 12:
        width, height = struct.unpack_from("<HH", data, 18)
    else:
        width, height = struct.unpack_from("<ii", data, 18)
    return Header("bmp", abs(width), abs(height))
