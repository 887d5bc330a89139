"""Small sound, unusual and damaged archives, modelled on real ones, each with the expected outcomes of its records."""

import gzip
import hashlib
import io
import re
import zipfile
from pathlib import Path

from fastwarc.stream_io import BrotliWriter, Lz4Writer, ZstdWriter

from bench.inputs.archives import arc, framed, gz, http, warc

HTML = b"<html><p>A sentence of this page that is long enough to be read as prose by everybody.</p></html>"
CHUNKED = "Transfer-Encoding: chunked\r\n"
CHUNKS = b"%x\r\n%s\r\n%x;note=1\r\n%s\r\n0\r\n\r\n" % (40, HTML[:40], len(HTML) - 40, HTML[40:])


def page(number: int, body: bytes = HTML, extra: str = "", **fields: str) -> bytes:
    return warc("response", f"http://ex.com/{number}", http(body, extra=extra), **fields)


def changed(old: bytes, new: bytes) -> bytes:
    """Return three pages, the second with one replacement."""
    assert page(2).count(old) >= 1
    return page(1) + page(2).replace(old, new, 1) + page(3)


def length(number: int, record: bytes) -> bytes:
    return re.sub(rb"Content-Length: (\d+)", lambda found: b"Content-Length: %d" % (int(found[1]) + number), record)


def wacz() -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("archive/a.warc.gz", gz(page(1), page(2)))
        file.writestr("pages/pages.jsonl", "{}")
    return out.getvalue()


KINDS = ("warcinfo", "request", "metadata", "resource", "revisit", "conversion", "continuation")
HEAD, BLOCK = page(1).split(b"\r\n\r\n", 1)
BAD_ARC = arc(("http://ex.com/1", http(HTML)), ("http://ex.com/2", http(HTML)), ("http://ex.com/3", http(HTML)))

SOUND = {
    "plain.warc": (page(1) + page(2), {"page": 2}),
    "members.warc.gz": (gz(page(1), page(2)), {"page": 2}),
    "kinds.warc": (b"".join(warc(kind, "http://ex.com/", b"x") for kind in KINDS), dict.fromkeys(KINDS, 1)),
    "space_in_address.warc": (page(1).replace(b"com/1", b"com/a b"), {"page": 1}),
    "chunked.warc": (page(1, CHUNKS, CHUNKED), {"page": 1}),
    "gzip.warc": (page(1, gzip.compress(HTML), "Content-Encoding: gzip\r\n"), {"page": 1}),
    "no_reason.warc": (warc("response", "http://ex.com/", b"HTTP/1.1 302\r\nLocation: /1\r\n\r\n"), {"http_302": 1}),
    "dns.warc": (warc("response", "dns:ex.com", b"1.2.3.4", Content_Type="text/dns"), {"response_not_http": 1}),
    "plain.arc": (arc(("http://ex.com/1", http(HTML)), ("http://ex.com/2", http(HTML))), {"warcinfo": 1, "page": 2}),
}
UNUSUAL = {
    "empty.warc": (b"", {}),
    "one_stream.warc.gz": (gzip.compress(page(1) + page(2)), {"page": 2}),
    "frames.warc.lz4": (framed(Lz4Writer, [page(1), page(2)]), {"page": 2}),
    "frames.warc.zst": (framed(ZstdWriter, [page(1), page(2)]), {"page": 2}),
    "plain.wacz": (wacz(), {"page": 2}),
    "old_version.warc": (page(1).replace(b"WARC/1.1", b"WARC/0.18", 1), {"page": 1}),
    "brackets.warc": (page(1).replace(b"http://ex.com/1", b"<http://ex.com/1>", 1), {"page": 1}),
    "bare_line_feeds.warc": (HEAD.replace(b"\r\n", b"\n") + b"\n\n" + BLOCK, {"page": 1}),
    "folded_header.warc": (page(1).replace(b"http; msgtype", b"http;\r\n msgtype"), {"page": 1}),
    "capitals.warc": (page(1).replace(b"WARC-Type", b"WARC-TYPE").replace(b"Digest:", b"DIGEST:"), {"page": 1}),
    "length_in_capitals.warc": (changed(b"Content-Length", b"CONTENT-LENGTH"), {"page": 3}),
    "no_text.warc": (page(1, b"<p></p>"), {"empty_page": 1}),
    "no_type.warc": (changed(b"WARC-Type: response\r\n", b""), {"page": 2, "unknown": 1}),
    "strange_type.warc": (changed(b"Type: response", b"Type: strange"), {"page": 2, "unknown": 1}),
    "unchunked.warc": (page(1, HTML, CHUNKED), {"page": 1}),
    "brotli.warc": (page(1, framed(BrotliWriter, [HTML]), "Content-Encoding: br\r\n"), {"page": 1}),
    "unpacked_before.warc": (page(1, HTML, "Content-Encoding: gzip\r\n"), {"page": 1}),
    "hex_digest.warc": (page(1, WARC_Block_Digest="sha1:" + hashlib.sha1(http(HTML)).hexdigest()), {"page": 1}),
    "strange_digest.warc": (page(1, WARC_Block_Digest="whirl:AAAA"), {"page": 1}),
}
DAMAGED = {
    "text.warc": (b"no archive at all", {"bad_header": 1}),
    "zip_no_more.wacz": (wacz()[:-60], {"bad_header": 1}),
    "version_lower.warc": (changed(b"WARC/1.1", b"warc/1.1"), {"page": 3}),
    "version_lower.warc.gz": (gz(*(page(n).replace(b"WARC/1.1", b"warc/1.1", 1) for n in (1, 2))), {"page": 2}),
    "version_lost.warc": (changed(b"WARC/1.1", b"WXRC/1.1"), {"page": 2, "bad_header": 1}),
    "noise.warc": (page(1) + b"\xff" * 5000 + page(3), {"page": 2, "bad_header": 1}),
    "digest_wrong.warc": (changed(b"prose", b"prosa"), {"page": 2, "bad_digest": 1}),
    "length_negative.warc": (changed(b"Length: ", b"Length: -"), {"page": 2, "bad_digest": 1}),
    "length_word.warc": (changed(b"Length: ", b"Length: x"), {"page": 2, "bad_digest": 1}),
    "length_too_short.warc": (page(1) + length(-9, page(2)) + page(3), {"page": 2, "bad_digest": 1}),
    "length_too_long.warc": (page(1) + length(9, page(2)) + page(3), {"page": 2, "bad_digest": 1}),
    "length_swallows.warc": (page(1) + length(10**6, page(2)) + page(3), {"page": 2, "bad_truncated": 1}),
    "cut.warc": ((page(1) + page(2))[:-60], {"page": 1, "bad_truncated": 1}),
    "cut.warc.gz": (gz(page(1), page(2))[:-40], {"page": 1, "bad_truncated": 1}),
    "zeros_between.warc.gz": (gz(page(1)) + bytes(1000) + gz(page(2)), {"page": 2, "bad_header": 1}),
    "no_status_line.warc": (warc("response", "http://ex.com/1", HTML), {"bad_http_header": 1}),
    "wrong_chunks.warc": (page(1, CHUNKS.replace(b"\r\n%x;" % (len(HTML) - 40), b"\r\n7;"), CHUNKED), {"bad_bad_chunks": 1}),
    "cut_gzip.warc": (page(1, gzip.compress(HTML)[:-20], "Content-Encoding: gzip\r\n"), {"bad_bad_encoding": 1}),
    "header_lost.arc": (BAD_ARC.replace(b"http://ex.com/2 ", b"", 1), {"warcinfo": 1, "page": 2, "bad_header": 1}),
    "cut.arc": (BAD_ARC[:-30], {"warcinfo": 1, "page": 2, "bad_truncated": 1}),
}
ALL = {**SOUND, **UNUSUAL, **DAMAGED}


def write(folder: Path) -> Path:
    """Write all archives and return the folder."""
    folder.mkdir(exist_ok=True)
    for name, (content, _) in ALL.items():
        (folder / name).write_bytes(content)
    return folder
