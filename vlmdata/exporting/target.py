"""Checks the folder that an export writes: its name, its place, and whether it can be created."""

from __future__ import annotations

import os
from pathlib import Path

from vlmdata.engine.store.folder_store import existing_parent
from vlmdata.errors import RecipeError

NAME_BYTES = 255  # most bytes of a file's name on Linux's file systems
DRAFT_BYTES = 32  # bytes that the name of the hidden folder of an unfinished export has more than the target's


def check_name(target: str | Path) -> None:
    """Raise RecipeError if the name of the target cannot be that of a folder, or cannot be stored in the files of an export."""
    text = str(target)
    if "://" in text:
        raise RecipeError(f"{text}: export writes to a folder on this machine, not to an address")
    if any(ord(sign) < 32 for sign in text):
        raise RecipeError(f"{text!r}: the name has a control character. Name another folder")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise RecipeError(f"{text!a}: the name is not UTF-8. Name another folder") from None
    longest = max((len(part.encode()) for part in Path(text).parts), default=0)
    if longest > NAME_BYTES or len(Path(text).name.encode()) > NAME_BYTES - DRAFT_BYTES:
        raise RecipeError(f"{text[:100]}...: the name is too long. Name a folder with at most {NAME_BYTES - DRAFT_BYTES} bytes")


def check_place(target: Path, out: str | Path) -> None:
    """Raise RecipeError if the target is inside the dataset `out`, or if its parent is not a folder that can be written."""
    folder = str(out).removeprefix("file://")
    if "://" not in folder and target.resolve().is_relative_to(Path(folder).resolve()):
        raise RecipeError(f"{target} is inside the dataset {out}. Name a folder outside of it")
    parent = existing_parent(target.parent)
    if not parent.is_dir():
        raise RecipeError(f"{target} cannot be created, because {parent} is not a folder. Name another folder")
    status = os.statvfs(parent)
    if not status.f_blocks or not os.access(parent, os.W_OK | os.X_OK):  # a place such as /proc has no blocks
        raise RecipeError(
            f"{target} cannot be created, because {parent} does not allow it. Change its permissions, or name another folder"
        )
