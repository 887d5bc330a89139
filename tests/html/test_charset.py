"""The charset of a page is chosen as browsers choose it."""

import pytest

from vlmdata.html.charset import codec, decode

META = b'<html><head><meta charset="%s"></head><body>'


@pytest.mark.parametrize(
    ("page", "header", "encoding", "source"),
    [
        (b"\xef\xbb\xbf<p>\xc3\xa9", "windows-1251", "utf-8", "bom"),
        (b"\xff\xfe" + "<p>é".encode("utf-16-le"), None, "utf-16-le", "bom"),
        (META % b"utf-8" + b"\xe9", "iso-8859-1", "cp1252", "http"),
        (META % b"shift_jis", None, "cp932", "meta"),
        (b'<meta http-equiv="Content-Type" content="text/html; charset=euc-kr">', None, "cp949", "meta"),
        (b'<?xml version="1.0" encoding="gb2312"?><html>', None, "gb18030", "meta"),
        (META % b"utf-16", None, "utf-8", "meta"),
        (b"<!-- <meta charset=koi8-r> --><meta charset=windows-1251>", None, "cp1251", "meta"),
        (b"<title>" + b" " * 2000 + b"</title><meta charset=koi8-r>", None, "koi8-r", "late_meta"),
        (META % b"no-such-charset" + b"\xe9", "also-none", "cp1252", "fallback"),
        ("<p>é".encode(), None, "utf-8", "utf8"),
        (b"<p>\xe9", None, "cp1252", "fallback"),
    ],
)
def test_the_source_of_the_charset(page, header, encoding, source):
    decoded = decode(page, header)
    assert (decoded.encoding, decoded.source) == (encoding, source)


def test_replacements_of_a_false_charset_are_counted():
    decoded = decode(META % b"utf-8" + b"caf\xe9 \xef\xbf\xbd na\xefve")
    assert decoded.text.endswith("caf\ufffd \ufffd na\ufffdve")
    assert decoded.replaced == 2  # the valid U+FFFD in the page does not count


def test_windows_1252_decodes_every_byte():
    assert decode(b"\x80\x81\x9d\xe9", "latin1").text == "€\x81\x9dé"


def test_labels_follow_the_standard():
    labels = ["latin1", "ASCII", " utf8 ", "x-sjis", "big5", "gbk", "x-mac-cyrillic", "x-user-defined", "utf-7"]
    found = [codec(label) for label in labels]
    assert found == ["cp1252", "cp1252", "utf-8", "cp932", "big5hkscs", "gb18030", "mac-cyrillic", "cp1252", None]
