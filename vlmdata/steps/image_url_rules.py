"""Reject the images on web pages before they are fetched, by address and by the size at which the page shows an image."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.row import drop_images, flatten, numbers
from vlmdata.step import Step


@dataclass(frozen=True, kw_only=True)
class ImageUrlRules(Step):
    """Reject an image by its address, or by the size at which its page shows it.

    An image is rejected if its address contains a banned word or occurs earlier in the document, or if the size at which the
    page shows the image is outside the limits.

    The data of an inline image is not searched for words. `data:` or `data:image` in `banned` rejects inline images.
    """

    id: ClassVar = "vlmdata.steps.image_url_rules"
    example: ClassVar = '- image_url_rules: {banned: [logo, icon, ".svg", "data:image"], min_rendered: 150}'
    reads: ClassVar = ("images",)
    limits: ClassVar = {"banned_*": "in banned", "min_rendered_*": "< min_rendered", "max_rendered_*": "> max_rendered"}

    banned: Annotated[list[str], Doc("Words that are rejected anywhere in an address.", source="OBELICS, step 11")] = field(
        default_factory=lambda: ["logo", "button", "icon", "plugin", "widget", "porn", "xxx", "sex"]
    )
    min_rendered: Annotated[
        int,
        Doc(
            "An image is rejected if its page shows it smaller, in width or height. An image without a stated size stays.",
            unit="pixels",
            source="OBELICS",
        ),
    ] = 150
    max_rendered: Annotated[
        int, Doc("An image is rejected if its page shows it larger, in width or height.", unit="pixels", source="OBELICS")
    ] = 20_000
    keep_repeats: Annotated[
        bool,
        Doc("Whether an image that repeats an address in its document stays. OBELICS keeps only the first.", source="OBELICS"),
    ] = False

    def decide(self, rows: pa.Table) -> pa.Table:
        flat = flatten(rows, "images")
        urls = flat.field("url").to_pylist()
        banned = [word.lower() for word in self.banned]
        found = [_first(url, banned) for url in urls]
        reasons = np.array([word and f"banned_{word}" for word in found], object)
        rows = drop_images(rows, np.array([word is not None for word in found], bool), self.name, reason=reasons)
        for side in ("width", "height"):
            shown = numbers(flat.field(f"rendered_{side}"))
            for reason, bad, limit in (
                (f"min_rendered_{side}", shown < self.min_rendered, self.min_rendered),
                (f"max_rendered_{side}", shown > self.max_rendered, self.max_rendered),
            ):
                rows = drop_images(rows, bad, self.name, reason=reason, value=shown, threshold=limit)
        if self.keep_repeats:
            return rows
        return drop_images(rows, _repeated(rows), self.name, reason="repeated_in_document")


def _first(url: str | None, banned: list[str]) -> str | None:
    """Return the first banned word in an address, or None if the address contains no banned word.

    For an inline image, return the first banned word that begins with `data:` and is a prefix of the address.
    """
    if not url:
        return None
    if url.startswith("data:"):
        return next((word for word in banned if word.startswith("data:") and url.lower().startswith(word)), None)
    lower = url.lower()
    return next((word for word in banned if word in lower), None)


def _repeated(rows: pa.Table) -> np.ndarray:
    flat = flatten(rows, "images")
    seen: set[tuple[int, str]] = set()
    repeated = np.zeros(len(flat.items), bool)
    for i, (url, row, is_alive) in enumerate(zip(flat.field("url").to_pylist(), flat.parents, flat.alive(), strict=True)):
        if is_alive and url and not url.startswith("data:"):
            repeated[i] = (row, url) in seen
            seen.add((row, url))
    return repeated
