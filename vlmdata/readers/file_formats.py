"""Detect a file's format from its first bytes, so that an error can name the format that a source does not read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

from vlmdata.readers.lists import ENDING, Format
from vlmdata.readers.open_file import bare_name, opened
from vlmdata.step import RecipeError

HEAD = 1 << 16  # bytes
MAGIC = {
    b"PAR1": "parquet",
    b"ARROW1": "an Arrow file",
    b"\xff\xff\xff\xff": "an Arrow stream",
    b"PK\x03\x04": "a zip archive",
    b"PK\x05\x06": "a zip archive",
    b"7z\xbc\xaf": "a 7z archive",
    b"Rar!": "a RAR archive",
    b"SQLite format 3": "a SQLite database",
    b"\x89HDF": "HDF5",
    b"\x93NUMPY": "a NumPy array",
    b"\x80\x02": "a pickle",
    b"\x80\x03": "a pickle",
    b"\x80\x04": "a pickle",
    b"\x80\x05": "a pickle",
    b"Obj\x01": "Avro",
    b"ORC": "ORC",
    b"%PDF": "a PDF",
    b"\x89PNG": "an image",
    b"\xff\xd8\xff": "an image",
    b"GIF8": "an image",
    b"RIFF": "an image, a sound or a video",
    b"WARC/": "a web archive",
    b"version https://git-lfs": "a pointer of Git LFS, not the file itself",
}
TAR = b"ustar"  # at byte 257


def format_within(path: str, known: Sequence[Format]) -> Format:
    """Return the format of a file, if it is one of `known`. The file's first bytes take precedence over its name.

    `known` holds some of json, jsonl and parquet. Raises RecipeError, which names the format, for any other format, and for a
    file that cannot be read.
    """
    head, other = _beginning(path)
    named = next((kind for ending, kind in ENDING.items() if bare_name(path).endswith(ending)), None)
    kind = other
    if kind is None and named in ("json", "jsonl"):
        kind = _json(head, named)
    elif kind is None and named == "parquet":
        kind = "parquet" if not head else "not Parquet"
    if kind in known:
        return cast(Format, kind)
    raise RecipeError(f"{path} is {kind or named or 'of an unknown format'}. This source reads {', '.join(known)}")


def check_json(path: str) -> None:
    """Raise RecipeError, which names the format, if a file's first bytes are those of another format than JSON."""
    if other := _beginning(path)[1]:
        raise RecipeError(f"{path} is {other}. This source reads json")


def _beginning(path: str) -> tuple[bytes, str | None]:
    with opened(path) as file:
        head = file.read(HEAD)
    return head, format_of_bytes(head)


def format_of_bytes(head: bytes) -> str | None:
    """Return the format that the first 264 bytes of a file show, such as "parquet" or "a tar", or None if it is not known."""
    if head[257:262] == TAR:
        return "a tar"
    if head.lstrip()[:1] == b"<":
        return "HTML or XML"
    return next((name for magic, name in MAGIC.items() if head.startswith(magic)), None)


def _json(head: bytes, named: str) -> str:
    """Return "json" if the file holds a single array. If not, return `named`, the format that the file's name states."""
    line, _, rest = head.lstrip(b"\xef\xbb\xbf \t\r\n").partition(b"\n")
    is_array = line.startswith(b"[") and not (line.rstrip().endswith(b"]") and rest.strip())
    return "json" if is_array else named
