"""The base class of steps whose answers are captions, which become alternatives of the row's text."""

from __future__ import annotations

from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.errors import RecipeError
from vlmdata.fields import RAW
from vlmdata.generation.asking_step import MOST_COUNT, AskingStep
from vlmdata.generation.captions import (
    REFUSALS,
    Rejection,
    Rules,
    beginning,
    captions_before,
    is_pair,
    judged,
    own_text,
    shortened,
    with_captions,
)
from vlmdata.generation.template import check_characters
from vlmdata.loader.captions import SYNTHETIC
from vlmdata.parameters import Doc
from vlmdata.readers.strings import is_blank
from vlmdata.row import alive, drop_rows
from vlmdata.step import Question, StepContext

MOST_SAMPLES = 100
NOT_A_PAIR = "not_a_pair"


@dataclass(frozen=True, kw_only=True)
class CaptioningStep(AskingStep):
    """A step that asks for captions of rows with one image and at most one text, and adds the accepted ones as alternatives."""

    adds_texts: ClassVar = True
    measured_by: ClassVar[tuple[str, ...]] = (*AskingStep.measured_by, "samples", "max_text_words")

    system: Annotated[str, Doc("System text of the question. Empty: none.")] = ""
    samples: Annotated[
        int,
        Doc(
            "Captions that are asked for each row. Each is a question with its own seed.",
            unit="captions",
            source="vlmdata's choice",
        ),
    ] = 1
    max_text_words: Annotated[
        int,
        Doc(
            "Words of the old text that are sent, from its start, and at most ten times as many characters.",
            unit="words",
            source="vlmdata's choice",
        ),
    ] = 150
    min_words: Annotated[int, Doc("A caption with fewer words is not accepted.", unit="words", source="vlmdata's choice")] = 3
    max_words: Annotated[int, Doc("A caption with more words is not accepted.", unit="words", source="vlmdata's choice")] = 200
    max_repeats: Annotated[
        float,
        Doc(
            "A caption is not accepted if a greater share of its 4-grams of words occurs more than once.",
            unit="share of 4-grams, 0 to 1",
            source="vlmdata's choice: 1.8% of 9,469 human captions are above it, and a phrase that is repeated has 1",
        ),
    ] = 0.3
    refusals: Annotated[
        list[str],
        Doc("An answer that begins with one of these texts, in any case, is not accepted.", source="vlmdata's choice"),
    ] = field(default_factory=lambda: list(REFUSALS))
    require: Annotated[bool, Doc("Whether a row is dropped if none of its captions is accepted.")] = False

    @abstractmethod
    def asked(self, row: Mapping[str, Any]) -> str | Rejection:
        """Return the text of the prompt about a pair, or what the pair lacks. Override this method."""
        raise NotImplementedError

    def pictures(self, row: Mapping[str, Any], context: StepContext) -> dict[str, Any]:
        """Return the arguments `images` and `side` of `question`. Override this method in a step that shows the image."""
        return {}

    def raw_text(self, row: Mapping[str, Any]) -> str:
        """Return the row's text as it is sent: on one line and not too long. It is empty if the row has no text."""
        text = shortened((own_text(row) or {}).get("text") or "", self.max_text_words)
        return "" if is_blank(text) else text

    def check(self) -> None:
        super().check()
        check_characters(self.wording(), self.name)
        if not 1 <= self.samples <= MOST_SAMPLES:
            raise RecipeError(f"{self.name}.samples must be 1 to {MOST_SAMPLES}, not {self.samples}")
        if self.samples > 1 and self.temperature == 0:
            fix = "Set temperature, such as 0.9, or samples: 1"
            raise RecipeError(f"{self.name}.samples is {self.samples}, but all are equal at temperature 0. {fix}")
        for name, least in (("max_text_words", 1), ("min_words", 0), ("max_words", 1)):
            if not least <= getattr(self, name) <= MOST_COUNT:
                raise RecipeError(f"{self.name}.{name} must be {least} to {MOST_COUNT:,}, not {getattr(self, name)}")
        if self.max_words < self.min_words:
            raise RecipeError(f"{self.name}.max_words must be at least min_words, not {self.max_words}")
        if not 0 <= self.max_repeats <= 1:
            raise RecipeError(f"{self.name}.max_repeats must lie in [0, 1], not {self.max_repeats}")
        if any(not beginning(refusal).strip() for refusal in self.refusals):
            raise RecipeError(f"{self.name}.refusals has a text without a word, with which every answer begins. Remove it")
        if self.name in (RAW, SYNTHETIC):
            raise RecipeError(f"the label '{self.name}' has another meaning in the weights of captions. Choose another `label`")

    def check_rows(self, rows: pa.Table) -> None:
        if len(rows) and not is_pair(rows).any():
            raise RecipeError(
                f"{self.name} asks about rows with one image and at most one text, and none of the source's first "
                f"{len(rows):,} rows is one. Documents and conversations are not captioned"
            )

    def questions(self, rows: pa.Table, context: StepContext) -> list[list[Question]]:
        found: list[list[Question]] = []
        for row, pair in zip(rows.select(["key", "images", "texts"]).to_pylist(), is_pair(rows), strict=True):
            text = self._prompt(row, pair)
            if isinstance(text, Rejection):
                found.append([])
                continue
            shown = self.pictures(row, context)
            numbers = range(self.samples)
            found.append([self.question(row["key"], n, text, system=self.system, **shown) for n in numbers])
        return found

    def _prompt(self, row: Mapping[str, Any], pair: bool) -> str | Rejection:
        """Return the text of the prompt about a row, or why it is not asked."""
        return self.asked(row) if pair else Rejection(NOT_A_PAIR)

    def decide(self, rows: pa.Table) -> pa.Table:
        places = is_pair(rows) & alive(rows)
        results = self._results(rows, places)
        captions = [[one for one in found if isinstance(one, str)] for found in results]
        if self.require:
            why = [_first(found) for found in results]
            values = {name: np.array([getattr(one, name) for one in why], float) for name in ("value", "threshold")}
            reasons = np.array([one.reason or None for one in why], object)
            rows = drop_rows(rows, np.array([bool(one.reason) for one in why], bool), self.name, reason=reasons, **values)
        return with_captions(rows, captions, self.name, places)

    def outcomes(self, rows: pa.Table) -> Mapping[str, int]:
        """Return how many captions are accepted, and how many answers or rows are not, by reason.

        Rows that are not asked count once, such as `not_a_pair`. Answers that failed do not count.
        """
        counts: Counter[str] = Counter()
        failures = {one["failure"] for answers in self._answers(rows) for one in answers or ()}
        for found in self._results(rows, np.ones(len(rows), bool)):
            counts.update("accepted" if isinstance(one, str) else one.reason for one in found)
        return {name: count for name, count in counts.items() if name not in failures}

    def _answers(self, rows: pa.Table) -> list[list[dict[str, Any]] | None]:
        return rows[self.column("answers")].to_pylist()

    def _results(self, rows: pa.Table, where: np.ndarray) -> list[Sequence[str | Rejection]]:
        """Return for each row its captions and rejections, in order. `where` is a bool per row; other rows have none.

        A row that was measured but not asked has one rejection. Captions of this step and of later ones do not count as
        captions that the row already has.
        """
        rules = Rules(self.min_words, self.max_words, self.max_repeats, tuple(self.refusals))
        table = rows.select(["key", "texts"]).to_pylist()
        found: list[Sequence[str | Rejection]] = []
        for row, pair, answers, wanted in zip(table, is_pair(rows), self._answers(rows), where, strict=True):
            if answers is None or not wanted:
                found.append([])
            elif answers:
                found.append(judged(answers, captions_before(own_text(row), self.name), rules))
            else:
                prompt = self._prompt(row, pair)
                found.append([prompt] if isinstance(prompt, Rejection) else [])
        return found


def _first(found: Sequence[str | Rejection]) -> Rejection:
    """Return why a row has no caption: its first rejection. The reason is empty if it has one, or is no pair."""
    first = found[0] if found else None
    if not isinstance(first, Rejection) or first.reason == NOT_A_PAIR or any(isinstance(one, str) for one in found):
        return Rejection("")
    return first
