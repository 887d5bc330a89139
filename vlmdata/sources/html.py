"""Folders of HTML files, such as saved sites and books, with images from the same folders."""

from __future__ import annotations

import functools
import gzip
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar
from urllib.parse import unquote, urlsplit

import pyarrow as pa

from vlmdata.html.document import Limits
from vlmdata.parameters import Doc
from vlmdata.readers.find_files import File, find, is_remote
from vlmdata.readers.page_rows import Mode, Yields, page_rows
from vlmdata.readers.pair_rows import json_object
from vlmdata.readers.plain_rows import bad_record, tables
from vlmdata.step import Gives, RecipeError, Source

ENDINGS = (".html", ".htm", ".xhtml", ".html.gz", ".htm.gz")
FILES_IN_PIECE = 500
MAX_IMAGE_BYTES = 20_000_000
_CHUNK = 1 << 20


@dataclass(frozen=True, kw_only=True)
class Html(Source):
    """Yield one row for each HTML file.

    If a page names an image by a relative address and the image file exists, the row holds the image's bytes. No image is read
    from outside the folder `path` (for a single file: the folder that holds it).
    """

    id: ClassVar = "vlmdata.sources.html"
    example: ClassVar = "source: {type: html, path: site, url: https://example.org/site/}"
    packages: ClassVar = (
        "idna",
        "resiliparse",
        "selectolax",
    )
    shuffled: ClassVar[bool] = False

    path: Annotated[str | list[str], Doc("HTML files, or folders or globs of them.")]
    url: Annotated[
        str, Doc("The folder's address on the web, such as https://example.org/site/. Empty: http://file.invalid/.")
    ] = ""
    mode: Annotated[
        Mode, Doc("How a page is read. obelics: the same decisions as the released OBELICS code, flaws included.")
    ] = "default"
    yields: Annotated[
        Yields, Doc("What a page becomes. alt_pairs: one caption pair for each image with an alt text, from the whole page.")
    ] = "documents"

    @property
    def gives(self) -> Gives:  # type: ignore[override]
        """The kind of the rows: `pairs` if `yields` is `alt_pairs`, otherwise `documents`."""
        return "documents" if self.yields == "documents" else "pairs"

    def check(self) -> None:
        if self.url and not self.url.startswith(("http://", "https://")):
            raise RecipeError(f"url must begin with http:// or https://, not {self.url!r}")
        for file in self.files():
            if is_remote(file.path):
                raise RecipeError(f"{file.path} is not local. Copy the pages and their images to a local folder first")

    def files(self) -> list[File]:
        return find(self.path, ENDINGS)

    def pieces(self) -> list[dict[str, Any]]:
        paths = [file.path for file in self.files()]
        root = self._root(paths)
        return [{"root": root, "paths": paths[i : i + FILES_IN_PIECE]} for i in range(0, len(paths), FILES_IN_PIECE)]

    def read(self, piece: dict[str, Any]) -> Iterator[pa.Table]:
        return tables(row for path in piece["paths"] for row in self._rows(path, piece["root"]))

    def _root(self, paths: list[str]) -> str:
        named = self.path if isinstance(self.path, str) else self.path[0] if len(self.path) == 1 else ""
        folder = os.path.abspath(os.path.expanduser(named))
        return folder if named and os.path.isdir(folder) else os.path.commonpath([os.path.dirname(path) for path in paths])

    def _rows(self, path: str, root: str) -> Iterator[dict[str, Any]]:
        name = os.path.relpath(path, root).replace(os.sep, "/")
        base = (self.url.rstrip("/") + "/") if self.url else "http://file.invalid/"
        url = base + name.removesuffix(".gz")
        try:
            html = _read(path)
        except _Broken as broken:
            yield bad_record(name, str(broken), byte=broken.byte, id=name, url=url, extra=json_object({"file": broken.kind}))
            return
        yield from page_rows(
            html,
            url,
            id=name,
            facts={"file": name},
            mode=self.mode,
            yields=self.yields,
            find=functools.partial(_beside, base, root),
        )


class _Broken(Exception):
    """Raised if a file cannot be read. `kind` is the name of the error. `byte` is the number of bytes read before the error."""

    def __init__(self, error: Exception, byte: int):
        super().__init__(getattr(error, "strerror", None) or str(error) or type(error).__name__)
        self.kind, self.byte = type(error).__name__, byte


def _read(path: str) -> bytes:
    """Return the decompressed bytes of a file, but at most one byte more than the limit of a page. Raises _Broken."""
    limit = Limits().max_bytes + 1
    html = b""
    try:
        with gzip.open(path, "rb") if path.lower().endswith(".gz") else open(path, "rb") as file:
            while len(html) < limit and (more := file.read1(min(_CHUNK, limit - len(html)))):
                html += more
    except (OSError, EOFError, zlib.error) as error:
        raise _Broken(error, len(html)) from None
    return html


def _beside(base: str, root: str, url: str) -> bytes | None:
    """Return the bytes of the file at an address, or None if the folder `root` has no such file."""
    if not url.startswith(base):
        return None
    path = os.path.realpath(os.path.join(root, unquote(urlsplit(url[len(base) :]).path)))
    inside = os.path.realpath(root) + os.sep
    if not path.startswith(inside) or not os.path.isfile(path) or os.path.getsize(path) > MAX_IMAGE_BYTES:
        return None
    with open(path, "rb") as file:
        return file.read()
