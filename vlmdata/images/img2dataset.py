"""img2dataset's own resizing, byte for byte: what `resize` means after `download: {engine: img2dataset}`."""

import hashlib
import io
import os
from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import cv2
import numpy as np

from vlmdata.images.header import ImageError, read_header
from vlmdata.images.phash import phash
from vlmdata.images.process import Processed
from vlmdata.images.resize import Box, ResizeRule, transform

PNG_QUALITY = 9  # its PNG takes a level of compression, 0 to 9, for quality


def ask_no_news() -> None:
    """Keep a library that img2dataset imports from asking the web for its newest version. To be called before that."""
    os.environ.setdefault("NO_ALBUMENTATIONS_UPDATE", "1")


@lru_cache(maxsize=1)
def _resizer(mode: str, size: int, only_if_bigger: bool, skip_reencode: bool, format: str, quality: int) -> Any:
    ask_no_news()
    from img2dataset.blurrer import BoundingBoxBlurrer
    from img2dataset.resizer import Resizer

    written = {"jpeg": "jpg"}.get(format, format)
    level = min(quality, PNG_QUALITY) if format == "png" else quality
    kept = {"skip_reencode": skip_reencode, "blurrer": BoundingBoxBlurrer()}
    return Resizer(size, mode, only_if_bigger, encode_quality=level, encode_format=written, **kept)


def process(
    data: bytes, rule: ResizeRule, *, max_pixels: int, boxes: Sequence[Box] = (), blur: Sequence[Box] = ()
) -> Processed:
    """Bring one image to what `rule` asks, as img2dataset does: no orientation, no colour profile, no shrink-on-load.

    The cap on pixels holds before. Raises ImageError. Not to be called twice at once: it turns stdout and stderr away.
    """
    source_format, is_animated, wrong = "", False, "corrupt"
    try:
        header = read_header(data)
        source_format, is_animated = header.format, header.is_animated
        if header.width * header.height > max_pixels:
            raise ImageError("too_many_pixels", f"{header.width} x {header.height} is over {max_pixels} pixels")
    except ImageError as error:  # of a header that tells no size it shall say itself what it makes
        if error.reason == "too_many_pixels":
            raise
        wrong = error.reason
    resize = _resizer(rule.mode, rule.size, rule.only_if_bigger, rule.skip_reencode, rule.format, rule.quality)
    written, width, height, original_width, original_height, told = resize(io.BytesIO(data), list(blur) or None)
    if told is not None:
        raise ImageError(wrong, told)
    stored = cv2.imdecode(np.frombuffer(written, np.uint8), cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION)
    assert stored is not None, "it was decoded a moment ago"
    pixels = cv2.cvtColor(stored, cv2.COLOR_BGR2RGB)
    return Processed(
        data=written,
        format=read_header(written).format,
        width=width,
        height=height,
        original_width=original_width,
        original_height=original_height,
        source_format=source_format,
        decoder="img2dataset",
        sha256=hashlib.sha256(data).hexdigest(),
        phash=phash(pixels),
        is_original=written == data,
        is_animated=is_animated,
        boxes=transform(rule, original_width, original_height).boxes(boxes) if boxes else [],
        pixels=pixels,
    )
