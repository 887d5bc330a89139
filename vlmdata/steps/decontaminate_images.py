"""Reject images whose hash or embedding is similar to that of an image in an evaluation set."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.extras import check_installed
from vlmdata.home_folder import at_home
from vlmdata.images.budget import OWN_FILES_MB
from vlmdata.images.decode import decode
from vlmdata.images.header import ImageError
from vlmdata.images.phash import phash, phash_imagededup
from vlmdata.models.clip_names import check_model, weights_identity
from vlmdata.parameters import Doc
from vlmdata.row import aligned, drop_images, flatten
from vlmdata.similarity.array_files import npy_shape
from vlmdata.similarity.cosine import Int8, greatest_cosine, quantise
from vlmdata.similarity.embeddings import embeddings_in
from vlmdata.similarity.nearest import NONE, nearest
from vlmdata.similarity.pigeonhole_blocks import MAX_DISTANCE, Hashes
from vlmdata.similarity.references import IMAGES, identity_of, members
from vlmdata.step import RecipeError, Step, StepContext
from vlmdata.steps.clip_score import ClipScore


@dataclass(frozen=True, kw_only=True)
class DecontaminateImages(Step):
    """Reject an image whose hash is within `distance` bits of a reference image's hash, or whose embedding has a cosine above
    `cosine` with a reference embedding.

    Reference embeddings come from the files in `embeddings`. With `model`, the images in `references` are embedded too. Both
    the distance and the cosine are stored, so the limits can change later. A reference image that cannot be decoded stops the
    run, because the evaluation set must be compared in full.
    """

    id: ClassVar = "vlmdata.steps.decontaminate_images"
    example: ClassVar = "- decontaminate_images: {references: [eval/images, eval/coco.tar], distance: 8}"
    writes: ClassVar = {"bits": pa.list_(pa.float64()), "cosine": pa.list_(pa.float64())}
    measured_by: ClassVar = ("hash", "embedding")
    needs: ClassVar = ("model", "gpu")
    limits: ClassVar = {"looks_like_evaluation": "<= distance", "means_like_evaluation": "> cosine"}

    references: Annotated[tuple[str, ...], Doc("Folders, tars or files of evaluation images.")] = ()
    distance: Annotated[
        int,
        Doc(
            "An image is rejected if the distance of its hash to that of a reference image is at most this.",
            unit="bits of 64",
            source="vlmdata's choice",
        ),
    ] = 8
    hash: Annotated[str, Doc("`phash`, vlmdata's hash of the stored pixels, or the name of an imagededup_hash step.")] = "phash"
    embeddings: Annotated[tuple[str, ...], Doc(".npy files of shape (N, D), from the model that computed `embedding`.")] = ()
    embedding: Annotated[str, Doc("Column of the embeddings.")] = "clip_score.embedding"
    cosine: Annotated[
        float,
        Doc(
            "An image is rejected if its cosine with a reference embedding is above this.",
            unit="cosine, 0 to 1",
            source="vlmdata's choice",
        ),
    ] = 0.95
    model: Annotated[
        str, Doc("The `model` of the clip_score step, to embed the references too. Each worker embeds all of them once.")
    ] = ""
    pretrained: Annotated[str, Doc("The `pretrained` of the clip_score step.")] = ""

    def check(self) -> None:
        if not self.references and not self.embeddings:
            raise RecipeError(f"{self.name}: set `references` (images), `embeddings` (.npy files), or both")
        if not 0 <= self.distance <= MAX_DISTANCE or not 0 < self.cosine < 1:
            raise RecipeError(f"{self.name}: distance must lie in 0..{MAX_DISTANCE} and cosine between 0 and 1")
        for path in self.references:
            if not Path(at_home(path)).exists():
                raise RecipeError(f"{self.name}.references: there is no file or folder {path}")
        for path in self.embeddings:
            shape = npy_shape(path, f"{self.name}.embeddings")
            if len(shape) != 2:
                raise RecipeError(f"{self.name}.embeddings: {path} must have the shape (embeddings, width), not {shape}")
        if self.model:
            check_installed(ClipScore.packages, f"step {self.name}, parameter model")
            check_model(self.model, self.pretrained, self.name)
        try:
            self.identity()
        except ValueError as error:
            raise RecipeError(f"{self.name}.references: {error}") from None

    def fields_fetched(self) -> tuple[str, ...]:
        return ("phash",) if self.references and self.hash == "phash" else ()

    def columns_read(self) -> tuple[str, ...]:
        own = () if self.hash == "phash" or not self.references else (self.hash,)
        return ("images", *own, *((self.embedding,) if self.embeddings or self.model else ()))

    def embedding_files(self) -> tuple[str, ...]:
        return self.embeddings

    def clip_weights(self) -> tuple[tuple[str, str], ...]:
        return ((self.model, self.pretrained),) if self.model else ()

    def identity(self) -> str:
        digest = hashlib.sha256(identity_of(tuple(map(at_home, self.references)), IMAGES).encode())
        for path in self.embeddings:
            digest.update(Path(at_home(path)).read_bytes())
        if self.model:
            digest.update(weights_identity(self.model, self.pretrained).encode())
        return digest.hexdigest()[:16]

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        images = flatten(rows, "images")
        bits, cosines = np.full((2, len(images.items)), np.nan)
        if self.references:
            column = images.field("phash") if self.hash == "phash" else flatten(rows, self.hash).items
            known = np.flatnonzero(column.is_valid())
            hashes = pc.fill_null(column, 0).to_numpy()[known].astype(np.uint64)
            _, near = nearest(hashes, _hashes(self.references, self.hash == "phash"), MAX_DISTANCE)
            bits[known] = np.where(near == NONE, np.nan, near)
        if self.embeddings or self.model:
            has, vectors = embeddings_in(rows, self.embedding)
            cosines[has] = np.round(greatest_cosine(quantise(vectors), self._embedded(context)), 4)
        arrays = {"bits": bits, "cosine": cosines}
        return {name: images.rebuild(pa.array(values, pa.float64(), from_pandas=True)) for name, values in arrays.items()}

    def decide(self, rows: pa.Table) -> pa.Table:
        limits = (("bits", "looks_like_evaluation", float(self.distance)), ("cosine", "means_like_evaluation", self.cosine))
        for name, reason, limit in limits:
            value = aligned(rows, self.column(name), "images")
            bad = value <= limit if name == "bits" else value > limit
            rows = drop_images(rows, bad, self.name, reason=reason, value=value, threshold=limit)
        return rows

    def _embedded(self, context: StepContext) -> Int8:
        """Return the reference embeddings: first the embeddings in files, then the embeddings of the reference images."""
        found = [_embeddings(self.embeddings)] if self.embeddings else []
        if self.model:
            from vlmdata.models.clip import clip_of

            def embed() -> Int8:
                names, bodies = zip(*(one for path in self.references for one in members(at_home(path), IMAGES)), strict=True)
                units = clip_of(context, self.model, self.pretrained).embed_images(bodies)
                if (broken := np.isnan(units[:, 0])).any():
                    raise RecipeError(f"decontaminate_images: cannot decode the reference {names[int(broken.argmax())]}")
                return quantise(units)

            found.append(context.kept(f"references {self.references} {self.model} {self.pretrained}", embed))
        return np.concatenate(found)


@lru_cache(maxsize=4)
def _hashes(references: tuple[str, ...], ours: bool) -> Hashes:
    found = []
    for path in references:
        for name, data in members(at_home(path), IMAGES):
            try:
                pixels = decode(data, max_memory_mb=OWN_FILES_MB).pixels
            except ImageError as error:
                raise RecipeError(f"decontaminate_images: cannot decode the reference {name}: {error}") from None
            found.append(phash(pixels) if ours else phash_imagededup(pixels))
    return np.array(found, np.uint64)


@lru_cache(maxsize=4)
def _embeddings(files: tuple[str, ...]) -> Int8:
    return quantise(np.concatenate([np.load(at_home(file)).astype(np.float32) for file in files]))
