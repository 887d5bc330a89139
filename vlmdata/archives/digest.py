"""Checks the digests that records declare of their content."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from vlmdata.archives.http_message import payloads

_ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")


def digest_fits(declared: str | None, block: bytes) -> bool:
    """Return whether the bytes match a digest header: `sha1:BASE32`, also hex or base64, padded or not, also md5 and SHA-2.

    True if there is no digest or its algorithm is unknown.
    """
    return _matches(declared, block) is not False


def record_fits(headers: Mapping[str, str], block: bytes, max_bytes: int) -> bool:
    """Return whether a record's content matches its digests. The names of `headers` are in lower case.

    The block digest decides. Some writers put the payload digest in its place, so one match of either digest with the block or
    the body is enough. The body is compared as sent and after each decoding, up to `max_bytes`. A revisit always passes: GNU
    Wget declares the digest of no bytes.
    """
    declared = headers.get("warc-block-digest")
    if headers.get("warc-type", "").strip().lower() == "revisit" or digest_fits(declared, block):
        return True
    both = {declared, headers.get("warc-payload-digest")}
    return any(_matches(digest, body) for body in payloads(block, max_bytes) for digest in both)


def _matches(declared: str | None, block: bytes) -> bool | None:
    """Return whether the bytes match a digest, None if there is no digest of a known algorithm."""
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
