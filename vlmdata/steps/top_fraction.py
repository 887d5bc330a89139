"""Keep the images or rows with the highest scores."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.row import alive, drop_images, drop_rows, flatten
from vlmdata.scores import is_of_images, of_images, of_rows
from vlmdata.step import RecipeError, Step


@dataclass(frozen=True, kw_only=True)
class TopFraction(Step):
    """Keep the images or rows whose measured scores are highest. `fraction` is the share to keep.

    The rule is DataComp's. The threshold is the score at index `int(n * fraction)` of the n remaining scores in descending
    order, and every score that equals the threshold stays. Therefore at least `int(n * fraction) + 1` items stay, or all items
    if `fraction` is 1. An item without a score is not counted and stays.
    """

    id: ClassVar = "vlmdata.steps.top_fraction"
    example: ClassVar = (
        "- source_score: {label: l14, of: clip_l14_similarity_score}\n- top_fraction: {score: l14, fraction: 0.3}"
    )
    sees_all: ClassVar = True
    changes: ClassVar = ("images",)

    score: Annotated[str, Doc("Measured column, of images or of rows.")] = "clip_score"
    fraction: Annotated[
        float,
        Doc(
            "Share of the scores to keep, from the highest down.",
            unit="share, above 0 to 1",
            source="DataComp's clip_score baseline",
        ),
    ] = 0.3

    def check(self) -> None:
        if not 0 < self.fraction <= 1:
            raise RecipeError(f"{self.name}.fraction must lie in (0, 1], such as 0.3, not {self.fraction}")

    def columns_read(self) -> tuple[str, ...]:
        return (self.score, "images.drop")

    def decide(self, rows: pa.Table) -> pa.Table:
        if is_of_images(rows, self.score):
            images = flatten(rows, "images")
            score = of_images(rows, self.score)
            is_alive = images.alive() & alive(rows)[images.parents] & ~np.isnan(score)
            threshold = threshold_of(score[is_alive], self.fraction)
            return drop_images(rows, score < threshold, self.name, reason="top_fraction", value=score, threshold=threshold)
        score = of_rows(rows, self.score)
        threshold = threshold_of(score[alive(rows) & ~np.isnan(score)], self.fraction)
        return drop_rows(rows, score < threshold, self.name, reason="top_fraction", value=score, threshold=threshold)


def threshold_of(scores: np.ndarray, fraction: float) -> float:
    """Return the score at index `int(n * fraction)` of the n scores in descending order, or -inf if there is no such index.

    Source: mlfoundations/datacomp, baselines/apply_filter.py."""
    index = int(len(scores) * fraction)
    return float(np.sort(scores)[::-1][index]) if index < len(scores) else -np.inf
