"""Checks the digests that records declare for their content."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from vlmdata.archives.http_message import payloads

_ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")


def digest_fits(declared: str | None, block: bytes) -> bool:
    """Return whether bytes match a digest header such as `sha1:BASE32`. True if there is no digest of a known algorithm.

    The algorithms are MD5, SHA-1 and SHA-2. The digest may be written in base32, base64 or hex, with or without padding.
    """
    return _matches(declared, block) is not False


def record_fits(headers: Mapping[str, str], block: bytes, max_bytes: int) -> bool:
    """Return whether a record's content matches its digests. The names of `headers` are in lower case.

    A record may declare a digest of its block, which is its whole content, and of its payload. The payload is the HTTP body, or
    the block if the block is not an HTTP message. A record matches if one of these conditions holds:
    - The block has the declared block digest, or no block digest of a known algorithm is declared.
    - The payload has one of the two digests, because some writers confuse them. The payload is tried as it was sent and after
      each of its decodings, up to `max_bytes`.
    - The record is a revisit, because GNU Wget declares the digest of an empty body for it.
    """
    declared = headers.get("warc-block-digest")
    if headers.get("warc-type", "").strip().lower() == "revisit" or digest_fits(declared, block):
        return True
    both = {declared, headers.get("warc-payload-digest")}
    return any(_matches(digest, body) for body in payloads(block, max_bytes) for digest in both)


def _matches(declared: str | None, block: bytes) -> bool | None:
    """Return whether bytes match a digest, or None if there is no digest of a known algorithm."""
    algorithm, _, text = (declared or "").strip().partition(":")
    name = algorithm.strip().lower().replace("-", "")
    text = text.strip().rstrip("=")
    if name not in _ALGORITHMS or not text:
        return None
    actual = hashlib.new(name, block, usedforsecurity=False).digest()
    if len(text) == 2 * len(actual):
        return text.lower() == actual.hex()
    base32 = base64.b32encode(actual).decode().rstrip("=")
    if len(text) == len(base32):
        return text.upper() == base32
    return text.replace("-", "+").replace("_", "/") == base64.b64encode(actual).decode().rstrip("=")
