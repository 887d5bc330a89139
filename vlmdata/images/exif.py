"""Reads the tag directories of EXIF data and TIFF files, with checks against hostile data."""

import struct
from collections.abc import Iterator

from vlmdata.images.facts import ImageError, ImageHeader

TYPE_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
WIDTH, HEIGHT, BITS, PHOTOMETRIC, ORIENTATION, SAMPLES, TILE_WIDTH, TILE_HEIGHT = 256, 257, 258, 262, 274, 277, 322, 323
COMPRESSION, ROWS_PER_STRIP = 259, 278
YCC = 6
SIMPLE_COMPRESSIONS = (1, 2, 3, 4, 5, 8, 32773, 32946)  # TIFF's codes of no compression, fax, LZW, deflate and PackBits
MAX_TAGS = 4096


def first_directory(data: bytes) -> tuple[dict[int, int], int, int]:
    """Return the first directory of `data`, in the form that `directory` returns. `data` starts with II or MM."""
    (start,) = struct.unpack_from(_order(data) + "I", data, 4)
    return directory(data, start)


def _order(data: bytes) -> str:
    return "<" if data[:2] == b"II" else ">"


def directory(data: bytes, start: int) -> tuple[dict[int, int], int, int]:
    """Return (tags, weight, offset of the next directory) for the directory at `start` of `data`.

    `tags` maps each tag to its first value, if this value is an unsigned integer of 8, 16 or 32 bits inside `data`. `weight` is
    the number of bytes that a reader would copy for all values. The offset is 0 if there is no next directory. Raises
    struct.error if the directory extends past the end of `data`.
    """
    order = _order(data)
    (count,) = struct.unpack_from(order + "H", data, start)
    tags: dict[int, int] = {}
    weight = 0
    for at in range(start + 2, start + 2 + 12 * min(count, MAX_TAGS), 12):
        tag, kind, values = struct.unpack_from(order + "HHI", data, at)
        size = TYPE_SIZES.get(kind, 0) * values
        weight += size
        offset = at + 8 if size <= 4 else struct.unpack_from(order + "I", data, at + 8)[0]
        code = {1: "B", 3: "H", 4: "I", 13: "I"}.get(kind)
        if code and values and offset + struct.calcsize(code) <= len(data):
            (tags[tag],) = struct.unpack_from(order + code, data, offset)
    end = start + 2 + 12 * count
    following = struct.unpack_from(order + "I", data, end)[0] if end + 4 <= len(data) else 0
    return tags, weight, following


def orientation_of(exif: bytes) -> int:
    """Return the orientation, 1..8, in EXIF data with or without the prefix `Exif\\0\\0`, or 1 if there is none."""
    exif = exif.removeprefix(b"Exif\0\0")
    if exif[:4] not in (b"II*\0", b"MM\0*"):
        return 1
    try:
        tags, _, _ = first_directory(exif)
    except struct.error:
        return 1
    value = tags.get(ORIENTATION, 1)
    return value if 1 <= value <= 8 else 1


def frames_of(data: bytes) -> Iterator[bytes]:
    """Yield each frame of a classic TIFF as a separate TIFF: the same bytes with the directory of this frame as the first one.

    Stops at a directory that repeats or cannot be read.
    """
    order, seen = _order(data), set()
    try:
        (start,) = struct.unpack_from(order + "I", data, 4)
        while start and start not in seen:
            seen.add(start)
            _, _, following = directory(data, start)
            yield data[:4] + struct.pack(order + "I", start) + data[8:]
            start = following
    except struct.error:
        return


def read_tiff(data: bytes) -> ImageHeader:
    """Return the header of a classic TIFF. Raises ImageError for an invalid TIFF.

    Two attacks on the decoder's memory are refused as corrupt: a directory that claims far more bytes than the file has, and
    tiles that are far larger than the image.
    """
    if data[2:4] in (b"+\0", b"\0+"):
        raise ImageError("unsupported_format", "the format BigTIFF is not supported")
    try:
        tags, weight, following = first_directory(data)
    except struct.error:
        raise ImageError("truncated", "the TIFF directory runs past the end of the data") from None
    width, height = tags.get(WIDTH, 0), tags.get(HEIGHT, 0)
    if weight > 2 * len(data):
        raise ImageError("corrupt", "the TIFF directory claims more bytes than the file has")
    if tags.get(TILE_WIDTH, 0) > 2 * width + 4096 or tags.get(TILE_HEIGHT, 0) > 2 * height + 4096:
        raise ImageError("corrupt", "the TIFF tiles are far larger than the image")
    orientation = tags.get(ORIENTATION, 1)
    modes = {0: "grey", 1: "grey", 2: "rgb", 3: "palette", 5: "cmyk", YCC: "ycc"}
    return ImageHeader(
        format="tiff",
        width=width,
        height=height,
        orientation=orientation if 1 <= orientation <= 8 else 1,
        is_animated=following != 0,
        mode=modes.get(tags.get(PHOTOMETRIC, 1), "rgb"),
        bit_depth=tags.get(BITS, 1),
        held_bytes=_strip_bytes(tags, width, height),
    )


def _strip_bytes(tags: dict[int, int], width: int, height: int) -> int:
    """Return by how many bytes the memory that libtiff needs for a strip or tile exceeds the size of the returned pixels."""
    across, down = tags.get(TILE_WIDTH, width), tags.get(TILE_HEIGHT, min(tags.get(ROWS_PER_STRIP, height), height))
    samples = tags.get(SAMPLES, 1)
    pixel_bytes = max(samples * tags.get(BITS, 1) / 8, 4 if tags.get(PHOTOMETRIC) == YCC else 0)
    pixel_bytes += 0 if tags.get(COMPRESSION, 1) in SIMPLE_COMPRESSIONS else 2 * samples + 4  # coefficients and an RGBA image
    return max(0, round(across * down * pixel_bytes) - 3 * width * height)
