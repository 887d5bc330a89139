"""The base class of steps that ask a model to score the texts of a row, and reject texts by limits of their scores."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar, NamedTuple

import numpy as np
import pyarrow as pa

from vlmdata.errors import RecipeError
from vlmdata.fields import RAW
from vlmdata.generation.asking_step import AskingStep
from vlmdata.generation.captioning_step import NOT_A_PAIR
from vlmdata.generation.captions import Rejection, is_pair
from vlmdata.generation.template import check_characters
from vlmdata.generation.units import OWN, Unit, caption_units, score_columns, turn_units, turns_of, without_alternatives
from vlmdata.generator import ANSWERS, ASKED
from vlmdata.parameters import Doc
from vlmdata.row import alive, drop_texts, flatten, set_column
from vlmdata.step import Question, StepContext

NO_ANSWER = "no_answer"  # a turn without an answer
NO_TEXT = "no_text"
WHOLE = -1  # in place of a position: the whole row
Place = tuple[int, int]  # a text: its position, and the number of its alternative or OWN
Answers = Sequence[tuple[str, Mapping[str, Any] | Rejection]]  # the name of each question, with its answer or why there is none
Scores = dict[str, float | list[str] | Rejection]  # scores of a text by name; a Rejection says why there is none


class Ask(NamedTuple):
    """A question about a text. `sees` says whether the model sees the images. With `reason`, it is not asked."""

    name: str
    text: str
    sees: bool
    reason: str = ""


@dataclass(frozen=True, kw_only=True)
class ScoringStep(AskingStep):
    """A step that asks questions about texts of a row. Scores are computed from the stored answers in each run.

    The measured column `asked` says which text each answer is about, so that later changes of texts do not matter.
    """

    reads: ClassVar = ("images", "texts", "roles", "turns")
    writes: ClassVar = {"answers": ANSWERS, "asked": ASKED}
    measured_by: ClassVar[tuple[str, ...]] = (*AskingStep.measured_by, "origins")
    scores_turns: ClassVar[bool] = True  # whether the turns of conversations are scored too
    stored_at: ClassVar[str] = "texts"  # "images": scores are stored at the image of a pair, as clip_score does
    value_type: ClassVar[pa.DataType] = pa.float32()  # of a score

    system: Annotated[str, Doc("System text of the question. Empty: none.")] = ""
    origins: Annotated[
        list[str],
        Doc(
            "The texts of a caption pair that are asked about: `raw` for those of the source, and names or labels of steps "
            "for the captions that they wrote. Empty: all."
        ),
    ] = field(default_factory=list)

    @abstractmethod
    def asks(self, unit: Unit, row: Mapping[str, Any]) -> list[Ask]:
        """Return the questions about a text. Override this method."""
        raise NotImplementedError

    @abstractmethod
    def scored(self, answers: Answers) -> Scores:
        """Return the scores of a text from the answers about it. Override this method."""
        raise NotImplementedError

    @abstractmethod
    def score_names(self) -> tuple[str, ...]:
        """Return the names of the scores, as `Step.column` takes them. Override this method."""
        raise NotImplementedError

    def least(self, is_alternative: bool) -> Mapping[str, tuple[str, float]]:
        """Return (reason, least value) of each score that has a limit. A text or alternative with a lower one is rejected."""
        return {}

    def words(self) -> tuple[str, ...]:
        """Return the words whose probabilities are asked for. Empty: the model writes its answer."""
        return ()

    def side(self) -> int:
        """Return the most pixels of the long side of an image. Override this method in a step that shows images."""
        return 0

    def columns_read(self) -> tuple[str, ...]:
        return (*self.reads, *(("texts.origins",) if self.origins else ()))

    def columns_decided(self) -> tuple[str, ...]:
        names = [self.column(name) for name in self.score_names()]
        return tuple(full for name in names for full in (name, f"{name}.alternatives"))

    def check(self) -> None:
        super().check()
        check_characters(self.wording(), self.name)
        if "" in self.origins:
            raise RecipeError(f"{self.name}.origins has an empty name. Write {RAW} for the texts of the source")

    def check_rows(self, rows: pa.Table) -> None:
        if len(rows) and not self._is_scored(rows).any():
            what = f"rows with one image and at most one text{', and conversations' if self.scores_turns else ''}"
            raise RecipeError(f"{self.name} asks about {what}, and none of the source's first {len(rows):,} rows is one")

    def questions(self, rows: pa.Table, context: StepContext) -> list[list[Question]]:
        found = []
        for row, plan in self._plans(rows):
            asked = [(unit, ask) for unit, ask in plan if unit is not None and not ask.reason]
            found.append([self._question(row, n, unit, ask, context) for n, (unit, ask) in enumerate(asked)])
        return found

    def _question(self, row: Mapping[str, Any], number: int, unit: Unit, ask: Ask, context: StepContext) -> Question:
        shown = []
        for image in [row["images"][place] for place in unit.images] if ask.sees else []:
            place = image["blob"], image["offset"], image["size"]
            shown.append((image["sha256"] or "\x1d".join(map(str, place)), _reader(context, place)))
        return self.question(
            row["key"], number, ask.text, system=self.system, images=shown, side=self.side(), choices=self.words()
        )

    def measure(self, rows: pa.Table, context: StepContext) -> dict[str, pa.Array]:
        lists = [
            [
                {
                    "position": WHOLE if unit is None else unit.position,
                    "alternative": OWN if unit is None else unit.alternative,
                    "name": ask.name,
                    "reason": ask.reason or None,
                }
                for unit, ask in plan
            ]
            for _, plan in self._plans(rows)
        ]
        return {**super().measure(rows, context), "asked": pa.array(lists, ASKED)}

    def _plans(self, rows: pa.Table) -> list[tuple[dict[str, Any], list[tuple[Unit | None, Ask]]]]:
        """Return each row with the questions about its texts, and with reasons (without a text) of what is not asked."""
        more = [name for name in self.columns_read() if name in rows.column_names and name not in self.reads]
        table = rows.select(["key", *self.reads, *more]).to_pylist()
        return [
            (row, self._plan(row) if yes else [_skip(NOT_A_PAIR)])
            for row, yes in zip(table, self._is_scored(rows), strict=True)
        ]

    def _plan(self, row: Mapping[str, Any]) -> list[tuple[Unit | None, Ask]]:
        if row["roles"] is None:
            units = caption_units(row, self.origins)
            skipped = [] if units else [_skip(NO_TEXT)]
        else:
            units, unanswered = turn_units(row, self.origins)
            skipped = [_skip(NO_ANSWER)] * unanswered
        return [*((unit, ask) for unit in units for ask in self.asks(unit, row)), *skipped]

    def _is_scored(self, rows: pa.Table) -> np.ndarray:
        """Return a bool per row: true if the step asks about rows of this kind."""
        is_chat = np.asarray(rows["roles"].combine_chunks().is_valid().to_numpy(zero_copy_only=False), bool)
        return is_pair(rows) | is_chat if self.scores_turns else is_pair(rows)

    def _results(self, rows: pa.Table) -> list[dict[Place, Scores] | None]:
        """Return for each row the scores of its texts, or None if the row was not measured.

        The scores of WHOLE are reasons only, one for each part of the row that was not asked about.
        """
        lists = (rows[self.column(name)].to_pylist() for name in ("answers", "asked"))
        return [self._result(*pair) for pair in zip(*lists, strict=True)]

    def _result(self, answers: list[dict[str, Any]] | None, asked: list[dict[str, Any]] | None) -> dict[Place, Scores] | None:
        if answers is None or asked is None:
            return None
        left = iter(answers)
        about: dict[Place, list[tuple[str, Mapping[str, Any] | Rejection]]] = {}
        for one in asked:
            given = Rejection(one["reason"]) if one["reason"] else next(left)
            about.setdefault((one["position"], one["alternative"]), []).append((one["name"], given))
        skipped = {str(n): one for n, (_, one) in enumerate(about.pop((WHOLE, OWN), [])) if isinstance(one, Rejection)}
        found = {place: self.scored(some) for place, some in about.items()}
        return {**found, (WHOLE, OWN): dict(skipped)}

    def decide(self, rows: pa.Table) -> pa.Table:
        results = self._results(rows)
        for name in self.score_names():
            known = [
                None
                if found is None
                else {place: one for place, some in found.items() if not isinstance(one := some.get(name), Rejection | None)}
                for found in results
            ]
            own, others = score_columns(rows, known, self.stored_at, self.value_type)
            rows = set_column(set_column(rows, self.column(name), own), f"{self.column(name)}.alternatives", others)
        low = [
            {place: why for place, some in (found or {}).items() if (why := self._too_low(place, some))} if is_alive else {}
            for found, is_alive in zip(results, alive(rows), strict=True)
        ]
        if self.stored_at == "images":  # the subclass rejects the image of a text with a low score, and with it the row
            low = [{place: why for place, why in some.items() if place[1] != OWN} for some in low]
        return self._rejected(rows, results, low) if any(low) else rows

    def _too_low(self, place: Place, scores: Scores) -> Rejection | None:
        """Return the first limit that a text does not reach, or None. Scores are compared as they are stored, in float32."""
        for name, (reason, least) in self.least(place[1] != OWN).items():
            value = scores.get(name)
            if isinstance(value, float) and np.float32(value) < np.float32(least):
                return Rejection(reason, value, least)
        return None

    def _rejected(
        self, rows: pa.Table, results: Sequence[dict[Place, Scores] | None], low: Sequence[dict[Place, Rejection]]
    ) -> pa.Table:
        """Return the rows without the alternatives in `low`, and with the texts and turns in `low` rejected."""
        flat = flatten(rows, "texts")
        starts = flat.offsets.to_pylist()
        verdict = {
            "reason": np.full(len(flat.items), None, object),
            "value": np.full(len(flat.items), np.nan),
            "threshold": np.full(len(flat.items), np.nan),
        }
        table = rows.select(["roles", "turns"]).to_pylist()
        for row, found, some, start in zip(table, results, low, starts, strict=False):
            for place, why in _whole_turns(row, found or {}, some).items():
                for name, values in verdict.items():
                    values[start + place] = getattr(why, name)
        rows = drop_texts(rows, np.array([one is not None for one in verdict["reason"]], bool), self.name, **verdict)
        return without_alternatives(rows, [{place for place in some if place[1] != OWN} for some in low])

    def outcomes(self, rows: pa.Table) -> Mapping[str, int]:
        """Return how many scores are used, and how many are missing or too low, by reason. Failed answers do not count."""
        counts: Counter[str] = Counter()
        failures = {one["failure"] for some in rows[self.column("answers")].to_pylist() for one in some or ()}
        for place, scores in [pair for found in self._results(rows) for pair in (found or {}).items()]:
            for name, value in scores.items():
                why = value if isinstance(value, Rejection) else self._too_low(place, {name: value})
                counts["accepted" if why is None else why.reason] += 1
        return {name: count for name, count in counts.items() if name not in failures}


@dataclass(frozen=True, kw_only=True)
class SeeingStep(ScoringStep):
    """A step that shows the images with its questions, and takes its scores from the probabilities of words."""

    fetched: ClassVar = ("blob",)
    measured_by: ClassVar[tuple[str, ...]] = (*ScoringStep.measured_by, "image_side")

    image_side: Annotated[
        int,
        Doc(
            "A larger image is made smaller for the model, so that its long side has this length.",
            unit="pixels",
            source="vlmdata's choice: about 560 tokens in a model that makes one of 28 x 28 pixels",
        ),
    ] = 768
    min_mass: Annotated[
        float,
        Doc(
            "Least sum of the probabilities of the words that are asked for, such as yes and no. An answer with less is "
            "`undecided` and gives no score.",
            unit="probability, 0 to 1",
            source="vlmdata's choice",
        ),
    ] = 0.5

    def side(self) -> int:
        return self.image_side

    def check(self) -> None:
        super().check()
        if not 16 <= self.image_side <= 8192:
            raise RecipeError(f"{self.name}.image_side must be 16 to 8192, not {self.image_side}")
        if not 0 <= self.min_mass <= 1:
            raise RecipeError(f"{self.name}.min_mass must lie in [0, 1], not {self.min_mass}")


def _skip(reason: str) -> tuple[None, Ask]:
    return None, Ask("", "", False, reason)


def _reader(context: StepContext, place: tuple[str, int, int]) -> Any:
    return lambda: context.image_bytes(*place)


def _whole_turns(row: Mapping[str, Any], found: Mapping[Place, Scores], low: Mapping[Place, Rejection]) -> dict[int, Rejection]:
    """Return the positions of texts to reject. A turn is rejected whole, and with the last scored turn all that is left."""
    own = {position: why for (position, alternative), why in low.items() if alternative == OWN}
    if row["roles"] is None or not own:
        return own
    turns = {place: turn for turn in turns_of(row) for place in turn}
    rejected = {place: why for position, why in own.items() for place in turns.get(position, (position,))}
    if all(position in own for position, alternative in found if position != WHOLE and alternative == OWN):
        rejected = {place: next(iter(own.values())) for place in range(len(row["roles"]))} | rejected
    return rejected
