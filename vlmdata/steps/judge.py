"""Let a model rate captions, or each answer of conversations, on named axes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, Literal

from vlmdata.catalog import suggest
from vlmdata.errors import RecipeError
from vlmdata.generation.captions import Rejection
from vlmdata.generation.ratings import (
    GRADES,
    YES_NO,
    expected_grade,
    probabilities,
    share_of_yes,
    written_grade,
    written_yes,
)
from vlmdata.generation.scoring_step import Answers, Ask, Scores, SeeingStep
from vlmdata.generation.template import check_template, filled
from vlmdata.generation.units import CAPTION_QUESTION, Unit
from vlmdata.parameters import Doc
from vlmdata.row import ROW

AXES = {
    "formatting": "Is the answer well written? A good answer is a complete sentence or a complete short answer, in correct "
    "spelling, not cut off, and without leftover markup, placeholders or repeated text.",
    "relevance": "Does the answer respond to the question? A good answer gives what the question asks for, and nothing that "
    "has no connection with it.",
    "visual_dependency": "Is the picture needed to answer the question? It is needed if the answer cannot be known or guessed "
    "from the question and general knowledge alone.",
    "image_correspondence": "Do the question and the answer agree with the picture? All objects, numbers, colours, places and "
    "actions that they mention must be as the picture shows them, and what they deny must be absent.",
}
PROMPT = "{rubric}\n\nQuestion: {question}\nAnswer: {answer}\n\n{scale}"
SCALES = {
    "grade": "Rate this from 1 (not at all) to 5 (completely). Write only the number.",
    "yes_no": "Write only yes or no.",
}
TAKEN = frozenset({*ROW.names, "answers", "asked", "failed", "alternatives"})  # names that no axis may have


@dataclass(frozen=True, kw_only=True)
class Judge(SeeingStep):
    """Ask a model for a rating on each of `axes`: of a caption and its alternatives, or of each answer in a conversation.

    The default axes are those of FineVision, in our words. Each axis is a question with its own text and has a column of its
    own, `judge.AXIS`, with one rating for each text, stored at the answer of a turn. Ratings of alternatives are in
    `judge.AXIS.alternatives`. With `scale: grade`, a rating is the mean grade, 1 to 5, by the model's probabilities. With
    `yes_no`, it is the probability of yes among yes and no. With `by: answer`, it is the grade or word that the model writes.

    Nothing is rejected unless `min` says so: FineVision's authors report that every filter by such ratings lost to all data.
    Below a minimum, a caption is rejected, an alternative is removed, and a turn is rejected with its question; a row without
    an answer is rejected too. A text without a rating stays, and its reason is counted. See [judging](judging.md).
    """

    id: ClassVar = "vlmdata.steps.judge"
    example: ClassVar = "- judge: {generator: {hf: {model: judge_model}}, min: {relevance: 2}}"
    measured_by: ClassVar = (*SeeingStep.measured_by, "scale", "by", "text_only")
    limits: ClassVar = {"min_*": "< min"}

    axes: Annotated[
        dict[str, str],
        Doc("The text that explains each axis to the model. The names become columns.", source="FineVision, in our words"),
    ] = field(default_factory=lambda: dict(AXES))
    text_only: Annotated[
        list[str],
        Doc("Axes for which the model does not see the images. They cost fewer tokens.", source="vlmdata's choice"),
    ] = field(default_factory=lambda: ["formatting", "relevance", "visual_dependency"])
    scale: Annotated[Literal["grade", "yes_no"], Doc("What is asked for. grade: a number from 1 to 5. yes_no: yes or no.")] = (
        "grade"
    )
    by: Annotated[
        Literal["likelihood", "answer"],
        Doc(
            "Whether a rating comes from the probabilities of the words, or from the word that the model writes. For models "
            "that give no probabilities, or that think before they answer."
        ),
    ] = "likelihood"
    min: Annotated[
        dict[str, float],
        Doc(
            "Least rating of axes. A text with a lower one is rejected. Empty: nothing is rejected.",
            unit="grade, 1 to 5, or probability",
        ),
    ] = field(default_factory=dict)
    prompt: Annotated[
        str,
        Doc(
            "Text of the question. It has places for `{rubric}` (the text of the axis), `{question}`, `{answer}` and `{scale}` "
            "(what to write)."
        ),
    ] = PROMPT
    caption_question: Annotated[str, Doc("What stands for the question of a caption, which has none.")] = CAPTION_QUESTION

    def wording(self) -> dict[str, str]:
        axes = {f"axes.{name}": text for name, text in self.axes.items()}
        own = {"prompt": self.prompt, "caption_question": self.caption_question, "system": self.system}
        return {**axes, **own, "scale": SCALES[self.scale]}

    def words(self) -> tuple[str, ...]:
        return () if self.by == "answer" else GRADES if self.scale == "grade" else YES_NO

    def score_names(self) -> tuple[str, ...]:
        return tuple(self.axes)

    def least(self, is_alternative: bool) -> Mapping[str, tuple[str, float]]:
        return {name: (f"min_{name}", value) for name, value in self.min.items()}

    def check(self) -> None:
        super().check()
        if not self.axes:
            raise RecipeError(f"{self.name}.axes: give at least one axis")
        for name, text in self.axes.items():
            if not name.isidentifier():
                raise RecipeError(f"{self.name}.axes: '{name}' cannot be the name of a column. Use letters, digits and _")
            if name in TAKEN:
                raise RecipeError(f"{self.name}.axes: '{name}' is the name of a column of vlmdata. Choose another one")
            if not text.strip():
                raise RecipeError(f"{self.name}.axes.{name} is empty. Say what the model should rate")
        for place, names in (("text_only", self.text_only), ("min", self.min)):
            for name in names:
                if name not in self.axes and (place == "min" or name not in AXES):
                    raise RecipeError(f"{self.name}.{place}: there is no axis '{name}'.{suggest(name, list(self.axes))}")
        low, high = (1, 5) if self.scale == "grade" else (0, 1)
        for name, value in self.min.items():
            if not low <= value <= high:
                raise RecipeError(f"{self.name}.min.{name} must lie in [{low}, {high}] with scale {self.scale}, not {value}")
        places = ("rubric", "question", "answer", "scale")
        check_template(self.prompt, places, f"{self.name}.prompt", needed=("rubric", "answer"))

    def asks(self, unit: Unit, row: Mapping[str, Any]) -> list[Ask]:
        question = unit.question if unit.turn else self.caption_question
        places = {"question": question, "answer": unit.text, "scale": SCALES[self.scale]}
        found = []
        for name, rubric in self.axes.items():
            sees = name not in self.text_only
            text = filled(self.prompt, {**places, "rubric": rubric})
            found.append(Ask(name, text, sees, "no_image" if sees and not unit.images else ""))
        return found

    def scored(self, answers: Answers) -> Scores:
        return {name: one if isinstance(one, Rejection) else self._rating(one) for name, one in answers}

    def _rating(self, answer: Mapping[str, Any]) -> float | Rejection:
        is_grade = self.scale == "grade"
        if self.by == "answer":
            return written_grade(answer) if is_grade else written_yes(answer)
        found = probabilities(answer, self.words(), self.min_mass)
        if isinstance(found, Rejection):
            return found
        return expected_grade(found) if is_grade else share_of_yes(found)
