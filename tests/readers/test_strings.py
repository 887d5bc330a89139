"""The bytes of a caption decode to its text or raise an error, but never decode to another text."""

import codecs

import pytest

from vlmdata.readers.strings import caption_text, check_encoding, is_blank
from vlmdata.step import RecipeError


@pytest.mark.parametrize("name", ["utf-8-sig", "utf-16", "utf-32"])
def test_a_byte_order_mark_overrides_the_stated_encoding(name):
    assert caption_text("grün 日本".encode(name), "latin-1") == "grün 日本"


def test_byte_order_marks_of_both_byte_orders_are_known():
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
def test_the_stated_encoding_is_used_without_a_byte_order_mark(data, encoding, text):
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
def test_bytes_of_another_encoding_raise_an_error(data, encoding):
    with pytest.raises(UnicodeDecodeError):
        caption_text(data, encoding)


@pytest.mark.parametrize("name", ["utf8x", "hex", "rot13", "a\0b", ""])
def test_codecs_that_do_not_decode_text_are_refused(name):
    with pytest.raises(RecipeError, match="is unknown"):
        check_encoding(name)


@pytest.mark.parametrize(
    ("text", "expected"), [("", True), (" \n\u3000\xa0", True), ("\u200b\ufeff \u200f", True), ("\u200ba", False), (".", False)]
)
def test_a_text_without_visible_characters_is_blank(text, expected):
    assert is_blank(text) == expected
