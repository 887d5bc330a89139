"""A caption's bytes decode to its text or raise an error; they never give another text."""

import codecs

import pytest

from vlmdata.readers.strings import caption_text, check_encoding, is_blank
from vlmdata.step import RecipeError


@pytest.mark.parametrize("name", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_mark_says_the_encoding_whatever_was_stated(name):
    assert caption_text("grün 日本".encode(name), "latin-1") == "grün 日本"


def test_marks_of_the_other_order_of_bytes_are_known():
    assert caption_text(codecs.BOM_UTF16_BE + "日本".encode("utf-16-be")) == "日本"
    assert caption_text(codecs.BOM_UTF32_BE + "日本".encode("utf-32-be")) == "日本"


@pytest.mark.parametrize(
    ("data", "encoding", "text"),
    [
        (b"\xe9t\xe9", "latin-1", "été"),
        ("日本".encode("gb18030"), "gb18030", "日本"),
        (b"\\ud800", "unicode_escape", "?"),
        (b"", "utf-8", ""),
    ],
)
def test_without_a_mark_the_stated_encoding_holds(data, encoding, text):
    assert caption_text(data, encoding) == text


@pytest.mark.parametrize(
    ("data", "encoding"),
    [
        (b"\xe9t", "utf-8"),
        ("words".encode("utf-16-le"), "utf-8"),
        (b"+AAA-", "utf-7"),
        (b"a", "undefined"),
        (b"\xff\xfea", "utf-8"),
    ],
)
def test_other_bytes_are_an_error(data, encoding):
    with pytest.raises(UnicodeDecodeError):
        caption_text(data, encoding)


@pytest.mark.parametrize("name", ["utf8x", "hex", "rot13", "a\0b", ""])
def test_encodings_of_no_text_are_refused(name):
    with pytest.raises(RecipeError, match="is unknown"):
        check_encoding(name)


@pytest.mark.parametrize(
    ("text", "said"), [("", True), (" \n\u3000\xa0", True), ("\u200b\ufeff \u200f", True), ("\u200ba", False), (".", False)]
)
def test_a_text_of_which_nothing_can_be_seen_is_blank(text, said):
    assert is_blank(text) == said
