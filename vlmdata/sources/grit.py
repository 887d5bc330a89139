"""GRIT and lists in its form: captions whose phrases have boxes, with the addresses of the images."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa

from vlmdata.parameters import Doc
from vlmdata.readers import lists
from vlmdata.readers.column_types import ADDRESS, BOXES, CAPTION, Content
from vlmdata.readers.find_files import File, find
from vlmdata.readers.grounded_captions import grounded
from vlmdata.readers.lists import Chunk, ListFormat
from vlmdata.readers.plain_rows import bad_records, pair, tables, with_place
from vlmdata.readers.source_images import web_address
from vlmdata.readers.strings import clean
from vlmdata.step import RecipeError, Source

SPANS = ("ref_exps", "noun_chunks")


@dataclass(frozen=True, kw_only=True)
class Grit(Source):
    """Yield one row for each image address with its caption, in which boxes stand behind the words that they show.

    The caption becomes a grounded text such as `a dog [0.125, 0.250, 0.500, 0.750] on a sofa`, with the task `mention`. The
    boxes are kept with the image, with their words as labels. Spans in `grounding` say where words and boxes are in the text,
    so that the caption itself can be read from it. A caption without a usable phrase stays as it is. Reasons of dropped rows:
    `no_address`, `no_text`, `bad_encoding`, `bad_record`.
    """

    id: ClassVar = "vlmdata.sources.grit"
    example: ClassVar = "source: {type: grit, path: grit-20m/*.parquet, phrases: both}"
    by_address: ClassVar = True

    path: Annotated[str | list[str], Doc("Parquet, JSON or JSON lines: files, folders or globs.")]
    phrases: Annotated[
        Literal["ref_exps", "noun_chunks", "both"],
        Doc(
            "Whose boxes to write. both: noun chunks where no referring expression lies. Phrases do not overlap.", source="GRIT"
        ),
    ] = "both"
    min_score: Annotated[
        float, Doc("Least score of a box by the detector.", unit="0..1", source="unilm, kosmos-2/train.sh")
    ] = 0.65
    url: Annotated[str, Doc("Column of addresses.")] = "url"
    caption: Annotated[str, Doc("Column of captions.")] = "caption"

    def check(self) -> None:
        if not 0 <= self.min_score <= 1:
            raise RecipeError(f"min_score must be 0 to 1, not {self.min_score}")
        contents: dict[str, Content] = {self.url: ADDRESS, self.caption: CAPTION, **dict.fromkeys(self._spans(), BOXES)}
        for path in lists.checked_files(self.files(), lambda path: lists.format_of(path, ListFormat())):
            lists.check_file(path, ListFormat(), self._wanted(), contents)

    def files(self) -> list[File]:
        return find(self.path, [ending for ending in lists.ENDINGS if ending.startswith((".parquet", ".json"))])

    def carries(self) -> Sequence[str]:
        return lists.first_columns(self.files(), ListFormat(), self._wanted())

    def pieces(self) -> list[dict[str, Any]]:
        return lists.named_pieces(self.files())

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        return self.read_counting(piece, Counter())

    def read_counting(self, piece: dict[str, Any], others: Counter[str]) -> Iterator[pa.Table]:
        """Yield the rows of `read`, and count the phrases that are left out, by reason."""
        found = lists.chunks(File(piece["path"], 0), ListFormat(), self._wanted(), "all", rows=1000)
        for chunk, where in lists.with_places(piece["name"], found):
            yield from tables(self._rows(chunk, where, others))
            if chunk.bad_records:
                yield bad_records(piece["name"], chunk.bad_records)

    def _spans(self) -> tuple[str, ...]:
        return SPANS if self.phrases == "both" else (self.phrases,)

    def _wanted(self) -> list[str]:
        return [self.url, self.caption, *self._spans()]

    def _rows(self, chunk: Chunk, where: Callable[[int], str], others: Counter[str]) -> Iterator[dict[str, Any]]:
        columns = [chunk.columns[name] for name in self._wanted()]
        cells = [values if isinstance(values, list) else values.to_pylist() for values in columns]
        extra = chunk.extra.to_pylist() if chunk.extra is not None else [None] * len(chunk.bad_encoding)
        for number, (url, caption, *phrases) in enumerate(zip(*cells, strict=True)):
            row = _row(url, caption, phrases, self.min_score, extra[number], others)
            if chunk.bad_encoding[number]:
                row |= {"drop": "source", "reason": "bad_encoding"}
            yield with_place(row, where(number))


def _row(
    url: Any, caption: Any, phrases: Sequence[Any], min_score: float, extra: str | None, others: Counter[str]
) -> dict[str, Any]:
    said = clean(caption) if isinstance(caption, str) else ""
    found = grounded(said, [_listed(one) for one in phrases], min_score, others)
    image: dict[str, Any] = {"url": web_address(url)}
    if found.boxes:
        image |= {"original_boxes": [list(one) for one in found.boxes], "box_labels": found.labels}
    reason = None if image["url"] else "no_address"
    if caption is not None and not isinstance(caption, str):
        reason = reason or "no_text"
    row = pair(image, [found.text], extra=extra, reason=reason)
    if found.grounding is not None:
        row["texts"][1] |= {"grounding": found.grounding.dump()}
    return row


def _listed(cell: Any) -> list[Any]:
    """Return a list, also one in JSON text, or an empty list for any other value."""
    if isinstance(cell, str):
        try:
            cell = json.loads(cell)
        except (ValueError, RecursionError):
            return []
    return cell if isinstance(cell, list) else []
