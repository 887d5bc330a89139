"""Read evaluation sets: images and texts in folders, tars or single files."""

import hashlib
import json
import tarfile
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".bmp", ".avif", ".tif", ".tiff")
TEXTS = (".txt", ".json", ".jsonl", ".parquet")
TARS = (".tar", ".tar.gz", ".tgz")


def files_of(path: str, endings: tuple[str, ...]) -> list[Path]:
    """Return all tars and all files with one of the endings under a path, sorted. Raises ValueError if there are none."""
    root = Path(path)
    files = [root] if root.is_file() else sorted(file for file in root.rglob("*") if file.is_file())
    found = [file for file in files if file.name.lower().endswith((*endings, *TARS))]
    if not found:
        raise ValueError(f"{path}: no file ends in {', '.join((*endings, *TARS))}")
    return found


def members(path: str, endings: tuple[str, ...]) -> Iterator[tuple[str, bytes]]:
    """Yield (name, bytes) of each file that has one of the endings, including files in tars. Paths are sorted."""
    for file in files_of(path, endings):
        if not file.name.lower().endswith(TARS):
            yield str(file), file.read_bytes()
            continue
        with tarfile.open(file, "r|*") as tar:
            for member in tar:
                body = tar.extractfile(member) if member.name.lower().endswith(endings) else None
                if body is not None:
                    yield f"{file}/{member.name}", body.read()
                tar.members = []  # type: ignore[attr-defined]  # tarfile keeps every header, so a large tar would leak memory


def texts_in(path: str) -> list[str]:
    """Return every text of an evaluation set.

    A text is a line of a .txt file, or a string at any depth in a .json, .jsonl or .parquet file.
    """
    return [text for name, data in members(path, TEXTS) for text in texts_of(name, data)]


def texts_of(name: str, data: bytes) -> Iterator[str]:
    """Yield the texts of one file, whose name states its format. `data` is the file's content.

    A text is a line of a .txt file, or a string at any depth in a .json, .jsonl or .parquet file. Raises ValueError for a .json
    or .jsonl file that is not valid JSON.
    """
    if name.lower().endswith(".parquet"):
        table = pq.read_table(BytesIO(data))
        for column in table.columns:
            if not pa.types.is_binary(column.type):
                yield from strings_in(column.to_pylist())
        return
    lines = data.decode("utf-8", "replace").splitlines()
    if name.lower().endswith(".txt"):
        yield from lines
        return
    whole = [data] if name.lower().endswith(".json") else lines
    for line in whole:
        if line.strip():
            try:
                yield from strings_in(json.loads(line))
            except ValueError as error:
                raise ValueError(
                    f"{name} is not valid JSON ({error}). Correct the file, because an evaluation set must be read in full"
                ) from None


def strings_in(value: Any) -> Iterator[str]:
    """Yield every string in nested lists and mappings, except the keys of mappings."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from strings_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from strings_in(inner)


def identity_of(paths: tuple[str, ...], endings: tuple[str, ...]) -> str:
    """Return a hash of the files' names and sizes, which identifies the files without reading them."""
    found = [(file.name, file.stat().st_size) for path in paths for file in files_of(path, endings)]
    return hashlib.sha256(repr(sorted(found)).encode()).hexdigest()[:16]
