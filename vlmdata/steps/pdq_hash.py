"""Measure PDQ, the perceptual hash used to exchange lists of known pictures."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.images.decode import decode
from vlmdata.images.facts import ImageError
from vlmdata.images.header import read_header
from vlmdata.images.pdq import pdq, pdq_bytes
from vlmdata.row import flatten
from vlmdata.step import Step, StepContext


@dataclass(frozen=True, kw_only=True)
class PdqHash(Step):
    """Measure the PDQ hash of each stored image, for `dedupe_pdq`. The step rejects nothing.

    A hash has 256 bits in 32 bytes. The last bit belongs to the first DCT coefficient. The column `quality` holds a number in
    0..100. A picture with a quality below 50 has too little detail to distinguish it from other pictures.
    """

    id: ClassVar = "vlmdata.steps.pdq_hash"
    example: ClassVar = "- pdq_hash"
    reads: ClassVar = ("images",)
    fetched: ClassVar = ("blob",)
    writes: ClassVar = {"": pa.list_(pa.binary()), "quality": pa.list_(pa.float64())}

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        images = flatten(rows, "images")
        blobs, offsets, sizes = (images.field(name).to_pylist() for name in ("blob", "offset", "size"))
        hashes: list[bytes | None] = [None] * len(blobs)
        qualities: list[float | None] = [None] * len(blobs)
        for place in np.flatnonzero(images.alive()).tolist():
            try:
                body = context.image_bytes(blobs[place], offsets[place], sizes[place])
                header = read_header(body)
                value, quality = pdq(decode(body, beside=pdq_bytes(*header.upright_size), header=header).pixels)
            except ImageError:  # a source may hold broken images, which get no hash; dedupe_pdq skips them
                continue
            hashes[place], qualities[place] = value.to_bytes(32, "big"), float(quality)
        arrays = {"": pa.array(hashes, pa.binary()), "quality": pa.array(qualities, pa.float64())}
        return {name: images.rebuild(array) for name, array in arrays.items()}
