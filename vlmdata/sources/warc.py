"""Web archives: the HTML pages of WARC, ARC and WACZ files as interleaved documents, their images from the same archives."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar, Literal

import pyarrow as pa

from vlmdata.html.archive import Record, Volume, records, volumes
from vlmdata.html.archive_images import ArchiveImages
from vlmdata.html.http_message import Response, parse_response
from vlmdata.html.resync import next_record
from vlmdata.intake.find import File, find, is_remote
from vlmdata.intake.pages import Find, Mode, Yields, page_rows
from vlmdata.intake.pairs import json_object
from vlmdata.intake.rows import reject, tables
from vlmdata.step import RecipeError, Source

ENDINGS = (".warc", ".warc.gz", ".warc.lz4", ".warc.zst", ".arc", ".arc.gz", ".wacz")
PIECE_BYTES = 64 << 20  # of a file whose records are gzip members of their own
MAX_PAGE_BYTES = 20_000_000  # unpacked
MAX_IMAGE_BYTES = 20_000_000
_HTML = frozenset(("text/html", "application/xhtml+xml"))


@dataclass(frozen=True, kw_only=True)
class Warc(Source):
    """One row for each HTML page that a server answered with status 200; a record that cannot be read is a dropped row.

    Records of other kinds make no rows. Images come with their bytes where the archives hold them, also behind redirects
    and revisit records; the others keep their address for `download`.
    """

    shuffled: ClassVar[bool] = False

    path: str | list[str]
    mode: Mode = "default"  # obelics: decide as the released code of OBELICS does, flaws included
    yields: Yields = "documents"  # alt_pairs: a caption pair for each image with an alt text, from the whole page
    images: Literal["collection", "file", "none"] = "collection"  # where bytes of images are looked for

    def check(self) -> None:
        for file in self._files():
            if is_remote(file.path):
                raise RecipeError(f"{file.path}: archives are read by offset; copy them to a local folder first")

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
        return tables(self._rows(piece))

    def _files(self) -> list[File]:
        return find(self.path, ENDINGS)

    def _rows(self, piece: dict[str, Any]) -> Iterator[dict[str, Any]]:
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
            yield from self._record_rows(record, name, held)

    def _images(self, path: str) -> Find | None:
        if self.images == "none":
            return None
        paths = tuple(file.path for file in self._files()) if self.images == "collection" else (path,)
        return functools.partial(_bytes_of, _indexed(paths))

    def _record_rows(self, record: Record, name: str, held: Find | None) -> Iterator[dict[str, Any]]:
        facts = {"warc_filename": name, "warc_record_offset": record.offset, "warc_date": record.headers.get("warc-date")}
        identity = record.id or f"{name}:{record.offset}"
        if record.kind == "bad_record":
            broken = {"id": f"{name}:{record.offset}", "url": record.url, "extra": _json(facts, record.problem)}
            yield reject(broken, "bad_record")
            return
        if record.kind != "response" or not record.url or not record.url.startswith("http"):
            return
        response = parse_response(record.block, max_bytes=MAX_PAGE_BYTES)
        if response.problem and _may_be_page(response):
            yield reject({"id": identity, "url": record.url, "extra": _json(facts, response.problem)}, "bad_record")
        elif response.status == 200 and response.media_type in _HTML:
            yield from page_rows(
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


def _ranges(volume: Volume, size: int) -> list[tuple[int, int | None]]:
    """Divide a file of gzip members; other volumes are read whole."""
    if volume.member is not None or size <= PIECE_BYTES:
        return [(0, None)]
    with volume.open() as file:
        if file.read(2) != b"\x1f\x8b" or next_record(file, 1) is None:
            return [(0, None)]
    cuts = [*range(0, size, PIECE_BYTES), size]
    return list(pairwise(cuts))


@functools.lru_cache(maxsize=2)
def _indexed(paths: tuple[str, ...]) -> ArchiveImages:
    return ArchiveImages([volume for path in paths for volume in volumes(path)], max_bytes=MAX_IMAGE_BYTES)


def _bytes_of(images: ArchiveImages, url: str) -> bytes | None:
    found = images.find(url)
    return found.data if found else None


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
