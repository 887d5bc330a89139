"""Web archives (WARC, ARC, WACZ): HTML pages as interleaved documents, with images from the same archives."""

from __future__ import annotations

import functools
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa

from vlmdata.archives.archive_images import ArchiveImages
from vlmdata.archives.http_message import Response, body_start
from vlmdata.archives.image_index import shared_folder
from vlmdata.archives.read_archive import piece_records, pieces, volumes
from vlmdata.archives.record import BODIES, Record, response_of
from vlmdata.archives.remote_archives import open_archive
from vlmdata.archives.sniff import START, is_known_type, sort_of
from vlmdata.archives.volume import Volume
from vlmdata.notes import Note
from vlmdata.parameters import Doc
from vlmdata.readers.find_files import File, find, is_remote
from vlmdata.readers.page_rows import Find, Mode, Yields, page_rows
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import bad_record, reject, tables
from vlmdata.step import Gives, RecipeError, Source

ENDINGS = (".warc", ".warc.gz", ".warc.lz4", ".warc.zst", ".arc", ".arc.gz", ".wacz")
PIECE_BYTES = 64 << 20  # largest piece; a larger file is split
MAX_PAGE_BYTES = 20_000_000  # after decompression
MAX_PAGE_IMAGES_BYTES = 200_000_000  # all images of a page together: many addresses can lead to one large image
MAX_PIECE_CHARS = 200_000_000  # texts and addresses: ten times as much as in real pages, against decompression bombs
MAX_IMAGE_BYTES = 20_000_000
RUN_BYTES = 16 << 20  # bytes of images and texts in a table of rows
_PROBLEMS = {
    "header": "there is no readable record header here",
    "truncated": "the record's content is shorter than its header states",
    "too_large": "the record or page exceeds the size limit",
    "digest": "the record's content does not match its digest",
    "http_header": "the record does not begin with the header of an HTTP response",
    "bad_chunks": "the chunked encoding of the page is invalid",
    "bad_encoding": "the page cannot be decompressed",
}


@dataclass(frozen=True, kw_only=True)
class Warc(Source):
    """Yield one row for each HTML page in a response with status 200 or in a resource record.

    A record that cannot be read gives a dropped row. Other kinds of records give no rows and are counted by kind. A row holds
    an image's bytes if the archives hold them. Redirects and revisit records are followed to find the bytes. Other images keep
    their address for `download`.
    """

    id: ClassVar = "vlmdata.sources.warc"
    example: ClassVar = "source: {type: warc, path: crawl/*.warc.gz, images: none}"
    packages: ClassVar = (
        "fastwarc",
        "idna",
        "resiliparse",
        "selectolax",
    )
    shuffled: ClassVar[bool] = False

    path: Annotated[
        str | list[str], Doc("WARC, ARC or WACZ files, or folders or globs of them, local or on any store that fsspec knows.")
    ]
    mode: Annotated[
        Mode, Doc("How a page is read. obelics: the same decisions as the released OBELICS code, flaws included.")
    ] = "default"
    yields: Annotated[
        Yields, Doc("What a page becomes. alt_pairs: one caption pair for each image with an alt text, from the whole page.")
    ] = "documents"
    images: Annotated[
        Literal["collection", "file", "none"],
        Doc("Archives to search for the images of a page: all of the source, the page's own, or none."),
    ] = "collection"

    @property
    def gives(self) -> Gives:  # type: ignore[override]
        """The kind of the rows: `pairs` if `yields` is `alt_pairs`, otherwise `documents`."""
        return "documents" if self.yields == "documents" else "pairs"

    def check(self) -> None:
        remote = [file for file in self.files() if is_remote(file.path)]
        if not remote:
            return
        try:
            with open_archive(remote[0].path) as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
                if not file.read(1):
                    raise RecipeError(f"{remote[0].path}: the file is empty, or its server does not support range requests")
        except OSError as error:
            raise RecipeError(f"{error}. Archives are read with range requests. Copy them to a local folder first") from None
        if self.images == "collection":
            size = sum(file.size for file in remote) / 1e9
            warnings.warn(
                f"`images: collection` makes each machine read all {size:.1f} GB once, to find the images. Use `images: none`"
                " for archives without images, such as Common Crawl's, or `images: file` if each archive holds its own images",
                Note,
                stacklevel=2,
            )

    def files(self) -> list[File]:
        return find(self.path, ENDINGS)

    def pieces(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for file in self.files():
            for volume in volumes(file.path):
                for start, end in pieces(volume, file.size, PIECE_BYTES):
                    found.append({"path": volume.path, "member": volume.member, "start": start, "end": end})
        return found

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        return self.read_counting(piece, Counter())

    def read_counting(self, piece: dict[str, Any], others: Counter[str]) -> Iterator[pa.Table]:
        """Yield the rows of `read`. `others` receives the number of records of each kind that give no row."""
        for run in _runs(_within(MAX_PIECE_CHARS, self._rows(piece, others))):
            yield from tables(run)

    def _rows(self, piece: dict[str, Any], others: Counter[str]) -> Iterator[dict[str, Any]]:
        volume = Volume(piece["path"], piece["member"])
        name = volume.path.replace("\\", "/").rpartition("/")[2] + (f"/{volume.member}" if volume.member else "")
        held = self._images(volume.path)
        for record in piece_records(volume, piece["start"], piece["end"], MAX_PAGE_BYTES * 2):
            rows, other = self._record_rows(record, name, held)
            yield from rows
            if other:
                others[other] += 1

    def _images(self, path: str) -> Find | None:
        if self.images == "none":
            return None
        paths = tuple(file.path for file in self.files()) if self.images == "collection" else (path,)
        return functools.partial(_bytes_of, _indexed(paths))

    def _record_rows(self, record: Record, name: str, held: Find | None) -> tuple[list[dict[str, Any]], str | None]:
        """Return a record's rows, and the kind under which the record is counted, or None if a row stands for the record.

        The caption pairs of a page do not stand for the page, so the page is counted as `page`.
        """
        facts = {"warc_filename": name, "warc_record_offset": record.offset, "warc_date": record.headers.get("warc-date")}
        identity = record.id or f"{name}:{record.offset}"
        if record.kind == "bad_record":
            return [_bad(facts, record, record.problem or "", f"{name}:{record.offset}")], None
        if record.kind not in BODIES:
            return [], record.kind
        if not (record.url or "").lower().startswith(("http:", "https:")):
            return [], "response_not_http" if record.kind == "response" else record.kind
        response = response_of(record, MAX_PAGE_BYTES)
        sort = sort_of(response.media_type, response.body or body_start(record.block, START))
        if response.problem and _may_be_page(response, sort):
            return [_bad(facts, record, response.problem, identity)], None
        if response.status != 200 or sort != "page":
            return [], record.kind if record.kind == "resource" else _other(response.status, sort)
        rows = list(
            page_rows(
                response.body,
                record.url or "",
                id=identity,
                charset=response.charset,
                facts=facts,
                mode=self.mode,
                yields=self.yields,
                wishes=_wishes(response),
                find=held and _up_to(MAX_PAGE_IMAGES_BYTES, held),
            )
        )
        is_row = self.yields == "documents" or any(row.get("drop") and not row["images"] for row in rows)
        return rows, None if is_row else "page"


def _within(chars: int, rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """Yield rows of up to `chars` characters in total. Reject each row that would exceed the total, and remove its content."""
    for row in rows:
        size = _chars(row)
        if size <= chars:
            chars -= size
            yield row
        else:
            about = {"id": row["id"], "url": row["url"], "extra": row["extra"]}
            yield reject({**about, "images": [], "texts": []}, "too_much_text")


def _runs(rows: Iterator[dict[str, Any]]) -> Iterator[list[dict[str, Any]]]:
    """Yield the rows in lists of about 16 MB of images and texts. Small lists save memory, because tables are copied later."""
    run: list[dict[str, Any]] = []
    held = 0
    for row in rows:
        run.append(row)
        held += _chars(row) + sum(len(image.get("data") or b"") for image in row.get("images") or () if image)
        if held > RUN_BYTES:
            yield run
            run, held = [], 0
    yield run


def _chars(row: dict[str, Any]) -> int:
    texts = sum(len(text["text"]) for text in row.get("texts") or () if text)
    images = [image for image in row.get("images") or () if image]
    return texts + sum(len(image[name] or "") for image in images for name in ("url", "alt", "caption"))


@functools.lru_cache(maxsize=2)
def _indexed(paths: tuple[str, ...]) -> ArchiveImages:
    found = [volume for path in paths for volume in volumes(path)]
    return ArchiveImages(found, max_bytes=MAX_IMAGE_BYTES, folder=shared_folder())


def _bytes_of(images: ArchiveImages, url: str) -> bytes | None:
    found = images.find(url)
    return found.data if found else None


def _up_to(limit: int, find: Find) -> Find:
    """Wrap `find` so that it returns None once the images found so far exceed `limit` bytes.

    Later images keep only their address.
    """
    left = limit

    def limited(url: str) -> bytes | None:
        nonlocal left
        data = find(url) if left > 0 else None
        left -= len(data or b"")
        return data

    return limited


def _other(status: int, sort: str) -> str:
    """Return the kind under which a response that is not a page is counted.

    If the status is 200, the kind names the type of the content, such as `media_image`. Otherwise it is the status, such as
    `http_404`.
    """
    if status != 200:
        return f"http_{status}" if 100 <= status <= 599 else "http_other"
    return f"media_{sort}"


def _may_be_page(response: Response, sort: str) -> bool:
    """Return whether a damaged response may be a page. Other media give no rows, so their damage does not matter."""
    if response.status == 200:
        return sort == "page" or (sort == "other" and not is_known_type(response.media_type))
    return response.status == 0


def _bad(facts: dict[str, Any], record: Record, problem: str, identity: str) -> dict[str, Any]:
    """Return the dropped row of a record that cannot be read, with the record's byte offset in the decompressed file."""
    extra = json_object({**facts, "problem": problem})
    name, byte = facts["warc_filename"], facts["warc_record_offset"]
    return bad_record(name, _PROBLEMS[problem], byte=byte, id=identity, url=record.url, extra=extra)


def _wishes(response: Response) -> tuple[str, ...]:
    """Return the robots directives in a response's headers."""
    words = response.headers.get("x-robots-tag", "").lower().replace(",", " ").split()
    reserved = response.headers.get("tdm-reservation", "").strip() == "1"
    return (*words, *(["tdm-reservation"] if reserved else []))
