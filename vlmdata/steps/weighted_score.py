"""Add up measured scores, each with a weight, into one score."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.row import aligned, drop_images, flatten
from vlmdata.scores import of_images
from vlmdata.step import RecipeError, Step, StepContext

DECIMALS = 6


@dataclass(frozen=True, kw_only=True)
class WeightedScore(Step):
    """Measure the weighted sum of each image's scores, for example for `top_fraction`. Reject images below `min_score`.

    A score of a row counts for each of its images. An image that lacks one of the scores has no sum and stays.
    """

    id: ClassVar = "vlmdata.steps.weighted_score"
    example: ClassVar = (
        "- clip_score: {label: b32, min_score: -1}\n"
        "- clip_score: {label: l14, model: ViT-L-14, pretrained: laion2b_s32b_b82k, min_score: -1}\n"
        "- weighted_score: {weights: {b32: 0.4, l14: 0.6}, min_score: 0.25}"
    )
    writes: ClassVar = {"": pa.list_(pa.float64())}
    measured_by: ClassVar = ("weights",)

    weights: Annotated[dict[str, float], Doc("Weight of each score in the sum. The keys are measured columns.", unit="factor")]
    min_score: Annotated[
        float | None, Doc("An image with a lower sum is rejected. null: no limit.", unit="as the weighted sum")
    ] = None

    def check(self) -> None:
        if not self.weights:
            raise RecipeError(f"{self.name}.weights: give a weight for at least one score")

    def columns_read(self) -> tuple[str, ...]:
        return tuple(self.weights)

    def measure(self, rows: pa.Table, context: StepContext | None) -> dict[str, pa.Array]:
        images = flatten(rows, "images")
        total = np.where(images.alive(), 0.0, np.nan)
        for name, weight in self.weights.items():
            total = total + weight * of_images(rows, name)
        return {"": images.rebuild(pa.array(np.round(total, DECIMALS), pa.float64(), from_pandas=True))}

    def decide(self, rows: pa.Table) -> pa.Table:
        if self.min_score is None:
            return rows
        value = aligned(rows, self.name, "images")
        return drop_images(rows, value < self.min_score, self.name, reason="min_score", value=value, threshold=self.min_score)
