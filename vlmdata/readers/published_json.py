"""Open JSON files as data sets publish them: plain, compressed, or alone in a zip archive. They are read as streams."""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from vlmdata.readers.file_formats import HEAD, format_of_bytes
from vlmdata.readers.find_files import is_hidden
from vlmdata.readers.open_file import opened, raw_file
from vlmdata.readers.zip_members import RATIO, SMALL
from vlmdata.step import RecipeError
from vlmdata.untrusted import errors_as, one_line

JSON_ENDINGS = (".json", ".json.gz", ".json.zst", ".json.bz2", ".json.xz", ".json.zip")


@contextlib.contextmanager
def opened_json(path: str) -> Iterator[IO[bytes]]:
    """Open a JSON file as a stream of bytes. In a zip archive, this is its only member that ends in `.json`.

    Raises RecipeError if there is no such member or several, and for an archive that cannot be read: encrypted, damaged, or
    compressed more than 1,100 to 1, as no text is.
    """
    if not path.lower().endswith(".zip"):
        with opened(path) as file:
            yield file
        return
    with contextlib.ExitStack() as stack:
        with errors_as(lambda error: RecipeError(f"{path} cannot be read: {one_line(error)}"), passes=(RecipeError,)):
            archive = stack.enter_context(zipfile.ZipFile(stack.enter_context(raw_file(path))))
            member = stack.enter_context(archive.open(_only_json(path, archive)))
        with errors_as(lambda error: _unreadable(path, error)):
            yield member


def check_published_json(path: str) -> None:
    """Raise RecipeError, which names the format, if a file's first bytes are those of another format than JSON."""
    with opened_json(path) as file:
        if other := format_of_bytes(file.read(HEAD)):
            raise RecipeError(f"{path} is {other}. This source reads json")


def _only_json(path: str, archive: zipfile.ZipFile) -> zipfile.ZipInfo:
    found = [
        info
        for info in archive.infolist()
        if info.filename.lower().endswith(".json") and not any(is_hidden(part) for part in info.filename.split("/"))
    ]
    if len(found) != 1:
        raise RecipeError(f"{path} must hold one .json file, and holds {len(found)}. Unpack it and name one of the files")
    if found[0].file_size > SMALL and found[0].file_size > RATIO * found[0].compress_size:
        raise RecipeError(f"{path}: {found[0].filename!r} is compressed more than {RATIO:,} to 1, as no text is")
    return found[0]


def _unreadable(path: str, error: Exception) -> Exception:
    """Return a RecipeError for an error of zipfile, and any other error unchanged."""
    is_of_zip = isinstance(error, zipfile.BadZipFile | EOFError | NotImplementedError | zlib.error)
    return RecipeError(f"{path} cannot be read: {one_line(error)}") if is_of_zip else error
