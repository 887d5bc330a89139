"""Turn published documents, which are aligned lists of texts and images, into rows."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from vlmdata.readers.page_rows import paragraphs
from vlmdata.readers.strings import clean

SIZES = ("rendered_width", "rendered_height", "original_width", "original_height")


def positions(
    texts: Sequence[Any], images: Sequence[Any], image_of: Callable[[int, Any], dict[str, Any] | None]
) -> Iterator[dict[str, Any] | str]:
    """Yield a document's paragraphs and images in order.

    A position may hold a text, an image, both or neither. The image comes before the text. `image_of` returns the fields of an
    image from its position and its entry, or None if there is no image.
    """
    for place in range(max(len(texts), len(images))):
        entry = images[place] if place < len(images) else None
        image = image_of(place, entry) if entry not in (None, "") else None
        if image is not None:
            yield image
        text = texts[place] if place < len(texts) else None
        if isinstance(text, str):
            yield from paragraphs(text)


def metadata_fields(metadata: Any) -> dict[str, Any]:
    """Return the facts that OBELICS's metadata states about an image, as fields of IMAGE."""
    if not isinstance(metadata, Mapping):
        return {}
    sizes = {name: metadata.get(name) for name in SIZES}
    found: dict[str, Any] = {name: size for name, size in sizes.items() if type(size) is int and 0 <= size < 1 << 31}
    if isinstance(metadata.get("alt_text"), str):
        found["alt"] = clean(metadata["alt_text"])
    return found


def parsed(text: Any, kind: type) -> Any:
    """Parse JSON text, and return the value if its type is `kind`. A value that is already parsed is accepted too.

    For invalid JSON or a value of another type, return `kind()`, which is empty.
    """
    if isinstance(text, str):
        try:
            text = json.loads(text)
        except (ValueError, RecursionError):
            return kind()
    return text if isinstance(text, kind) else kind()
