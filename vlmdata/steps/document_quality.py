"""Reject whole documents by their number of images and OBELICS's measures of their text."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.row import drop_rows, flatten, numbers
from vlmdata.step import Step, StepContext
from vlmdata.text.obelics_metrics import Metrics
from vlmdata.text.quality_rules import QualityRules, measures


@dataclass(frozen=True, kw_only=True)
class DocumentQuality(QualityRules, Step):
    """Reject a document by the number of its remaining images and by measures of its remaining texts.

    The defaults are OBELICS's limits for documents.
    """

    id: ClassVar = "vlmdata.steps.document_quality"
    example: ClassVar = "- document_quality: {min_images: 1, max_images: 30, max_words: 10000}"
    reads: ClassVar = ("texts", "images")
    writes: ClassVar = {name: pa.float32() for name in Metrics._fields}

    min_images: Annotated[
        int, Doc("Least number of remaining images in a document.", unit="images", source="OBELICS, step 14")
    ] = 1
    max_images: Annotated[
        int, Doc("Greatest number of remaining images in a document.", unit="images", source="OBELICS, step 14")
    ] = 30
    min_words: int = 10
    max_words: int = 2000
    max_char_repetition: float = 0.1
    max_word_repetition: float = 0.2
    max_special: float = 0.275
    min_stop_words: float = 0.35
    max_flagged_words: float = 0.01
    min_punctuation: float = 0.03
    min_common_words: float = 0.9
    max_spam_words: Annotated[
        float,
        Doc(
            "Share of words in `spam_words` from which on a document is rejected. Above 1: no limit.",
            unit="share of words, 0 to 1",
            source="OBELICS, which has no such rule for documents",
        ),
    ] = 1.01

    def check(self) -> None:
        self.lists(self.name)
        self.report_rules_off(self.name)

    def identity(self) -> str:
        return self.lists_fingerprint(self.name)

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        flat = flatten(rows, "texts")
        texts: list[list[str]] = [[] for _ in range(len(rows))]
        for text, row, is_alive in zip(flat.field("text").to_pylist(), flat.parents, flat.alive(), strict=True):
            if is_alive and text:
                texts[row].append(text)
        return measures(["\n\n".join(parts) for parts in texts], self.lists(self.name))

    def decide(self, rows: pa.Table) -> pa.Table:
        flat = flatten(rows, "images")
        images = np.bincount(flat.parents[flat.alive()], minlength=len(rows)).astype(np.float64)
        for reason, bad, threshold in (
            ("min_images", images < self.min_images, self.min_images),
            ("max_images", images > self.max_images, self.max_images),
        ):
            rows = drop_rows(rows, bad, self.name, reason=reason, value=images, threshold=threshold)
        stored = rows
        for rule in self.rules(lambda name: numbers(stored[self.column(name)].combine_chunks())):
            rows = drop_rows(rows, rule.bad, self.name, reason=rule.reason, value=rule.value, threshold=rule.threshold)
        return rows
