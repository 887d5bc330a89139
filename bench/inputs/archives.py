"""Small archives, written record by record: WARC and ARC."""

import base64
import gzip
import hashlib
import io


def http(body: bytes, kind: str = "text/html", status: str = "200 OK", extra: str = "") -> bytes:
    """Return an HTTP response message."""
    return f"HTTP/1.1 {status}\r\nContent-Type: {kind}\r\n{extra}\r\n".encode() + body


def warc(kind: str, url: str, block: bytes, **fields: str) -> bytes:
    """Return one WARC record. Further header fields are keyword arguments with underscores for hyphens."""
    digest = base64.b32encode(hashlib.sha1(block).digest()).decode()
    content = "application/http; msgtype=response" if kind in ("response", "revisit") else "text/plain"
    header = {
        "WARC-Type": kind,
        "WARC-Target-URI": url,
        "WARC-Date": "2024-05-06T07:08:09Z",
        "WARC-Record-ID": f"<urn:uuid:{hashlib.md5((kind + url).encode()).hexdigest()}>",
        "WARC-Block-Digest": f"sha1:{digest}",
        "Content-Type": content,
        "Content-Length": str(len(block)),
        **{name.replace("_", "-"): value for name, value in fields.items()},
    }
    lines = "".join(f"{name}: {value}\r\n" for name, value in header.items())
    return f"WARC/1.1\r\n{lines}\r\n".encode() + block + b"\r\n\r\n"


def gz(*records: bytes) -> bytes:
    """Compress each record as a separate gzip member, as the standard recommends."""
    return b"".join(gzip.compress(record, mtime=0) for record in records)


def arc(*pages: tuple[str, bytes]) -> bytes:
    """Return an ARC file of version 1."""
    head = b"1 0 Test\nURL IP-address Archive-date Content-type Archive-length\n"
    lines = b"filedesc://test.arc 0.0.0.0 20240506070809 text/plain %d\n" % len(head) + head + b"\n"
    for url, block in pages:
        lines += f"{url} 127.0.0.1 20240506070809 text/html {len(block)}\n".encode() + block + b"\n"
    return lines


def framed(writer: type, records: list[bytes], **options: object) -> bytes:
    """Compress each record as a separate frame with one of FastWARC's writers."""
    out = io.BytesIO()
    stream = writer(out, **options)
    for record in records:
        while record:
            record = record[stream.write(record) :]
        stream.finish()
    stream.close()
    return out.getvalue()
