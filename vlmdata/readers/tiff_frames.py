"""Read the frames of a TIFF that holds all images of a document, in order, each as a PNG."""

from __future__ import annotations

import io
from collections.abc import Iterator
from typing import Any

from PIL import Image

from vlmdata.images.budget import FIXED_BYTES, check_cost, check_memory, decoding_cost
from vlmdata.images.decode import decode
from vlmdata.images.exif import frames_of
from vlmdata.images.facts import ImageError
from vlmdata.images.header import read_header
from vlmdata.readers.source_images import inline, refused

PILLOW_BYTES, WRITING_BYTES = 4, 11  # bytes per pixel: of an image in Pillow, and of Pillow while it writes the PNG
WRITING_COST = 8.0  # units of cost per million pixels, measured on noise
READING_COST = 0.1  # units of cost per million bytes of the file: each frame reads the whole file
MAX_BYTES = 100_000_000  # maximum bytes of a file's PNGs together, because one row holds them all


class Frames:
    """Reads the frames of the TIFF `data`, in order.

    The memory is limited for each frame. The decoding cost and the bytes of the PNGs are limited for all frames together.
    """

    def __init__(self, data: bytes | None, *, max_memory_mb: float, max_cost: float):
        self._size = len(data or b"")
        self._frames: Iterator[bytes] = iter(()) if data is None else frames_of(data)
        self._max_memory_mb, self._max_cost = max_memory_mb, max_cost
        self._cost = 0.0
        self._bytes = 0

    def following(self) -> dict[str, Any]:
        """Return the next frame as fields of IMAGE. If it cannot be used, `drop` and `reason` are set.

        After the last frame, the reason is `no_image`.
        """
        frame = next(self._frames, None)
        if frame is None:
            return {"drop": "source", "reason": "no_image"}
        try:
            return inline(self._png(frame))
        except ImageError as error:
            return refused(error)

    def _png(self, frame: bytes) -> bytes:
        header = read_header(frame)
        pixels = header.width * header.height
        self._cost += decoding_cost(header) + WRITING_COST * pixels / 1e6 + READING_COST * self._size / 1e6
        check_cost(self._cost, self._max_cost, "the file up to this frame")
        check_memory(FIXED_BYTES + WRITING_BYTES * pixels, self._max_memory_mb, "writing the frame")
        check_memory(self._bytes, MAX_BYTES / 1e6, "the file up to this frame")
        beside, limit = PILLOW_BYTES * pixels, self._max_memory_mb
        image = Image.fromarray(
            decode(frame, max_memory_mb=limit, max_cost=self._max_cost, beside=beside, header=header).pixels
        )
        out = io.BytesIO()
        image.save(out, "PNG")
        self._bytes += out.tell()
        return out.getvalue()
