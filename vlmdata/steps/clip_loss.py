"""Keep the pairs that CLIP's own loss finds best: s-CLIPLoss, on stored embeddings of images and texts."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
import xxhash

from vlmdata.parameters import Doc
from vlmdata.row import alive, drop_images, flatten, set_column
from vlmdata.scores import highest_of_rows
from vlmdata.similarity.clip_loss import clip_losses
from vlmdata.similarity.embeddings import embeddings_in, has_value
from vlmdata.similarity.runs import Ids
from vlmdata.similarity.units import has_direction
from vlmdata.splitmix import mixed
from vlmdata.step import DistributedSearch, MapTasks, RecipeError, Step, StoredArray
from vlmdata.steps.text_embedding import TextEmbedding
from vlmdata.steps.top_fraction import threshold_of

DECIMALS = 6


@dataclass(frozen=True, kw_only=True)
class ClipLoss(Step):
    """Keep the share `fraction` of images whose pairs of image and text have the highest s-CLIPLoss, as in `top_fraction`.

    The score is the pair's cosine, less half the temperature times two logarithms: of the sum of exp(cosine / temperature) over
    the texts of a batch, and over its images. Both sums contain the pair. So a caption that fits many images, and an image that
    fits many captions, lose. The score is at most 0, and is averaged over `repeats` random divisions of all pairs into batches
    of at most `batch`, whose sizes differ by at most one. A pair's place in them is a hash of its row's key and the seed, so
    the order of rows, partitions and workers do not matter. Source: Wang et al. 2024 (2405.19547), who draw batches without a
    seed within each file of the pool.

    An image without embeddings, or with one that is not finite or all zeros, has no score (`unscored`). Each image of a
    document is a pair of its own, with its best text. A row's score is the highest of its images. With `store_as`, it is stored
    in the row's `extra`, from where `source_score` reads it for other steps.
    """

    id: ClassVar = "vlmdata.steps.clip_loss"
    example: ClassVar = (
        "- clip_score: {min_score: -1, embeddings: true}\n- text_embedding: {model: ViT-B-32}\n- clip_loss: {fraction: 0.3}"
    )
    sees_all: ClassVar = True
    changes: ClassVar = ("images",)
    distribute_above: ClassVar = 32_768  # rows, one batch; the batches of more rows are tasks for all workers

    embedding: Annotated[str, Doc("Column of the images' embeddings.")] = "clip_score.embedding"
    text_embedding: Annotated[str, Doc("Column of the texts' embeddings, from the same model.")] = "text_embedding"
    fraction: Annotated[
        float,
        Doc(
            "Share of the scored images to keep, from the highest score down. 1: all, so that only `store_as` has an effect.",
            unit="share, above 0 to 1",
            source="Wang et al. 2024, before NormSim",
        ),
    ] = 0.3
    temperature: Annotated[
        float,
        Doc(
            "Temperature of the model's loss, 1 divided by its logit scale. Use 0.07 for DFN's filter network.",
            unit="cosine, 0.001 to 100",
            source="Wang et al. 2024, for OpenAI's CLIP",
        ),
    ] = 0.01
    batch: Annotated[int, Doc("Most pairs in a batch.", unit="pairs", source="Wang et al. 2024, vas2.py")] = 32_768
    repeats: Annotated[
        int,
        Doc(
            "Number of divisions into batches. Each one costs all products of pairs in a batch.",
            unit="divisions",
            source="Wang et al. 2024: at least 5. Their command line has 1, and names of their runs 1 to 100",
        ),
    ] = 5
    seed: Annotated[int, Doc("Seed of the batches.", unit="any whole number")] = 0
    store_as: Annotated[str, Doc("Field of `extra` in which the row's score is stored. Empty: the score is not stored.")] = ""
    unscored: Annotated[
        Literal["keep", "reject"], Doc("What happens to an image without a score. reject: its reason is `no_embedding`.")
    ] = "keep"

    def check(self) -> None:
        if not 0 < self.fraction <= 1:
            raise RecipeError(f"{self.name}.fraction must lie in (0, 1], such as 0.3, not {self.fraction}")
        if not 0.001 <= self.temperature <= 100:
            raise RecipeError(f"{self.name}.temperature must lie in [0.001, 100], such as 0.01, not {self.temperature}")
        if self.batch < 2 or self.repeats < 1:
            raise RecipeError(f"{self.name}: batch must be at least 2 and repeats at least 1")
        if self.fraction == 1 and not self.store_as and self.unscored == "keep":
            raise RecipeError(
                f"{self.name}.fraction: 1 keeps all images. Set a share below 1, or `store_as` to store the scores"
            )

    def check_steps(self, before: Sequence[Step]) -> None:
        texts = next((s for s in before if isinstance(s, TextEmbedding) and s.column("") == self.text_embedding), None)
        if texts is not None and texts.embedding != self.embedding:
            raise RecipeError(
                f"{self.name}.embedding: {self.embedding} is not the column whose texts {texts.name} embeds, which is "
                f"{texts.embedding}. Name the same column in both"
            )

    def check_rows(self, rows: pa.Table) -> None:
        if self.store_as and any(self.store_as in json.loads(extra or "{}") for extra in rows["extra"].to_pylist()):
            raise RecipeError(
                f"{self.name}.store_as: rows have a field '{self.store_as}' already, which would be lost. Choose another name"
            )

    def fields_added(self) -> tuple[str, ...]:
        return (self.store_as,) if self.store_as else ()

    def columns_read(self) -> tuple[str, ...]:
        own = ("extra",) if self.store_as else ()
        return ("images.drop", self.embedding, self.text_embedding, *own)

    def columns_changed(self) -> tuple[str, ...]:
        return ("images", "extra") if self.store_as else ("images",)

    def decide(self, rows: pa.Table) -> pa.Table:
        if not len(rows):
            return rows
        table, arrays = self.piece(rows)
        return self._decided(rows, _candidates(table, self.embedding), [arrays["images"]], [arrays["texts"]], map)

    def piece(self, rows: pa.Table) -> tuple[pa.Table, dict[str, np.ndarray]]:
        images = flatten(rows, "images")
        found = {}
        good = images.alive() & alive(rows)[images.parents]
        for name in (self.embedding, self.text_embedding):
            has, vectors = embeddings_in(rows, name)
            found[name] = (has, vectors)
            usable = np.zeros(len(has), bool)
            usable[has] = has_direction(vectors)
            good &= usable
        places = np.flatnonzero(good)
        image, text = (_stored(vectors[(np.cumsum(has) - 1)[places]]) for has, vectors in found.values())
        self._check_widths(image, text)
        marks = images.rebuild(pa.array(good, mask=~good))
        table = set_column(rows.drop_columns([self.text_embedding]), self.embedding, marks)
        return table, {"images": image, "texts": text}

    def decide_distributed(self, rows: pa.Table, search: DistributedSearch) -> pa.Table:
        places = _candidates(rows, self.embedding)
        return self._decided(rows, places, search.named("images"), search.named("texts"), search.run)

    def _decided(
        self, rows: pa.Table, places: Ids, images: list[StoredArray], texts: list[StoredArray], run: MapTasks
    ) -> pa.Table:
        flat = flatten(rows, "images")
        score = np.full(len(flat.parents), np.nan)
        score[places] = np.round(
            clip_losses(
                images,
                texts,
                hashes_of(rows, places),
                run,
                temperature=self.temperature,
                size=self.batch,
                repeats=self.repeats,
                seed=self.seed,
            ),
            DECIMALS,
        )
        threshold = threshold_of(score[places], self.fraction)
        if self.store_as:
            rows = _with_extra(rows, self.store_as, highest_of_rows(score, flat.parents, len(rows)))
        if self.unscored == "reject":
            rows = drop_images(rows, np.isnan(score), self.name, reason="no_embedding")
        return drop_images(rows, score < threshold, self.name, reason="below_fraction", value=score, threshold=threshold)

    def _check_widths(self, images: np.ndarray, texts: np.ndarray) -> None:
        if len(images) and images.shape[1] != texts.shape[1]:
            raise RecipeError(
                f"{self.name}.text_embedding: the texts' embeddings have the width {texts.shape[1]}, but the images' have "
                f"{images.shape[1]}. Give text_embedding and clip_score the same model"
            )


def _candidates(rows: pa.Table, column: str) -> Ids:
    return np.flatnonzero(has_value(rows, column))


def _stored(vectors: np.ndarray) -> np.ndarray:
    """Return the vectors as fp16, half the size, if they lose nothing, and else unchanged. `clip_score` stores fp16."""
    with np.errstate(over="ignore"):
        half = vectors.astype(np.float16)
    return half if np.array_equal(half, vectors) else vectors


def hashes_of(rows: pa.Table, places: Ids) -> np.ndarray:
    """Return a number for each image at `places` that depends on its row's key and its position in the row: uint64 (M,)."""
    images = flatten(rows, "images")
    parents = images.parents[places]
    used, number = np.unique(parents, return_inverse=True)
    keys = rows["key"].take(pa.array(used)).to_pylist()
    hashes = np.array([xxhash.xxh3_64_intdigest(key.encode()) for key in keys], np.uint64)
    positions = places - images.offsets.to_numpy()[parents]
    return mixed(hashes[number] + mixed(positions.astype(np.uint64) + np.uint64(1)))


def _with_extra(rows: pa.Table, name: str, scores: np.ndarray) -> pa.Table:
    """Return the rows with the scores in a field of `extra`. Rows without a score stay as they are."""
    extras = [
        extra if np.isnan(score) else json.dumps({**json.loads(extra or "{}"), name: score}, ensure_ascii=False)
        for extra, score in zip(rows["extra"].to_pylist(), scores.tolist(), strict=True)
    ]
    return set_column(rows, "extra", pa.array(extras, pa.string()))
