"""Write conversations about a picture with a model that reads only its captions and boxes."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.draws import content, fraction
from vlmdata.errors import RecipeError
from vlmdata.generation.as_conversation import as_conversations
from vlmdata.generation.asking_step import MOST_COUNT, AskingStep
from vlmdata.generation.captioning_step import NOT_A_PAIR
from vlmdata.generation.captions import REFUSALS, Rejection, beginning, is_pair
from vlmdata.generation.instruct_prompts import DETAIL, EXAMPLES, KINDS, PROMPTS, QUESTIONS, SYSTEMS, WEIGHTS
from vlmdata.generation.object_claims import KnownObjects
from vlmdata.generation.scene_text import box_lines, captions_of, labels_of
from vlmdata.generation.template import check_characters, check_template, filled
from vlmdata.generation.turns import SOURCE_WORDS, UNSURE, Judged, TurnRules, judged, runs_of
from vlmdata.parameters import Doc
from vlmdata.readers.strings import clean
from vlmdata.row import alive, drop_rows
from vlmdata.step import Question, StepContext
from vlmdata.text.object_names import ObjectNames

NO_TEXT = "no_text"
PLACES = ("examples", "captions", "boxes")


@dataclass(frozen=True, kw_only=True)
class Instruct(AskingStep):
    """Ask a model that reads only text for questions and answers about a picture. The row becomes a conversation.

    Source of the idea: LLaVA-Instruct, Liu et al. 2023. The model gets the row's captions and, for detailed descriptions and
    reasoning, its labelled boxes. Rows with one image and a caption are asked about; others are counted as `not_a_pair` or
    `no_text`. The picture stays at its position, in the first turn of the user. The captions move to the sample's JSON.

    An answer must have the fixed form (`bad_form`, `uneven`, `empty`, `length`). Each of its turns may be rejected alone, for
    `refusal`, `source_words`, `coordinates`, `unsure`, `max_repeats`, `placeholder`, `duplicate`, `absent_object`,
    `wrong_count` or `refers_back`; a text of an example rejects all turns as `copied`. These rules may change without a new
    question. The layout of the shards must be `documents`. See [instruction data](instruct.md).
    """

    id: ClassVar = "vlmdata.steps.instruct"
    example: ClassVar = "- instruct: {generator: {hf: {model: writer}}, max_tokens: 1024}"
    reads: ClassVar = ("texts", "images.boxes", "images.box_labels", "images.width", "images.height")
    gives: ClassVar = "conversations"
    copies_texts: ClassVar = True
    measured_by: ClassVar = (*AskingStep.measured_by, "kinds", "joined", "max_captions", "max_text_words", "max_boxes")

    max_tokens: Annotated[
        int, Doc("Most tokens of an answer. An answer that reaches it is cut.", unit="tokens", source="vlmdata's choice")
    ] = 1024
    kinds: Annotated[
        dict[str, float],
        Doc(
            "What is asked: weights of `conversation`, `detail` and `reasoning`. A kind that is left out is not asked.",
            unit="weights, 0 or more",
            source="thousands of each kind in LLaVA-Instruct-158K",
        ),
    ] = field(default_factory=lambda: dict(WEIGHTS))
    joined: Annotated[
        bool,
        Doc(
            "False: one kind is drawn for each row, by the weights and the row's key. True: all kinds are asked and joined "
            "into one conversation.",
            source="LLaVA-1.5 joins all questions about an image",
        ),
    ] = False
    systems: Annotated[dict[str, str], Doc("System texts by kind, in place of vlmdata's own.")] = field(default_factory=dict)
    prompts: Annotated[
        dict[str, str],
        Doc("Texts of the questions by kind, in place of vlmdata's own. Places: `{captions}`, `{boxes}` and `{examples}`."),
    ] = field(default_factory=dict)
    examples: Annotated[
        dict[str, list[tuple[str, str]]],
        Doc("Examples by kind, in place of vlmdata's own: pairs [what is given, the model's text]. An empty list: none."),
    ] = field(default_factory=dict)
    detail_questions: Annotated[
        list[str], Doc("Questions for detailed descriptions, of which one is drawn for each row.", source="vlmdata's choice")
    ] = field(default_factory=lambda: list(QUESTIONS))
    max_captions: Annotated[int, Doc("Captions that are sent, the text first.", unit="captions", source="LLaVA-Instruct")] = 5
    max_text_words: Annotated[
        int, Doc("Words that are sent of each caption, from its start.", unit="words", source="vlmdata's choice")
    ] = 150
    max_boxes: Annotated[int, Doc("Boxes that are sent, from the first.", unit="boxes", source="vlmdata's choice")] = 100
    refusals: Annotated[
        list[str],
        Doc("An answer that begins with one of these texts, in any case, is not accepted.", source="vlmdata's choice"),
    ] = field(default_factory=lambda: list(REFUSALS))
    source_words: Annotated[
        list[str],
        Doc("A turn with one of these words or their plurals shows that the model saw text. Empty: not checked."),
    ] = field(default_factory=lambda: list(SOURCE_WORDS))
    unsure: Annotated[
        list[str], Doc("A turn whose answer has one of these words is not accepted.", source="vlmdata's choice")
    ] = field(default_factory=lambda: list(UNSURE))
    max_repeats: Annotated[
        float,
        Doc(
            "A turn is not accepted if a greater share of the answer's 4-grams of words occurs more than once.",
            unit="share of 4-grams, 0 to 1",
            source="as in recaption",
        ),
    ] = 0.3
    check_objects: Annotated[
        bool, Doc("Whether objects that no caption and no box names, and numbers that the boxes contradict, are not accepted.")
    ] = True
    objects: Annotated[
        dict[str, list[str]],
        Doc("Names of objects that are checked beside COCO's 80 categories, with other words for each: `{lamp: [lantern]}`."),
    ] = field(default_factory=dict)
    require: Annotated[bool, Doc("Whether a row without an accepted turn is dropped. False: it stays a caption pair.")] = True

    def asked_kinds(self) -> tuple[str, ...]:
        """Return the kinds that have a weight, in the order in which they are joined."""
        return tuple(kind for kind in KINDS if self.kinds.get(kind, 0) > 0)

    def columns_read(self) -> tuple[str, ...]:
        return self.reads if self._shows_boxes() else ("texts",)

    def fields_fetched(self) -> tuple[str, ...]:
        return ("width", "height") if self._shows_boxes() else ()

    def _shows_boxes(self) -> bool:
        return any("{boxes}" in self._prompt(kind) for kind in self.asked_kinds())

    def _system(self, kind: str) -> str:
        return self.systems.get(kind, SYSTEMS[kind])

    def _prompt(self, kind: str) -> str:
        return self.prompts.get(kind, PROMPTS[kind])

    def _examples(self, kind: str) -> Sequence[tuple[str, str]]:
        return self.examples.get(kind, EXAMPLES[kind])

    def _shown_examples(self, kind: str) -> str:
        return "".join(f"Sentences:\n{given}\n\nText:\n{text}\n\n" for given, text in self._examples(kind))

    def wording(self) -> dict[str, str]:
        return {
            f"{name}/{kind}": text
            for kind in self.asked_kinds()
            for name, text in (
                ("system", self._system(kind)),
                ("prompt", self._prompt(kind)),
                ("examples", self._shown_examples(kind)),
            )
        }

    def check(self) -> None:
        super().check()
        for name in ("kinds", "systems", "prompts", "examples"):
            if unknown := sorted(set(getattr(self, name)) - set(KINDS)):
                raise RecipeError(f"{self.name}.{name}: there is no kind '{unknown[0]}'. The kinds are {', '.join(KINDS)}")
        if any(one < 0 for one in self.kinds.values()) or not 0 < sum(self.kinds.values()) < math.inf:
            raise RecipeError(f"{self.name}.kinds needs weights of 0 or more, and one above 0, such as {{conversation: 1}}")
        for kind in self.asked_kinds():
            place = f"{self.name}.prompts.{kind}"
            check_template(self._prompt(kind), PLACES, place, needed=("captions",))
            if self._examples(kind) and "{examples}" not in self._prompt(kind):
                raise RecipeError(f"{place} needs the place {{examples}}, or set examples: {{{kind}: []}}")
        check_characters({place.replace("/", "."): text for place, text in self.wording().items()}, self.name)
        self._check_rules()

    def _check_rules(self) -> None:
        for name, least in (("max_captions", 1), ("max_text_words", 1), ("max_boxes", 0)):
            if not least <= getattr(self, name) <= MOST_COUNT:
                raise RecipeError(f"{self.name}.{name} must be {least} to {MOST_COUNT:,}, not {getattr(self, name)}")
        if not 0 <= self.max_repeats <= 1:
            raise RecipeError(f"{self.name}.max_repeats must lie in [0, 1], not {self.max_repeats}")
        for name in ("refusals", "source_words", "unsure"):
            if any(not beginning(text).strip() for text in getattr(self, name)):
                raise RecipeError(f"{self.name}.{name} has a text without a word, which every answer holds. Remove it")
        if DETAIL in self.asked_kinds() and not any(text.strip() for text in self.detail_questions):
            raise RecipeError(f"{self.name}.detail_questions needs a question, such as 'Describe this picture in detail.'")
        if any(not text.strip() or text != clean(text) for text in self.detail_questions):
            raise RecipeError(f"{self.name}.detail_questions has an empty text or a lone surrogate. Remove it")

    def check_rows(self, rows: pa.Table) -> None:
        if len(rows) and not is_pair(rows).any():
            raise RecipeError(
                f"{self.name} asks about rows with one image and one text, and none of the source's first {len(rows):,} rows "
                "is one. Documents and conversations stay as they are"
            )

    def kinds_of(self, key: str) -> tuple[str, ...]:
        """Return the kinds that are asked about the row with this key."""
        kinds = self.asked_kinds()
        if self.joined:
            return kinds
        key = content(key)
        bounds = np.cumsum([self.kinds[kind] for kind in kinds])
        at = int(np.searchsorted(bounds / bounds[-1], fraction(f"kind {key}"), side="right"))
        return (kinds[min(at, len(kinds) - 1)],)

    def questions_of(self, row: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
        """Yield (kind, text of the prompt) for each kind that is asked about a pair. There is none for a row without a text."""
        captions = captions_of(row, self.max_captions, self.max_text_words)
        if not captions:
            return
        values = {"captions": "\n".join(captions), "boxes": "\n".join(box_lines(row, self.max_boxes))}
        for kind in self.kinds_of(row["key"]):
            yield kind, filled(self._prompt(kind), {**values, "examples": self._shown_examples(kind)})

    def questions(self, rows: pa.Table, context: StepContext) -> list[list[Question]]:
        table = rows.select(["key", "images", "texts"]).to_pylist()
        return [
            [
                self.question(row["key"], KINDS.index(kind), text, system=self._system(kind))
                for kind, text in (self.questions_of(row) if pair else ())
            ]
            for row, pair in zip(table, is_pair(rows), strict=True)
        ]

    def decide(self, rows: pa.Table) -> pa.Table:
        found = self._results(rows, is_pair(rows) & alive(rows))
        if self.require:
            why = [_first(some) for some in found]
            values = {name: np.array([getattr(one, name) for one in why], float) for name in ("value", "threshold")}
            reasons = np.array([one.reason or None for one in why], object)
            rows = drop_rows(rows, np.array([bool(one.reason) for one in why], bool), self.name, reason=reasons, **values)
        return as_conversations(rows, found, self.name)

    def outcomes(self, rows: pa.Table) -> Mapping[str, int]:
        """Return how many turns are accepted, and how many are not, by reason.

        An answer that cannot be read, or whose end is missing, counts once, and so does a row that is not asked. Answers that
        failed do not count.
        """
        counts: Counter[str] = Counter()
        failures = {one["failure"] for answers in rows[self.column("answers")].to_pylist() for one in answers or ()}
        for some in self._results(rows, np.ones(len(rows), bool)):
            counts.update("accepted" if one.rejection is None else one.rejection.reason for one in some)
        return {name: count for name, count in counts.items() if name not in failures}

    def _results(self, rows: pa.Table, where: np.ndarray) -> list[list[Judged]]:
        """Return for each row the turns of its answers with their verdicts. `where` is a bool per row; other rows have none.

        A row that was measured but not asked has one rejection. The rows may already be conversations.
        """
        rules = self._rules()
        table = rows.select(["key", "images", "texts"]).to_pylist()
        answers = rows[self.column("answers")].to_pylist()
        found: list[list[Judged]] = []
        for row, pair, some, wanted in zip(table, is_pair(rows), answers, where, strict=True):
            if some is None or not wanted:
                found.append([])
            elif some:
                found.append(self._judged(row, some, rules))
            else:
                found.append([Judged("", None, Rejection(NO_TEXT if pair else NOT_A_PAIR))])
        return found

    def _judged(self, row: Mapping[str, Any], answers: Sequence[Mapping[str, Any]], rules: TurnRules) -> list[Judged]:
        known = None
        if self.check_objects:
            names = _names(tuple((name, tuple(words)) for name, words in self.objects.items()))
            known = KnownObjects(captions_of(row, self.max_captions, self.max_text_words), labels_of(row), names)
        listed = self.detail_questions
        question = listed[int(fraction(f"question {content(row['key'])}") * len(listed))] if listed else ""
        asked: set[str] = set()
        pairs = zip(self.kinds_of(row["key"]), answers, strict=True)
        return [one for kind, answer in pairs for one in judged(kind, answer, question, known, rules, asked)]

    def _rules(self) -> TurnRules:
        texts = tuple(text for kind in self.asked_kinds() for _, text in self._examples(kind))
        return TurnRules(
            tuple(self.refusals),
            tuple(self.source_words),
            tuple(self.unsure),
            self.max_repeats,
            _runs_of(texts),
        )


@functools.lru_cache(maxsize=8)
def _names(others: tuple[tuple[str, tuple[str, ...]], ...]) -> ObjectNames:
    return ObjectNames(dict(others))


@functools.lru_cache(maxsize=8)
def _runs_of(texts: tuple[str, ...]) -> frozenset[tuple[str, ...]]:
    return runs_of(texts)


def _first(found: Sequence[Judged]) -> Rejection:
    """Return why a row has no accepted turn: its first rejection. The reason is empty if it has one, or is no pair."""
    if not found or any(one.rejection is None for one in found):
        return Rejection("")
    first = next(one.rejection for one in found if one.rejection)
    return Rejection("") if first.reason == NOT_A_PAIR else first
