"""The texts of a row that a model judges: a caption, its alternatives, or each answer of a conversation with its question.

A turn of a conversation begins with a message of the user that follows another role, and ends before the next such message. A
text that a step rejected is no part of it.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pyarrow as pa

from vlmdata.fields import RAW, aligned_origins
from vlmdata.readers.strings import is_blank
from vlmdata.row import in_one, set_column

CAPTION_QUESTION = "Describe the picture."  # what stands for the question of a caption, which has none
OWN = -1  # in place of the number of an alternative: the text itself


@dataclass(frozen=True)
class Unit:
    """A text to judge, and what it answers.

    `position` is that of the text in the row, and for a turn that of its first answer. `alternative` is the number of one of
    the text's alternatives, or OWN. `images` are the positions of the images that a reader of the text has seen. `turn` holds
    all positions of a conversation's turn; it is empty for a caption.
    """

    position: int
    alternative: int
    question: str
    text: str
    images: tuple[int, ...]
    turn: tuple[int, ...] = ()


def caption_units(row: Mapping[str, Any], origins: Collection[str] = ()) -> list[Unit]:
    """Return the texts of a caption pair: its text, then the alternatives. Blank texts are left out.

    `origins` names the steps whose captions are wanted, and RAW for the texts of the source. Empty: all texts.
    """
    images = tuple(place for place, image in enumerate(row["images"] or ()) if _is_kept(image))
    kept = [(place, text) for place, text in enumerate(row["texts"] or ()) if _is_kept(text)]
    return [
        Unit(place, number, "", words, images)
        for place, text in kept
        for number, words in _versions(text, text["text"] or "", origins)
    ]


def turn_units(row: Mapping[str, Any], origins: Collection[str] = ()) -> tuple[list[Unit], int]:
    """Return the answers of a conversation and their alternatives, and how many turns have no answer.

    The answer is what the assistant writes in a turn, without its reasoning and its calls of tools. Its alternatives are those
    of its first text. The images of earlier turns count as seen. `origins` is as in `caption_units`.
    """
    found: list[Unit] = []
    unanswered = 0
    for turn in turns_of(row):
        texts = {place: text for place in turn if _is_kept(text := row["texts"][place]) and not _is_marked(row, place)}
        asked = [text["text"] for place, text in texts.items() if row["roles"][place] == "user"]
        answers = {place: text["text"] for place, text in texts.items() if row["roles"][place] == "assistant"}
        answer = "\n\n".join(answers.values())
        if is_blank(answer):
            unanswered += any(_is_kept(row["texts"][place]) for place in turn)
            continue
        images = tuple(place for place in range(turn[-1] + 1) if _is_kept(row["images"][place]))
        first, question = min(answers), "\n\n".join(asked)
        versions = _versions(texts[first], answer, origins)
        found += [Unit(first, number, question, words, images, turn) for number, words in versions]
    return found, unanswered


def _versions(text: Mapping[str, Any], own: str, origins: Collection[str]) -> list[tuple[int, str]]:
    """Return (OWN, `own`) and each alternative of a text with its number, without blank ones and those of other origins."""
    others = text["alternatives"] or []
    both = [(own, None), *zip(others, aligned_origins(others, text["origins"]), strict=True)]
    return [
        (number, words)
        for number, (words, origin) in enumerate(both, OWN)
        if not is_blank(words or "") and (not origins or (origin or RAW) in origins)
    ]


def turns_of(row: Mapping[str, Any]) -> list[tuple[int, ...]]:
    """Return the positions of each turn of a conversation, in order. Positions before the first question are in none."""
    roles, found = row["roles"], list[list[int]]()
    for place, role in enumerate(roles):
        begins = place and bool(_facts(row, place).get("begins"))
        if role == "user" and (not place or roles[place - 1] != "user" or begins):
            found.append([])
        if found:
            found[-1].append(place)
    return [tuple(places) for places in found]


def _facts(row: Mapping[str, Any], place: int) -> dict[str, Any]:
    said = row["turns"][place] if row["turns"] else None
    return json.loads(said) if said else {}


def _is_marked(row: Mapping[str, Any], place: int) -> bool:
    return "kind" in _facts(row, place)


def _is_kept(item: Mapping[str, Any] | None) -> bool:
    return item is not None and item["drop"] is None


def score_columns(
    rows: pa.Table,
    scores: Sequence[Mapping[tuple[int, int], Any] | None],
    column: str = "texts",
    value_type: pa.DataType | None = None,
) -> tuple[pa.ListArray, pa.ListArray]:
    """Return the scores of texts and those of their alternatives, as lists with one entry for each position of a row.

    `scores` maps (position, alternative) to a score, in a dict for each row, or is None for a row without scores. An entry of
    the second column is a list with a score or null for each alternative of the text; a row without such scores is null. With
    `column` images, the scores of texts are stored at the row's first image. `value_type` is the type of a score, by default
    float32.
    """
    own: list[list[Any] | None] = []
    others: list[list[list[Any] | None] | None] = []
    for row, known in zip(rows.select(["images", "texts"]).to_pylist(), scores, strict=True):
        if known is None:
            own.append(None)
            others.append(None)
            continue
        counts = [len((text or {}).get("alternatives") or ()) for text in row["texts"] or ()]
        lists = [[known.get((place, n)) for n in range(count)] for place, count in enumerate(counts)]
        texts = [known.get((place, OWN)) for place in range(len(counts))]
        own.append(_at_image(row, texts, lists) if column == "images" else texts)
        is_known = [any(one is not None for one in some) for some in lists]
        others.append([some if known else None for some, known in zip(lists, is_known, strict=True)] if any(is_known) else None)
    kind = pa.list_(value_type or pa.float32())
    return pa.array(own, kind), pa.array(others, pa.list_(kind))


def _at_image(row: Mapping[str, Any], own: list[float | None], lists: list[list[float | None]]) -> list[float | None]:
    """Return the score of the row's text, or the highest one of its alternatives, at the position of its first image."""
    first = next((one for one in own if one is not None), None)
    best = max((one for some in lists for one in some if one is not None), default=None)
    place = next((n for n, image in enumerate(row["images"] or ()) if _is_kept(image)), None)
    return [(best if first is None else first) if n == place else None for n in range(len(row["images"] or ()))]


def without_alternatives(rows: pa.Table, removed: Sequence[Collection[tuple[int, int]]]) -> pa.Table:
    """Return the rows without some alternatives of their texts. `removed` has a set of (position, alternative) for each row.

    Columns that end in `.alternatives`, which have a list of scores for each text, lose the same entries.
    """
    if not any(removed):
        return rows
    texts = in_one(rows["texts"]).to_pylist()
    for row, gone in zip(texts, removed, strict=True):
        for place in {place for place, _ in gone}:
            text = row[place]
            kept = [n for n in range(len(text["alternatives"])) if (place, n) not in gone]
            origins = aligned_origins(text["alternatives"], text["origins"])
            text["alternatives"] = [text["alternatives"][n] for n in kept] or None
            text["origins"] = [origins[n] for n in kept] if any(origins[n] for n in kept) else None
    for name in rows.column_names:
        if name.endswith(".alternatives") and pa.types.is_list(rows[name].type):
            rows = set_column(rows, name, _shortened(in_one(rows[name]), removed))
    return set_column(rows, "texts", pa.array(texts, rows["texts"].type))


def _shortened(column: pa.Array, removed: Sequence[Collection[tuple[int, int]]]) -> pa.Array:
    values = column.to_pylist()
    for row, gone in zip(values, removed, strict=True):
        for place in {place for place, _ in gone} if row else ():
            row[place] = row[place] and [one for n, one in enumerate(row[place]) if (place, n) not in gone]
    return pa.array(values, column.type)
