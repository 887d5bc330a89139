"""Starts the PDF process, sends it PDFs, and turns its death into the outcome of a page."""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
from collections.abc import Generator, Iterator
from dataclasses import asdict, dataclass
from typing import Any

from vlmdata.pdf.messages import receive, send

MOST_DEATHS = 3  # pages of a PDF that may end the process; the rest of the PDF is then not tried
Answer = tuple[dict[str, Any], list[bytes]]


@dataclass(frozen=True)
class PdfOptions:
    """What a PDF's pages become, and the limits for a PDF."""

    content: str  # pages or document
    boxes: str  # words, lines or none
    dpi: int
    max_side: int  # pixels
    format: str
    max_pages: int
    max_memory_mb: int
    max_cpu_s: int  # for one page
    text: bool = True  # whether the text layer is read


class PdfProcess:
    """The process that reads PDFs for one worker. It starts with the first PDF, and again after each death.

    PDFium is not thread-safe, and a crash or an endless loop in it ends only this process. Closing its stdin ends it, so it
    does not survive its worker.
    """

    def __init__(self) -> None:
        self._process: subprocess.Popen[bytes] | None = None
        self._status = 0  # exit status of the last process that died

    def __enter__(self) -> PdfProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End the process, also in the middle of a PDF."""
        if self._process is None:
            return
        assert self._process.stdin and self._process.stdout
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()
        with contextlib.suppress(BrokenPipeError):  # a part of a request was still to be written
            self._process.stdin.close()
        self._process = None

    def pages(self, data: bytes, options: PdfOptions) -> Iterator[Answer]:
        """Yield the messages about a PDF: {"pages": count}, then one for each page, with `page` and its image bytes.

        A message with `reason` is about a page that cannot be read, or, without `page`, about the whole PDF. `rest` is true if
        it is also about all pages after this one.
        """
        number, deaths, tried = 1, 0, 0  # `tried`: the last page, or 0 for the opening, that ended the process
        count: int | None = None
        while True:
            with contextlib.closing(self._answers(data, options, number)) as answers:
                for head, blobs in answers:
                    if "pages" not in head or count is None:
                        yield head, blobs
                    count = head.get("pages", count)
                    number = head["page"] + 1 if "page" in head else number
            if self._process is not None:
                return
            reason, problem = self._died, self._why(options)
            at = 0 if count is None else number
            if reason == "pdf_crash" and tried != at + 1:  # perhaps something else ended the process, so it is tried once more
                tried = at + 1
                continue
            if count is None:
                yield {"reason": reason, "problem": problem}, []
                return
            deaths += 1
            is_last = deaths == MOST_DEATHS or number >= count
            yield {"page": number, "reason": reason, "problem": problem, "rest": is_last and number < count}, []
            number += 1
            if is_last:
                return

    def _answers(self, data: bytes, options: PdfOptions, first: int) -> Generator[Answer]:
        """Yield the messages of the process for a PDF except `done`. If the process dies, `_process` is None afterwards."""
        process = self._process or self._start()
        assert process.stdin and process.stdout
        is_complete = False
        try:
            with contextlib.suppress(BrokenPipeError):  # it died while it read the PDF
                send(process.stdin, {**asdict(options), "first": first}, [data])
            while (answer := receive(process.stdout)) is not None:
                head = answer[0]
                is_complete = "done" in head or ("reason" in head and "page" not in head)
                is_complete = is_complete or head.get("pages", 0) > options.max_pages
                if "done" not in head:
                    yield answer
                if is_complete:
                    return
            self._status = process.wait()
        finally:
            if not is_complete:
                self.close()

    def _start(self) -> subprocess.Popen[bytes]:
        # A separate process group, so that Ctrl-C reaches only the worker. multiprocessing would run the caller's script again.
        program = f"import sys; sys.path[:] = {sys.path!r}; from vlmdata.pdf.serve import serve; serve()"
        pipe, nothing = subprocess.PIPE, subprocess.DEVNULL
        self._process = subprocess.Popen(
            [sys.executable, "-c", program], stdin=pipe, stdout=pipe, stderr=nothing, process_group=0
        )
        return self._process

    @property
    def _died(self) -> str:
        return "too_costly" if self._status == -signal.SIGXCPU else "pdf_crash"

    def _why(self, options: PdfOptions) -> str:
        if self._died == "too_costly":
            return f"it takes more than {options.max_cpu_s} CPU seconds"
        return f"PDFium ended with status {self._status}. It may have needed more than {options.max_memory_mb} MB"
