"""CPU seconds per page and peak memory of the source pdf, beside a plain loop over pypdfium2: python bench/pdf.py FILE.pdf"""

from __future__ import annotations

import resource
import subprocess
import sys

PLAIN = """
import pypdfium2
for page in pypdfium2.PdfDocument({path!r}):
    page.render(scale=150 / 72).to_numpy(); page.close()
"""
WORDS = """
import pypdfium2
for page in pypdfium2.PdfDocument({path!r}):
    page.render(scale=150 / 72).to_numpy(); text = page.get_textpage(); text.get_text_range(); page.close()
"""
SOURCE = """
from vlmdata.sources.pdf import Pdf
source = Pdf(path={path!r}, **{settings})
for piece in source.pieces():
    for table in source.read(piece):
        del table
"""
START = "import pypdfium2, pyarrow, vlmdata.sources.pdf"


def measured(program: str) -> tuple[float, float]:
    """Return the CPU seconds of a program with its processes, and the memory of the largest one in MB."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    inside = "import resource; u = resource.getrusage; print(max(u(0).ru_maxrss, u(-1).ru_maxrss))"
    done = subprocess.run([sys.executable, "-c", f"{program}\n{inside}"], check=True, capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return used, int(done.stdout.split()[-1]) / 1000


def main(path: str) -> None:
    import pypdfium2

    pages = len(pypdfium2.PdfDocument(path))
    start, _ = measured(START)
    programs = {"pypdfium2: pixels": PLAIN.format(path=path), "pypdfium2: pixels and text": WORDS.format(path=path)}
    for settings in ({}, {"format": "jpeg"}, {"boxes": "none", "format": "jpeg"}, {"content": "document"}):
        programs[f"source pdf {settings or ''}"] = SOURCE.format(path=path, settings=settings)
    print(f"{pages} pages; {start:.2f} CPU seconds for imports are left out")
    for name, program in programs.items():
        used, memory = measured(program)
        print(f"{name:60} {1000 * (used - start) / pages:7.1f} ms CPU a page {memory:7.0f} MB")


if __name__ == "__main__":
    main(sys.argv[1])
