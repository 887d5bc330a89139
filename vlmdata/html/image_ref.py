"""An image as a page names it."""

from __future__ import annotations

import re
from dataclasses import dataclass

from vlmdata.html.addresses import absolute, data_bytes
from vlmdata.html.image_candidates import addresses, is_placeholder

_PIXELS = re.compile(r"\s*(\d{1,6})(?:\.\d*)?\s*(?:px)?\s*;?\s*$", re.IGNORECASE)
_ADDRESSES = 6  # of one image
_GAPS = re.compile(r"\s+")
_SIZED = re.compile(r"[-_@]\d{2,4}x\d{2,4}(?=\.\w+$)|\?.*$")


@dataclass(slots=True)
class ImageRef:
    """An image as a page names it."""

    url: str  # absolute; of an inline image `data:` and its media type alone
    alt: str | None = None
    caption: str | None = None  # of the figure around it; the words stand in the text too
    rendered_width: int | None = None  # pixels, from the attributes
    rendered_height: int | None = None
    data: bytes | None = None  # of a `data:` address
    others: tuple[str, ...] = ()  # further addresses of the same image, better ones first


def image_ref(
    attributes: dict[str, str | None], sources: list[dict[str, str | None]], base: str, max_data_bytes: int
) -> ImageRef | None:
    """Return what an `<img>` shows, or None for a placeholder, a beacon of at most 2 pixels or a broken address."""
    width, height = pixels(attributes.get("width")), pixels(attributes.get("height"))
    if (width is not None and width <= 2) or (height is not None and height <= 2):
        return None
    alt = _GAPS.sub(" ", attributes.get("alt") or "").strip() or None
    found = addresses(attributes, sources)
    urls = [url for address in found[:_ADDRESSES] if not address.startswith("data:") and (url := absolute(address, base))]
    if urls:
        return ImageRef(urls[0], alt, None, width, height, None, tuple(urls[1:]))
    src = found[0] if found else attributes.get("src") or ""
    if not src.startswith("data:image/") or (not found and is_placeholder(src) and len(src) < 512):
        return None
    inline = data_bytes(src, max_data_bytes)
    return ImageRef(f"data:{inline[0]}", alt, None, width, height, inline[1]) if inline else None


def pixels(text: str | None) -> int | None:
    """Read a width or height attribute; None for per cent and nonsense."""
    match = _PIXELS.match(text) if text else None
    return int(match[1]) if match else None


def stem(url: str) -> str:
    """Return an address without query and size, to know two sizes of one image."""
    return _SIZED.sub("", url.rpartition("/")[2])
