"""Measure which concepts of a list are nearest to an image in CLIP's space, for `concept_balance`."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa

from vlmdata.extras import check_installed
from vlmdata.home_folder import at_home
from vlmdata.models.clip_names import check_model, weights_identity
from vlmdata.models.embedded_names import cache_file, embed_names, names_in
from vlmdata.parameters import Doc
from vlmdata.row import flatten
from vlmdata.similarity.array_files import blocks_of, npy_shape, row_without_direction, stamp_of
from vlmdata.similarity.embeddings import embeddings_in
from vlmdata.similarity.highest_cosines import highest_cosines
from vlmdata.similarity.units import has_direction, units_of
from vlmdata.step import RecipeError, Step, StepContext
from vlmdata.steps.clip_score import ClipScore

DECIMALS = 4


@dataclass(frozen=True, kw_only=True)
class NearestConcepts(Step):
    """Store the `top` concepts whose embeddings have the highest cosines with an image's embedding. Rejects nothing.

    The column named like the step has the nearest concept, `cosine` its cosine, and `ids` all of them in order, as 4-byte
    numbers of lines of `names` or of rows of `embeddings`. Without `embeddings`, the text tower of `model` embeds each name in
    `prompt`, once, into a file in the folder `cache`. An image without an embedding, or with one that is not finite or all
    zeros, gets no concepts. Captions are not needed. Source: LLaVA-OneVision-1.5 (2509.23661), which uses 500,000 concepts and
    MetaCLIP's ViT-H/14; its number of concepts for an image and its prompt are not known here.
    """

    id: ClassVar = "vlmdata.steps.nearest_concepts"
    example: ClassVar = (
        "- clip_score: {min_score: -1, embeddings: true}\n"
        "- nearest_concepts: {names: concepts.txt}\n"
        "- concept_balance: {share: 0.5}"
    )
    writes: ClassVar = {"": pa.list_(pa.string()), "cosine": pa.list_(pa.float32()), "ids": pa.list_(pa.binary())}
    measured_by: ClassVar = ("top", "embedding", "prompt", "precision")
    needs: ClassVar = ("model", "gpu")

    names: Annotated[str, Doc("Text file with one concept per line. Blank lines and repeated lines do not count.")] = ""
    embeddings: Annotated[
        str, Doc(".npy file of shape (concepts, width), from the model that computed `embedding`. Empty: `names` are embedded.")
    ] = ""
    top: Annotated[int, Doc("Number of concepts that are stored for an image.", unit="concepts", source="vlmdata's choice")] = 5
    embedding: Annotated[str, Doc("Column of the images' embeddings.")] = "clip_score.embedding"
    model: Annotated[str, Doc("The `model` of the clip_score step, to embed `names`.", source="the default of clip_score")] = (
        "ViT-B-32"
    )
    pretrained: Annotated[str, Doc("The `pretrained` of the clip_score step.", source="the default of clip_score")] = (
        "datacomp_xl_s13b_b90k"
    )
    precision: Annotated[
        Literal["auto", "fp32", "bf16"],
        Doc("Number format of the model. auto: bf16 on a GPU and on CPUs with AMX or AVX-512 BF16."),
    ] = "auto"
    prompt: Annotated[str, Doc("Text to embed for a name, which replaces `{}`.", source="vlmdata's choice")] = "a photo of {}"
    cache: Annotated[str, Doc("Folder for the embeddings of `names`. Empty: the folder of `names`.")] = ""

    def check(self) -> None:
        if not self.names and not self.embeddings:
            raise RecipeError(f"{self.name}: set `names` (a text file), `embeddings` (an .npy file), or both")
        if self.names and not Path(at_home(self.names)).is_file():
            raise RecipeError(f"{self.name}.names: there is no file {self.names}. Give a text file with one concept per line")
        try:
            count = len(_names(self.names, stamp_of(self.names))) if self.names else 0
        except UnicodeDecodeError:
            raise RecipeError(f"{self.name}.names: {self.names} is not in UTF-8. Save it in this encoding") from None
        if self.names and not count:
            raise RecipeError(f"{self.name}.names: {self.names} has no names. Write one concept per line")
        count = self._check_embeddings(count) if self.embeddings else count
        if not 1 <= self.top <= count:
            raise RecipeError(f"{self.name}.top must lie in 1..{count}, the number of concepts, not {self.top}")
        if not self.embeddings:
            self._check_model(count)

    def _check_embeddings(self, count: int) -> int:
        shape = npy_shape(self.embeddings, f"{self.name}.embeddings")
        if len(shape) != 2 or not shape[0]:
            raise RecipeError(f"{self.name}.embeddings: {self.embeddings} must have the shape (concepts, width), not {shape}")
        if count and shape[0] != count:
            raise RecipeError(
                f"{self.name}.embeddings: {self.embeddings} has {shape[0]} rows, but {self.names} has {count} different names. "
                "Give one row for each name"
            )
        if (row := row_without_direction(self.embeddings)) is not None:
            raise RecipeError(
                f"{self.name}.embeddings: row {row} of {self.embeddings} is all zeros or not finite, so it has no cosine. "
                "Embed this concept again"
            )
        return shape[0]

    def _check_model(self, count: int) -> None:
        if self.prompt.count("{}") != 1:
            raise RecipeError(f"{self.name}.prompt must contain {{}} once, for the name, not {self.prompt!r}")
        check_installed(ClipScore.packages, f"step {self.name}, parameter names")
        check_model(self.model, self.pretrained, self.name)
        file = self._cache()
        if file.exists() and not _has_rows(file, count):
            raise RecipeError(f"{self.name}.cache: {file} is damaged. Delete it; the next run makes it again")
        folder = file.parent
        if not folder.is_dir() or not os.access(folder, os.W_OK):
            raise RecipeError(f"{self.name}.cache: cannot write in the folder {folder}. Set `cache` to one where you can")

    def needed(self) -> tuple[str, ...]:
        return () if self.embeddings else self.needs

    def embedding_files(self) -> tuple[str, ...]:
        return (self.embeddings,) if self.embeddings else ()

    def clip_weights(self) -> tuple[tuple[str, str], ...]:
        return () if self.embeddings else ((self.model, self.pretrained),)

    def columns_read(self) -> tuple[str, ...]:
        return ("images", self.embedding)

    def identity(self) -> str:
        digest = hashlib.sha256()
        for path in (self.names, self.embeddings):
            if path:
                with open(at_home(path), "rb") as file:
                    digest.update(hashlib.file_digest(file, "sha256").digest())
        if not self.embeddings:
            digest.update(weights_identity(self.model, self.pretrained).encode())
        return digest.hexdigest()[:16]

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        images = flatten(rows, "images")
        has, vectors = embeddings_in(rows, self.embedding)
        good = has_direction(vectors)
        places = np.flatnonzero(has)[good]
        names: list[str | None] = [None] * len(has)
        ids: list[bytes | None] = [None] * len(has)
        cosines = np.full(len(has), np.nan)
        if len(places):
            path = self.embeddings or str(self._embedded(context))
            self._check_width(vectors, path)
            found, values = highest_cosines(units_of(vectors[good]), lambda: blocks_of(path), self.top)
            listed = _names(self.names, stamp_of(self.names)) if self.names else ()
            for place, own in zip(places.tolist(), found.astype("<i4"), strict=True):
                names[place], ids[place] = listed[own[0]] if listed else str(own[0]), own.tobytes()
            cosines[places] = np.round(values[:, 0], DECIMALS)
        arrays = {
            "": pa.array(names, pa.string()),
            "cosine": pa.array(cosines, pa.float32(), from_pandas=True),
            "ids": pa.array(ids, pa.binary()),
        }
        return {name: images.rebuild(array) for name, array in arrays.items()}

    def _check_width(self, vectors: np.ndarray, path: str) -> None:
        width = npy_shape(path, f"{self.name}.embeddings")[1]
        if vectors.shape[1] != width:
            raise RecipeError(
                f"{self.name}: the concepts' embeddings have the width {width}, but {self.embedding} has {vectors.shape[1]}. "
                f"Use the model that computed {self.embedding}"
            )

    def _cache(self) -> Path:
        folder = self.cache or str(Path(at_home(self.names)).parent)
        made_with = (weights_identity(self.model, self.pretrained), self.precision, self.prompt)
        return cache_file(folder, list(_names(self.names, stamp_of(self.names))), *made_with)

    def _embedded(self, context: StepContext) -> Path:
        """Return the file of the names' embeddings, which is made if it does not exist yet."""

        def embed(names: list[str]) -> np.ndarray:
            from vlmdata.models.clip import clip_of

            clip = clip_of(context, self.model, self.pretrained, self.precision)
            return clip.embed_texts([self.prompt.replace("{}", name) for name in names])

        return embed_names(self._cache(), list(_names(self.names, stamp_of(self.names))), embed)


def _has_rows(file: Path, count: int) -> bool:
    try:
        shape = npy_shape(str(file), "cache")
    except RecipeError:
        return False
    return len(shape) == 2 and shape[0] == count


@lru_cache(maxsize=2)
def _names(path: str, stamp: tuple[int, int]) -> tuple[str, ...]:
    return tuple(names_in(path))
