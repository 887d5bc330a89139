"""Make pairs of a better and a worse answer for preference training (DPO) from scored texts and their alternatives."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.errors import RecipeError
from vlmdata.generation.preferences import Pair, ScoredText, drawn_pairs, most_shorter, shorter_by
from vlmdata.generation.scoring_step import ScoringStep
from vlmdata.generation.units import OWN, Unit, caption_units, turn_units
from vlmdata.parameters import Doc
from vlmdata.row import alive, drop_rows, set_column
from vlmdata.step import Step
from vlmdata.text.words import count_words

FIELD = "preferences"  # in the JSON of a sample
CAPTION = "Describe the picture."


@dataclass(frozen=True, kw_only=True)
class PreferencePairs(Step):
    """Write `preferences` into the JSON of samples: pairs of answers to one question whose scores differ by `min_gap` or more.

    Source: RLAIF-V, Yu et al. 2024. The answers are the text and its alternatives that have a score, such as the captions of
    `recaption` with `samples: 10` and `temperature: 0.7`. At most `pairs` are drawn for a question, by a hash. Then `balance`
    removes pairs whose chosen answer is shorter than the rejected one by more than a share of its length. The share is searched
    over all pairs so that the mean lengths match, because shorter answers have fewer false claims and would always win. Each
    pair has `prompt`, `chosen` and `rejected`, lists of messages as trl reads them, and both scores. See [judging](judging.md).
    """

    id: ClassVar = "vlmdata.steps.preference_pairs"
    example: ClassVar = (
        "- recaption: {generator: {hf: {model: captioner}}, samples: 10, temperature: 0.7, max_tokens: 512}\n"
        "- claims: {generator: {hf: {model: writer}}, origins: [recaption]}\n"
        "- check_claims: {generator: {hf: {model: judge_model}}, origins: [recaption]}\n"
        "- preference_pairs: {score: check_claims}"
    )
    sees_all: ClassVar = True
    changes: ClassVar = ("extra",)
    copies_texts: ClassVar = True
    limits: ClassVar = {"min_gap": "< min_gap"}

    score: Annotated[str, Doc("Column of the scores, whose column of alternatives is `SCORE.alternatives`.")] = "check_claims"
    min_gap: Annotated[
        float, Doc("Least difference of the scores of a pair.", unit="as the score", source="RLAIF-V: one false claim")
    ] = 1.0
    pairs: Annotated[int, Doc("Most pairs for each question.", unit="pairs", source="RLAIF-V")] = 2
    balance: Annotated[
        bool, Doc("Whether to remove pairs so that chosen and rejected answers are equally long on average.")
    ] = True
    require: Annotated[bool, Doc("Whether a row without a pair is rejected.")] = True
    caption_question: Annotated[str, Doc("The question that a caption answers.")] = CAPTION

    def columns_read(self) -> tuple[str, ...]:
        texts = ("texts.text", "texts.alternatives", "texts.origins")
        return ("images.sha256", *texts, "roles", "turns", "extra", self.score, f"{self.score}.alternatives")

    def check(self) -> None:
        if not self.min_gap > 0:
            raise RecipeError(f"{self.name}.min_gap must be above 0, not {self.min_gap}")
        if self.pairs < 1:
            raise RecipeError(f"{self.name}.pairs must be at least 1, not {self.pairs}")

    def check_steps(self, before: Sequence[Step]) -> None:
        for step in before:
            if isinstance(step, ScoringStep) and self.score in step.columns_decided():
                self._check_type(step.value_type, pa.list_(step.value_type))

    def _check_type(self, own: pa.DataType, alternatives: pa.DataType) -> None:
        """Raise RecipeError if the scores of a text, and those of its alternatives, do not have these types."""
        if not (_is_number(own) and pa.types.is_list(alternatives) and _is_number(alternatives.value_type)):
            raise RecipeError(
                f"{self.name}.score: '{self.score}' does not have one number for each text. Name the scores of a step that "
                "scores texts, such as check_claims or judge.relevance"
            )

    def decide(self, rows: pa.Table) -> pa.Table:
        if len(rows):  # a table without rows may have columns of another type
            self._check_type(*(_item(rows[name].type) for name in (self.score, f"{self.score}.alternatives")))
        is_alive = alive(rows)
        table = rows.to_pylist()
        found: list[list[tuple[Unit, Pair]]] = []
        gaps = np.full(len(rows), np.nan)
        for number, row in enumerate(table):
            found.append([])
            for unit, texts in self._answers(row) if is_alive[number] else ():
                pairs = drawn_pairs(texts, self.min_gap, self.pairs, f"{row['key']} {unit.position}")
                found[-1] += [(unit, pair) for pair in pairs]
                scores = [one.score for one in texts]
                gaps[number] = np.fmax(gaps[number], max(scores) - min(scores))
        share = self._share(found)
        kept = [[pair for pair in pairs if not self.balance or _shorter(pair[1]) <= share] for pairs in found]
        extras = [
            json.dumps(
                {**json.loads(row["extra"] or "{}"), FIELD: [self._entry(row, *one) for one in some]}, ensure_ascii=False
            )
            if some
            else row["extra"]
            for row, some in zip(table, kept, strict=True)
        ]
        rows = set_column(rows, "extra", pa.array(extras, pa.string()))
        return self._require(rows, found, kept, gaps, share) if self.require else rows

    def _require(self, rows: pa.Table, found: list[Any], kept: list[Any], gaps: np.ndarray, share: float) -> pa.Table:
        """Reject the rows without a pair: none had scores (`no_scores`), a gap (`min_gap`), or the balance removed all."""
        had, has = (np.array([bool(some) for some in lists], bool) for lists in (found, kept))
        rows = drop_rows(rows, np.isnan(gaps), self.name, reason="no_scores")
        rows = drop_rows(rows, ~had, self.name, reason="min_gap", value=gaps, threshold=self.min_gap)
        least = np.array([min((_shorter(pair) for _, pair in some), default=np.nan) for some in found], float)
        return drop_rows(rows, had & ~has, self.name, reason="balance", value=least, threshold=share)

    def _share(self, found: list[list[tuple[Unit, Pair]]]) -> float:
        lengths = [[count_words(one.text) for one in pair] for pairs in found for _, pair in pairs]
        return most_shorter(*np.array(lengths, float).T) if lengths else 1.0

    def _answers(self, row: Mapping[str, Any]) -> list[tuple[Unit, list[ScoredText]]]:
        """Return each question of a row with the scored answers to it, if there are at least two."""
        units = turn_units(row)[0] if row["roles"] is not None else caption_units(row)
        own, others = row[self.score] or [], row[f"{self.score}.alternatives"] or []
        found: dict[int, tuple[Unit, list[ScoredText]]] = {}
        for unit in units:
            scores = own if unit.alternative == OWN else (others[unit.position] if unit.position < len(others) else None) or []
            at = unit.position if unit.alternative == OWN else unit.alternative
            value = scores[at] if at < len(scores) else None
            if value is not None:
                found.setdefault(unit.position, (unit, []))[1].append(ScoredText(unit.text, value))
        return [one for one in found.values() if len(one[1]) > 1]

    def _entry(self, row: Mapping[str, Any], unit: Unit, pair: Pair) -> dict[str, Any]:
        messages = [_message("assistant", [{"type": "text", "text": one.text}]) for one in pair]
        prompt = _history(row, unit) if unit.turn else _asked(len(unit.images), self.caption_question)
        return {
            "prompt": prompt,
            "chosen": [messages[0]],
            "rejected": [messages[1]],
            "chosen_score": pair.chosen.score,
            "rejected_score": pair.rejected.score,
            "images": sum(part["type"] == "image" for message in prompt for part in message["content"]),
        }


def _item(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_list(kind) else pa.null()


def _is_number(kind: pa.DataType) -> bool:
    return bool(pa.types.is_floating(kind) or pa.types.is_integer(kind))


def _shorter(pair: Pair) -> float:
    lengths = (np.array([count_words(one.text)], float) for one in pair)
    return float(shorter_by(*lengths)[0])


def _message(role: str, content: list[dict[str, str]]) -> dict[str, Any]:
    return {"role": role, "content": content}


def _asked(images: int, question: str) -> list[dict[str, Any]]:
    return [_message("user", [*[{"type": "image"}] * images, {"type": "text", "text": question}])]


def _history(row: Mapping[str, Any], unit: Unit) -> list[dict[str, Any]]:
    """Return the messages before an answer, without the reasoning of the assistant and what tools said.

    They hold all images before the answer. The image of a tool is a part of a message of the user.
    """
    found: list[dict[str, Any]] = []
    for place in range(unit.position):
        role, turn = row["roles"][place], row["turns"] and row["turns"][place]
        facts = json.loads(turn) if turn else {}
        text, image = row["texts"][place], row["images"][place]
        is_said = role != "tool" and "kind" not in facts
        role = "user" if role == "tool" else role
        parts = [{"type": "image"}] if image and image["drop"] is None else []
        parts += [{"type": "text", "text": text["text"]}] if is_said and text and text["drop"] is None else []
        if parts and found and found[-1]["role"] == role and not facts.get("begins"):
            found[-1]["content"] += parts
        elif parts:
            found.append(_message(role, parts))
    return found
