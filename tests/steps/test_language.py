import pyarrow as pa
import pytest

from tests.fixtures import fixture
from tests.real_data import real_data
from tests.rows import captions, document, table
from vlmdata.row import drop_texts, set_column
from vlmdata.step import RecipeError
from vlmdata.steps.language import Language, languages

GERMAN = "Ein Hund läuft über die grüne Wiese hinter dem Haus"
ENGLISH = "A dog runs across the green meadow behind the house"


def test_other_languages_are_dropped_and_named():
    rows = Language().run(captions([ENGLISH, GERMAN, "1 2 3", "", None]))
    assert rows["reason"].to_pylist() == [None, "language_de", "language_und", "language_und", "language_und"]
    assert Language(keep=["de", "en"]).run(captions([ENGLISH, GERMAN]))["drop"].to_pylist() == [None, None]


def test_texts_without_letters_can_be_kept():
    assert Language(keep=["de", "und"]).run(captions(["12 34", "", GERMAN, ENGLISH]))["reason"].to_pylist() == [
        None,
        None,
        None,
        "language_en",
    ]


def test_the_limit_of_the_probability_is_inclusive():
    ((_, sure),) = languages([ENGLISH])
    assert Language(min_probability=sure).run(captions([ENGLISH]))["reason"].to_pylist() == [None]
    assert Language(min_probability=round(sure + 0.0001, 4)).run(captions([ENGLISH]))["reason"].to_pylist() == [
        "min_probability"
    ]


def test_a_document_loses_one_paragraph_and_line_breaks_are_ignored():
    rows = Language().run(table([document(ENGLISH.replace(" ", "\n"), {"url": "http://a.org/"}, GERMAN), document(GERMAN)]))
    assert rows["drop"].to_pylist() == [None, "language"]
    assert [text and text["reason"] for text in rows["texts"].to_pylist()[0]] == [None, None, "language_de"]


def test_a_row_dropped_before_keeps_its_reason():
    rows = set_column(captions([GERMAN, GERMAN]), "drop", pa.array(["earlier", None]))
    assert Language().run(rows)["drop"].to_pylist() == ["earlier", "language"]
    rejected = drop_texts(captions([GERMAN]), pa.array([False, True]).to_numpy(False), "before", reason="x")
    assert Language().run(rejected)["drop"].to_pylist() == ["before"]


def test_an_unknown_code_is_reported():
    with pytest.raises(RecipeError, match="'eng' is not a language"):
        Language(keep=["eng"]).check()


@pytest.mark.parametrize(
    ("find", "path", "share"),
    [
        (fixture, "G_text/captions.tsv", 580 / 583),  # two captions in capitals count as Japanese and one as Frisian
        (real_data, "G_text/m2ib_cc3m_val/Validation_GCC-1.1.0-Validation.tsv", 0.996),
    ],
)
def test_the_error_rate_on_english_captions_is_the_documented_one(find, path, share):
    texts = [line.split("\t")[0] for line in find(path).read_text().splitlines()]
    right = sum(code == "en" for code, _ in languages(texts))
    assert right / len(texts) == pytest.approx(share, abs=0.0005)
