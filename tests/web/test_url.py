"""The client sends exactly the canonical address that it has checked."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vlmdata.web.url import MAX_LENGTH, join_url, parse_url


@pytest.mark.parametrize(
    ("given", "text"),
    [
        ("http://Example.COM", "http://example.com/"),
        ("HTTPS://example.com:443/a", "https://example.com/a"),
        ("https://example.com:80/a", "https://example.com:80/a"),
        ("  http://a.b/c d?e f#g ", "http://a.b/c%20d?e%20f"),
        ("http://a.b/ü?ü", "http://a.b/%C3%BC?%C3%BC"),
        ("http://a.b/%C3%BC%zz", "http://a.b/%C3%BC%zz"),
        ("http://a.b/x/../y/./z", "http://a.b/y/z"),
        ("http://a.b/../../x", "http://a.b/x"),
        ("http://a.b/%2e%2E/x/..", "http://a.b/"),
        ("http://a.b?x=1", "http://a.b/?x=1"),
        ("http://a.b./x", "http://a.b/x"),
        ("http://a_b.example/x", "http://a_b.example/x"),
        ("http://bücher.example/", "http://xn--bcher-kva.example/"),
        ("http://faß.example/", "http://xn--fa-hia.example/"),  # IDNA 2003 would change it to fass.example, another site
        ("http://127.1/", "http://127.0.0.1/"),
        ("http://0x7f000001/", "http://127.0.0.1/"),
        ("http://2130706433/", "http://127.0.0.1/"),
        ("http://0177.0.0.1/", "http://127.0.0.1/"),
        ("http://[::FFFF:127.0.0.1]/", "http://[::ffff:7f00:1]/"),
        ("http://a.b/a\nb", "http://a.b/ab"),
    ],
)
def test_an_address_has_one_canonical_form(given: str, text: str) -> None:
    url = parse_url(given)
    assert url is not None
    assert url.text == text
    assert parse_url(url.text) == url


@pytest.mark.parametrize(
    "given",
    [
        "",
        "example.com/a.jpg",
        "//example.com/a",
        "ftp://example.com/a",
        "file:///etc/passwd",
        "javascript:alert(1)",
        "data:image/png;base64,AAAA",
        "http://",
        "http:///a",
        "http://user@example.com/",
        "http://user:word@example.com/",
        "http://a b/",
        "http://a\\b/",
        "http://a.b:0/",
        "http://a.b:65536/",
        "http://a.b:x/",
        "http://[::1/",
        "http://[fe80::1%25eth0]/",
        "http://256.256.256.256/",
        "http://1.2.3.4.5/",
        "http://a..b/",
        "http://-a.b/",
        "http://a.b/\ud800",
        "http://a%2eb/",
        "http://" + "a" * 300 + ".example/",
        "http://a.b/" + "x" * MAX_LENGTH,
        "gopher://a.b/",
        "http://exa\x00mple.com/",
    ],
)
def test_invalid_addresses_are_refused(given: str) -> None:
    assert parse_url(given) is None


@given(st.text(max_size=60) | st.text(max_size=40).map(lambda tail: f"http://a.example/{tail}"))
def test_parsing_never_raises_and_is_stable(text: str) -> None:
    url = parse_url(text)
    if url is not None:
        assert url.text.isascii() and url.path.startswith("/") and " " not in url.text
        assert parse_url(url.text) == url


@pytest.mark.parametrize(
    ("location", "text"),
    [
        ("/b", "http://a.example/b"),
        ("b", "http://a.example/x/b"),
        ("?q", "http://a.example/x/y?q"),
        ("//c.example/d", "http://c.example/d"),
        ("https://c.example", "https://c.example/"),
        (" /b ", "http://a.example/b"),
        ("/caf\xc3\xa9.jpg", "http://a.example/caf%C3%A9.jpg"),  # UTF-8
        ("/caf\xe9.jpg", "http://a.example/caf%E9.jpg"),  # Latin-1
        ("/caf%C3%A9 \xc3\xa9\xe9?q=\xe9", "http://a.example/caf%C3%A9%20%C3%A9%E9?q=%E9"),
        ("/voil\xc3\xa0", "http://a.example/voil%C3%A0"),  # its last byte is not a space
        ("/a\xe3\x80\x80", "http://a.example/a%E3%80%80"),  # U+3000, which Python treats as a space
        ("http://b\xc3\xbccher.example/\xe9", "http://xn--bcher-kva.example/%E9"),
        ("\x01/a\x01b\x7f\x1f", "http://a.example/a%01b%7F"),
        ("/a\r\nSet-Cookie: b\tc", "http://a.example/aSet-Cookie:%20bc"),
        ("\\\\c.example\\d?e\\f", "http://c.example/d?e%5Cf"),
        ("/\t/c.example/d", "http://c.example/d"),
        ("https:///c.example/d", "https://c.example/d"),
        ("////c.example/d//e", "http://c.example/d//e"),
        ("d\\..\\e", "http://a.example/x/e"),
        ("d#\xe9", "http://a.example/x/d"),
    ],
)
def test_a_redirect_may_be_relative(location: str, text: str) -> None:
    base = parse_url("http://a.example/x/y")
    assert base is not None
    joined = join_url(base, location)
    assert joined is not None and joined.text == text


@pytest.mark.parametrize(
    "location",
    [
        "file:///etc/passwd",
        "ftp://a.example/",
        "http://[::1",
        "javascript:0",
        "http://u@a.example/",
        "http://b\xfccher.example/",  # a host in Latin-1 is invalid
        "http://u\xe9@a.example/",
        "\\\\u@a.example/",
        "//a b/",
        "//%31%32%37.0.0.1/",
        "//\xff\xfe/",
    ],
)
def test_a_redirect_to_anything_else_is_refused(location: str) -> None:
    base = parse_url("http://a.example/x/y")
    assert base is not None and join_url(base, location) is None


@given(st.text(st.characters(max_codepoint=255), max_size=60))
def test_any_bytes_give_an_address_or_none(location: str) -> None:
    base = parse_url("http://a.example/x/y")
    assert base is not None
    url = join_url(base, location)
    if url is not None:
        assert url.text.isascii() and not set(url.text) & set(" \r\n\t\0") and parse_url(url.text) == url
