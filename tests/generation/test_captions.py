"""Rules for the captions that models write, and captions as alternatives of a row's text."""

import numpy as np
import pyarrow as pa
import pytest

from tests.rows import captions, document, table
from vlmdata.engine.output.sample import samples
from vlmdata.engine.work.compile_recipe import inputs
from vlmdata.generation.captions import (
    MOST_CHARS,
    REFUSALS,
    Rejection,
    Rules,
    captions_before,
    cleaned,
    is_pair,
    judged,
    own_text,
    repeats,
    shortened,
    with_captions,
)
from vlmdata.generator import Answer
from vlmdata.row import conform, set_column

RULES = Rules(min_words=2, max_words=8, max_repeats=0.3, refusals=REFUSALS)
IMAGE = {"url": "u", "blob": "b", "offset": 0, "size": 1, "format": "jpeg", "width": 3, "height": 4}


def answers(*texts: str | Answer) -> list[dict]:
    return [vars(one if isinstance(one, Answer) else Answer(one, "stop")) for one in texts]


def reasons(*texts: str | Answer, known: tuple[str, ...] = ()) -> list[str]:
    return [one if isinstance(one, str) else one.reason for one in judged(answers(*texts), known, RULES)]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("  a\tred\n\n car\x00\x1b[0m ", "a red car [0m"),
        ('"A red car."', "A red car."),
        ("“A red car”", "A red car"),
        ('"A" and "B"', '"A" and "B"'),
        ('the "red" car', 'the "red" car'),
        ('"', '"'),
        ("", ""),
        ("a\u2028b\x85c\xa0d", "a b c d"),
        ("**A red car**", "**A red car**"),
    ],
)
def test_an_answer_is_put_on_one_line_without_quotes_around_it(text, expected):
    assert cleaned(text) == expected


def test_the_start_of_a_text_is_sent_with_at_most_ten_characters_a_word():
    assert shortened("one\x00two\n three four", 3) == "one two three"
    assert shortened("x" * 100_000, 5) == "x" * 50
    assert shortened(" \n\x00", 5) == ""


def test_each_reason_has_its_value_and_its_limit():
    assert judged(answers("red", "a " + "b " * 8, "a dog " * 4, "y" * (MOST_CHARS + 1)), [], RULES) == [
        Rejection("min_words", 1, 2),
        Rejection("max_words", 9, 8),
        Rejection("max_repeats", 1.0, 0.3),
        Rejection("too_long", MOST_CHARS + 1, MOST_CHARS),
    ]
    assert reasons("two words", "1 2 3 4 5 6 7 8") == ["two words", "1 2 3 4 5 6 7 8"]


@pytest.mark.parametrize(
    "text", ["I'm sorry, I see nothing.", "I’M SORRY but", '"As an AI model, I', "Unfortunately, no picture"]
)
def test_an_answer_that_begins_with_a_refusal_is_rejected(text):
    assert reasons(text) == ["refusal"]


def test_a_refusal_inside_of_a_caption_is_none():
    assert reasons("a sign: I'm sorry, closed") == ["a sign: I'm sorry, closed"]


@pytest.mark.parametrize("text", ["", " \n\x00", '""', "...", "**", None])
def test_an_answer_without_a_letter_or_digit_is_empty(text):
    assert reasons(Answer(text, "stop")) == ["empty"]


@pytest.mark.parametrize("finish", ["length", "refusal", "filter"])
def test_an_answer_that_the_model_did_not_end_is_rejected(finish):
    assert reasons(Answer("a red car", finish)) == [finish]


def test_a_failure_is_the_reason_of_its_answer():
    assert reasons(Answer(failure="http_400"), "a red car") == ["http_400", "a red car"]


def test_a_caption_that_the_row_has_apart_from_case_and_space_is_a_duplicate():
    found = reasons("A  red car", "a blue car", '"A Blue\ncar"', "a red car too", known=("a red CAR\n", "x"))
    assert found == ["duplicate", "a blue car", "duplicate", "a red car too"]


def test_a_rejected_answer_makes_no_duplicate():
    assert reasons(Answer("a red car", "length"), "a red car") == ["length", "a red car"]


def test_repeats_is_the_share_of_4_grams_that_occur_more_than_once():
    assert repeats("a b c d a b c d") == 2 / 5
    assert repeats("a b c") == 0
    assert repeats("红色的汽车停在街道上旁边") == 0
    assert repeats("红色的汽车" * 6) == 1


def test_rules_of_words_count_scripts_without_spaces():
    assert reasons("红色的汽车") == ["红色的汽车"]
    assert reasons("车") == ["min_words"]


def test_a_pair_has_one_image_and_at_most_one_text_even_if_they_are_rejected():
    rows = [
        {**document(IMAGE, "a"), "roles": None},
        document({**IMAGE, "drop": "image_size"}, "a"),
        document(IMAGE),
        {"images": [IMAGE], "texts": None},
        document(IMAGE, "a", "b"),
        document(IMAGE, IMAGE, "a"),
        document({**IMAGE, "drop": "image_size"}, IMAGE, "a"),
        document("a"),
        {**document(IMAGE, "a"), "roles": ["user", "user"]},
        {"images": [], "texts": []},
    ]
    assert is_pair(table(rows)).tolist() == [True] * 4 + [False] * 6


def test_captions_follow_the_alternatives_with_their_origin():
    rows = captions(["raw", "other"])
    rows = with_captions(rows, [["one", "two"], []], "recaption", np.array([True, True]))
    rows = with_captions(rows, [["three"], ["four"]], "rewrite_text", np.array([True, True]))
    first, second = (own_text(row) for row in rows.to_pylist())
    assert (first["text"], first["alternatives"]) == ("raw", ["one", "two", "three"])
    assert first["origins"] == ["recaption", "recaption", "rewrite_text"]
    assert (second["text"], second["alternatives"], second["origins"]) == ("other", ["four"], ["rewrite_text"])
    assert captions_before(first, "recaption") == ["raw"]
    assert captions_before(first, "rewrite_text") == ["raw", "one", "two"]
    assert captions_before(second, "recaption") == ["other", "four"]


def test_alternatives_of_the_source_keep_a_null_origin():
    rows = table([{"images": [IMAGE, None], "texts": [None, {"text": "a", "alternatives": ["b"]}]}])
    (row,) = with_captions(rows, [["c"]], "recaption", np.array([True])).to_pylist()
    assert row["texts"][1]["alternatives"] == ["b", "c"] and row["texts"][1]["origins"] == [None, "recaption"]


def without_texts() -> pa.Table:
    """Return three rows: an image without a text, a pair, and an image whose list of texts is null."""
    rows = table([document(IMAGE), document(IMAGE, "a"), {"images": [IMAGE], "texts": None}])
    for name, values in {
        "stated_hashes": [["ab"], None, None],
        "image_detail.entropy": [[1.5], [2.5, None], None],
        "clip_score.embedding": [[b"x"], [b"y", None], [b"z"]],
        "row_score": [0.5, 0.25, None],
        "recaption.answers": [answers("c"), answers("c"), answers("c")],
    }.items():
        kind = {"stated_hashes": pa.list_(pa.string())}.get(name)
        rows = set_column(rows, name, pa.array(values, kind))
    return conform(rows)


def test_a_row_without_a_text_gets_an_empty_one_and_aligned_lists_grow():
    rows = with_captions(without_texts(), [["c"], ["c"], []], "recaption", np.array([True, True, True]))
    found = rows.to_pylist()
    assert [len(row["images"]) for row in found] == [2, 2, 2] and [len(row["texts"]) for row in found] == [2, 2, 2]
    assert [row["images"][1] for row in found] == [None] * 3 and found[0]["images"][0]["blob"] == "b"
    assert [own_text(row)["text"] for row in found] == ["", "a", ""]
    assert [own_text(row)["alternatives"] for row in found] == [["c"], ["c"], None]
    assert [row["stated_hashes"] for row in found] == [["ab", None], None, None]
    assert [row["image_detail.entropy"] for row in found] == [[1.5, None], [2.5, None], None]
    assert [row["clip_score.embedding"] for row in found] == [[b"x", None], [b"y", None], [b"z", None]]
    assert [row["row_score"] for row in found] == [0.5, 0.25, None]
    assert rows.schema.field("texts").type == conform(rows).schema.field("texts").type


@pytest.mark.parametrize("layout", ["captions", "documents"])
def test_a_score_keeps_its_form_in_the_json_of_a_row_that_got_a_text(layout):
    rows = without_texts().drop_columns(["recaption.answers", "clip_score.embedding"])
    before = [one.scores for one in samples(rows, layout, 0, 3)]
    after = [one.scores for one in samples(with_captions(rows, [["c"], [], []], "r", np.ones(3, bool)), layout, 0, 3)]
    assert before == after and len(before) == 3


def test_rows_that_get_nothing_are_returned_unchanged():
    rows = captions(["a"])
    assert with_captions(rows, [[]], "recaption", np.array([True])) is rows


def test_a_field_of_texts_is_an_input_that_alternatives_do_not_change():
    rows = captions(["a", "b"])
    more = with_captions(rows, [["c"], []], "recaption", np.array([True, True]))
    assert inputs(rows, ("images", "texts.text")).tolist() == inputs(more, ("images", "texts.text")).tolist()
    assert (inputs(rows, ("texts",)) == inputs(more, ("texts",))).tolist() == [False, True]
    assert inputs(rows, ("texts.text",))[0] != inputs(captions(["c", "b"]), ("texts.text",))[0]
