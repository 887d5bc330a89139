"""Texts are found in a Python value, in any kind of list or in JSON."""

import pytest

from vlmdata.readers.nested import texts_in

NO_LIST = ["[1, 2]", '["a", 5]', '[{"a": 1}]', "[a", "[cat] on a mat", '["a"] and more', '{"a": ["b"]}', "[" * 100_000]


@pytest.mark.parametrize(
    ("value", "found"),
    [
        ('["a", "b"]', ["a", "b"]),
        (' \n["a", null]\n', ["a"]),
        (b'["a", "b"]', ["a", "b"]),
        (['["a", "b"]', "c"], ["a", "b", "c"]),
        ("[]", []),
        ([7], ["7"]),
        ([7, None, "a"], ["7", "a"]),
        ('[""]', [""]),
        ("", [""]),
        *[(text, [text]) for text in NO_LIST],
    ],
)
def test_a_string_that_is_a_json_list_of_strings_counts_as_several_texts(value, found):
    assert texts_in(value) == (found, None)


@pytest.mark.parametrize(
    ("value", "fault"),
    [
        ('["\\ud800"]', "bad_encoding"),
        (b"\xff", "bad_encoding"),
        ({"a": "b"}, "no_text"),
        (True, "no_text"),
        ([["a", {}]], "no_text"),
        ([101, 7592, 102], "no_text"),
        ([[0.5, 1.5]], "no_text"),
    ],
)
def test_a_value_that_is_not_a_text_is_reported(value, fault):
    assert texts_in(value)[1] == fault
