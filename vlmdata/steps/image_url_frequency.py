"""Reject images, such as buttons, banners and avatars, whose address occurs too often in all documents together."""

from collections import Counter
from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa
import xxhash

from vlmdata.parameters import Doc
from vlmdata.row import alive, drop_images, flatten
from vlmdata.step import Step


@dataclass(frozen=True, kw_only=True)
class ImageUrlFrequency(Step):
    """Reject every image whose address occurs more than `max_count` times in total in the remaining documents.

    Inline images stay.
    """

    id: ClassVar = "vlmdata.steps.image_url_frequency"
    example: ClassVar = "- image_url_frequency: {max_count: 10}"
    reads: ClassVar = ("images.url",)
    changes: ClassVar = ("images",)
    sees_all: ClassVar = True
    limits: ClassVar = {"frequent_address": "> max_count"}

    max_count: Annotated[
        int,
        Doc(
            "An image whose address occurs more often in all remaining documents together is rejected.",
            unit="occurrences",
            source="OBELICS, step 15",
        ),
    ] = 10

    def decide(self, rows: pa.Table) -> pa.Table:
        flat = flatten(rows, "images")
        is_alive = flat.alive() & alive(rows)[flat.parents]
        keys = [_key(url) if here else None for url, here in zip(flat.field("url").to_pylist(), is_alive, strict=True)]
        counts = Counter(key for key in keys if key is not None)
        often = np.array([np.nan if key is None else counts[key] for key in keys], np.float64)
        return drop_images(
            rows, often > self.max_count, self.name, reason="frequent_address", value=often, threshold=self.max_count
        )


def _key(url: str | None) -> int | None:
    """Return a 64-bit hash of an address, or None for an inline image.

    Hashes are counted, because they take a tenth of the memory of addresses.
    """
    if not url or url.startswith("data:"):
        return None
    return xxhash.xxh3_64_intdigest(url.encode("utf-8", "surrogatepass"))
