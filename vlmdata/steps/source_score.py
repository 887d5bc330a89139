"""Reject rows by a score that the source states. The step needs no images and no model."""

import json
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.catalog import suggest
from vlmdata.parameters import Doc
from vlmdata.row import drop_rows, numbers
from vlmdata.step import RecipeError, Step, StepContext


@dataclass(frozen=True, kw_only=True)
class SourceScore(Step):
    """Read a number from the row's `extra`, such as `similarity` of LAION or `clip_l14_similarity_score` of DataComp, and
    reject the row if it is below `min_value` or above `max_value`. A row without the number stays.

    Many lists store scores in single precision, where 0.26 is 0.25999999. With `single`, such a score is read as the shortest
    decimal that rounds to it, here 0.26, so that it is not below a `min_value` of 0.26. The result equals a comparison in
    single precision.
    """

    id: ClassVar = "vlmdata.steps.source_score"
    example: ClassVar = "- source_score: {of: similarity, min_value: 0.28}"
    reads: ClassVar = ("extra",)
    writes: ClassVar = {"": pa.float64()}
    measured_by: ClassVar = ("of", "single")

    of: Annotated[str, Doc("Field of `extra` that holds numbers, or numbers as strings.")]
    single: Annotated[
        bool, Doc("Whether to read the score as the shortest decimal that rounds to its single-precision value.")
    ] = True
    min_value: Annotated[float | None, Doc("A row with a lower number is rejected. null: no limit.", unit="as the score")] = (
        None
    )
    max_value: Annotated[float | None, Doc("A row with a greater number is rejected. null: no limit.", unit="as the score")] = (
        None
    )

    def check(self) -> None:
        if self.min_value is not None and self.max_value is not None and self.min_value > self.max_value:
            raise RecipeError(f"{self.name}: min_value = {self.min_value} is above max_value = {self.max_value}")

    def check_rows(self, rows: pa.Table) -> None:
        stated = [json.loads(extra or "{}").get(self.of) for extra in rows["extra"].to_pylist()]
        if not len(stated) or any(_number(value, self.single) is not None for value in stated):
            return
        row = next((row for row, value in enumerate(stated) if value is not None), None)
        if row is None:
            names = {name for extra in rows["extra"].to_pylist() for name in json.loads(extra or "{}")}
            found = f"; no row has it.{suggest(self.of, sorted(names))}"
        else:
            found = f", such as row {row + 1}, which has {str(stated[row])[:100]!r}. Name a column of numbers"
        raise RecipeError(f"{self.name}.of: none of the first {len(stated):,} rows has a number in '{self.of}'{found}")

    def measure(self, rows: pa.Table, context: StepContext | None) -> dict[str, pa.Array]:
        found = [_number(json.loads(extra or "{}").get(self.of), self.single) for extra in rows["extra"].to_pylist()]
        return {"": pa.array(found, pa.float64())}

    def decide(self, rows: pa.Table) -> pa.Table:
        value = numbers(rows[self.name].combine_chunks())
        if self.min_value is not None:
            bad = value < self.min_value
            rows = drop_rows(rows, bad, self.name, reason="min_value", value=value, threshold=self.min_value)
        if self.max_value is not None:
            bad = value > self.max_value
            rows = drop_rows(rows, bad, self.name, reason="max_value", value=value, threshold=self.max_value)
        return rows


def _number(value: Any, single: bool) -> float | None:
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    if not np.isfinite(number):
        return None
    return float(str(np.float32(number))) if single else number
