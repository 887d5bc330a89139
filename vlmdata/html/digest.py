"""Digests that records declare of their content."""

from __future__ import annotations

import base64
import binascii
import hashlib


def digest_fits(declared: str | None, block: bytes) -> bool:
    """Say whether a digest header is that of the bytes: `sha1:BASE32`, also hex, also md5 and sha256. True for none."""
    algorithm, _, text = (declared or "").strip().partition(":")
    name = algorithm.lower().replace("-", "")
    if name not in ("sha1", "md5", "sha256", "sha512") or not text:
        return True
    actual = hashlib.new(name, block, usedforsecurity=False).digest()
    for decode in (base64.b32decode, bytes.fromhex, base64.b64decode):
        try:
            if decode(text.upper() if decode is base64.b32decode else text) == actual:
                return True
        except (binascii.Error, ValueError):
            continue
    return False
