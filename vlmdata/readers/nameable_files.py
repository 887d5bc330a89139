"""Check the files that a dataset's rows name. They must be in the dataset's folder, or be made by the library `datasets`."""

from __future__ import annotations

import glob
import os
import re
from dataclasses import dataclass
from typing import Any

from vlmdata.readers.find_files import is_remote
from vlmdata.readers.open_file import Damage
from vlmdata.readers.source_images import LARGEST, file_in_place, image_named, inline
from vlmdata.readers.zip_members import UnusableFile, read_member
from vlmdata.safe_path import Refused, real_path_inside


def folder_of(path: str, endings: tuple[str, ...]) -> str:
    """Return the folder of a user's path: the path itself, the folder of the file, or the folder before a glob's wildcards.

    An address is not opened to see whether it is a file: it counts as a file if it ends in one of `endings`.
    """
    local = os.path.expanduser(path)
    if os.path.isdir(local):
        return local
    first, chained, rest = path.partition("::")  # in a chained address the first part is the folder
    fixed = re.split(r"[*?\[]", first, maxsplit=1)[0]
    if not is_remote(path):
        return os.path.abspath(os.path.dirname(os.path.expanduser(fixed)))  # dirname first: abspath removes a final slash
    is_file = fixed != first or first.lower().endswith(endings)
    return (fixed.rpartition("/")[0] if is_file else first) + chained + rest


def is_folder(path: str, endings: tuple[str, ...]) -> bool:
    """Say whether a user's path is a folder. An address that ends in one of `endings` or is a glob is not a folder."""
    if is_remote(path):
        return not glob.has_magic(path) and not path.lower().endswith(endings)
    return os.path.isdir(os.path.expanduser(path))


@dataclass(frozen=True)
class Reach:
    """The files that a row's image may name.

    `folder` is the dataset's folder or address. Names in rows are relative to it. If the dataset is an image folder, `made_in`
    holds the folders and address prefixes where the library `datasets` stores or finds the images. Otherwise, it is empty.
    """

    folder: str
    made_in: tuple[str, ...] = ()

    def image(self, value: object) -> dict[str, Any]:
        """Return the image that a row's value holds or names. If it cannot be used, `drop` and `reason` are set."""
        where = value.get("path") if isinstance(value, dict) and value.get("bytes") is None else None
        if not isinstance(where, str) or not any(self._is_made(where, root) for root in self.made_in):
            return image_named(value, self.folder)
        if "::" not in where:
            return file_in_place(where)
        member, _, archive = where.partition("::")
        try:
            return inline(read_member(archive, member.removeprefix("zip://"), LARGEST))
        except Damage:
            return {"drop": "source", "reason": "unreadable_file"}
        except UnusableFile as error:
            return {"drop": "source", "reason": error.reason}

    def _is_made(self, where: str, root: str) -> bool:
        """Say whether `where` is a path as the library `datasets` writes it: a file or a member of a zip, in `root`."""
        member, chained, file = where.partition("::")
        if chained and (not member.startswith("zip://") or member.count("://") > 1 or "::" in file):
            return False
        file = file if chained else where
        if is_remote(root):
            return file.startswith(root) and ".." not in file.split("/")
        if is_remote(file):
            return False
        try:
            return os.path.isfile(real_path_inside(file, root))
        except Refused:
            return False
