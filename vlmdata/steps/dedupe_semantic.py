"""Find images with similar meaning by the cosine of their embeddings, and keep one of them."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.similarity.clusters import representatives_of_rows
from vlmdata.similarity.cosine import Int8, pairs_above, quantise, squared_norms
from vlmdata.similarity.distributed import compared, cosine_pairs, cosines_of, load, starts_of
from vlmdata.similarity.distributed_cells import semantic_duplicates_in
from vlmdata.similarity.embeddings import embeddings_in, has_value, without_values
from vlmdata.similarity.kmeans import spherical_kmeans
from vlmdata.similarity.runs import Ids
from vlmdata.similarity.semdedup import by_hardness, follow_to_kept, semantic_duplicates
from vlmdata.similarity.verdict import Candidates, columns_of, drop_duplicate_images, living_images
from vlmdata.step import DistributedSearch, RecipeError, Step


@dataclass(frozen=True, kw_only=True)
class DedupeSemantic(Step):
    """Keep the best of similar images. Two images are similar if their embeddings have a cosine above `cosine`.

    `rule: pairs` compares all images with each other, and rejects an image only if it is similar to a kept image. This rule is
    fast enough for a few hundred thousand images. `rule: semdedup` is the rule of Abbas et al. 2023, SemDeDup. It compares only
    images in the same k-means cell. It rejects an image that is similar to an image with a better rank, even if the image with
    the better rank is rejected too. `keep` ranks the images. With `keep: [hard]`, the image farthest from its centroid ranks
    first, as in the paper.
    """

    id: ClassVar = "vlmdata.steps.dedupe_semantic"
    example: ClassVar = (
        "- clip_score: {min_score: -1, embeddings: true}\n- dedupe_semantic: {cosine: 0.95, keep: [clip_score, largest]}"
    )
    changes: ClassVar = ("images", "cluster")
    sees_all: ClassVar = True
    distribute_above: ClassVar = 2_000_000  # rows, with 1 GB of embeddings of width 512 in the driver, which needs 4 GB
    limits: ClassVar = {"same_meaning": "> cosine"}

    cosine: Annotated[
        float,
        Doc(
            "Two images are similar if the cosine of their embeddings is above this: 1 - eps of SemDeDup.",
            unit="cosine, 0 to 1",
            source="vlmdata's choice; SemDeDup gives no default, NeMo Curator uses 0.99",
        ),
    ] = 0.95
    embedding: Annotated[str, Doc("Column of the embeddings.")] = "clip_score.embedding"
    rule: Annotated[
        Literal["pairs", "semdedup"],
        Doc("Which images are compared. pairs: all with each other. semdedup: those in the same k-means cell."),
    ] = "pairs"
    cells: Annotated[
        int,
        Doc(
            "Number of k-means cells of `rule: semdedup`. 0: one per 1,000 images. The paper uses 50,000 for 440 million.",
            unit="cells",
        ),
    ] = 0
    rounds: Annotated[int, Doc("Rounds of k-means.", unit="rounds", source="vlmdata's choice; SemDeDup uses 100")] = 20
    seed: Annotated[int, Doc("Seed of k-means.", unit="any whole number")] = 0
    keep: Annotated[
        tuple[str, ...],
        Doc(
            "Order of preference, as in `dedupe_exact`, or only `hard`: the image farthest from its centroid.",
            source="vlmdata's choice",
        ),
    ] = ("largest", "bytes")

    def check(self) -> None:
        if not 0 < self.cosine < 1:
            raise RecipeError(f"{self.name}.cosine must lie between 0 and 1, not {self.cosine}")
        if "hard" in self.keep and (self.keep != ("hard",) or self.rule != "semdedup"):
            raise RecipeError(f"{self.name}.keep: `hard` cannot be combined with other entries, and needs `rule: semdedup`")

    def columns_read(self) -> tuple[str, ...]:
        return ("images.drop", self.embedding, *(column for column in columns_of(self.keep) if column != "hard"))

    def decide(self, rows: pa.Table) -> pa.Table:
        if not len(rows):
            return rows
        has, vectors = embeddings_in(rows, self.embedding)
        found = self._candidates(rows, has)
        if not len(found.places):
            return rows
        quantised = quantise(vectors[(np.cumsum(has) - 1)[found.places]])
        if self.rule == "pairs":
            representatives = representatives_of_rows(found.rank, list(pairs_above(quantised, self.cosine, threads=2)))
            lost = np.flatnonzero(representatives != np.arange(len(representatives)))
            value = np.full(len(representatives), np.nan)
            value[lost] = cosines(quantised[lost], quantised[representatives[lost]])
        else:
            representatives, value = self._semdedup(quantised, found.rank)
        return self._drop(rows, found, representatives, value)

    def piece(self, rows: pa.Table) -> tuple[pa.Table, dict[str, np.ndarray]]:
        has, vectors = embeddings_in(rows, self.embedding)
        places = self._candidates(rows, has).places
        return without_values(rows, self.embedding), {"vectors": quantise(vectors[(np.cumsum(has) - 1)[places]])}

    def decide_distributed(self, rows: pa.Table, search: DistributedSearch) -> pa.Table:
        found = self._candidates(rows, has_value(rows, self.embedding))
        pieces = [piece for piece in search.named("vectors") if len(load(piece))]
        if not len(found.places):
            return rows
        if self.rule == "pairs":
            representatives = representatives_of_rows(found.rank, list(cosine_pairs(pieces, self.cosine, search.run)))
            lost = np.flatnonzero(representatives != np.arange(len(representatives)))
            pairs = np.stack([lost, representatives[lost]], axis=1)
            value = np.full(len(representatives), np.nan)
            value[lost] = compared(cosines_of, [(piece,) for piece in pieces], starts_of(pieces), pairs, search.run)
        else:
            representatives, value = semantic_duplicates_in(
                pieces,
                search,
                self.cosine,
                clusters=self._clusters(len(found.places)),
                rounds=self.rounds,
                seed=self.seed,
                rank=None if "hard" in self.keep else found.rank,
            )
            representatives = follow_to_kept(representatives)
        return self._drop(rows, found, representatives, value)

    def _candidates(self, rows: pa.Table, has: np.ndarray) -> Candidates:
        return living_images(rows, () if "hard" in self.keep else self.keep, has)

    def _drop(self, rows: pa.Table, found: Candidates, representatives: Ids, value: np.ndarray) -> pa.Table:
        return drop_duplicate_images(
            rows, found, representatives, self.name, "same_meaning", value=np.round(value, 4), threshold=self.cosine
        )

    def _clusters(self, count: int) -> int:
        return min(self.cells or -(-count // 1000), count)

    def _semdedup(self, quantised: Int8, rank: Ids) -> tuple[Ids, np.ndarray]:
        centroids, cells = spherical_kmeans(quantised, self._clusters(len(quantised)), rounds=self.rounds, seed=self.seed)
        order = by_hardness(quantised, cells, centroids) if "hard" in self.keep else rank
        representatives, value = semantic_duplicates(quantised, cells, order, self.cosine)
        return follow_to_kept(representatives), value


def cosines(rows: Int8, others: Int8) -> np.ndarray:
    """Return the cosine of each row with the same row of `others`: (N, D), (N, D) -> (N,) float64."""
    dots = np.einsum("nd,nd->n", rows, others, dtype=np.int64)
    return dots / np.sqrt(np.maximum(squared_norms(rows) * squared_norms(others), 1))
