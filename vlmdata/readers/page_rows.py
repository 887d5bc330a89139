"""Turn HTML pages into rows with a paragraph or an image at each position."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any, Literal

from vlmdata.html.document import PageDocument, extract
from vlmdata.html.image_ref import ImageRef
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import document, pair, reject
from vlmdata.readers.source_images import inline
from vlmdata.readers.strings import clean
from vlmdata.untrusted import Failed, errors_as

Mode = Literal["default", "obelics"]
Yields = Literal["documents", "alt_pairs"]
Find = Callable[[str], bytes | None]

_REFUSING = frozenset(("noai", "noimageai", "noml", "tdm-reservation"))
MIN_ALT_CHARS = 5  # minimum length of an alt text in LAION-400M


def page_rows(
    html: bytes,
    url: str,
    *,
    id: str,
    charset: str | None = None,
    facts: Mapping[str, Any],
    mode: Mode = "default",
    yields: Yields = "documents",
    wishes: tuple[str, ...] = (),
    find: Find | None = None,
) -> Iterator[dict[str, Any]]:
    """Yield one row for a page. If `yields` is "alt_pairs", yield one row for each image of the page that has an alt text.

    `facts` go into the column `extra`. `wishes` are the robots directives in the page's HTTP headers. `find` takes an address
    and returns the image's bytes, or None. A page that is empty, opts out of use for AI or exceeds a limit gives one dropped
    row.
    """
    found = _extracted(html, url, charset, mode, yields)
    about: dict[str, Any] = {"title": found.title, "language": found.language, "encoding": found.encoding}
    about |= {"robots": [*found.robots], "replaced_chars": found.replaced, "left_out": found.left_out}
    extra = clean(json_object({**facts, **{name: value for name, value in about.items() if value}}))
    base = {"id": id, "url": clean(url), "extra": extra}
    reason = f"page_{found.refused}" if found.refused else refusal((*wishes, *found.robots))
    if reason is None and not any(found.texts) and not any(found.images):
        reason = "empty_page"
    if reason:
        yield reject({**base, "images": [], "texts": []}, reason)
    elif yields == "alt_pairs":
        yield from _alt_pairs(found, base, find)
    else:
        yield document(_positions(found, find), **base)


def _extracted(html: bytes, url: str, charset: str | None, mode: Mode, yields: Yields) -> PageDocument:
    with suppress(Failed), errors_as(Failed):  # a page that crashes the parser is one dropped row
        return extract(html, url, charset_hint=charset, mode=mode, whole_page=yields == "alt_pairs")
    return PageDocument(refused="unreadable")


def refusal(wishes: tuple[str, ...]) -> str | None:
    """Return `noai` if a page or its headers opt out of model training, else None."""
    return "noai" if any(wish in _REFUSING for wish in wishes) else None


def paragraphs(text: str) -> list[str]:
    """Return the paragraphs of a text, split at empty lines, so that each can be kept or rejected alone."""
    return [part for part in clean(text).split("\n\n") if part.strip()]


def _positions(found: PageDocument, find: Find | None) -> Iterator[dict[str, Any] | str]:
    for text, image in zip(found.texts, found.images, strict=True):
        if image is not None:
            yield image_fields(image, find)
        elif text is not None:
            yield from paragraphs(text)


def _alt_pairs(found: PageDocument, base: dict[str, Any], find: Find | None) -> Iterator[dict[str, Any]]:
    """Yield a caption pair for each image with an alt text, as in LAION. A figure's caption becomes an alternative."""
    number = 0
    seen: set[tuple[str, str]] = set()
    for image in found.images:
        if image is None or len(image.alt or "") < MIN_ALT_CHARS:
            continue
        alt = clean(image.alt or "")
        if image.data is None and (image.url, alt) in seen:
            continue
        seen.add((image.url, alt))
        captions = [alt, *([clean(image.caption)] if image.caption else [])]
        yield pair(image_fields(image, find), captions, **{**base, "id": f"{base['id']}#{number}"})
        number += 1


def image_fields(image: ImageRef, find: Find | None) -> dict[str, Any]:
    """Return a page's image as fields of IMAGE, with bytes if the page or `find` has them, else with its address."""
    fields: dict[str, Any] = {"url": clean(image.url)}
    fields |= {"alt": image.alt and clean(image.alt), "caption": image.caption and clean(image.caption)}
    fields |= {"rendered_width": image.rendered_width, "rendered_height": image.rendered_height}
    if image.data is not None:
        return {**fields, **inline(image.data)}
    for url in (image.url, *image.others) if find else ():
        data = find(url)  # type: ignore[misc]
        if data:
            return {**fields, "url": clean(url), **inline(data)}
    return fields
