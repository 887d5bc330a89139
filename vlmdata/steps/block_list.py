"""Reject images and pages that the user's lists name by domain, address or hash. Rejected images are never stored."""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
import pyarrow as pa

from vlmdata.home_folder import at_home
from vlmdata.images.budget import MAX_MEMORY_MB
from vlmdata.images.decode import decode
from vlmdata.images.facts import ImageError
from vlmdata.images.header import read_header
from vlmdata.images.pdq import pdq, pdq_bytes
from vlmdata.images.phash import phash, phash_imagededup
from vlmdata.parameters import Doc
from vlmdata.row import drop_images, drop_rows, flatten
from vlmdata.step import RecipeError, Step
from vlmdata.web.blocked_hosts import domain_of, is_within
from vlmdata.web.url import parse_url

SMALL = 512  # pixels of a side; both hashes sample 64 x 64
PDQ_QUALITY = 50  # the reference implementation skips pictures of lower quality
HEX = {"md5": 32, "sha256": 64, "pdq": 64, "phash": 16}
KINDS: dict[str, Callable[[np.ndarray], int]] = {"vlmdata": phash, "imagededup": phash_imagededup}


@dataclass(frozen=True, kw_only=True)
class BlockList(Step):
    """Check every image and page against the user's lists, for example of illegal material or of owners who opted out.

    Each list is a text file with one entry per line. An entry ends at the first comma, space or tab, and `#` starts a comment.
    If the first line is not an entry, it is skipped as a header, except in `domains`. The step checks domains and addresses
    before anything is fetched, and hashes of the fetched bytes before a picture is decoded or written. The position of
    the step in the recipe does not matter. The lists `pdq` and `phash` need each picture to be decoded once more. If entries
    are added to `domains`, `urls` or `sha256`, or to `phash` with `phash_kind: vlmdata`, the next run applies them to stored
    images too, and `vlmdata forget` then removes the bytes of matching images from `work/`. Other added entries do not apply to
    stored images, because the hashes that these entries need are not kept.
    """

    id: ClassVar = "vlmdata.steps.block_list"
    example: ClassVar = "- block_list: {domains: [optout.txt], sha256: [known.txt], pdq: [hashes.csv]}"
    reads: ClassVar = ("url", "images")
    is_private: ClassVar = True

    domains: Annotated[tuple[str, ...], Doc("Files of domains. Subdomains are included.")] = ()
    urls: Annotated[tuple[str, ...], Doc("Files of addresses of images and pages.")] = ()
    md5: Annotated[tuple[str, ...], Doc("Files of MD5 hashes of images as fetched, in hex.")] = ()
    sha256: Annotated[tuple[str, ...], Doc("Files of SHA-256 hashes of images as fetched, in hex.")] = ()
    pdq: Annotated[tuple[str, ...], Doc("Files of PDQ hashes, in hex.")] = ()
    pdq_bits: Annotated[
        int, Doc("Greatest distance at which a PDQ hash matches.", unit="bits of 256", source="ThreatExchange")
    ] = 31
    phash: Annotated[tuple[str, ...], Doc("Files of pHashes, in hex.")] = ()
    phash_bits: Annotated[
        int,
        Doc(
            "Greatest distance at which a pHash matches.",
            unit="bits of 64",
            source="vlmdata's choice: downsizing and strong compression changed at most 4 bits in 191 photos",
        ),
    ] = 4
    phash_kind: Annotated[Literal["vlmdata", "imagededup"], Doc("Program whose pHashes the files in `phash` hold.")] = "vlmdata"

    def check(self) -> None:
        if not any(getattr(self, name) for name in ("domains", "urls", *HEX)):
            raise RecipeError(f"{self.name}: set at least one of the lists domains, urls, md5, sha256, pdq and phash")
        if not (0 <= self.pdq_bits < 128 and 0 <= self.phash_bits < 32):
            raise RecipeError(
                f"{self.name}: pdq_bits must lie in 0..127 and phash_bits in 0..31. More bits would match any picture"
            )
        _lists(self)

    def decide(self, rows: pa.Table) -> pa.Table:
        """Reject images and rows by their addresses, hosts, stored hashes and inline bytes."""
        lists = _lists(self)
        images = flatten(rows, "images")
        columns = (images.field(name).to_pylist() for name in ("url", "sha256", "phash", "data"))
        alive = images.alive()
        reasons = [
            (lists.of_address(url) or lists.of_hashes(sha, like) or (self.match(data) if data is not None else None))
            if is_alive
            else None
            for is_alive, url, sha, like, data in zip(alive, *columns, strict=True)
        ]
        found = np.array(reasons, dtype=object)
        hit = np.array([reason is not None for reason in reasons], dtype=bool)
        rows = drop_images(rows, hit, self.name, reason=found)
        pages = np.array([lists.of_address(url) for url in rows["url"].to_pylist()], dtype=object)
        return drop_rows(rows, np.array([page is not None for page in pages], dtype=bool), self.name, reason=pages)

    def match(self, body: bytes, max_memory_mb: float = MAX_MEMORY_MB) -> str | None:
        """Return the reason, such as `blocked_md5`, if a list matches these bytes of a fetched image. Return None otherwise.

        An image that needs more than `max_memory_mb` to decode gets the reason `too_large`, so that it cannot pass unchecked.
        """
        return _lists(self).of_bytes(body, max_memory_mb)


class ReadLists:
    """The contents of a BlockList's files."""

    def __init__(self, step: BlockList):
        self._step = step
        self._domains = {_domain(word, place) for word, place in _entries(step.domains)}
        self._urls = {_url(word, place) for word, place in _entries(step.urls)} - {""}
        self._digests = {
            name: {_hex(word, place, name) for word, place in _entries(getattr(step, name))} - {""} for name in HEX
        }
        likes = sorted(int(word, 16) for word in self._digests["phash"])
        self._phashes = np.array(likes, dtype=np.uint64)
        words = b"".join(bytes.fromhex(word) for word in sorted(self._digests["pdq"]))
        self._pdqs = np.frombuffer(words, dtype=">u8").astype(np.uint64).reshape(-1, 4)

    def of_address(self, text: str | None) -> str | None:
        """Return `blocked_url` for a listed address, `blocked_domain` for an address in a listed domain, or None."""
        if text is None or not (self._urls or self._domains):
            return None
        if text in self._urls:
            return "blocked_url"
        url = parse_url(text)
        if url is None:
            return None
        if url.text in self._urls:
            return "blocked_url"
        return "blocked_domain" if is_within(url.host, self._domains) else None

    def of_hashes(self, sha256: str | None, like: int | None) -> str | None:
        """Return `blocked_sha256` if `sha256` is listed, `blocked_phash` if a listed pHash is near `like`, or else None.

        `sha256` is the hash of the fetched bytes. `like` is the pHash of the stored picture.
        """
        if sha256 is not None and sha256 in self._digests["sha256"]:
            return "blocked_sha256"
        if like is not None and self._step.phash_kind == "vlmdata" and self._is_like(like):
            return "blocked_phash"
        return None

    def of_bytes(self, body: bytes, max_memory_mb: float) -> str | None:
        """Return the reason for which an image is rejected, or None if the image is not rejected.

        An image is rejected if a list holds its hash or a similar hash, or if the image is too large to compare.
        """
        if self._digests["sha256"] and hashlib.sha256(body).hexdigest() in self._digests["sha256"]:
            return "blocked_sha256"
        if self._digests["md5"] and hashlib.md5(body, usedforsecurity=False).hexdigest() in self._digests["md5"]:
            return "blocked_md5"
        if not (len(self._pdqs) or len(self._phashes)):
            return None
        try:
            pixels = _pixels(body, max_memory_mb)
        except ImageError as error:  # an image that cannot be decoded is never stored, but one that is too large may be stored
            return error.reason if error.reason in ("too_large", "too_costly") else None
        if len(self._phashes) and self._is_like(KINDS[self._step.phash_kind](pixels)):
            return "blocked_phash"
        if len(self._pdqs):
            value, quality = pdq(pixels)
            parts = np.frombuffer(value.to_bytes(32, "big"), dtype=">u8").astype(np.uint64)
            if quality >= PDQ_QUALITY and (np.bitwise_count(self._pdqs ^ parts).sum(1) <= self._step.pdq_bits).any():
                return "blocked_pdq"
        return None

    def _is_like(self, value: int) -> bool:
        return bool((np.bitwise_count(self._phashes ^ np.uint64(value)) <= self._step.phash_bits).any())


def _pixels(body: bytes, max_memory_mb: float) -> np.ndarray:
    """Return the pixels of an image. A picture that is too large is scaled down while it is decoded. Raises ImageError."""
    try:
        return decode(body, max_memory_mb=max_memory_mb, beside=pdq_bytes(*read_header(body).upright_size)).pixels
    except ImageError as error:
        if error.reason != "too_large":
            raise
        return decode(body, max_memory_mb=max_memory_mb, target=(SMALL, SMALL)).pixels


@functools.lru_cache(maxsize=8)
def _lists(step: BlockList) -> ReadLists:
    return ReadLists(step)


def _entries(files: tuple[str, ...]) -> Iterator[tuple[str, tuple[str, int]]]:
    """Yield the first word of each line with its file and line number. Raises RecipeError for a file that cannot be read."""
    for name in files:
        try:
            text = Path(at_home(name)).read_text(encoding="utf-8-sig")
        except (OSError, UnicodeDecodeError) as error:
            raise RecipeError(f"cannot read the list {name}: {error}") from None
        for number, line in enumerate(text.splitlines(), 1):
            words = line.partition("#")[0].replace(",", " ").split() if "://" not in line else line.split()
            if words:
                yield words[0].strip('"'), (name, number)


def _hex(word: str, place: tuple[str, int], kind: str) -> str:
    if len(word) == HEX[kind] and all(digit in "0123456789abcdefABCDEF" for digit in word):
        return word.lower()
    if place[1] == 1:
        return ""
    raise RecipeError(f"{place[0]}, line {place[1]}: {word!r} is not a valid {kind}, which must have {HEX[kind]} hex digits")


def _domain(word: str, place: tuple[str, int]) -> str:
    try:
        return domain_of(word, f"{place[0]}, line {place[1]}")
    except ValueError as error:
        raise RecipeError(str(error)) from None


def _url(word: str, place: tuple[str, int]) -> str:
    url = parse_url(word)
    if url is None and place[1] > 1:
        raise RecipeError(f"{place[0]}, line {place[1]}: {word!r} is not an http(s) address")
    return url.text if url else ""
