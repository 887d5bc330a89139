"""Reject paragraphs by OBELICS's measures of text."""

from dataclasses import dataclass
from typing import Annotated, ClassVar

import pyarrow as pa

from vlmdata.html.obelics import END_OF_DOCUMENT
from vlmdata.parameters import Doc
from vlmdata.row import aligned, drop_texts, flatten
from vlmdata.step import Step, StepContext
from vlmdata.text.obelics_metrics import Metrics
from vlmdata.text.quality_rules import QualityRules, measures


@dataclass(frozen=True, kw_only=True)
class ParagraphQuality(QualityRules, Step):
    """Reject single texts of a document by measures of their words and characters.

    The defaults are OBELICS's limits for paragraphs. OBELICS's end-of-document mark is exempt.
    """

    id: ClassVar = "vlmdata.steps.paragraph_quality"
    example: ClassVar = "- paragraph_quality: {stop_words: en, flagged_words: flagged.txt}"
    reads: ClassVar = ("texts",)
    writes: ClassVar = {name: pa.list_(pa.float32()) for name in Metrics._fields}
    measured_by: ClassVar = ("min_punctuation_tokens",)

    min_words: int = 4
    max_words: int = 1000
    max_char_repetition: float = 0.1
    max_word_repetition: float = 0.1
    max_special: float = 0.3
    min_stop_words: float = 0.3
    max_flagged_words: float = 0.01
    min_punctuation: float = 0.001
    min_common_words: float = 0.8
    max_spam_words: float = 0.12
    min_punctuation_tokens: Annotated[
        int,
        Doc(
            "A paragraph with fewer words and punctuation marks is exempt from `min_punctuation`.",
            unit="words and marks",
            source="OBELICS, paragraphs",
        ),
    ] = 12

    def check(self) -> None:
        self.lists(self.name)
        self.report_rules_off(self.name)

    def identity(self) -> str:
        return self.lists_fingerprint(self.name)

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        flat = flatten(rows, "texts")
        texts = [
            text if is_alive and text != END_OF_DOCUMENT else None
            for text, is_alive in zip(flat.field("text").to_pylist(), flat.alive(), strict=True)
        ]
        found = measures(texts, self.lists(self.name), min_tokens=self.min_punctuation_tokens)
        return {name: flat.rebuild(values) for name, values in found.items()}

    def decide(self, rows: pa.Table) -> pa.Table:
        stored = rows
        for rule in self.rules(lambda name: aligned(stored, self.column(name), "texts")):
            rows = drop_texts(rows, rule.bad, self.name, reason=rule.reason, value=rule.value, threshold=rule.threshold)
        return rows
