"""Which address an image of a page really has: `src`, `srcset`, `<picture>` or one of the lazy-loading attributes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

BEST_WIDTH = 2048  # pixels: more than an encoder looks at costs traffic for nothing

# The first twelve are OBELICS's list (there `src` and `srcset` stand among them); the rest are what WordPress lazy
# loaders, lazysizes, Squarespace, Medium, Shopify and image zooms write.
LAZY = (
    "data-src", "data-src-fg", "data-scroll-image", "data-lateloadsrc", "data-img-src", "data-original",
    "data-gt-lazy-src", "data-lazy", "data-lazy-src", "src2",
    "data-orig-file", "data-large-file", "data-full-src", "data-fullsrc", "data-large_image", "data-hi-res-src",
    "data-highres", "data-orig-src", "data-image", "data-image-src", "data-delayed-url", "data-echo", "data-url",
    "data-cfsrc", "data-ezsrc", "data-opt-src", "data-mainsrc", "data-raw-src", "data-actualsrc", "data-pagespeed-lazy-src",
    "data-flickity-lazyload", "data-defer-src", "data-normal", "data-thumb", "data-hi-res", "lazy-src", "data-srcs", "file",
)  # fmt: skip
LAZY_SETS = ("data-srcset", "data-lazy-srcset", "data-src-set", "data-original-set", "data-orig-srcset", "lazy-srcset")
_LAZY_PRESENT = frozenset(LAZY)
_SET_PRESENT = frozenset(("srcset", *LAZY_SETS))

_PLACEHOLDER = re.compile(  # of a file's name
    r"(?:^|.*[_.-])(?:blank|spacer|pixel|place-?holder|lazy(?:[_-]?load(?:er|ing)?)?|load(?:er|ing)|transparent"
    r"|clear|gr[ea]y|empty|dummy|1x1|fallback)\.(?:gif|png|svg|jpe?g|webp)",
    re.IGNORECASE,
)
_PATHLIKE = re.compile(r"^(?:https?:)?//\S|^[./]|\.(?:jpe?g|png|webp|gif|avif|bmp|tiff?)(?:$|[?#])", re.IGNORECASE)
_DESCRIPTOR = re.compile(r"^(\d+(?:\.\d+)?)([wx])$")
_MAX_SRCSET = 20_000  # characters looked at
_ADDRESS = re.compile(r"[\s,]*([^\s,]\S*)")
_DESCRIPTORS = re.compile(r"(?:[^,()]|\([^)]*\)?|\))*,?")  # up to the next comma outside parentheses


class Candidate(NamedTuple):
    address: str
    width: float  # pixels as the srcset says, 0 where it does not
    density: float  # device pixels for one of CSS, 1 where it does not say


def parse_srcset(text: str) -> list[Candidate]:
    """Read a srcset as WHATWG says: an address ends at white space, so commas inside it stay; descriptors end at a comma."""
    found, place, end = [], 0, min(len(text), _MAX_SRCSET)
    while match := _ADDRESS.match(text, place, end):
        address, place = match[1], match.end()
        if address[-1] == ",":
            found.append(Candidate(address.rstrip(","), 0, 1))
            continue
        match = _DESCRIPTORS.match(text, place, end)
        place = match.end()  # type: ignore[union-attr]  # it matches nothing at least
        candidate = _described(address, match[0].rstrip(",").split())  # type: ignore[index]
        if candidate:
            found.append(candidate)
    return found


def _described(address: str, descriptors: list[str]) -> Candidate | None:
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
    """Order by width, the nearest to BEST_WIDTH in ratio first, then by density, the highest first."""
    width = candidate.width if candidate.width <= BEST_WIDTH else BEST_WIDTH**2 / candidate.width
    return -width, -candidate.density


def is_placeholder(address: str) -> bool:
    """Say whether an address is what lazy loaders show until the image comes: a blank, a spinner, an inline GIF or SVG."""
    if address.startswith("data:"):
        return address.startswith(("data:image/gif", "data:image/svg")) or len(address) < 200
    if not address or address.isspace() or address.startswith(("about:", "#", "javascript:")):
        return True
    name = address.partition("?")[0].partition("#")[0].rpartition("/")[2]
    return bool(_PLACEHOLDER.fullmatch(name[-80:]))


def addresses(attributes: Mapping[str, str | None], sources: Iterable[Mapping[str, str | None]] = ()) -> list[str]:
    """Return the addresses of an `<img>`, best first, given also the `<source>`s of its `<picture>`; placeholders left out.

    A set with widths comes first, then a set with densities, then lazy attributes (beside them `src` is what is shown
    until the image comes), then `src`.
    """
    texts = _sets(attributes) if not _SET_PRESENT.isdisjoint(attributes) else []
    for source in sources:
        texts = texts + _sets(source)
    candidates = [c for text in texts for c in parse_srcset(text) if not is_placeholder(c.address)]
    src = attributes.get("src") or ""
    real = src if src and not is_placeholder(src) else None
    lazy = _lazy(attributes)
    if not candidates:
        return [address for address in (lazy, real) if address]
    candidates.sort(key=_rank)
    plain = [address for address in (lazy, real) if address]
    if not any(c.width for c in candidates) and all(c.density <= 1 for c in candidates):
        return list(dict.fromkeys([*plain, *(c.address for c in candidates)]))
    return list(dict.fromkeys([*(c.address for c in candidates), *plain]))


def _sets(attributes: Mapping[str, str | None]) -> list[str]:
    kind = attributes.get("type") or ""
    if kind and not kind.startswith(("image/jpeg", "image/png", "image/webp", "image/avif", "image/gif")):
        return []
    return [text for name in ("srcset", *LAZY_SETS) if (text := attributes.get(name))]


def _lazy(attributes: Mapping[str, str | None]) -> str | None:
    if _LAZY_PRESENT.isdisjoint(attributes):
        return None
    for name in LAZY:
        text = attributes.get(name)
        if text and _PATHLIKE.search(text.strip()) and not is_placeholder(text):
            return text.strip()
    return None
