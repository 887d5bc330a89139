"""Finds the real addresses of an image in `src`, `srcset`, `<picture>` and the attributes of lazy loaders."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from functools import lru_cache
from typing import NamedTuple

BEST_WIDTH = 2048  # pixels: an encoder uses no more, so larger images only cost traffic

# The first ten are from OBELICS's list, which also has `src` and `srcset`; the rest are used by WordPress lazy loaders,
# lazysizes, Squarespace, Medium, Shopify and image zooms.
LAZY = (
    "data-src", "data-src-fg", "data-scroll-image", "data-lateloadsrc", "data-img-src", "data-original",
    "data-gt-lazy-src", "data-lazy", "data-lazy-src", "src2",
    "data-orig-file", "data-large-file", "data-full-src", "data-fullsrc", "data-large_image", "data-hi-res-src",
    "data-highres", "data-orig-src", "data-image", "data-image-src", "data-delayed-url", "data-echo", "data-url",
    "data-cfsrc", "data-ezsrc", "data-opt-src", "data-mainsrc", "data-raw-src", "data-actualsrc", "data-pagespeed-lazy-src",
    "data-flickity-lazyload", "data-defer-src", "data-normal", "data-thumb", "data-hi-res", "lazy-src", "data-srcs", "file",
    "original", "zoomfile", "_src", "real_src", "lazysrc", "v-lazy", "loading-src", "nitro-lazy-src", "ng-src", ":src",
)  # fmt: skip
_SETS = ("srcset", "data-src-set", "data-original-set")  # an attribute whose name ends with one of these holds a srcset
_LAZY_PRESENT = frozenset(LAZY)

_PLACEHOLDER_ENDS = (  # ends of a file name without extension, in lower case: a cheap test before the pattern below
    *("blank", "spacer", "pixel", "holder", "lazy", "load", "loader", "loading", "spinner", "trans", "transparent", "clear"),
    *("grey", "gray", "empty", "dummy", "1x1", "px", "fallback"),
)
_PLACEHOLDER = re.compile(  # matches a file name
    r"(?:^|.*[_.-])(?:blank|spacer|pixel|place-?holder|lazy(?:[_-]?load(?:er|ing)?)?|(?:pre-?)?load(?:er|ing)|spinner"
    r"|trans(?:parent)?|clear|gr[ea]y|empty|dummy|1x1|1?px|fallback)\.(?:gif|png|svg|jpe?g|webp)",
    re.IGNORECASE,
)
_NO_HOST = re.compile(r"\s*(?:https?:)?//(?::|\s*$)", re.IGNORECASE)  # `//:0`, which requests nothing
_IMAGE_FILE = re.compile(r"^\S+\.(?:jpe?g|png|webp|gif|avif)(?:[?#]\S*)?$", re.IGNORECASE)
# This and the next two patterns are matched against a lower-case address, which is faster than IGNORECASE.
_PREVIEW_WORD = re.compile(
    r"(?<![a-z])(?:lqip|sqip|blur(?:red|ry|hash)?|preview|place-?holder|tiny|low-?(?:res|quality|src)?|thumb(?:nail|s)?)(?![a-z])"
)
_PREVIEW_HINTS = ("qip", "blur", "preview", "holder", "tiny", "low", "thumb")  # each of the words above contains one of these
_POOR = re.compile(r"(?<![a-z0-9])(?:q|qlt|quality)[=_:-](?:[12]?\d|30)(?![\d.])")
_STATED = re.compile(  # width=20, w_20, /max/60/, resize:fit:60, -20x13.jpg, =w20-h13, /s72-c/
    r"(?<![a-z0-9])(?:(?:w|wid|width|max|max-?w(?:idth)?|re-?size|fit|size|sz)[=_:/](\d{1,5})(?!\d)"
    r"|(\d{1,5})x(?:\d{1,5})?(?![a-z0-9])|[ws](\d{1,5})(?=[-/]|$))"
)
_END = 200  # characters at the end of an address, which state the requested size and quality
_PREVIEW_WIDTH = 100  # pixels; an address that requests a greater width is not a preview
_PATHLIKE = re.compile(r"^(?:https?:)?//\S|^[./]|\.(?:jpe?g|png|webp|gif|avif|bmp|tiff?)(?:$|[?#])", re.IGNORECASE)
_DESCRIPTOR = re.compile(r"^(\d+(?:\.\d+)?)([wx])$")
_USUAL = re.compile(r"[\s,]*+([^\s,]\S*+)(?<!,)\s++(\d++(?:\.\d++)?)([wx])\s*+(?:,|\Z)")  # `a.jpg 300w,`
_MAX_SRCSET = 20_000  # characters of a srcset that are read
_ADDRESS = re.compile(r"[\s,]*([^\s,]\S*)")
_DESCRIPTORS = re.compile(r"(?:[^,()]|\([^)]*\)?|\))*,?")  # up to the next comma outside parentheses


class Candidate(NamedTuple):
    """One address of a srcset."""

    address: str
    width: float  # pixels as stated in the srcset, or 0 if not stated
    density: float  # device pixels per CSS pixel, or 1 if not stated


def parse_srcset(text: str) -> list[Candidate]:
    """Return the addresses of a srcset in order, parsed as WHATWG defines it.

    An address ends at white space and may contain commas. The descriptors after an address end at a comma.
    """
    found, place, end = [], 0, min(len(text), _MAX_SRCSET)
    while place < end:
        if match := _USUAL.match(text, place, end):
            size, place = float(match[2]), match.end()
            found.append(Candidate(match[1], size, 1) if match[3] == "w" else Candidate(match[1], 0, size))
            continue
        match = _ADDRESS.match(text, place, end)
        if match is None:
            break
        address, place = match[1], match.end()
        if address[-1] == ",":
            found.append(Candidate(address.rstrip(","), 0, 1))
            continue
        match = _DESCRIPTORS.match(text, place, end)
        place = match.end()  # type: ignore[union-attr]  # it always matches, even an empty string
        candidate = _described(address, match[0].rstrip(",").split())  # type: ignore[index]
        if candidate:
            found.append(candidate)
    return found


def _described(address: str, descriptors: list[str]) -> Candidate | None:
    """Return an address with its descriptors, such as `300w` and `2x`, or None if a descriptor is invalid."""
    width, density = 0.0, 1.0
    for word in descriptors:
        match = _DESCRIPTOR.match(word)
        if match is None:
            if word.endswith("h") and word[:-1].isdigit():
                continue
            return None
        if match[2] == "w":
            width = float(match[1])
        else:
            density = float(match[1])
    return Candidate(address, width, density)


def _rank(candidate: Candidate) -> tuple[float, float]:
    """Return the sort key of a candidate. The candidate whose width is closest to `BEST_WIDTH` comes first.

    Closeness is a ratio, so half of `BEST_WIDTH` and twice `BEST_WIDTH` are equally close. If widths are equal, the candidate
    with the higher density comes first.
    """
    width = candidate.width if candidate.width <= BEST_WIDTH else BEST_WIDTH**2 / candidate.width
    return -width, -candidate.density


def is_placeholder(address: str) -> bool:
    """Return whether an address is a placeholder, which a lazy loader shows until the image loads.

    The address of a placeholder names a blank image or a spinner, is an inline GIF or SVG, or has no host.
    """
    if address.startswith("data:"):
        return address.startswith(("data:image/gif", "data:image/svg")) or len(address) < 200
    if not address or address.isspace() or address.startswith(("about:", "#", "javascript:")):
        return True
    if ("//:" in address or address.rstrip().endswith("//")) and _NO_HOST.match(address):
        return True
    name = address.partition("?")[0].partition("#")[0].rpartition("/")[2]
    return name.rpartition(".")[0].lower().endswith(_PLACEHOLDER_ENDS) and bool(_PLACEHOLDER.fullmatch(name[-80:]))


def stated_width(address: str) -> float:
    """Return the width in pixels that an address requests, or infinity if it requests the full image."""
    return _stated_width(address[-_END:].lower())


def is_preview(address: str) -> bool:
    """Return whether an address requests a small or blurred preview: `w=20`, `q=20`, `/max/60/`, `-20x13.jpg`, `lqip`."""
    return _is_preview(address[-_END:].lower())


@lru_cache(maxsize=512)  # most addresses are checked more than once
def _stated_width(end: str) -> float:
    return min((float(match[match.lastindex]) for match in _STATED.finditer(end)), default=float("inf"))  # type: ignore[index]


@lru_cache(maxsize=512)
def _is_preview(end: str) -> bool:
    word = any(hint in end for hint in _PREVIEW_HINTS) and _PREVIEW_WORD.search(end)
    return bool(word or _POOR.search(end)) or _stated_width(end) <= _PREVIEW_WIDTH


def addresses(attributes: Mapping[str, str | None], sources: Iterable[Mapping[str, str | None]] = ()) -> list[str]:
    """Return the addresses of an `<img>` and of the `<source>`s of its `<picture>`, best first, without placeholders.

    The addresses in a srcset with widths or densities come first. The address in the attribute of a lazy loader is next. Then
    comes `src`, which may be a preview that the lazy loader replaces. Without widths in a srcset, the first address may be a
    preview. If so, all previews are moved to the end.
    """
    texts = _sets(attributes)
    for source in sources:
        texts += _sets(source)
    candidates = [c for text in texts for c in parse_srcset(text) if not is_placeholder(c.address)] if texts else []
    src = attributes.get("src") or ""
    real = src if src and not is_placeholder(src) else None
    plain = [address for address in (_lazy(attributes, alone=not real and not candidates), real) if address]
    if not candidates:
        return _previews_last(plain)
    candidates.sort(key=_rank)
    described = [c.address for c in candidates]
    if any(c.width for c in candidates):
        return list(dict.fromkeys([*described, *plain]))
    found = [*described, *plain] if any(c.density > 1 for c in candidates) else [*plain, *described]
    return _previews_last([*dict.fromkeys(found)])


def _previews_last(found: list[str]) -> list[str]:
    return sorted(found, key=is_preview) if len(found) > 1 and is_preview(found[0]) else found


def _sets(attributes: Mapping[str, str | None]) -> list[str]:
    """Return the srcsets of an element, or an empty list if its `type` is not a common image format."""
    kind = attributes.get("type") or ""
    if kind and not kind.startswith(("image/jpeg", "image/png", "image/webp", "image/avif", "image/gif")):
        return []
    return [text for name, text in attributes.items() if name.endswith(_SETS) and text]


def _lazy(attributes: Mapping[str, str | None], *, alone: bool) -> str | None:
    """Return the address in the attribute of a lazy loader, or None if there is no such address.

    If `alone`, no other address of the image is known, so all other `data-` attributes are searched too.
    """
    if not _LAZY_PRESENT.isdisjoint(attributes):
        for name in LAZY:
            text = attributes.get(name)
            if text and _PATHLIKE.search(text.strip()) and not is_placeholder(text):
                return text.strip()
    for name, text in attributes.items() if alone else ():
        if (
            text
            and len(text) < 2000
            and name.startswith("data-")
            and _IMAGE_FILE.match(text)
            and not (is_placeholder(text) or is_preview(name))
        ):
            return text
    return None
