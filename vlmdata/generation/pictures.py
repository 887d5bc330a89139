"""Pictures for prompts: decoded within limits, made upright and small enough for a model, and encoded."""

from __future__ import annotations

from collections.abc import Callable

from vlmdata.images.facts import ImageError
from vlmdata.images.process import process
from vlmdata.images.resize import ResizeRule

BAD = "bad_image"  # the reason why a prompt cannot be made


def picture(read: Callable[[], bytes], side: int) -> bytes | None:
    """Return an image as a JPEG whose long side has at most `side` pixels, or None if it cannot be decoded within limits.

    `read` returns the encoded image. A JPEG that is small enough keeps its bytes.
    """
    rule = ResizeRule("keep_ratio_largest", side, only_if_bigger=True, skip_reencode=True)
    try:
        return process(read(), rule).data
    except ImageError:
        return None
