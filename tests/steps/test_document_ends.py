"""Marks of a document's end are removed as in the released code of OBELICS."""

import pytest

from tests.rows import document, table
from vlmdata.html.obelics import END_OF_DOCUMENT as END
from vlmdata.row import drop_texts, flatten
from vlmdata.steps.document_ends import DocumentEnds

IMAGE = {"url": "http://ex.com/a.jpg"}


@pytest.mark.parametrize(
    ("parts", "left"),
    [
        (["a", END, "b"], ["a", END, "b"]),
        (["a", END, END, END, "b"], ["a", END, "b"]),
        (["a", END, IMAGE, END, "b"], ["a", END, IMAGE, END, "b"]),
        (["a", IMAGE, END, END], ["a", IMAGE]),
        (["a", END, IMAGE], ["a", END, IMAGE]),
        ([END, "a"], [END, "a"]),
        (["a", "b"], ["a", "b"]),
    ],
)
def test_a_mark_is_kept_only_between_two_elements(parts, left):
    (row,) = DocumentEnds().run(table([document(*parts)])).to_pylist()
    remaining = [text["text"] if text else IMAGE for text in row["texts"] if text is None or text["drop"] is None]
    assert (row["drop"], remaining) == (None, left)


def test_a_document_of_marks_only_is_dropped():
    rows = DocumentEnds().run(table([document(END, IMAGE, END), document(IMAGE)]))
    assert rows["reason"].to_pylist() == ["marks_only", None]


def test_elements_dropped_before_do_not_keep_a_mark():
    rows = table([document("a", END, "between", END, "b")])
    texts = flatten(rows, "texts")
    rows = drop_texts(rows, texts.field("text").to_numpy(zero_copy_only=False) == "between", "paragraph_quality")
    (row,) = DocumentEnds().run(rows).to_pylist()
    assert [text["drop"] for text in row["texts"]] == [None, None, "paragraph_quality", "document_ends", None]
