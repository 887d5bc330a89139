"""Images that a source already has, as fields of a row: where their bytes lie, what their header says, their hash."""

from __future__ import annotations

import hashlib
import os
from typing import Any

from vlmdata.images.facts import ImageError
from vlmdata.images.header import read_header
from vlmdata.intake.find import is_remote
from vlmdata.intake.opened import raw_file

ENDINGS = (".jpg", ".jpeg", ".png", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".jfif")
HEADER = 1 << 16  # bytes; enough for all but large colour profiles


def facts(data: bytes, *, whole: bool = True) -> dict[str, Any]:
    """Return format, sizes and, of whole bytes, SHA-256, as fields of IMAGE; or the verdict on bytes that are no image.

    Sizes are those of the upright picture.
    """
    try:
        header = read_header(data)
    except ImageError as error:
        return {"drop": "source", "reason": error.reason}
    width, height = header.upright_size
    found = {"format": header.format, "width": width, "height": height, "original_width": width, "original_height": height}
    found["original_format"] = header.format
    return {**found, "sha256": hashlib.sha256(data).hexdigest()} if whole else found


def in_place(blob: str, offset: int, data: bytes) -> dict[str, Any]:
    """Return an image whose bytes, given whole, stay where they are: in a file of the source."""
    return {"blob": blob, "offset": offset, "size": len(data), **facts(data)}


def inline(data: bytes) -> dict[str, Any]:
    """Return an image whose bytes go along with the row."""
    return {"data": data, **facts(data)}


def file_in_place(path: str) -> dict[str, Any]:
    """Return an image that is a file of its own, by its header alone: `resize` reads the rest, and its hash."""
    try:
        with raw_file(path) as file:
            size = file.size if is_remote(path) else os.fstat(file.fileno()).st_size
            found = facts(file.read(HEADER), whole=False)
            if found.get("reason") in ("truncated", "corrupt") and size > HEADER:  # of a TIFF: a profile beyond what was read
                file.seek(0)
                found = facts(file.read(), whole=False)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError, ValueError):  # no path holds a null byte
        return {"drop": "source", "reason": "no_file"}
    except OSError:
        return {"drop": "source", "reason": "unreadable_file"}
    return {"blob": path if is_remote(path) else os.path.abspath(path), "offset": 0, "size": size, **found}
