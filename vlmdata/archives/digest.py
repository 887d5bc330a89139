"""Digests that records declare of their content."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping

from vlmdata.archives.http_message import payloads

_ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512")


def digest_fits(declared: str | None, block: bytes) -> bool:
    """Say whether a digest header is that of the bytes: `sha1:BASE32`, also hex or base64, padded or not, also md5 and SHA-2.

    True for none and for an algorithm that is not known.
    """
    return _compared(declared, block) is not False


def record_fits(headers: Mapping[str, str], block: bytes, max_bytes: int) -> bool:
    """Say whether a record's content is what its digests say. `headers` have names in lower case.

    The digest of the block decides. Some writers put the payload's digest in its place: one digest that holds, of the block or
    of the body, proves the content. The body counts as it was sent and with its chunks and compression undone, up to
    `max_bytes`. A revisit has nothing to prove: GNU Wget declares the digest of no bytes.
    """
    declared = headers.get("warc-block-digest")
    if headers.get("warc-type", "").strip().lower() == "revisit" or digest_fits(declared, block):
        return True
    both = {declared, headers.get("warc-payload-digest")}
    return any(_compared(digest, body) for body in payloads(block, max_bytes) for digest in both)


def _compared(declared: str | None, block: bytes) -> bool | None:
    """Say whether a digest is that of the bytes, null where it does not tell."""
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
