"""Reads the segments of a JPEG before its pixels: size, process, orientation and colour profile."""

from dataclasses import replace

from vlmdata.images.colour import MAX_ICC_BYTES
from vlmdata.images.exif import orientation_of
from vlmdata.images.facts import ImageError, ImageHeader

MAX_SEGMENTS = 1000
MAX_SCANS = 100  # encoders write about ten; decoding a scan takes a pass over the whole image, even if the scan has few bytes
PIXELS_PER_BYTE = 2048  # a Huffman-coded block of 64 pixels takes at least one bit, so no file has more pixels per byte
SIZES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
PROGRESSIVE = frozenset({0xC2, 0xC6, 0xCA, 0xCE})
DECODED_HERE = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})  # coding processes, except hierarchical and lossless ones


def read_jpeg(data: bytes) -> ImageHeader:
    """Return the header of a JPEG.

    Raises ImageError for an invalid JPEG: with the reason `truncated` if it has no scan, and `corrupt` if it has no size.
    """
    at, size, orientation, adobe = 2, b"", 1, -1
    size_marker = 0
    profile: dict[int, bytes] = {}
    for _ in range(MAX_SEGMENTS):
        marker, segment, at = _next_segment(data, at)
        if marker in SIZES and not size:
            size_marker, size = marker, segment
        elif marker == 0xE1 and segment.startswith(b"Exif\0") and orientation == 1:
            orientation = orientation_of(segment)
        elif marker == 0xE2 and segment.startswith(b"ICC_PROFILE\0") and len(segment) > 14:
            profile.setdefault(segment[12], segment[14:])
        elif marker == 0xEE and segment.startswith(b"Adobe") and len(segment) >= 12:
            adobe = segment[11]
        elif marker == 0xDA:
            break
    else:
        raise ImageError("corrupt", f"the JPEG has more than {MAX_SEGMENTS} segments")
    if len(size) < 6 or len(size) < 6 + 3 * size[5]:
        raise ImageError("corrupt", "the JPEG has a scan before the header with its size")
    header = _header(size_marker, size, orientation, adobe, _joined(profile))
    if header.width * header.height > PIXELS_PER_BYTE * len(data):
        raise ImageError("truncated", f"{len(data)} bytes of JPEG cannot hold {header.width} x {header.height} pixels")
    if not header.is_progressive and segment[:1] >= size[5:6]:
        return header
    # With several scans, even one per component, the decoder keeps all coefficients until the end.
    further_scans = data.count(b"\xff\xda", at)
    if further_scans > MAX_SCANS:
        raise ImageError("too_many_scans", value=further_scans, threshold=MAX_SCANS)
    return replace(header, passes=1 + further_scans, held_bytes=_coefficient_bytes(size, header.width, header.height))


def _next_segment(data: bytes, at: int) -> tuple[int, bytes, int]:
    """Return the next marker, its payload and the offset after it. Bytes between segments are skipped."""
    while True:
        at = data.find(b"\xff", at) + 1
        if at == 0 or at >= len(data):
            raise ImageError("truncated", "the JPEG has no scan")
        marker = data[at]
        if marker in (0xFF, 0x00, 0x01) or 0xD0 <= marker <= 0xD8:
            continue
        if marker == 0xD9:
            raise ImageError("truncated", "the JPEG ends before its first scan")
        length = int.from_bytes(data[at + 1 : at + 3], "big")
        if length < 2 or at + 1 + length > len(data):
            raise ImageError("truncated", "a JPEG segment runs past the end of the data")
        return marker, data[at + 3 : at + 1 + length], at + 1 + length


def _header(marker: int, size: bytes, orientation: int, adobe: int, icc: bytes | None) -> ImageHeader:
    depth, components = size[0], size[5]
    height, width = int.from_bytes(size[1:3], "big"), int.from_bytes(size[3:5], "big")
    if marker not in DECODED_HERE or depth != 8:
        raise ImageError("unsupported_format", f"the JPEG coding process {marker:#x} with {depth} bits is not supported")
    if components not in (1, 3, 4):
        raise ImageError("corrupt", f"the JPEG has {components} components instead of 1, 3 or 4")
    if components == 3:
        mode = "rgb" if adobe == 0 else "ycc"
    else:
        mode = "grey" if components == 1 else "cmyk"
    return ImageHeader(
        format="jpeg",
        width=width,
        height=height,
        orientation=orientation,
        mode=mode,
        is_progressive=marker in PROGRESSIVE,
        icc=icc,
    )


def _coefficient_bytes(size: bytes, width: int, height: int) -> int:
    """Return the bytes that the coefficients of all components take, with 16 bits for each coefficient of an 8 x 8 block."""
    samplings = [(size[at] >> 4 or 1, size[at] & 15 or 1) for at in range(7, 6 + 3 * size[5], 3)]
    across, down = (max(one) for one in zip(*samplings, strict=True))
    units = -(-width // (8 * across)) * -(-height // (8 * down))
    return 128 * units * sum(x * y for x, y in samplings)


def _joined(profile: dict[int, bytes]) -> bytes | None:
    """Return the joined pieces of a colour profile, or None if it is missing, incomplete or too large."""
    if not profile or sorted(profile) != list(range(1, len(profile) + 1)):
        return None
    icc = b"".join(profile[number] for number in sorted(profile))
    return icc if len(icc) <= MAX_ICC_BYTES else None
