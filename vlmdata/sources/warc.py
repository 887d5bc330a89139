"""Web archives: the HTML pages of WARC, ARC and WACZ files as interleaved documents, their images from the same archives."""

from __future__ import annotations

import functools
import os
import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import pyarrow as pa

from vlmdata.html.archive import Record, Volume, records, volumes
from vlmdata.html.archive_images import ArchiveImages
from vlmdata.html.http_message import Response, parse_response
from vlmdata.html.remote import open_archive
from vlmdata.html.resync import next_record, record_starts
from vlmdata.intake.find import File, find, is_remote
from vlmdata.intake.pages import Find, Mode, Yields, page_rows
from vlmdata.intake.pairs import json_object
from vlmdata.intake.rows import reject, tables
from vlmdata.step import RecipeError, Source

ENDINGS = (".warc", ".warc.gz", ".warc.lz4", ".warc.zst", ".arc", ".arc.gz", ".wacz")
PIECE_BYTES = 64 << 20  # of a file whose records are gzip members of their own
MAX_PAGE_BYTES = 20_000_000  # unpacked
MAX_IMAGE_BYTES = 20_000_000
_MEDIA = frozenset(("application", "audio", "font", "image", "text", "video"))
_HTML = frozenset(("text/html", "application/xhtml+xml"))


@dataclass(frozen=True, kw_only=True)
class Warc(Source):
    """One row for each HTML page that a server answered with status 200; a record that cannot be read is a dropped row.

    Records of other kinds make no rows and are counted by kind. Images come with their bytes where the archives hold them,
    also behind redirects and revisit records; the others keep their address for `download`.
    """

    shuffled: ClassVar[bool] = False

    path: str | list[str]
    mode: Mode = "default"  # obelics: decide as the released code of OBELICS does, flaws included
    yields: Yields = "documents"  # alt_pairs: a caption pair for each image with an alt text, from the whole page
    images: Literal["collection", "file", "none"] = "collection"  # where bytes of images are looked for

    def check(self) -> None:
        remote = [file for file in self._files() if is_remote(file.path)]
        if not remote:
            return
        try:
            with open_archive(remote[0].path) as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - 1))
                if not file.read(1):
                    raise RecipeError(f"{remote[0].path}: is empty, or its server gives no ranges of files")
        except OSError as error:
            raise RecipeError(f"{error}: archives are read by ranges; copy them to a local folder first") from None
        if self.images == "collection":
            size = sum(file.size for file in remote) / 1e9
            warnings.warn(
                f"images: collection has each worker read all {size:.1f} GB once, to know where images are; archives without"
                " images, as Common Crawl's, need images: none, and those with their own images: file",
                stacklevel=2,
            )

    def files(self) -> list[tuple[str, int]]:
        return [(file.path, file.size) for file in self._files()]

    def pieces(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = []
        for file in self._files():
            for volume in volumes(file.path):
                for start, end in _ranges(volume, file.size):
                    found.append({"path": volume.path, "member": volume.member, "start": start, "end": end})
        return found

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        return self.read_counting(piece, Counter())

    def read_counting(self, piece: dict[str, Any], others: Counter[str]) -> Iterator[pa.Table]:
        return tables(self._rows(piece, others))

    def _files(self) -> list[File]:
        return find(self.path, ENDINGS)

    def _rows(self, piece: dict[str, Any], others: Counter[str]) -> Iterator[dict[str, Any]]:
        volume = Volume(piece["path"], piece["member"])
        name = volume.path.replace("\\", "/").rpartition("/")[2] + (f"/{volume.member}" if volume.member else "")
        start, end = piece["start"], piece["end"]
        if start:
            with volume.open() as file:
                begin = next_record(file, start)
            if begin is None or begin >= end:
                return
            start = begin
        held = self._images(volume.path)
        for record in records(volume, start=start, end=end, max_bytes=MAX_PAGE_BYTES * 2):
            rows, other = self._record_rows(record, name, held)
            yield from rows
            if other:
                others[other] += 1

    def _images(self, path: str) -> Find | None:
        if self.images == "none":
            return None
        paths = tuple(file.path for file in self._files()) if self.images == "collection" else (path,)
        return functools.partial(_bytes_of, _indexed(paths))

    def _record_rows(self, record: Record, name: str, held: Find | None) -> tuple[list[dict[str, Any]], str | None]:
        """Return the rows of a record, and as what it is counted when it has none of its own."""
        facts = {"warc_filename": name, "warc_record_offset": record.offset, "warc_date": record.headers.get("warc-date")}
        identity = record.id or f"{name}:{record.offset}"
        if record.kind == "bad_record":
            broken = {"id": f"{name}:{record.offset}", "url": record.url, "extra": _json(facts, record.problem)}
            return [reject(broken, "bad_record")], None
        if record.kind != "response":
            return [], record.kind
        if not record.url or not record.url.startswith("http"):
            return [], "response_not_http"
        response = parse_response(record.block, max_bytes=MAX_PAGE_BYTES)
        if response.problem and _may_be_page(response):
            return [reject({"id": identity, "url": record.url, "extra": _json(facts, response.problem)}, "bad_record")], None
        if response.status != 200 or response.media_type not in _HTML:
            return [], _other(response)
        rows = list(
            page_rows(
                response.body,
                record.url,
                id=identity,
                charset=response.charset,
                facts=facts,
                mode=self.mode,
                yields=self.yields,
                wishes=_wishes(response),
                find=held,
            )
        )
        is_row = self.yields == "documents" or any(row.get("drop") and not row["images"] for row in rows)
        return rows, None if is_row else "page"


def _ranges(volume: Volume, size: int) -> list[tuple[int, int | None]]:
    """Divide a file of gzip members, or a plain one that lies here; other volumes are read whole."""
    if volume.member is not None or size <= PIECE_BYTES:
        return [(0, None)]
    with volume.open() as file:
        head = file.read(5)
        if head == b"WARC/" and not is_remote(volume.path):  # only its lengths say where records begin: a page may hold a WARC
            cuts = [*record_starts(file, PIECE_BYTES), size]
        elif head[:2] == b"\x1f\x8b" and next_record(file, 1) is not None:
            cuts = [*range(0, size, PIECE_BYTES), size]
        else:
            return [(0, None)]
    return list(pairwise(cuts))


@functools.lru_cache(maxsize=2)
def _indexed(paths: tuple[str, ...]) -> ArchiveImages:
    return ArchiveImages([volume for path in paths for volume in volumes(path)], max_bytes=MAX_IMAGE_BYTES)


def _bytes_of(images: ArchiveImages, url: str) -> bytes | None:
    found = images.find(url)
    return found.data if found else None


def _other(response: Response) -> str:
    """Name a response that is no page: by its status, or by the sort of its media."""
    if response.status != 200:
        return f"http_{response.status}" if 100 <= response.status <= 599 else "http_other"
    sort = response.media_type.partition("/")[0]
    return f"media_{sort}" if sort in _MEDIA else "media_other"


def _may_be_page(response: Response) -> bool:
    """Say whether a damaged response would have been a page: other media make no rows, whole or broken."""
    return response.status in (0, 200) and response.media_type in ("", *_HTML)


def _wishes(response: Response) -> tuple[str, ...]:
    """Return what the headers ask of every robot."""
    words = response.headers.get("x-robots-tag", "").lower().replace(",", " ").split()
    reserved = response.headers.get("tdm-reservation", "").strip() == "1"
    return (*words, *(["tdm-reservation"] if reserved else []))


def _json(facts: dict[str, Any], problem: str | None) -> str:
    return json_object({**facts, "problem": problem})
