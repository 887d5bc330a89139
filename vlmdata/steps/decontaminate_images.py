"""Reject images that look like, or mean the same as, images of evaluation sets."""

from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.images.decode import decode
from vlmdata.images.header import ImageError
from vlmdata.images.phash import phash, phash_imagededup
from vlmdata.row import drop_images, flatten
from vlmdata.similar.blocks import MAX_DISTANCE, Hashes
from vlmdata.similar.cosine import Int8, pairs_between, quantise
from vlmdata.similar.embeddings import embeddings_in
from vlmdata.similar.nearest import NONE, nearest
from vlmdata.similar.references import IMAGES, members
from vlmdata.step import RecipeError, Step


@dataclass(frozen=True, kw_only=True)
class DecontaminateImages(Step):
    """Reject an image whose hash is within `distance` bits of a reference image's; with `embeddings`, also one whose
    embedding has a cosine above `cosine` to a reference embedding.

    A reference image that cannot be decoded stops the run: an evaluation set must be looked at in full.
    """

    reads: ClassVar = ("images",)

    references: tuple[str, ...] = ()  # folders, tars or files of images
    distance: int = 8  # of 64 bits
    hash: str = "phash"  # ours, of the stored pixels; or a column of imagededup's
    embeddings: tuple[str, ...] = ()  # .npy files of (N, D) made by the model that made `embedding`
    embedding: str = "clip_score.embedding"  # the column
    cosine: float = 0.95

    def check(self) -> None:
        if not self.references and not self.embeddings:
            raise RecipeError(f"{self.name}: name `references` (images), `embeddings` (.npy files), or both")
        if not 0 <= self.distance <= MAX_DISTANCE or not 0 < self.cosine < 1:
            raise RecipeError(f"{self.name}: needs a distance in 0..{MAX_DISTANCE} and a cosine between 0 and 1")
        for path in (*self.references, *self.embeddings):
            if not Path(path).exists():
                raise RecipeError(f"{self.name}: there is no {path}")

    def columns_read(self) -> tuple[str, ...]:
        own = () if self.hash == "phash" or not self.references else (self.hash,)
        return ("images", *own, *((self.embedding,) if self.embeddings else ()))

    def decide(self, rows: pa.Table) -> pa.Table:
        if self.references and len(rows):
            column = flatten(rows, "images").field("phash") if self.hash == "phash" else flatten(rows, self.hash).items
            has = np.asarray(column.is_valid())
            hashes = pc.fill_null(column, 0).to_numpy().astype(np.uint64)
            _, bits = nearest(hashes, _hashes(self.references, self.hash == "phash"), self.distance)
            bad = has & (bits != NONE)
            rows = drop_images(
                rows, bad, self.name, reason="looks_like_evaluation", value=bits.astype(float), threshold=float(self.distance)
            )
        if self.embeddings and len(rows):
            has, vectors = embeddings_in(rows, self.embedding)
            pairs = pairs_between(quantise(vectors), _embeddings(self.embeddings), self.cosine)
            bad = np.zeros(len(has), bool)
            for chunk in pairs:
                bad[np.flatnonzero(has)[chunk[:, 0]]] = True
            rows = drop_images(rows, bad, self.name, reason="means_like_evaluation", threshold=self.cosine)
        return rows


@lru_cache(maxsize=4)
def _hashes(references: tuple[str, ...], ours: bool) -> Hashes:
    found = []
    for path in references:
        for name, data in members(path, IMAGES):
            try:
                pixels = decode(data, max_pixels=1 << 28).pixels
            except ImageError as error:
                raise RecipeError(f"decontaminate_images: cannot decode the reference {name}: {error}") from None
            found.append(phash(pixels) if ours else phash_imagededup(pixels))
    return np.array(found, np.uint64)


@lru_cache(maxsize=4)
def _embeddings(files: tuple[str, ...]) -> Int8:
    return quantise(np.concatenate([np.load(file).astype(np.float32) for file in files]))
