"""Addresses in pages are resolved as browsers resolve them."""

import base64

import pytest

from vlmdata.html.page_addresses import absolute, data_bytes

BASE = "https://ex.com/d/e/p.html?q=1"


@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("img/a.jpg", "https://ex.com/d/e/img/a.jpg"),
        ("../img/a.jpg", "https://ex.com/d/img/a.jpg"),
        ("/a.jpg#top", "https://ex.com/a.jpg"),
        ("//cdn.ex.com/a.jpg", "https://cdn.ex.com/a.jpg"),
        ("  a b.jpg\n", "https://ex.com/d/e/a%20b.jpg"),
        ("im\nages/\tä.png", "https://ex.com/d/e/images/%C3%A4.png"),
        ("a,b.jpg?w=1,h=2", "https://ex.com/d/e/a,b.jpg?w=1,h=2"),
        ("..\\img\\a.jpg?x=\\", "https://ex.com/d/img/a.jpg?x=\\"),
        ("?page=2", "https://ex.com/d/e/p.html?page=2"),
        ("HTTP://EX.org/A.jpg", "HTTP://EX.org/A.jpg"),
        ("https://Bücher.de:8080/ä.jpg", "https://xn--bcher-kva.de:8080/%C3%A4.jpg"),
        ("//日本.jp?x=ü", "https://xn--wgv71a.jp?x=%C3%BC"),
        ("https://ex.org//ü.de/ä", "https://ex.org//%C3%BC.de/%C3%A4"),
        ("https://\u200b/a.jpg", "https://%E2%80%8B/a.jpg"),  # has no host name; refused when it is to be fetched
        ("https://user@ex.org/a.jpg", "https://user@ex.org/a.jpg"),
        ("//:0", None),
        ("http://:0", None),
        ("http://:80/a.jpg", None),
        ("javascript:void(0)", None),
        ("mailto:a@b.c", None),
        ("ftp://ex.com/a.jpg", None),
        ("http://[broken/a.jpg", None),
        ("#here", None),
        ("   ", None),
        ("data:image/png;base64,AAAA", None),
    ],
)
def test_relative_addresses_become_absolute(address, expected):
    found = absolute(address, BASE)
    assert found == expected or (address.startswith("http://[") and found in (None, address))


def test_inline_images_are_decoded_or_ignored():
    body = bytes(range(200))
    text = base64.b64encode(body).decode()
    assert data_bytes(f"data:image/png;base64,{text}", 1000) == ("image/png", body)
    assert data_bytes(f"DATA:image/png;charset=x;BASE64,{text[:40]}\n{text[40:]}", 1000) == ("image/png", body)
    assert data_bytes("data:image/svg+xml,%3Csvg/%3E", 1000) == ("image/svg+xml", b"<svg/>")
    assert data_bytes(f"data:image/png;base64,{text}", 199) is None
    assert data_bytes("data:image/png;base64,", 1000) is None
    assert data_bytes("data:image/png;base64,A", 1000) is None
    assert data_bytes("no data at all", 1000) is None
