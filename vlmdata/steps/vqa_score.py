"""Score how well an image matches its text: the probability that a model answers yes to whether the image shows it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pyarrow as pa

from vlmdata.errors import RecipeError
from vlmdata.generation.captions import Rejection
from vlmdata.generation.ratings import DIGITS, YES_NO, probabilities
from vlmdata.generation.scoring_step import Answers, Ask, Scores, SeeingStep
from vlmdata.generation.template import check_template, filled
from vlmdata.generation.units import Unit
from vlmdata.parameters import Doc
from vlmdata.row import aligned, drop_images
from vlmdata.scores import as_stored

PROMPT = 'Does this picture show "{text}"? Answer yes or no.'


@dataclass(frozen=True, kw_only=True)
class VqaScore(SeeingStep):
    """Ask a model whether the image of a caption pair shows its text, and store the probability that the answer is yes.

    Source of the idea: VQAScore, Lin et al. 2024. Unlike CLIPScore it reads the sentence, so counts, places and "no" matter as
    far as the model understands them. The score of the text is stored for the image, as clip_score stores its own, so that
    `top_fraction`, `min_scores` and `weighted_score` can read it. Scores of alternatives are in `vqa_score.alternatives`; the
    highest one is stored for the image if its text has no score. With `min_score`, an image whose text has a lower score is
    rejected with its row. With `min_alternative`, an alternative with a lower score is removed. See [judging](judging.md).
    """

    id: ClassVar = "vlmdata.steps.vqa_score"
    example: ClassVar = "- vqa_score: {generator: {hf: {model: judge_model}}, min_score: 0.5}"
    scores_turns: ClassVar = False
    stored_at: ClassVar = "images"

    prompt: Annotated[
        str, Doc("Text of the question, to be answered by yes or no. `{text}` is the place of the caption.", source="VQAScore")
    ] = PROMPT
    min_score: Annotated[
        float | None,
        Doc("An image whose score is lower is rejected. null: no limit.", unit="probability, 0 to 1"),
    ] = None
    min_alternative: Annotated[
        float | None,
        Doc("An alternative of the text with a lower score is removed. null: no limit.", unit="probability, 0 to 1"),
    ] = None

    def wording(self) -> dict[str, str]:
        return {"prompt": self.prompt, "system": self.system}

    def words(self) -> tuple[str, ...]:
        return YES_NO

    def score_names(self) -> tuple[str, ...]:
        return ("",)

    def least(self, is_alternative: bool) -> Mapping[str, tuple[str, float]]:
        limit = self.min_alternative if is_alternative else self.min_score
        reason = "min_alternative" if is_alternative else "min_score"
        return {} if limit is None else {"": (reason, limit)}

    def check(self) -> None:
        super().check()
        for name in ("min_score", "min_alternative"):
            value = getattr(self, name)
            if value is not None and not 0 <= value <= 1:
                raise RecipeError(f"{self.name}.{name} must lie in [0, 1], not {value}")
        check_template(self.prompt, ("text",), f"{self.name}.prompt", needed=("text",))

    def decide(self, rows: pa.Table) -> pa.Table:
        rows = super().decide(rows)
        if self.min_score is None:
            return rows
        value = aligned(rows, self.name, "images")
        bad = value < as_stored(self.min_score, rows, self.name)  # the best alternative, if the text has no score
        return drop_images(rows, bad, self.name, reason="min_score", value=value, threshold=self.min_score)

    def asks(self, unit: Unit, row: Mapping[str, Any]) -> list[Ask]:
        return [Ask("", filled(self.prompt, {"text": unit.text}), True, "" if unit.images else "no_image")]

    def scored(self, answers: Answers) -> Scores:
        ((name, answer),) = answers
        if isinstance(answer, Rejection):
            return {name: answer}
        found = probabilities(answer, YES_NO, self.min_mass)
        return {name: found if isinstance(found, Rejection) else round(found[0], DIGITS)}
