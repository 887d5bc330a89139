"""Reject end-of-document marks that follow another mark or end a row. Source: OBELICS, step 22."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pyarrow as pa

from vlmdata.html.obelics import END_OF_DOCUMENT
from vlmdata.row import drop_rows, drop_texts, flatten
from vlmdata.step import Step


@dataclass(frozen=True, kw_only=True)
class DocumentEnds(Step):
    """Reject an end-of-document mark that directly follows another mark, and a mark at the end of a row.

    The sources `html` and `warc` write these marks with `mode: obelics`. One mark also directly follows another if
    all texts and images between them are rejected. A document whose texts are all marks is rejected.
    """

    id: ClassVar = "vlmdata.steps.document_ends"
    example: ClassVar = "- document_ends"
    reads: ClassVar = ("texts", "images")

    def decide(self, rows: pa.Table) -> pa.Table:
        flat = flatten(rows, "texts")
        marks = np.array([text == END_OF_DOCUMENT for text in flat.field("text").to_pylist()], bool) & flat.alive()
        has_text = np.bincount(flat.parents[flat.alive() & ~marks], minlength=len(rows)) > 0
        has_marks = np.bincount(flat.parents[marks], minlength=len(rows)) > 0
        rows = drop_rows(rows, has_marks & ~has_text, self.name, reason="marks_only")
        bad = np.zeros(len(marks), bool)
        open_mark = np.full(len(rows), -1)  # position of each row's latest mark if nothing follows it yet, else -1
        for i in np.flatnonzero(flat.alive() | flatten(rows, "images").alive()):
            row = flat.parents[i]
            if not marks[i]:
                open_mark[row] = -1
            elif open_mark[row] < 0:
                open_mark[row] = i
            else:
                bad[i] = True
        bad[open_mark[open_mark >= 0]] = True
        return drop_texts(rows, bad, self.name, reason="ends_nothing")
