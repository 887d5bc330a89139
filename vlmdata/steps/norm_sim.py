"""Measure how similar an image is to a set of target images: NormSim, on stored embeddings."""

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa

from vlmdata.home_folder import at_home
from vlmdata.parameters import Doc
from vlmdata.row import aligned, drop_images, flatten
from vlmdata.similarity.array_files import blocks_of, npy_shape, row_without_direction, stamp_of
from vlmdata.similarity.embeddings import embeddings_in
from vlmdata.similarity.highest_cosines import highest_cosines
from vlmdata.similarity.units import Units, has_direction, units_of
from vlmdata.step import RecipeError, Step, StepContext

DECIMALS = 6


@dataclass(frozen=True, kw_only=True)
class NormSim(Step):
    """Measure the norm of the vector of an image's cosines with all target embeddings. Reject images below `min_score`.

    `norm: inf` is the greatest absolute cosine, so an image needs one similar target. `norm: "2"` is the root of the sum of
    squared cosines, at most the root of the number of targets, so an image should resemble many of them. All embeddings are
    scaled to unit length first. An image without an embedding, or with one that is not finite or all zeros, has no score
    (`unscored`). Source: Wang et al. 2024 (2405.19547), who keep the 20% of the pool with the highest NormSim out of the 30%
    with the highest s-CLIPLoss, and use images of the evaluation tasks' training sets as targets.
    """

    id: ClassVar = "vlmdata.steps.norm_sim"
    example: ClassVar = (
        "- clip_score: {min_score: -1, embeddings: true}\n"
        "- norm_sim: {targets: [imagenet_train.npy]}\n"
        "- top_fraction: {score: norm_sim, fraction: 0.3}"
    )
    writes: ClassVar = {"": pa.list_(pa.float64())}
    measured_by: ClassVar = ("norm", "embedding")

    targets: Annotated[tuple[str, ...], Doc(".npy files of shape (N, D), from the model that computed `embedding`.")]
    norm: Annotated[Literal["2", "inf"], Doc("The norm. inf: the greatest absolute cosine.", source="Wang et al. 2024")] = "inf"
    embedding: Annotated[str, Doc("Column of the embeddings.")] = "clip_score.embedding"
    min_score: Annotated[
        float | None,
        Doc("An image with a lower norm is rejected. null: no limit, for use with `top_fraction`.", unit="as the norm"),
    ] = None
    unscored: Annotated[
        Literal["keep", "reject"], Doc("What happens to an image without a score. reject: its reason is `no_embedding`.")
    ] = "keep"

    def check(self) -> None:
        if not self.targets:
            raise RecipeError(f"{self.name}.targets: give at least one .npy file of embeddings")
        first = 0
        for path in self.targets:
            shape = npy_shape(path, f"{self.name}.targets")
            if len(shape) != 2 or not shape[0] or shape[1] != (first or shape[1]):
                width = f"the width {first} of {self.targets[0]}" if first else "one width"
                raise RecipeError(
                    f"{self.name}.targets: {path} must have the shape (embeddings, width), with {width}, not {shape}"
                )
            first = first or shape[1]
        for path in self.targets:
            if (row := row_without_direction(path)) is not None:
                raise RecipeError(
                    f"{self.name}.targets: row {row} of {path} is all zeros or not finite, so it has no cosine. Remove it"
                )

    def embedding_files(self) -> tuple[str, ...]:
        return self.targets

    def columns_read(self) -> tuple[str, ...]:
        return ("images", self.embedding)

    def identity(self) -> str:
        digest = hashlib.sha256()
        for path in self.targets:
            with open(at_home(path), "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()[:16]

    def measure(self, rows: pa.Table, context: StepContext | None) -> dict[str, pa.Array]:
        has, vectors = embeddings_in(rows, self.embedding)
        scores = np.full(len(has), np.nan)
        good = has_direction(vectors)
        if good.any():
            width = npy_shape(self.targets[0], f"{self.name}.targets")[1]
            if vectors.shape[1] != width:
                raise RecipeError(
                    f"{self.name}.targets: the files have embeddings of width {width}, but {self.embedding} has "
                    f"{vectors.shape[1]}. Give embeddings of the model that computed {self.embedding}"
                )
            scores[np.flatnonzero(has)[good]] = np.round(norms(units_of(vectors[good]), self.targets, self.norm), DECIMALS)
        return {"": flatten(rows, "images").rebuild(pa.array(scores, pa.float64(), from_pandas=True))}

    def decide(self, rows: pa.Table) -> pa.Table:
        value = aligned(rows, self.name, "images")
        if self.unscored == "reject":
            rows = drop_images(rows, np.isnan(value), self.name, reason="no_embedding")
        if self.min_score is None:
            return rows
        return drop_images(rows, value < self.min_score, self.name, reason="min_score", value=value, threshold=self.min_score)


def norms(images: Units, targets: tuple[str, ...], norm: str) -> np.ndarray:
    """Return the norm of each image's cosines with the embeddings in the files `targets`: (N, D) -> (N,) float64.

    The norm is "2" or "inf". The cosines are never all in memory.
    """
    if norm == "2":
        wide = images.astype(np.float64)
        return np.sqrt(np.einsum("nd,nd->n", wide @ _moments(targets, tuple(map(stamp_of, targets))), wide).clip(min=0))
    _, greatest = highest_cosines(images, lambda: embeddings_of(targets), 1, absolute=True)
    return greatest[:, 0]


def embeddings_of(paths: tuple[str, ...]) -> Iterator[np.ndarray]:
    """Yield the rows of all files in order, in blocks (M, D)."""
    for path in paths:
        yield from blocks_of(path)


@lru_cache(maxsize=2)
def _moments(targets: tuple[str, ...], stamps: tuple[tuple[int, int], ...]) -> np.ndarray:
    """Return the sum of u u^T over all unit embeddings u in the files: (D, D) float64. x^T S x is the squared 2-norm of x."""
    total: np.ndarray | float = 0.0
    for block in embeddings_of(targets):
        units = units_of(block).astype(np.float64)
        total = total + units.T @ units
    return np.asarray(total)
