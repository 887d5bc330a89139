"""Resizes with img2dataset's own code, which gives the same bytes as img2dataset.

The step `resize` uses this module after `download: {engine: img2dataset}`.
"""

import hashlib
import io
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
from PIL import Image

from vlmdata.images.box_geometry import fractions
from vlmdata.images.budget import (
    FIXED_BYTES,
    WRITTEN_BYTES,
    check_cost,
    check_memory,
    check_pixels,
    decoding_cost,
)
from vlmdata.images.facts import ImageError, ImageHeader
from vlmdata.images.header import read_header
from vlmdata.images.phash import phash
from vlmdata.images.process import Processed
from vlmdata.images.resize import Box, ResizeRule, transform
from vlmdata.untrusted import errors_as

Boxes = Sequence[Box]
PLAIN_BYTES, ALPHA_BYTES = 9, 85  # bytes per pixel in the worst case, without and with alpha
PNG_QUALITY = 9  # for PNG, img2dataset's quality is the compression level, 0 to 9


def disable_update_check() -> None:
    """Stop albumentations from looking up its newest version. Call this function before importing img2dataset."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


@lru_cache(maxsize=1)
def _resizer(mode: str, size: int, only_if_bigger: bool, skip_reencode: bool, format: str, quality: int) -> Any:
    disable_update_check()
    from img2dataset.blurrer import BoundingBoxBlurrer
    from img2dataset.resizer import Resizer

    written = {"jpeg": "jpg"}.get(format, format)
    level = min(quality, PNG_QUALITY) if format == "png" else quality
    settings = {"skip_reencode": skip_reencode, "blurrer": BoundingBoxBlurrer()}
    return Resizer(size, mode, only_if_bigger, encode_quality=level, encode_format=written, **settings)


def _header(data: bytes) -> tuple[ImageHeader, str]:
    """Return an image's header, and the reason to report if img2dataset fails to decode the image later.

    img2dataset may decode an image that `read_header` refuses. The limits need the size of this image, so Pillow reads its
    header. Raises ImageError if Pillow cannot read the header.
    """
    try:
        return read_header(data), "corrupt"
    except ImageError as error:
        refused = error
    formats = ["JPEG", "PNG", "GIF", "BMP", "TIFF", "JPEG2000", "PPM"]
    with errors_as(lambda _: refused), Image.open(io.BytesIO(data), formats=formats) as image:
        return ImageHeader("tiff", *image.size, mode="rgb_alpha"), refused.reason


def _needed(header: ImageHeader, made: int, rule: ResizeRule) -> int:
    """Return the peak memory of img2dataset in bytes.

    `made` is the number of pixels of the result. An image with alpha takes more, because img2dataset blends it with white in
    double precision.
    """
    has_alpha = header.mode in ("rgb_alpha", "grey_alpha", "palette")
    pixels = max(header.width * header.height, header.coded_pixels)
    each = ALPHA_BYTES if has_alpha else PLAIN_BYTES * (2 if header.bit_depth == 16 or header.format == "avif" else 1)
    return FIXED_BYTES + each * pixels + header.held_bytes + round((9 + WRITTEN_BYTES[rule.format]) * made)


def process(
    data: bytes, rule: ResizeRule, *, max_pixels: int, max_memory_mb: float, max_cost: float, boxes: Boxes, blur: Boxes
) -> Processed:
    """Resize one image as img2dataset does: without orientation, colour profile and shrink-on-load.

    The limits are checked first. The function needs more memory than `vlmdata.images.process`. Raises ImageError for an
    unusable image. It is not thread-safe, because img2dataset redirects stdout and stderr.
    """
    header, reason = _header(data)
    subject = f"an image of {header.width} x {header.height} pixels for img2dataset"
    check_pixels(header.width * header.height, max_pixels, subject)
    change = transform(rule, header.width, header.height)
    made = max(width * height for width, height in (change.scaled, change.output))
    check_memory(_needed(header, made, rule) + 2 * len(data), max_memory_mb, subject)
    check_cost(decoding_cost(header), max_cost, subject)
    resize = _resizer(rule.mode, rule.size, rule.only_if_bigger, rule.skip_reencode, rule.format, rule.quality)
    written, width, height, original_width, original_height, failure = resize(io.BytesIO(data), list(blur) or None)
    if failure is not None:
        raise ImageError(reason, failure)
    stored = cv2.imdecode(np.frombuffer(written, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert stored is not None, "img2dataset wrote an image that cv2 cannot decode"
    pixels = cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)
    change = transform(rule, original_width, original_height)
    return Processed(
        data=written,
        format=read_header(written).format,
        width=width,
        height=height,
        original_width=original_width,
        original_height=original_height,
        source_format=header.format if reason == "corrupt" else "",
        decoder="img2dataset",
        sha256=hashlib.sha256(data).hexdigest(),
        phash=phash(pixels),
        is_original=written == data,
        is_animated=header.is_animated,
        boxes=change.boxes(boxes),
        original_boxes=fractions(boxes, original_width, original_height),
        view=change.view(),
        pixels=pixels,
    )
