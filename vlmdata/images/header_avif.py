"""Reads the container of an AVIF and the size of its AV1 data, which determines the memory of the decoder."""

import io
import struct
from collections.abc import Callable, Iterator
from typing import NamedTuple

from PIL import Image

from vlmdata.images.facts import ImageError, ImageHeader
from vlmdata.images.header_lazy import pillow_errors


class Sequence(NamedTuple):
    """The facts of an AV1 sequence header: width and height in pixels, and the decoder's memory in bytes per pixel."""

    width: int
    height: int
    pixel_bytes: float


FULL_BOXES = {b"meta": 4}  # bytes of the version and flags, which precede the inner boxes
CONTAINERS = {b"meta", b"moov", b"trak", b"mdia", b"minf", b"stbl"}
SEQUENCE_HEADER = 1
MAX_BOXES = 10_000


def read_avif(data: bytes) -> ImageHeader:
    """Return the header of an AVIF.

    Pillow's libavif reads the container and decodes no pixels. Raises ImageError for an invalid AVIF.
    """

    def reason(error: Exception) -> str:  # libavif reports damage with many types of errors
        return "truncated" if _ends_early(data) else "corrupt"

    with pillow_errors(reason, "libavif"), Image.open(io.BytesIO(data), formats=["AVIF"]) as image:
        orientation = image.getexif().get(0x0112, 1)
        pixels, planes = _coded(data, *image.size)
        return ImageHeader(
            "avif",
            *image.size,
            orientation=orientation if orientation in range(1, 9) else 1,
            is_animated=getattr(image, "n_frames", 1) > 1,
            mode="rgb_alpha" if image.mode == "RGBA" else "rgb",
            coded_pixels=pixels,
            held_bytes=planes,
        )


def _ends_early(data: bytes) -> bool:
    """Return whether the last box of the file claims more bytes than the file has."""
    at = 0
    while at + 16 <= len(data):
        length, _, large = struct.unpack_from(">I4sQ", data, at)
        length = large if length == 1 else length or len(data) - at
        if length < 8:
            return False
        at += length
    return at > len(data)


def _coded(data: bytes, width: int, height: int) -> tuple[int, int]:
    """Return (pixels of the largest AV1 image, bytes of decoder memory for its planes), as the sequence headers state them.

    Raises ImageError if there is no image, or if overlapping items have more bytes than the file.
    """
    pieces = list(_pictures(data))
    if sum(map(len, pieces)) > 2 * len(data):
        raise ImageError("corrupt", "the AVIF items have more bytes than the file")
    sequences = [sequence for piece in pieces for sequence in _sequences(piece)]
    if not sequences:
        raise ImageError("corrupt", "the AVIF has no AV1 sequence header")
    pixels = max(sequence.width * sequence.height for sequence in sequences)
    planes = max(pixels, width * height) * max(sequence.pixel_bytes for sequence in sequences)
    has_more = len(sequences) > 1  # the further sequences are alpha, or tiles of one image
    return pixels, round(planes * (1.7 if has_more else 1))


def _boxes(data: bytes, at: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """Yield (kind, start of the content, end of the content) for each box and for the boxes inside it."""
    while at + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, at)
        start = at + 8
        if length == 1:
            (length,) = struct.unpack_from(">Q", data, start)
            start += 8
        stop = min(end, at + length) if length else end
        if stop <= at + 8:
            return
        yield kind, start, stop
        if kind in CONTAINERS:
            yield from _boxes(data, start + FULL_BOXES.get(kind, 0), stop)
        at = stop


def _pictures(data: bytes) -> Iterator[bytes]:
    """Yield the bytes of each item, and of the first sample of each track."""
    inner = 0  # offset of the idat box, for items inside it
    lists: list[tuple[bytes, int]] = []
    for count, (kind, start, _) in enumerate(_boxes(data, 0, len(data))):
        if count > MAX_BOXES:
            raise ImageError("corrupt", f"the AVIF has more than {MAX_BOXES} boxes")
        if kind == b"idat":
            inner = start
        elif kind in (b"iloc", b"stco", b"co64"):
            lists.append((kind, start))
    for kind, start in lists:
        if kind == b"iloc":
            yield from _items(data, start, inner)
        elif struct.unpack_from(">I", data, start + 4)[0]:
            (offset,) = struct.unpack_from(">I" if kind == b"stco" else ">Q", data, start + 8)
            yield data[offset : offset + 4096]  # the sequence header comes first


def _items(data: bytes, at: int, inner: int) -> Iterator[bytes]:
    """Yield the bytes of each item of the item location box at `at`; `inner` is the offset of the idat box."""
    version, sizes = data[at], int.from_bytes(data[at + 4 : at + 6], "big")
    offset_size, length_size, base_size, index_size = sizes >> 12, sizes >> 8 & 15, sizes >> 4 & 15, sizes & 15
    wide = 4 if version == 2 else 2
    items = int.from_bytes(data[at + 6 : at + 6 + wide], "big")
    at += 6 + wide
    if items > MAX_BOXES:
        raise ImageError("corrupt", f"the AVIF has more than {MAX_BOXES} items")

    def number(size: int) -> int:
        nonlocal at
        at += size
        return int.from_bytes(data[at - size : at], "big")

    for _ in range(items):
        number(wide)
        method = number(2) & 15 if version else 0
        number(2)
        base, extents = number(base_size) + (inner if method == 1 else 0), number(2)
        parts = []
        for _ in range(min(extents, MAX_BOXES)):
            if version:
                number(index_size)
            offset = base + number(offset_size)
            length = number(length_size)
            parts.append(data[offset : offset + length] if length else data[offset:])
        yield b"".join(parts)


def _sequences(stream: bytes) -> Iterator[Sequence]:
    """Yield the facts of each sequence header in a series of OBUs. Source: AV1 specification, 5.3 and 5.5."""
    at = 0
    while at < len(stream):
        head = stream[at]
        at += 2 if head & 4 else 1
        length = len(stream) - at
        if head & 2:
            length, at = _leb128(stream, at)
        if head & 0x80:
            return  # the forbidden bit is set, so this is not an OBU but an item such as EXIF
        if head >> 3 & 15 == SEQUENCE_HEADER:
            yield _sequence(stream[at : at + length])
        at += length


def _leb128(stream: bytes, at: int) -> tuple[int, int]:
    """Return the LEB128 integer at `at`, and the offset after it."""
    value = 0
    for shift in range(0, 56, 7):
        byte = stream[at] if at < len(stream) else 0
        value |= (byte & 127) << shift
        at += 1
        if byte < 128:
            break
    return value, at


def _skip_timing(take: Callable[[int], int]) -> None:
    """Skip timing, decoder model and operating points, which precede the size in a full sequence header."""
    delay_bits = 0
    if take(1):
        take(64)
        if take(1):
            zeros = 0
            while not take(1):
                zeros += 1
            take(zeros)
        if take(1):
            delay_bits = take(5) + 1
            take(42)
    has_display_delay = take(1)
    for _ in range(take(5) + 1):
        take(12)
        if take(5) > 7:
            take(1)
        if delay_bits and take(1):
            take(2 * delay_bits + 1)
        if has_display_delay and take(1):
            take(4)


def _skip_tools(take: Callable[[int], int]) -> None:
    """Skip the flags of coding tools, which are between the size and the colours of a sequence header that is not reduced."""
    if take(1):  # lengths of the frame ids
        take(7)
    take(7)  # flags of superblocks and prediction
    has_order = take(1)
    if has_order:
        take(2)
    has_screen_tools = take(1) or take(1)  # each frame chooses, or the tools are always on
    if has_screen_tools and not take(1):
        take(1)
    if has_order:
        take(3)


def _sequence(payload: bytes) -> Sequence:
    """Return the facts of a sequence header. Raises ImageError if the header is too short."""
    bits, used = int.from_bytes(payload, "big"), 0
    total = 8 * len(payload)

    def take(count: int) -> int:
        nonlocal used
        used += count
        if used > total:
            raise ImageError("corrupt", "an AV1 sequence header ends too early")
        return bits >> (total - used) & ((1 << count) - 1)

    profile = take(3)
    take(1)
    is_reduced = take(1)  # the short header of a still image
    if is_reduced:
        take(5)
    else:
        _skip_timing(take)
    width_bits, height_bits = take(4) + 1, take(4) + 1
    width, height = take(width_bits) + 1, take(height_bits) + 1
    if is_reduced:
        take(3)
    else:
        _skip_tools(take)
    take(3)  # flags of filters
    # The factor 2 is for film grain, which makes a second image. In profile 0, each chroma plane has a quarter of the samples.
    return Sequence(width, height, 2 * (1 + take(1)) * (1.5 if profile == 0 else 3))
