"""Keep one of several identical images or rows."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from vlmdata.fields import aligned_origins
from vlmdata.grounding.current import without_numbers
from vlmdata.grounding.spans import read_grounding
from vlmdata.parameters import Doc
from vlmdata.row import alive, flatten, in_one, set_column
from vlmdata.similarity.clusters import best_first, best_of_groups
from vlmdata.similarity.verdict import columns_of, drop_duplicate_images, drop_duplicate_rows, living_images, numbered
from vlmdata.step import Step, scatter


@dataclass(frozen=True, kw_only=True)
class DedupeExact(Step):
    """Keep one image or row of each set of duplicates.

    Duplicates are images with the same fetched bytes (`by: sha256`), images with the same address (`by: url`), or identical
    rows (`by: row`). With `merge_captions`, the texts of the rejected rows become alternatives of the kept row's text, so that
    a picture found with five captions keeps all five.
    """

    id: ClassVar = "vlmdata.steps.dedupe_exact"
    example: ClassVar = "- dedupe_exact: {by: url, merge_captions: true}"
    sees_all: ClassVar = True

    by: Annotated[
        Literal["sha256", "url", "row"],
        Doc("What duplicates have in common. sha256: the fetched bytes of an image. url: its address. row: the whole row."),
    ] = "sha256"
    keep: Annotated[
        tuple[str, ...],
        Doc(
            "Order of preference. Of each set of duplicates, the image with the greatest value of the first column "
            "stays; ties go to the next column, then to the least key. Columns are `largest`, `bytes`, `earliest` and "
            "measured scores.",
            source="vlmdata's choice",
        ),
    ] = ("largest", "bytes")
    merge_captions: Annotated[
        bool, Doc("Whether the texts of the rejected rows become alternatives of the kept row's text.")
    ] = False

    def fields_fetched(self) -> tuple[str, ...]:
        return ("sha256",) if self.by == "sha256" else ()

    def columns_read(self) -> tuple[str, ...]:
        return (f"images.{self.by}", *columns_of(self.keep)) if self.by != "row" else ()

    def columns_changed(self) -> tuple[str, ...]:
        return (*(("images",) if self.by != "row" else ()), *(("texts",) if self.merge_captions else ()), "cluster")

    def decide(self, rows: pa.Table) -> pa.Table:
        before = alive(rows)
        if self.by == "row":
            places = np.flatnonzero(before)
            keys = in_one(rows["key"]).take(pa.array(places))
            # a key is a hash of the row's content; keys of identical rows end with _1, _2, ...
            _, groups = numbered(pc.replace_substring_regex(keys, "_.*", ""))
            representatives = best_of_groups(groups, best_first(keys=keys))[groups]
            after = drop_duplicate_rows(rows, places, representatives, self.name, "same_row")
        else:
            values = flatten(rows, "images").field(self.by)
            found = living_images(rows, self.keep, np.asarray(values.is_valid()))
            _, groups = numbered(values.take(pa.array(found.places)))
            representatives = best_of_groups(groups, found.rank)[groups]
            after = drop_duplicate_images(rows, found, representatives, self.name, f"same_{self.by}")
        return _merge(after, before & ~alive(after)) if self.merge_captions else after


def _merge(rows: pa.Table, lost: np.ndarray) -> pa.Table:
    """Add the texts of each rejected row to the row that represents it, as alternatives of the first text that is not rejected.

    `lost` is True for the rejected rows. The `cluster` of a rejected row is the key of the row that represents it. An
    alternative has no numbers of boxes, because only a text is grounded.
    """
    place = {key: row for row, key in enumerate(rows["key"].to_pylist())}
    texts = in_one(rows["texts"])
    clusters = rows["cluster"]
    merged: dict[int, list] = {}
    for row in np.flatnonzero(lost).tolist():
        representative = place[clusters[row].as_py()]
        documents = merged.setdefault(representative, texts[representative].as_py() or [])
        first = next((text for text in documents if text is not None and text["drop"] is None), None)
        if first is None:
            continue
        known, origins = _captions(first)
        for text in texts[row].as_py() or []:
            if text is not None and text["drop"] is None:
                plain = {**text, "text": without_numbers(text["text"], read_grounding(text["grounding"], text["text"]))}
                more = [pair for pair in zip(*_captions(plain), strict=True) if pair[0] not in known]
                known += [caption for caption, _ in more]
                origins += [origin for _, origin in more]
        first |= {"alternatives": known[1:] or None, "origins": origins[1:] if any(origins) else None}
    where = np.zeros(len(rows), bool)
    where[list(merged)] = True
    values = pa.array([merged[row] for row in sorted(merged)], texts.type)
    return set_column(rows, "texts", scatter(values, where, texts))


def _captions(text: dict[str, Any]) -> tuple[list[str], list[str | None]]:
    """Return a text followed by its alternatives, and their origins."""
    others = text["alternatives"] or []
    return [text["text"], *others], [None, *aligned_origins(others, text["origins"])]
