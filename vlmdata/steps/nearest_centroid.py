"""Keep images in the k-means cells of reference images: DataComp's image-based filter."""

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.home_folder import at_home
from vlmdata.parameters import Doc
from vlmdata.row import aligned, drop_images, flatten
from vlmdata.similarity.array_files import npy_shape
from vlmdata.similarity.embeddings import embeddings_in
from vlmdata.step import RecipeError, Step, StepContext

BLOCK_PRODUCTS = 1 << 24  # products of rows and centroids computed at a time, 64 MiB
MARGIN = 1e-4  # a share of the largest product, above float32's error; closer products are compared in float64


@dataclass(frozen=True, kw_only=True)
class NearestCentroid(Step):
    """Reject an image unless its nearest centroid is also the nearest centroid of a reference image.

    The nearest centroid of an image has the greatest dot product with the image's embedding. If several have, it is the first.
    An image without an embedding stays. Source: Gadre et al. 2023, DataComp's image-based filter. It uses 100,000 centroids
    from faiss's k-means over the pool, ImageNet-1k's training images as references, and embeddings from OpenAI's ViT-L/14.
    """

    id: ClassVar = "vlmdata.steps.nearest_centroid"
    example: ClassVar = (
        "- clip_score: {model: ViT-L-14-quickgelu, pretrained: openai, min_score: -1, embeddings: true}\n"
        "- nearest_centroid: {centroids: centroids.npy, references: [in1k.npy]}"
    )
    writes: ClassVar = {"": pa.list_(pa.int32())}

    centroids: Annotated[str, Doc(".npy file of shape (K, D), from the model that computed `embedding`.")]
    references: Annotated[tuple[str, ...], Doc(".npy files: embeddings (N, D), or the indices (N,) of the centroids to keep.")]
    embedding: Annotated[str, Doc("Column of the embeddings.")] = "clip_score.embedding"

    def check(self) -> None:
        shape = npy_shape(self.centroids, f"{self.name}.centroids")
        if len(shape) != 2 or not shape[0]:
            raise RecipeError(f"{self.name}.centroids: {self.centroids} must have the shape (centroids, width), not {shape}")
        if not self.references:
            raise RecipeError(
                f"{self.name}.references: give a list of files that hold embeddings of reference images or indices of centroids"
            )
        for path in self.references:
            own = npy_shape(path, f"{self.name}.references")
            if len(own) != 1 and own[1:] != shape[1:]:
                raise RecipeError(
                    f"{self.name}.references: {path} must have the shape (references, {shape[1]}) for embeddings"
                    f" or (indices,) for centroids, not {own}"
                )

    def embedding_files(self) -> tuple[str, ...]:
        return (self.centroids,)

    def columns_read(self) -> tuple[str, ...]:
        return ("images", self.embedding)

    def identity(self) -> str:
        with open(at_home(self.centroids), "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()[:16]

    def measure(self, rows: pa.Table, context: StepContext | None) -> dict[str, pa.Array]:
        has, vectors = embeddings_in(rows, self.embedding)
        cells = np.full(len(has), np.nan)
        if has.any():
            cells[has] = nearest(vectors, _centroids(self.centroids))
        return {"": flatten(rows, "images").rebuild(pa.array(cells, pa.float64(), from_pandas=True).cast(pa.int32()))}

    def decide(self, rows: pa.Table) -> pa.Table:
        cells = aligned(rows, self.name, "images")
        bad = ~np.isin(cells, _cells_of(self.centroids, self.references)) & ~np.isnan(cells)
        return drop_images(rows, bad, self.name, reason="far_from_references")


def nearest(vectors: np.ndarray, centroids: np.ndarray) -> np.ndarray:
    """Return for each vector the index of the centroid with the greatest dot product: (N, D), (K, D) float32 -> (N,) int64.

    If several centroids have the greatest product, return the index of the first.
    """
    cells = np.empty(len(vectors), np.int64)
    step = max(BLOCK_PRODUCTS // len(centroids), 1)
    for start in range(0, len(vectors), step):
        block = vectors[start : start + step].astype(np.float32)
        products = block @ centroids.T
        best = products.max(axis=1, keepdims=True)
        close = products >= best - MARGIN * np.maximum(np.abs(best), 1e-3)
        cells[start : start + step] = close.argmax(axis=1)
        for row in np.flatnonzero(close.sum(axis=1) > 1):
            rivals = np.flatnonzero(close[row])
            exact = (centroids[rivals].astype(np.float64) * block[row].astype(np.float64)).sum(axis=1)
            cells[start + row] = rivals[exact.argmax()]
    return cells


@lru_cache(maxsize=2)
def _centroids(path: str) -> np.ndarray:
    return np.load(at_home(path)).astype(np.float32)


@lru_cache(maxsize=2)
def _cells_of(centroids: str, references: tuple[str, ...]) -> np.ndarray:
    """Return the indices of the centroids that are nearest to at least one reference embedding, in ascending order.

    Each path in `references` names an array of embeddings, or a one-dimensional array of such indices.
    """
    arrays = [np.load(at_home(path)) for path in references]
    cells = [one if one.ndim == 1 else nearest(one, _centroids(centroids)) for one in arrays]
    return np.unique(np.concatenate(cells))
