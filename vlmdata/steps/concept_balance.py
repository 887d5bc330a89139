"""Draw rows so that rare concepts of images weigh as much as common ones: LLaVA-OneVision-1.5's balance, without captions."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa
import xxhash

from vlmdata.parameters import Doc
from vlmdata.row import ROW, alive, drop_rows, flatten
from vlmdata.similarity.embeddings import has_value
from vlmdata.step import RecipeError, Step
from vlmdata.steps.nearest_concepts import NearestConcepts


@dataclass(frozen=True, kw_only=True)
class ConceptBalance(Step):
    """Draw rows with probabilities in proportion to the mean inverse frequency of their images' concepts.

    The concepts of a row are those that `nearest_concepts` stored for its remaining images. A concept's frequency is the number
    of remaining rows that have it. A row is drawn with the probability `min(1, s * weight)`. Its weight is the mean of
    1 / frequency over its concepts. s is chosen so that the probabilities add up to the number of rows to keep: that number
    is met on average. No row is repeated. A draw is a hash of the row's key and the seed, as in `balance`. The verdict of a
    rejected row has its probability.

    A row whose images have no concepts takes no part in the draw (`unscored`). Source: LLaVA-OneVision-1.5 (2509.23661), which
    draws 85 million images by normalised inverse frequencies. Whether it draws with replacement, and how it adds up the
    concepts of an image, are not known here; drawing each row at most once, and the mean, are vlmdata's choices.
    """

    id: ClassVar = "vlmdata.steps.concept_balance"
    example: ClassVar = (
        "- clip_score: {min_score: -1, embeddings: true}\n"
        "- nearest_concepts: {names: concepts.txt}\n"
        "- concept_balance: {share: 0.5}"
    )
    sees_all: ClassVar = True

    share: Annotated[
        float,
        Doc("Share of the rows with concepts to keep, on average.", unit="share, above 0 to 1", source="vlmdata's choice"),
    ] = 0.5
    rows: Annotated[int, Doc("Number of rows to keep, on average, in place of `share`. 0: `share` is used.", unit="rows")] = 0
    concepts: Annotated[str, Doc("Column of the concepts.")] = "nearest_concepts.ids"
    seed: Annotated[int, Doc("Seed of the draws. Another seed draws other rows.", unit="any whole number")] = 0
    unscored: Annotated[
        Literal["keep", "reject"], Doc("What happens to a row without concepts. reject: its reason is `no_concept`.")
    ] = "keep"

    def check(self) -> None:
        if not 0 < self.share <= 1:
            raise RecipeError(f"{self.name}.share must lie in (0, 1], such as 0.5, not {self.share}")
        if self.rows < 0:
            raise RecipeError(f"{self.name}.rows must be at least 0, not {self.rows}")

    def columns_read(self) -> tuple[str, ...]:
        return ("images.drop", self.concepts)

    def check_steps(self, before: Sequence[Step]) -> None:
        if any(isinstance(step, NearestConcepts) and step.column("ids") == self.concepts for step in before):
            return
        maker = next((step for step in before for name in step.columns_written() if step.column(name) == self.concepts), None)
        is_known = maker is not None or self.concepts.partition(".")[0] in ROW.names
        is_users = maker is not None and not type(maker).__module__.startswith("vlmdata.")
        if is_known and not is_users:  # another check names a column that does not exist
            raise RecipeError(
                f"{self.name}.concepts: the column '{self.concepts}' holds no numbers of concepts. Name the ids of a "
                "nearest_concepts step, such as nearest_concepts.ids"
            )

    def decide(self, rows: pa.Table) -> pa.Table:
        if not len(rows):
            return rows
        pairs = concepts_of(rows, self.concepts)
        weight = weights(pairs, len(rows))
        has = weight > 0
        chance = np.full(len(rows), np.nan)
        chance[has] = chances(weight[has], self.rows or self.share * int(has.sum()))
        if self.unscored == "reject":
            rows = drop_rows(rows, ~has, self.name, reason="no_concept")
        drawn = draws(rows["key"].to_pylist(), self.seed) < chance
        return drop_rows(rows, has & ~drawn, self.name, reason="not_drawn", value=np.round(chance, 6))


def concepts_of(rows: pa.Table, column: str) -> np.ndarray:
    """Return the distinct pairs (row, concept) of the remaining images of remaining rows: (P, 2) int64, sorted."""
    images = flatten(rows, "images")
    has = has_value(rows, column)
    found = flatten(rows, column).items.drop_null()
    numbers = np.frombuffer(b"".join(found.to_pylist()), "<i4").astype(np.int64)
    counts = np.array([len(one) // 4 for one in found.to_pylist()], np.int64)
    positions = np.repeat(np.flatnonzero(has), counts)
    good = (images.alive() & alive(rows)[images.parents])[positions]
    pairs = np.stack([images.parents[positions[good]], numbers[good]], axis=1)
    return np.unique(pairs, axis=0)


def weights(pairs: np.ndarray, count: int) -> np.ndarray:
    """Return the mean of 1 / frequency over the concepts of each of `count` rows, or 0 for a row without any: (count,).

    `pairs` (P, 2) holds the distinct pairs (row, concept), sorted. A concept's frequency is the number of its rows.
    """
    _, concept = np.unique(pairs[:, 1], return_inverse=True)
    total = np.bincount(pairs[:, 0], weights=1 / np.bincount(concept)[concept], minlength=count)
    return total / np.maximum(np.bincount(pairs[:, 0], minlength=count), 1)


def chances(weight: np.ndarray, target: float) -> np.ndarray:
    """Return min(1, s * weight) for each positive weight, with the s for which they add up to `target`: (N,) -> (N,).

    If there are at most `target` weights, all chances are 1.
    """
    if target >= len(weight):
        return np.ones(len(weight))
    order = np.sort(weight)[::-1]
    rest = np.cumsum(order[::-1])[::-1]  # the sum of each weight and all lower ones
    certain = np.arange(len(order))  # number of highest weights whose chance is 1
    scale = np.maximum(target - certain, 0) / rest
    first = int(np.argmax(scale * order <= 1))  # with the fewest certain ones, no other chance is above 1
    return np.minimum(1, scale[first] * weight)


def draws(keys: list[str], seed: int) -> np.ndarray:
    """Return a number in [0, 1) for each key, a hash of the key and the seed: (N,)."""
    hashes = np.array([xxhash.xxh3_64_intdigest(f"concept_balance {key}".encode(), seed % 2**64) for key in keys], np.uint64)
    return (hashes >> np.uint64(11)) * 2.0**-53
