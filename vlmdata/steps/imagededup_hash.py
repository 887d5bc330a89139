"""Measure imagededup's perceptual hash, so that images can be compared with hashes from imagededup."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.images.decode import decode
from vlmdata.images.facts import ImageError
from vlmdata.images.phash import phash_imagededup
from vlmdata.row import flatten
from vlmdata.step import Step, StepContext


@dataclass(frozen=True, kw_only=True)
class ImagededupHash(Step):
    """Measure imagededup 0.3's PHash of each stored image, for `dedupe_phash: {hash: imagededup_hash}`.

    The step rejects nothing.
    """

    id: ClassVar = "vlmdata.steps.imagededup_hash"
    example: ClassVar = "- imagededup_hash\n- dedupe_phash: {hash: imagededup_hash, distance: 10}"
    packages: ClassVar = ("scipy",)
    reads: ClassVar = ("images",)
    fetched: ClassVar = ("blob",)
    writes: ClassVar = {"": pa.list_(pa.uint64())}

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        images = flatten(rows, "images")
        blobs, offsets, sizes = (images.field(name).to_pylist() for name in ("blob", "offset", "size"))
        found: list[int | None] = [None] * len(blobs)
        for place in np.flatnonzero(images.alive()).tolist():
            try:
                body = context.image_bytes(blobs[place], offsets[place], sizes[place])
                found[place] = phash_imagededup(decode(body).pixels)
            except ImageError:  # a source may hold broken images, which get no hash; dedupe_phash skips them
                continue
        return {"": images.rebuild(pa.array(found, pa.uint64()))}
