"""Let a model that sees the picture check each claim of a text, and score the text by the number of false claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pyarrow as pa

from vlmdata.errors import RecipeError
from vlmdata.generation.captions import Rejection
from vlmdata.generation.ratings import YES_NO, probabilities
from vlmdata.generation.scoring_step import Answers, Ask, Scores, ScoringStep, SeeingStep
from vlmdata.generation.template import check_template, filled
from vlmdata.generation.units import OWN, Unit
from vlmdata.parameters import Doc
from vlmdata.step import Step, StepContext

PROMPT = "Look at the picture. Is this statement true of it?\n\n{claim}\n\nAnswer yes or no."
NOTHING = "nothing_claimed"  # the list of claims is empty
UNKNOWN = "no_claims"  # the earlier step has no list


@dataclass(frozen=True, kw_only=True)
class CheckClaims(SeeingStep):
    """Ask a model about each claim that the step `claims` found. The score of a text is minus the number of false claims.

    Source: RLAIF-V, Yu et al. 2024. A claim is true if the probability of yes is greater than that of no. A text that claims
    nothing has the score 0. A text has no score if one of its claims is `undecided` or an answer is missing, because it would
    seem better than it is; it stays and is counted. Scores are stored at the position of the text, and those of alternatives in
    `check_claims.alternatives`. With `min_score`, a caption or turn with a lower score is rejected, and an alternative is
    removed. `preference_pairs` makes training data of the scores. See [judging](judging.md).
    """

    id: ClassVar = "vlmdata.steps.check_claims"
    example: ClassVar = (
        "- claims: {generator: {hf: {model: writer}}, max_tokens: 512}\n"
        "- check_claims: {generator: {hf: {model: judge_model}}, min_score: -1}"
    )

    claims_of: Annotated[str, Doc("The name or label of the step that found the claims.")] = "claims"
    prompt: Annotated[str, Doc("Text of the question, to be answered by yes or no. `{claim}` is the place of the claim.")] = (
        PROMPT
    )
    min_score: Annotated[
        float | None,
        Doc("A text with a lower score is rejected; -1 allows one false claim. null: no limit.", unit="score, 0 or less"),
    ] = None

    def columns_read(self) -> tuple[str, ...]:
        return (*super().columns_read(), self.claims_of, f"{self.claims_of}.alternatives")

    def wording(self) -> dict[str, str]:
        return {"prompt": self.prompt, "system": self.system}

    def words(self) -> tuple[str, ...]:
        return YES_NO

    def score_names(self) -> tuple[str, ...]:
        return ("",)

    def least(self, is_alternative: bool) -> Mapping[str, tuple[str, float]]:
        return {} if self.min_score is None else {"": ("min_score", self.min_score)}

    def check(self) -> None:
        super().check()
        check_template(self.prompt, ("claim",), f"{self.name}.prompt", needed=("claim",))
        if self.min_score is not None and not self.min_score <= 0:
            raise RecipeError(f"{self.name}.min_score must be 0 or less, such as -1 for one false claim, not {self.min_score}")

    def check_steps(self, before: Sequence[Step]) -> None:
        for step in before:
            if isinstance(step, ScoringStep) and self.claims_of in step.columns_decided():
                self._check_type(pa.list_(step.value_type))

    def _check_type(self, kind: pa.DataType) -> None:
        if kind != pa.list_(pa.list_(pa.string())):
            raise RecipeError(f"{self.name}.claims_of: '{self.claims_of}' has no lists of claims. Name a step `claims`")

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        if len(rows):
            self._check_type(rows[self.claims_of].type)
        return super().measure(rows, context)

    def asks(self, unit: Unit, row: Mapping[str, Any]) -> list[Ask]:
        claims = self._claims(unit, row)
        if not claims:
            return [Ask("", "", True, UNKNOWN if claims is None else NOTHING)]
        if not unit.images:
            return [Ask("", "", True, "no_image")]
        return [Ask("", filled(self.prompt, {"claim": claim}), True) for claim in claims]

    def _claims(self, unit: Unit, row: Mapping[str, Any]) -> list[str] | None:
        """Return the claims of a text, or None if they are unknown."""
        name = self.claims_of if unit.alternative == OWN else f"{self.claims_of}.alternatives"
        known = (row[name] or ())[unit.position : unit.position + 1]
        claims = known[0] if known else None
        if unit.alternative == OWN or claims is None:
            return claims
        return claims[unit.alternative] if unit.alternative < len(claims) else None

    def scored(self, answers: Answers) -> Scores:
        false = 0
        for _, answer in answers:
            found = answer if isinstance(answer, Rejection) else probabilities(answer, YES_NO, self.min_mass)
            if isinstance(found, Rejection):
                return {"": 0.0 if found.reason == NOTHING else found}
            false += found[0] <= found[1]
        return {"": float(-false)}
