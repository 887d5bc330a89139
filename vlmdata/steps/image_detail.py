"""Measure the detail of images, and reject blank, nearly blank and blurred images."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.images.decode import decode
from vlmdata.images.facts import ImageError
from vlmdata.images.header import read_header
from vlmdata.images.measure import entropy, sharpness, spread
from vlmdata.images.resize import scale_to
from vlmdata.parameters import Doc
from vlmdata.row import aligned, drop_images, flatten
from vlmdata.step import Step, StepContext

DIGITS = 3
MEASURING_BYTES = 7  # bytes that measuring needs for each pixel, in addition to the bytes of the picture


@dataclass(frozen=True, kw_only=True)
class ImageDetail(Step):
    """Reject an image with too little contrast (`blank`), too low entropy (`flat`) or no sharp edge (`blurred`).

    Each image is decoded once for all three measures. An image whose short side is longer than `side` is scaled down to
    `side` before measuring. An image that cannot be decoded is not measured and stays, because `resize` rejects it.
    """

    id: ClassVar = "vlmdata.steps.image_detail"
    example: ClassVar = "- image_detail: {min_spread: 5, min_entropy: 1}"
    reads: ClassVar = ("images",)
    fetched: ClassVar = ("blob",)
    writes: ClassVar = {name: pa.list_(pa.float64()) for name in ("spread", "entropy", "sharpness")}
    measured_by: ClassVar = ("side",)
    limits: ClassVar = {"blank": "< min_spread", "flat": "< min_entropy", "blurred": "< min_sharpness"}

    min_spread: Annotated[
        float,
        Doc(
            "An image is `blank` if the standard deviations of luma and of all channels are lower. A page of text has "
            "40 or more.",
            unit="levels, 0 to 127.5",
            source="vlmdata's choice",
        ),
    ] = 5.0
    min_entropy: Annotated[
        float,
        Doc("An image is `flat` below this entropy. Two-colour drawings have less than 1. 0: no limit.", unit="bits, 0 to 8"),
    ] = 0.0
    min_sharpness: Annotated[
        float,
        Doc(
            "An image is `blurred` below this. The usual 100 (NeMo Curator) rejects good but soft photos. 0: no limit.",
            unit="variance of the Laplacian",
        ),
    ] = 0.0
    side: Annotated[
        int,
        Doc(
            "An image whose short side is longer is scaled down to it before measuring.",
            unit="pixels",
            source="vlmdata's choice",
        ),
    ] = 256

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        flat = flatten(rows, "images")
        places = [flat.field(name).to_pylist() for name in ("blob", "offset", "size")]
        values: dict[str, list[float | None]] = {name: [None] * len(flat.items) for name in self.writes}
        for at in np.flatnonzero(flat.alive()):
            blob, offset, size = (place[at] for place in places)
            if blob is None:
                continue
            try:
                pixels = small_pixels(context.image_bytes(blob, offset, size), self.side)
            except ImageError:
                continue
            for name, function in (("spread", spread), ("entropy", entropy), ("sharpness", sharpness)):
                values[name][at] = round(function(pixels), DIGITS)
        return {name: flat.rebuild(pa.array(column, pa.float64())) for name, column in values.items()}

    def decide(self, rows: pa.Table) -> pa.Table:
        limits = {"spread": (self.min_spread, "blank"), "entropy": (self.min_entropy, "flat")}
        limits["sharpness"] = (self.min_sharpness, "blurred")
        for name, (limit, reason) in limits.items():
            value = aligned(rows, self.column(name), "images")
            rows = drop_images(rows, value < limit, self.name, reason=reason, value=value, threshold=limit)
        return rows


def small_pixels(data: bytes, side: int) -> np.ndarray:
    """Return an image as (H, W, 3) uint8 RGB with a short side of at most `side`. Raises ImageError."""
    header = read_header(data)
    width, height = header.upright_size
    share = min(1.0, side / min(width, height))
    target = max(1, round(width * share)), max(1, round(height * share))
    beside = MEASURING_BYTES * target[0] * target[1]
    return scale_to(decode(data, target=target, beside=beside, header=header).pixels, target)
