"""The PDF process: opens each PDF that a worker sends, and answers with a message for each page.

PDFium may crash, hang or take all memory on a hostile file. So it runs in a process with limits of CPU time and memory, which
the worker starts again. The process gets the bytes of the PDF. It opens nothing that a PDF names, and runs no script.
"""

from __future__ import annotations

import resource
import sys
from pathlib import Path
from typing import IO, Any

from vlmdata.extras import required
from vlmdata.pdf.blocks import Block, blocks_of, ordered_lines
from vlmdata.pdf.figures import TooManyPixels, drawn_objects, figures_of
from vlmdata.pdf.geometry import Box
from vlmdata.pdf.glyphs import TooMuchText, lines_of
from vlmdata.pdf.layout import is_unclear
from vlmdata.pdf.messages import receive, send
from vlmdata.pdf.rendering import USER, Drawing, Page
from vlmdata.untrusted import Failed, errors_as, one_line

MOST_BAD = 20  # pages in a row that cannot be read, after which the rest is not tried
Answer = tuple[dict[str, Any], list[bytes]]


def serve() -> None:
    """Answer requests on stdin until it is closed. A request is the options of `_pages` and the bytes of a PDF."""
    requests, answers = sys.stdin.buffer, sys.stdout.buffer
    sys.stdout = sys.stderr
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    while (request := receive(requests)) is not None:
        options, (data,) = request
        _limit_memory(options["max_memory_mb"])
        try:
            with errors_as(Failed):
                pdf = _opened(data)
        except Failed as failed:
            send(answers, _failure(failed.args[0], "bad_pdf"))
            continue
        _pages(pdf, options, answers)
        pdf.close()


def _limit_memory(max_memory_mb: int) -> None:
    """Limit the memory that this process may have in addition to what it has now. Only Linux supports this."""
    status = Path("/proc/self/status")
    if not status.exists():
        return
    held = next(int(line.split()[1]) << 10 for line in status.read_text().splitlines() if line.startswith("VmData:"))
    hard = resource.getrlimit(resource.RLIMIT_DATA)[1]
    resource.setrlimit(resource.RLIMIT_DATA, (held + max_memory_mb * 1_000_000, hard))


def _limit_time(seconds: int) -> None:
    """End this process with SIGXCPU if it uses more than `seconds` CPU seconds from now on."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    hard = resource.getrlimit(resource.RLIMIT_CPU)[1]
    resource.setrlimit(resource.RLIMIT_CPU, (int(used.ru_utime + used.ru_stime) + 1 + seconds, hard))


def _opened(data: bytes) -> Any:
    pdfium = required("pypdfium2", USER)
    pdf = pdfium.PdfDocument(data)
    pdf.init_forms()
    return pdf


def _failure(error: BaseException, reason: str) -> dict[str, Any]:
    """Return the message about a document or page that cannot be read."""
    pdfium = required("pypdfium2", USER)
    problem = one_line(error) if isinstance(error, pdfium.PdfiumError) else f"{type(error).__name__}: {one_line(error)}"
    if isinstance(error, pdfium.PdfiumError) and error.err_code == pdfium.raw.FPDF_ERR_PASSWORD:
        return {"reason": "encrypted", "problem": "the file needs a password"}
    if isinstance(error, MemoryError):
        reason = "too_large"
    named: dict[type[BaseException], str] = {TooMuchText: "too_much_text", TooManyPixels: "too_many_pixels"}
    return {"reason": named.get(type(error), reason), "problem": problem}


def _pages(pdf: Any, options: dict[str, Any], answers: IO[bytes]) -> None:
    """Send the number of pages, a message for each page from `first`, and `done`."""
    _limit_time(options["max_cpu_s"])
    count = len(pdf)
    send(answers, {"pages": count})
    if count > options["max_pages"]:
        return
    bad = 0
    for number in range(options["first"], count + 1):
        _limit_time(options["max_cpu_s"])
        try:
            with errors_as(Failed):
                head, blobs = _page(pdf, number, options)
            bad = 0
        except Failed as failed:
            bad += 1
            head, blobs = _failure(failed.args[0], "bad_page") | {"rest": bad == MOST_BAD and number < count}, []
        send(answers, {"page": number, **head}, blobs)
        if bad == MOST_BAD:
            break
    send(answers, {"done": True})


def _page(pdf: Any, number: int, options: dict[str, Any]) -> Answer:
    raw = pdf[number - 1]
    try:
        page = Page(raw)
        drawing = Drawing(options["dpi"], options["max_side"], options["format"])
        return _document_page(page, drawing) if options["content"] == "document" else _picture_page(page, drawing, options)
    finally:
        raw.close()


def _picture_page(page: Page, drawing: Drawing, options: dict[str, Any]) -> Answer:
    """Return a page as a picture, with its text, and boxes in pixels of the picture."""
    drawn_objects(page)  # refuses images that are too large before they are decoded
    picture, width, height = page.picture(drawing)
    paragraphs = ordered_lines(lines_of(page)) if options["text"] else []
    text = "\n\n".join("\n".join(line.text for line in lines) for lines in paragraphs)
    lines = [line for group in paragraphs for line in group]
    marked: dict[str, list[tuple[str, Box]]] = {
        "words": [(word.text, word.box) for line in lines for word in line.words],
        "lines": [(line.text, line.box) for line in lines],
        "none": [],
    }
    found = marked[options["boxes"]]
    x, y = width / page.width, height / page.height
    boxes = [[round(b[0] * x, 2), round(b[1] * y, 2), round(b[2] * x, 2), round(b[3] * y, 2)] for _, b in found]
    return {"text": text, "boxes": boxes, "labels": [label for label, _ in found]}, [picture]


def _document_page(page: Page, drawing: Drawing) -> Answer:
    """Return the paragraphs and figures of a page in reading order."""
    lines = [line for line in lines_of(page) if not line.is_turned]
    figures = figures_of(page, drawn_objects(page), lines)
    blocks = blocks_of(lines, figures)
    blobs = [page.part(block.box, block.figure.pixels, drawing)[0] for block in blocks if block.figure]
    texts = [line for block in blocks for line in block.lines]
    about = {"has_text": bool(lines), "is_unclear": is_unclear(texts), "height": page.height}
    return {**about, "blocks": [_described(block) for block in blocks]}, blobs


def _described(block: Block) -> dict[str, Any]:
    lines = [{"text": line.text, "box": line.box, "divided": line.is_divided} for line in block.lines]
    return {"box": block.box, "lines": lines, "size": round(block.height, 2) if block.lines else None}
