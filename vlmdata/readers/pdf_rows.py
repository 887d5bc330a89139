"""Turn the messages of the PDF process into rows: a page or a whole PDF as pictures, or one interleaved document."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from vlmdata.pdf.document import is_unclear, parts_of
from vlmdata.pdf.process import Answer, PdfOptions, PdfProcess
from vlmdata.readers.page_annotations import WrongPage, marked
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import bad_record, document, pair, reject
from vlmdata.readers.source_images import inline
from vlmdata.readers.strings import clean, is_blank

MAX_BYTES = 100_000_000  # of the images of a row together; later images of the row are dropped as `too_large`


@dataclass(frozen=True)
class PdfFile:
    """The bytes of a PDF and what is known about it. `annotated` has the pages of its JSON, if there is one."""

    data: bytes
    name: str  # within the source, for messages
    place: str
    extra: dict[str, Any] = field(default_factory=dict)
    url: str | None = None
    annotated: list[Any] | None = None

    @property
    def key(self) -> str:
        """The beginning of the ids of its rows, which depends only on its bytes."""
        return hashlib.sha256(self.data).hexdigest()


@dataclass(frozen=True)
class PdfRows:
    """Reads PDFs with one process. `joined`: the pages of a PDF are one row. `needs_text`: pages without a text are dropped."""

    process: PdfProcess
    options: PdfOptions
    joined: bool
    needs_text: bool

    def rows(self, file: PdfFile) -> Iterator[dict[str, Any]]:
        """Yield the rows of a PDF. Each page or document that cannot be read is one dropped row with a reason."""
        answers = self.process.pages(file.data, self.options)
        first, _ = next(answers)
        count = first.get("pages", 0)
        if "reason" in first:
            yield self._bad(file, first)
        elif count == 0:
            yield self._bad(file, {"reason": "no_pages", "problem": "the PDF has no pages"})
        elif count > self.options.max_pages:
            problem = f"the PDF has {count:,} pages, more than the limit of {self.options.max_pages:,}"
            yield self._bad(file, {"reason": "too_many_pages", "problem": problem})
        elif self.options.content == "document":
            yield self._document(file, answers, count)
        elif self.joined:
            yield self._joined(file, answers, count)
        else:
            yield from self._pages(file, answers, count)

    def _pages(self, file: PdfFile, answers: Iterator[Answer], count: int) -> Iterator[dict[str, Any]]:
        for head, blobs in answers:
            if "reason" in head:
                yield self._bad(file, head)
                continue
            number = head["page"]
            try:
                image, text = page_content(head, blobs[0], self.options.boxes, _annotation(file, number))
            except WrongPage as error:
                yield self._bad(file, {"page": number, "reason": "bad_record", "problem": str(error)})
                continue
            about = _about(file, {"page": number, "pages": count, **_image_boxes(file, number)})
            row = pair(image, [text], **about, id=f"{file.key}\npage {number}", place=_place(file, number))
            yield reject(row, "no_text" if self.needs_text and is_blank(text) else None)
        for number in range(count + 1, len(file.annotated or ()) + 1):
            problem = f"the JSON describes {len(file.annotated or ())} pages, and the PDF has {count}"
            yield self._bad(file, {"page": number, "reason": "no_page", "problem": problem})

    def _joined(self, file: PdfFile, answers: Iterator[Answer], count: int) -> dict[str, Any]:
        positions: list[dict[str, Any] | str] = []
        held = 0
        for head, blobs in answers:
            if "reason" in head:
                return self._bad(file, head)
            try:
                image, text = page_content(head, blobs[0], self.options.boxes, _annotation(file, head["page"]))
            except WrongPage as error:
                return self._bad(file, {"page": head["page"], "reason": "bad_record", "problem": str(error)})
            held += len(blobs[0])
            if held > MAX_BYTES:
                problem = f"the pages are more than {MAX_BYTES:,} bytes together. Set `joined: false` or a smaller `dpi`"
                return self._bad(file, {"page": head["page"], "reason": "too_large", "problem": problem})
            positions += [image, *([] if is_blank(text) else [text])]
        has_text = any(isinstance(one, str) for one in positions)
        row = document(positions, **_about(file, {"pages": count}), id=f"{file.key}\npages", place=file.place)
        return reject(row, "no_text" if self.needs_text and not has_text else None)

    def _document(self, file: PdfFile, answers: Iterator[Answer], count: int) -> dict[str, Any]:
        pages: list[Answer] = []
        held = 0
        for head, blobs in answers:
            if "reason" in head:
                return self._bad(file, head)
            room = [blob if (held := held + len(blob)) <= MAX_BYTES else b"" for blob in blobs]
            pages.append((head, room))
        heads = [head for head, _ in pages]
        if not any(head["has_text"] for head in heads):
            return self._bad(file, {"reason": "no_text", "problem": "the PDF has no text layer. `content: pages` reads it"})
        if is_unclear(heads):
            problem = "lines of the text overlap, so their order cannot be told. `content: pages` reads the PDF"
            return self._bad(file, {"reason": "unclear_layout", "problem": problem})
        positions = [_figure(part.image, part.caption) if part.image is not None else part.text for part in parts_of(pages)]
        row = document(positions, **_about(file, {"pages": count}), id=f"{file.key}\ndocument", place=file.place)
        return reject(row, None if any(isinstance(one, str) for one in positions) else "no_text")

    def _bad(self, file: PdfFile, head: dict[str, Any]) -> dict[str, Any]:
        """Return the dropped row of a page, or of the whole PDF if `head` names no page."""
        page = head.get("page")
        problem = head["problem"] + (f". No page after page {page} was read" if head.get("rest") else "")
        where = file.place if page is None else _place(file, page)
        id = f"{file.key}\n{'' if page is None else page} {head['reason']}"
        return bad_record(file.name, problem, reason=head["reason"], **_about(file, {}), id=id) | {"place": where}


def page_content(head: dict[str, Any], picture: bytes, boxes: str, annotated: Any | None) -> tuple[dict[str, Any], str]:
    """Return a page's picture as fields of IMAGE with boxes in pixels, and its text.

    Words and boxes are those of the JSON if there is one (`annotated`), else those of the text layer. Raises WrongPage.
    """
    image = inline(picture)
    if annotated is None:
        if head["boxes"]:
            image |= {"boxes": head["boxes"], "box_labels": head["labels"]}
        return image, clean(head["text"])
    lines = marked(annotated, "lines")
    words = marked(annotated, "words")
    text = "\n".join((lines or words).texts) if lines or words else ""  # type: ignore[union-attr]
    shown = {"words": words or lines, "lines": lines, "none": None}[boxes]
    if shown is not None and shown.texts and "width" in image:
        x, y = image["width"], image["height"]
        pixels = [
            None if b is None else [round(b[0] * x, 2), round(b[1] * y, 2), round(b[2] * x, 2), round(b[3] * y, 2)]
            for b in shown.boxes
        ]
        image |= {"boxes": pixels, "box_labels": shown.texts}
    return image, text


def _figure(data: bytes, caption: str | None) -> dict[str, Any]:
    image = inline(data) if data else {"drop": "source", "reason": "too_large"}
    return image if caption is None else {**image, "caption": clean(caption)}


def _annotation(file: PdfFile, number: int) -> Any | None:
    if file.annotated is None:
        return None
    if number > len(file.annotated):
        raise WrongPage(f"the PDF has a page {number}, and the JSON describes {len(file.annotated)} pages")
    return file.annotated[number - 1]


def _image_boxes(file: PdfFile, number: int) -> dict[str, Any]:
    """Return the boxes of the images on a page as its JSON states them: left, top, width and height as fractions."""
    page = file.annotated[number - 1] if file.annotated else {}
    return {"images_bbox": page["images_bbox"]} if isinstance(page, dict) and page.get("images_bbox") else {}


def _about(file: PdfFile, facts: dict[str, Any]) -> dict[str, Any]:
    return {"url": file.url, "extra": clean(json_object({**file.extra, **facts}))}


def _place(file: PdfFile, page: int) -> str:
    return f"{file.place}, page {page}"
