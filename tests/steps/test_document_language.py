"""The language of a document is that of its whole text."""

import pytest

from tests.rows import document, table
from vlmdata.step import RecipeError
from vlmdata.steps.document_language import DocumentLanguage

ENGLISH = "The river rose by two metres in the night, and by the morning the lower town stood under water."
GERMAN = "In der Nacht stieg der Fluss um zwei Meter, und am Morgen stand die Unterstadt unter Wasser."


def test_the_whole_text_decides_and_not_one_foreign_paragraph():
    rows = table([document(ENGLISH, "Haus", ENGLISH), document(GERMAN), document("1234 5678", {"url": "u"})])
    found = DocumentLanguage().run(rows)
    assert found["reason"].to_pylist() == [None, "language_de", "language_und"]
    assert DocumentLanguage(keep=["de", "en"]).run(rows)["drop"].to_pylist()[:2] == [None, None]


def test_dropped_texts_do_not_count():
    mixed = document(ENGLISH, GERMAN)
    mixed["texts"][0] = {"text": ENGLISH, "drop": "x"}
    assert DocumentLanguage().run(table([mixed]))["reason"].to_pylist() == ["language_de"]


def test_an_uncertain_text_is_dropped_with_its_probability():
    (row,) = DocumentLanguage(min_probability=0.999999).run(table([document("Hotel Taxi Radio is a")])).to_pylist()
    assert row["drop"] == "document_language"


def test_an_unknown_language_code_is_refused():
    with pytest.raises(RecipeError, match="'xx' is not a language"):
        DocumentLanguage(keep=["xx"]).check()
