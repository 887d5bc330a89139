"""Reject images or rows by several stored scores together, or by separate thresholds for each language."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.row import drop_images, drop_rows, flatten
from vlmdata.scores import as_stored, is_of_images, of_images, of_rows
from vlmdata.step import RecipeError, Step


@dataclass(frozen=True, kw_only=True)
class MinScores(Step):
    """Reject images whose measured scores are below their minimums. If every listed score is one per row, reject rows instead.

    With `need: all`, every score must reach its minimum. With `need: any`, one score is enough. A score that was not measured
    is ignored, and an image or row without scores stays. `by_language` replaces the minimums for rows of the listed languages.
    For example, LAION-5B used 0.28 with ViT-B/32 for English and 0.26 with a multilingual model for all other languages
    (Schuhmann et al. 2022).
    """

    id: ClassVar = "vlmdata.steps.min_scores"
    example: ClassVar = (
        "- clip_score: {label: b32, min_score: -1}\n"
        "- clip_score: {label: l14, model: ViT-L-14, pretrained: laion2b_s32b_b82k, min_score: -1}\n"
        "- min_scores: {scores: {b32: 0.28, l14: 0.24}, need: any}"
    )
    limits: ClassVar = {"min_*": "< scores"}

    scores: Annotated[dict[str, float], Doc("Minimum of each score. The keys are measured columns.", unit="as the score")]
    need: Annotated[Literal["all", "any"], Doc("Whether every score must reach its minimum, or one is enough.")] = "all"
    by_language: Annotated[
        dict[str, dict[str, float]],
        Doc("For rows of a language, minimums that replace `scores`. The keys are language codes.", unit="as the score"),
    ] = field(default_factory=dict)
    language: Annotated[
        str, Doc("Column of the texts' language codes. A row has the language of its first remaining text.")
    ] = "language"

    def check(self) -> None:
        for language, scores in {"": self.scores, **self.by_language}.items():
            if not scores:
                raise RecipeError(f"{self.name}: give at least one score{f' for {language}' if language else ''}")

    def columns_read(self) -> tuple[str, ...]:
        names = dict.fromkeys(name for scores in (self.scores, *self.by_language.values()) for name in scores)
        return (*names, *((self.language,) if self.by_language else ()))

    def decide(self, rows: pa.Table) -> pa.Table:
        languages = self._languages(rows)
        if any(is_of_images(rows, name) for name in self.columns_read() if name != self.language):
            bad, verdict = self._judged(rows, languages[flatten(rows, "images").parents], of_images)
            return drop_images(rows, bad, self.name, **verdict)
        bad, verdict = self._judged(rows, languages, of_rows)
        return drop_rows(rows, bad, self.name, **verdict)

    def _languages(self, rows: pa.Table) -> np.ndarray:
        """Return each row's language if `by_language` lists it, else the empty string: (N,) of str."""
        languages = np.full(len(rows), "", object)
        if self.by_language:
            texts, codes = flatten(rows, "texts"), flatten(rows, self.language)
            words = codes.items.to_pylist()
            is_alive = texts.alive()
            starts, begins = codes.offsets.to_pylist(), texts.offsets.to_pylist()
            for row in range(len(rows)):
                places = range(starts[row + 1] - starts[row])
                first = next((w for n in places if (w := words[starts[row] + n]) and is_alive[begins[row] + n]), "")
                languages[row] = first if first in self.by_language else ""
        return languages

    def _judged(
        self, rows: pa.Table, languages: np.ndarray, values_of: Callable[[pa.Table, str], np.ndarray]
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Return (rejected, verdict) for the images or rows.

        `rejected` says for each image or row whether it is rejected. `verdict` holds arguments for `drop_images` or
        `drop_rows`: the `reason`, `value` and `threshold` of the first score that is too low.
        """
        bad = np.zeros(len(languages), bool)
        reason, value, threshold = (
            np.full(len(languages), None, object),
            np.full(len(languages), np.nan),
            np.full(len(languages), np.nan),
        )
        for language, scores in {"": self.scores, **self.by_language}.items():
            here = languages == language
            values = {name: values_of(rows, name) for name in scores}
            least = {name: as_stored(scores[name], rows, name) for name in scores}
            low = {name: here & (values[name] < least[name]) for name in scores}
            reached = [here & (values[name] >= least[name]) for name in scores]
            lost = np.any(list(low.values()), axis=0)
            if self.need == "any":
                lost &= ~np.any(reached, axis=0)
            for name in scores:
                first = lost & low[name] & ~bad
                reason[first], value[first], threshold[first] = f"min_{name}", values[name][first], least[name]
                bad |= first
        return bad, {"reason": reason, "value": value, "threshold": threshold}
