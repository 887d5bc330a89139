"""Reads the header of an image without decoding it: format, size, orientation, frames."""

import struct

from vlmdata.images.exif import read_tiff
from vlmdata.images.facts import ImageError, ImageHeader
from vlmdata.images.header_avif import read_avif
from vlmdata.images.header_jpeg import read_jpeg
from vlmdata.images.header_lazy import read_lazily
from vlmdata.images.header_png import read_png

__all__ = ["ImageError", "ImageHeader", "read_header", "sniff"]

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


def sniff(data: bytes) -> str:
    """Return the format that the first bytes of `data` show: jpeg, png, webp, gif, avif, tiff or bmp.

    Raises ImageError for any other data.
    """
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
            raise ImageError("unsupported_format", f"the format {name} is not supported")
    raise ImageError("not_an_image", f"the data begin with {data[:16]!r}, unlike any known image format")


def read_header(data: bytes) -> ImageHeader:
    """Return the facts of an image without decoding its pixels. Raises only ImageError."""
    name = sniff(data)
    reader = {
        "jpeg": read_jpeg,
        "png": read_png,
        "tiff": read_tiff,
        "webp": read_lazily,
        "gif": read_lazily,
        "bmp": read_lazily,
        "avif": read_avif,
    }
    try:
        header = reader[name](data)
    except (struct.error, IndexError):
        raise ImageError("truncated", f"the {name} header runs past the end of the data") from None
    if header.width < 1 or header.height < 1:
        raise ImageError("corrupt", f"the {name} has the invalid size {header.width} x {header.height} pixels")
    return header


def _sniff_boxes(data: bytes) -> str:
    brands = {data[8:12], *(data[at : at + 4] for at in range(16, min(int.from_bytes(data[:4], "big"), 128), 4))}
    if brands & {b"avif", b"avis"}:
        return "avif"
    if brands & HEIF_BRANDS:
        raise ImageError("unsupported_format", "the format heif is not supported")
    raise ImageError("not_an_image", "the data are a video or another file in the ISO container format")
