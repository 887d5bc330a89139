"""PDFs: pages as pictures with words and boxes, or text and figures as one document. Also the tars of PDFA and OCR-IDL."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

import pyarrow as pa

from vlmdata.images.budget import MAX_COST
from vlmdata.loader.index.grouping import SampleMembers
from vlmdata.loader.index.tar import Read
from vlmdata.parameters import Doc
from vlmdata.pdf.process import PdfOptions, PdfProcess
from vlmdata.readers.find_files import File, find
from vlmdata.readers.image_files import Folder, Zip
from vlmdata.readers.nameable_files import folder_of
from vlmdata.readers.open_file import Damage
from vlmdata.readers.page_annotations import WrongPage, annotated_pages
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.pdf_rows import PdfFile, PdfRows, page_content
from vlmdata.readers.plain_rows import bad_record, pair, place, reject, tables
from vlmdata.readers.strings import clean, is_blank
from vlmdata.readers.tar_samples import ENDINGS, MAX_IMAGE, BadSample, member_bytes, names_within, sample_json, sample_rows
from vlmdata.readers.tiff_frames import Frames
from vlmdata.readers.zip_members import UnusableFile
from vlmdata.step import Gives, RecipeError, Source

FILES_IN_PIECE = 20
LARGEST = 256 << 20  # largest PDF, in bytes


@dataclass(frozen=True, kw_only=True)
class Pdf(Source):
    """Yield rows for the pages of PDFs, or one interleaved document for each PDF.

    A PDF is a file, a member of a zip archive, or a member of a tar. In tars, a sample with `KEY.json` as in PDFA and OCR-IDL
    has its words and boxes from the JSON. A sample with `KEY.tif` and no PDF gives the TIFF's frames as pages.

    Boxes are in pixels of the picture, and `box_labels` holds the words. PDFium reads the files in a process with limits. It
    runs no script and opens nothing that a PDF names. Fonts that a PDF does not contain are replaced by those of the machine.
    """

    id: ClassVar = "vlmdata.sources.pdf"
    example: ClassVar = "source: {type: pdf, path: papers, content: document}"
    packages: ClassVar = ("pypdfium2",)
    shuffled: ClassVar[bool] = False

    path: Annotated[str | list[str], Doc("PDFs, zips and tars of PDFs, or folders or globs of them.")]
    content: Annotated[
        Literal["pages", "document"],
        Doc("What a row holds. pages: a page as a picture with its text. document: a whole PDF, text and figures in order."),
    ] = "pages"
    joined: Annotated[bool, Doc("With `content: pages`: all pages of a PDF are one row.")] = False
    boxes: Annotated[Literal["words", "lines", "none"], Doc("What the boxes of a page are.")] = "words"
    dpi: Annotated[int, Doc("Resolution of pages and drawings.", unit="pixels per inch", source="chug's default")] = 150
    max_side: Annotated[
        int, Doc("Longest side of a picture. Larger pages get fewer pixels per inch.", unit="pixels", source="vlmdata's choice")
    ] = 2048
    format: Annotated[Literal["png", "jpeg"], Doc("Format of the pictures. jpeg: quality 90, smaller for scans.")] = "png"
    without_text: Annotated[
        Literal["keep", "drop"],
        Doc("What happens to pages without a text layer, such as scans. drop: the reason is `no_text`."),
    ] = "keep"
    max_pages: Annotated[
        int, Doc("A PDF with more pages is dropped as `too_many_pages`.", unit="pages", source="vlmdata's choice")
    ] = 10_000
    max_memory_mb: Annotated[
        int,
        Doc(
            "Memory of the process that reads a PDF, in addition to PDFium itself. A page that needs more is dropped.",
            unit="MB (1,000,000 bytes)",
            source="vlmdata's choice",
        ),
    ] = 1000
    max_cpu_s: Annotated[
        int,
        Doc(
            "CPU time for one page. A page that needs more is dropped as `too_costly`.",
            unit="seconds",
            source="vlmdata's choice",
        ),
    ] = 20

    @property
    def gives(self) -> Gives:  # type: ignore[override]
        """The kind of the rows: `documents` if a row may have several images, otherwise `pairs`."""
        return "documents" if self.content == "document" or self.joined else "pairs"

    def check(self) -> None:
        for name, least in (("dpi", 10), ("max_side", 16), ("max_pages", 1), ("max_memory_mb", 100), ("max_cpu_s", 1)):
            if getattr(self, name) < least:
                raise RecipeError(f"{name} must be at least {least}, not {getattr(self, name)}")
        if self.joined and self.content == "document":
            raise RecipeError("joined is for `content: pages`. Remove it: with `content: document` each PDF is one row")
        super().check()

    def files(self) -> list[File]:
        return find(self.path, (".pdf", ".zip", *ENDINGS))

    def pieces(self) -> list[dict[str, Any]]:
        found = self.files()
        named = list(zip([file.path for file in found], map(clean, names_within(found)), strict=True))
        single = [(path, name) for path, name in named if not _is_archive(path)]
        pieces: list[dict[str, Any]] = [
            {"pdfs": single[start : start + FILES_IN_PIECE]} for start in range(0, len(single), FILES_IN_PIECE)
        ]
        return pieces + [{"archive": path, "name": name} for path, name in named if _is_archive(path)]

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        with PdfProcess() as process:
            rows = PdfRows(process, self._options(), self.joined, self.without_text == "drop")
            if "pdfs" in piece:
                yield from tables(row for path, name in piece["pdfs"] for row in self._file(path, name, rows))
            elif piece["archive"].lower().endswith(".zip"):
                yield from tables(_zipped(piece["archive"], piece["name"], rows))
            else:
                yield from tables(self._tar(piece["archive"], piece["name"], rows))

    def _options(self) -> PdfOptions:
        return PdfOptions(
            content=self.content,
            boxes=self.boxes,
            dpi=self.dpi,
            max_side=self.max_side,
            format=self.format,
            max_pages=self.max_pages,
            max_memory_mb=self.max_memory_mb,
            max_cpu_s=self.max_cpu_s,
        )

    def _file(self, path: str, name: str, rows: PdfRows) -> Iterator[dict[str, Any]]:
        paths = [self.path] if isinstance(self.path, str) else self.path
        store = Folder([folder_of(one, (".pdf",)) for one in paths])
        url = path if path.startswith(("http://", "https://")) else None
        yield from _read(store, path, name, rows, url)

    def _tar(self, path: str, name: str, rows: PdfRows) -> Iterator[dict[str, Any]]:
        def rows_of(sample: SampleMembers, blob: str | None, read: Read) -> Iterator[dict[str, Any]]:
            return self._sample(sample, read, name, rows)

        return sample_rows(path, name, rows_of)

    def _sample(self, sample: SampleMembers, read: Read, tar: str, rows: PdfRows) -> Iterator[dict[str, Any]]:
        members = {name.lower(): member for name, member in sample.members}
        annotated = annotated_pages(sample_json(members.get("json"), read))
        where = place(tar, byte=sample.members[0][1].header)
        extra = {"source_key": sample.key}
        if (member := members.get("pdf")) is not None:
            data = member_bytes(read, member, LARGEST)
            yield from rows.rows(PdfFile(data, tar, where, extra, None, annotated))
            return
        tiff = members.get("tif") or members.get("tiff")
        if tiff is None:
            raise BadSample("it has no PDF and no TIFF", "no_image")
        if self.content == "document":
            raise BadSample("it has a TIFF and no PDF. `content: pages` reads it", "no_text")
        file = PdfFile(member_bytes(read, tiff, MAX_IMAGE), tar, where, extra, None, annotated)
        yield from self._frames(file, sample.key)

    def _frames(self, file: PdfFile, key: str) -> Iterator[dict[str, Any]]:
        """Yield the rows of a TIFF whose frames are pages. The JSON gives the words and the number of pages."""
        if self.joined:
            raise BadSample("it has a TIFF and no PDF. `joined: false` reads it", "no_text")
        frames = Frames(file.data, max_memory_mb=self.max_memory_mb, max_cost=MAX_COST)
        annotated = file.annotated or []
        number = 0
        while (image := frames.following()).get("reason") != "no_image":
            number += 1
            one = annotated[number - 1] if number <= len(annotated) else {}
            where = f"{file.place}, page {number}"
            about = clean(json_object({"source_key": key, "page": number}))
            extra = {"id": f"{file.key}\npage {number}", "place": where, "extra": about}
            if "data" not in image:
                yield pair(image, [""], **extra)
                continue
            try:
                shown, text = page_content({"boxes": [], "labels": [], "text": ""}, image["data"], self.boxes, one)
            except WrongPage as error:
                yield bad_record(file.name, str(error), id=f"{file.key}\n{number} bad_record") | {"place": where}
                continue
            yield reject(pair(shown, [text], **extra), "no_text" if self.without_text == "drop" and is_blank(text) else None)
        for missing in range(number + 1, len(annotated) + 1):
            problem = f"the JSON describes {len(annotated)} pages, and the TIFF has {number}"
            row = bad_record(file.name, problem, reason="no_page", id=f"{file.key}\n{missing} no_page")
            yield row | {"place": f"{file.place}, page {missing}"}


def _is_archive(path: str) -> bool:
    return path.lower().endswith((".zip", *ENDINGS))


def _zipped(path: str, name: str, rows: PdfRows) -> Iterator[dict[str, Any]]:
    try:
        store = Zip(path)
    except Damage as error:
        yield bad_record(name, str(error))
        return
    for member in store.members((".pdf",)):
        yield from _read(store, member, f"{name}/{clean(member)}", rows, None)


def _read(store: Folder | Zip, path: str, name: str, rows: PdfRows, url: str | None) -> Iterator[dict[str, Any]]:
    try:
        data = store.read(path, LARGEST)
    except UnusableFile as error:
        yield bad_record(name, str(error), reason=error.reason, id=name)
        return
    yield from rows.rows(PdfFile(data, name, name, {"file": name}, url))
