"""Reads an image reference from an `<img>`: addresses, alt text, caption, size."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace

from vlmdata.html.image_candidates import addresses, is_placeholder, is_preview, stated_width
from vlmdata.html.page_addresses import absolute, data_bytes

_PIXELS = re.compile(r"\s*(\d{1,6})(?:\.\d*)?\s*(?:px)?\s*;?\s*$", re.IGNORECASE)
_ADDRESSES = 6  # number of addresses that are kept for one image
_PREVIEW_BYTES = 4096  # a smaller inline image is a preview until the image loads; previews take 300 to 2,000 bytes
_SIZED = re.compile(
    r"(?:[-_@.](?:\d{1,5}x\d{0,5}|\d{1,4}w|[1-4]x|lqip|preview|place-?holder|thumb(?:nail)?|blur(?:red)?|small|tiny|low|min))+"
    r"(?=\.\w+$|$)",
    re.IGNORECASE,
)
_FILE = re.compile(r"\.(?:jpe?g|png|webp|gif|avif|bmp|tiff?)$", re.IGNORECASE)
_SIZING = re.compile(r"(?:w|h|q|wid|hei|width|height|quality|dpr|size|sz|resize|fit|crop|blur|fm|format|auto)=", re.IGNORECASE)


@dataclass(slots=True)
class ImageRef:
    """A reference to an image in a page: its addresses, alt text, caption and size."""

    url: str  # absolute; for an inline image only `data:` and its media type
    alt: str | None = None
    caption: str | None = None  # caption of the figure around the image; it stays in the text of the page too
    rendered_width: int | None = None  # pixels, from the attributes
    rendered_height: int | None = None
    data: bytes | None = None  # bytes of an inline image
    others: tuple[str, ...] = ()  # further addresses of the same image, best first


def image_ref(
    attributes: dict[str, str | None], sources: list[dict[str, str | None]], base: str, max_data_bytes: int
) -> ImageRef | None:
    """Return the image of an `<img>`, or None for a placeholder, a beacon of at most 2 pixels or a broken address.

    `sources` are the attributes of the `<source>`s of the `<picture>` around the `<img>`. `base` resolves relative addresses.
    An inline image of more than `max_data_bytes` bytes gives None.
    """
    width, height = pixels(attributes.get("width")), pixels(attributes.get("height"))
    if (width is not None and width <= 2) or (height is not None and height <= 2):
        return None
    alt = " ".join((attributes.get("alt") or "").split()) or None
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
    """Return a width or height attribute in pixels, or None if it is a percentage or malformed."""
    if not text:
        return None
    if text.isascii() and text.isdigit() and len(text) <= 6:
        return int(text)
    match = _PIXELS.match(text)
    return int(match[1]) if match else None


def merged(before: ImageRef, now: ImageRef, *, repeats: bool, near: bool) -> ImageRef | None:
    """Merge two adjacent references to one image. Return None if they must stay separate.

    The result has the address that does not request a preview or, if both or neither do, the address that requests the greater
    width. The other addresses follow in `others`. `repeats` says that one of the two references is in a `<noscript>`. `near`
    says that both references are in one section, or that `before` is the first content of a section that also contains `now`.
    """
    same = before.data is None and now.data is None and _is_one_file(before.url, now.url)
    if not same and not (near and (repeats or before.data is not None)):
        return None
    previews = _shows_preview(before), _shows_preview(now)
    if previews[0] == previews[1] and not (same and repeats):
        return None
    if previews[1] and not same:
        return None
    fuller, other = (now, before) if _rank(now) < _rank(before) else (before, now)
    urls = dict.fromkeys(url for one in (fuller, other) for url in (one.url, *one.others) if not url.startswith("data:"))
    urls.pop(fuller.url, None)
    return replace(
        fuller,
        alt=fuller.alt or other.alt,
        caption=before.caption,
        rendered_width=fuller.rendered_width or other.rendered_width,
        rendered_height=fuller.rendered_height or other.rendered_height,
        others=tuple(urls)[: _ADDRESSES - 1],
    )


def _shows_preview(ref: ImageRef) -> bool:
    return len(ref.data) < _PREVIEW_BYTES if ref.data is not None else is_preview(ref.url)


def _rank(ref: ImageRef) -> tuple[bool, float]:
    return _shows_preview(ref), -stated_width(ref.url)


def _is_one_file(one: str, other: str) -> bool:
    start = one.rpartition("/")[2][:1] == other.rpartition("/")[2][:1]  # cheap test: a requested size is at the end of the name
    return start and _stem(one) == _stem(other)


def _stem(url: str) -> str:
    """Return the file name and query of an address without the requested size, so that all sizes of one image are equal."""
    path, _, query = url.partition("?")
    name = _SIZED.sub("", path.rpartition("/")[2][-300:])
    if _FILE.search(name):  # the query of a file hardly ever selects another image
        return _FILE.sub("", name)
    return f"{name}?{'&'.join(part for part in query.split('&') if not _SIZING.match(part))}"
