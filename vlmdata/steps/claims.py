"""Let a model divide captions, or each answer of conversations, into claims that can be checked one by one."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import pyarrow as pa

from vlmdata.errors import RecipeError
from vlmdata.generation.captions import Rejection
from vlmdata.generation.claims import claims_in
from vlmdata.generation.scoring_step import Answers, Ask, Scores, ScoringStep
from vlmdata.generation.template import check_template, filled
from vlmdata.generation.units import CAPTION_QUESTION, Unit
from vlmdata.parameters import Doc

MOST = 10_000
PROMPT = (
    "Divide the answer below into claims about the picture. A claim is a short sentence with a single fact that can be checked "
    "by a look at the picture, such as one object, one number, one colour or one place. Each claim must be clear without the "
    "others: write the name of a thing, not it or they. Keep the words of the answer, also if they deny something. Leave out "
    "opinions and what no picture can show. Write each claim on a line of its own and nothing else. If there is no claim, "
    "write: none\n\nQuestion: {question}\nAnswer: {answer}"
)


@dataclass(frozen=True, kw_only=True)
class Claims(ScoringStep):
    """Ask a model that reads text for the claims of each caption, alternative and answer, for `check_claims`.

    Source of the idea: RLAIF-V, Yu et al. 2024. Texts are sent whole. The list of a text is stored in the column `claims` at
    the position of the text, and those of its alternatives in `claims.alternatives`. Nothing is rejected: a text whose claims
    are unknown is counted by reason, such as `length` (the list reached `max_tokens`), `empty`, `too_many` or `refusal`, and
    gets no score. See [judging](judging.md).
    """

    id: ClassVar = "vlmdata.steps.claims"
    example: ClassVar = "- claims: {generator: {hf: {model: writer}}, max_tokens: 512}"
    value_type: ClassVar = pa.list_(pa.string())

    prompt: Annotated[
        str, Doc("Text of the question. It has places for `{question}`, which is optional, and for `{answer}`.")
    ] = PROMPT
    caption_question: Annotated[str, Doc("What stands for the question of a caption, which has none.")] = CAPTION_QUESTION
    max_claims: Annotated[
        int, Doc("A list with more claims is not used.", unit="claims", source="vlmdata's choice: a longer one is often a loop")
    ] = 100

    def wording(self) -> dict[str, str]:
        return {"prompt": self.prompt, "caption_question": self.caption_question, "system": self.system}

    def score_names(self) -> tuple[str, ...]:
        return ("",)

    def check(self) -> None:
        super().check()
        check_template(self.prompt, ("question", "answer"), f"{self.name}.prompt", needed=("answer",))
        if not 1 <= self.max_claims <= MOST:
            raise RecipeError(f"{self.name}.max_claims must be 1 to {MOST:,}, not {self.max_claims}")

    def asks(self, unit: Unit, row: Mapping[str, Any]) -> list[Ask]:
        question = unit.question if unit.turn else self.caption_question
        return [Ask("", filled(self.prompt, {"question": question, "answer": unit.text}), False)]

    def scored(self, answers: Answers) -> Scores:
        ((name, answer),) = answers
        return {name: answer if isinstance(answer, Rejection) else claims_in(answer, self.max_claims)}
