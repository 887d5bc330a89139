"""HTTP responses in archives are decoded if they are chunked, compressed, or falsely declared so."""

import gzip
import io
import zlib
from functools import partial

import pytest
from fastwarc.stream_io import BrotliWriter, ZstdWriter

from vlmdata.archives.http_message import parse_response

BODY = b"<html>" + bytes(range(256)) * 40
HEAD = b'HTTP/1.1 200 OK\r\nContent-Type: text/html; charset="UTF-8"\r\n'


def packed(writer, body: bytes = BODY) -> bytes:
    out = io.BytesIO()
    stream = writer(out)
    while body:
        body = body[stream.write(body) :]
    stream.close()
    return out.getvalue()


def chunked(body: bytes, size: int = 1000) -> bytes:
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    return b"".join(b"%x;ext=1\r\n%s\r\n" % (len(part), part) for part in parts) + b"0\r\n\r\n"


RAW = zlib.compressobj(wbits=-15)
DEFLATE_RAW = RAW.compress(BODY) + RAW.flush()


@pytest.mark.parametrize(
    ("headers", "body", "expected", "problem"),
    [
        ("", BODY, BODY, None),
        ("Content-Encoding: gzip", gzip.compress(BODY), BODY, None),
        ("Content-Encoding: x-gzip", gzip.compress(BODY[:99]) + gzip.compress(BODY[99:]), BODY, None),
        ("Content-Encoding: GZIP", BODY, BODY, None),
        ("Content-Encoding: deflate", zlib.compress(BODY), BODY, None),
        ("Content-Encoding: deflate", DEFLATE_RAW, BODY, None),
        ("Content-Encoding: br", packed(BrotliWriter), BODY, None),
        ("Content-Encoding: zstd", packed(ZstdWriter), BODY, None),
        ("Content-Encoding: gzip, gzip", gzip.compress(gzip.compress(BODY)), BODY, None),
        ("Content-Encoding: unheard-of", BODY, BODY, None),
        ("Transfer-Encoding: chunked", chunked(BODY), BODY, None),
        ("Transfer-Encoding: chunked", chunked(BODY).removesuffix(b"0\r\n\r\n"), BODY, None),
        ("Transfer-Encoding: chunked", BODY, BODY, None),
        ("Transfer-Encoding: gzip, chunked", chunked(gzip.compress(BODY)), BODY, None),
        ("Transfer-Encoding: chunked\r\nContent-Encoding: br", chunked(packed(BrotliWriter)), BODY, None),
        ("Transfer-Encoding: chunked", chunked(BODY)[:3000], b"", "bad_chunks"),
        ("Transfer-Encoding: chunked", b"5\r\nhello!!\r\n0\r\n\r\n", b"", "bad_chunks"),
        ("Content-Encoding: gzip", gzip.compress(BODY)[:-20], b"", "bad_encoding"),
        ("Content-Encoding: gzip", gzip.compress(BODY)[:20] + b"?" * 50, b"", "bad_encoding"),
        ("Content-Encoding: br", b"\x01nonsense" * 9, b"", "bad_encoding"),
        ("Content-Encoding: zstd", b"\x28\xb5\x2f\xfdnonsense", b"", "bad_encoding"),
        ("", bytes(1_000_001), b"", "too_large"),
    ],
)
def test_bodies_are_decoded_as_declared_or_kept_as_sent(headers, body, expected, problem):
    block = HEAD + (headers.encode() + b"\r\n" if headers else b"") + b"\r\n" + body
    response = parse_response(block, max_bytes=1_000_000)
    assert (response.problem, response.body) == (problem, expected)
    assert (response.status, response.media_type, response.charset) == (200, "text/html", "UTF-8")


@pytest.mark.parametrize(("name", "compress"), [("gzip", gzip.compress), ("br", partial(packed, BrotliWriter))])
def test_decompression_bombs_stop_at_the_limit(name, compress):
    block = HEAD + f"Content-Encoding: {name}\r\n\r\n".encode() + compress(bytes(200_000_000))
    response = parse_response(block, max_bytes=1_000_000)
    assert (response.problem, response.body) == ("too_large", b"")
    assert (response.status, response.media_type, response.charset) == (200, "text/html", "UTF-8")


@pytest.mark.parametrize("block", [b"", b"<html>", b"HTTP/1.1", b"HTTP/1.1 abc\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n"])
def test_malformed_responses_are_reported(block):
    assert parse_response(block, max_bytes=10).problem == "http_header"


def test_unusual_headers_are_read():
    block = b"HTTP/1.0 302 \nLocation: /a\nX-Long: one\n two\nnonsense\n: empty\nLocation: /b\n\nbody"
    response = parse_response(block, max_bytes=10)
    assert (response.status, response.headers, response.body) == (302, {"location": "/a", "x-long": "one two"}, b"body")
