"""Find a source's files by path, folder or glob, on the local disk or in any fsspec store."""

from __future__ import annotations

import difflib
import glob
import os
import re
import stat
from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

from vlmdata.arguments import check_protocol
from vlmdata.endpoint import check_answers
from vlmdata.errors import Unreachable
from vlmdata.step import RecipeError
from vlmdata.untrusted import errors_as, one_line


class File(NamedTuple):
    """A file of a source: an absolute local path or an fsspec address, and its size in bytes, or 0 if that is unknown."""

    path: str
    size: int


def find(path: str | Sequence[str], endings: Sequence[str], *, parameter: str = "source.path") -> list[File]:
    """Return the files of `path`, sorted. A folder gives its files at any depth that end in one of `endings`.

    Hidden files in folders are left out. Raises RecipeError if there is no file. `parameter` is the recipe's parameter that
    holds the path, for the message.
    """
    paths = [path] if isinstance(path, str) else list(path)
    if not paths or "" in paths:  # an empty path would mean the working directory
        raise RecipeError(f"{parameter} must name at least one file, folder or glob")
    found: dict[str, int] = {}
    for one in paths:
        with listing_errors(one, parameter):
            if is_remote(one):
                check_protocol(one)
            found.update(_remote(one, endings, parameter) if is_remote(one) else _local(one, endings, parameter))
    return [File(name, found[name]) for name in sorted(found)]


def listing_errors(path: str, parameter: str = "source.path") -> AbstractContextManager[None]:
    """Convert errors in the `with` block to RecipeError. Each store raises errors of its own library, such as botocore."""

    def unlisted(error: Exception) -> Exception:
        if isinstance(error, Unreachable):
            return RecipeError(error)
        if isinstance(error, FileNotFoundError) and is_remote(path):  # the message is only the address
            return RecipeError(f"{path}: there is no such file or folder. Set {parameter} to one that exists")
        return RecipeError(f"{path} cannot be listed: {one_line(error)}")

    return errors_as(unlisted, passes=(RecipeError,))


def is_remote(path: str) -> bool:
    """Say whether a path is an fsspec address (`s3://`, `hf://`, `zip://a::s3://b`)."""
    return "://" in path


def _local(path: str, endings: Sequence[str], parameter: str) -> dict[str, int]:
    path = os.path.abspath(os.path.expanduser(path))
    if os.path.isfile(path):
        return {path: os.path.getsize(path)}
    if os.path.isdir(path):
        return _only(path, _walk(path), endings)
    if glob.has_magic(path):
        names = [name for name in glob.glob(path, recursive=True) if os.path.isfile(name)]
        if names:
            return {name: os.path.getsize(name) for name in names}
        raise RecipeError(f"{path} matches no file. Set {parameter} to a pattern that does")
    if os.path.lexists(path):
        raise RecipeError(f"{path} {_what(path)}. Set {parameter} to a file, folder or pattern that can be read")
    folder, name = os.path.split(path)
    beside = os.listdir(folder) if os.path.isdir(folder) else []
    close = difflib.get_close_matches(name, beside, n=1, cutoff=0.6)
    fix = f"Did you mean '{close[0]}'?" if close else f"Set {parameter} to a file, folder or pattern that exists"
    raise RecipeError(f"{path}: there is no such file or folder. {fix}")


def _what(path: str) -> str:
    """Return what a path is that is neither a file nor a folder, as the end of a sentence."""
    try:
        mode = os.stat(path).st_mode
    except OSError as error:
        is_lost = os.path.islink(path) and isinstance(error, FileNotFoundError)
        return f"is a link to {os.readlink(path)}, which does not exist" if is_lost else f"cannot be read: {error.strerror}"
    kinds = {"a pipe": stat.S_ISFIFO, "a socket": stat.S_ISSOCK, "a device": lambda mode: not stat.S_ISSOCK(mode)}
    return f"is {next(kind for kind, fits in kinds.items() if fits(mode))}, not a file or folder"


def _walk(folder: str) -> dict[str, int]:
    """Return the files in a folder, and their sizes. Raises RecipeError for a folder that cannot be listed."""

    def unlisted(error: OSError) -> None:  # os.walk would leave out the folder and all its files without a word
        fix = "Change its permissions, or move it to another place"
        raise RecipeError(f"{error.filename} cannot be listed: {error.strerror}. {fix}")

    found = {}
    for root, folders, names in os.walk(folder, onerror=unlisted):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            if os.path.isfile(path := os.path.join(root, name)):
                found[path] = os.path.getsize(path)
    return found


def _remote(path: str, endings: Sequence[str], parameter: str) -> dict[str, int]:
    import fsspec

    fs, inside = fsspec.url_to_fs(path)
    check_answers(fs, path)
    if glob.has_magic(inside) and not path.startswith(("http://", "https://")):
        infos = [info for info in fs.glob(inside, detail=True).values() if info["type"] == "file"]
        if not infos:
            raise RecipeError(f"{path} matches no file. Set {parameter} to a pattern that does")
        return {_address(fs, path, info["name"]): info["size"] or 0 for info in infos}
    if fs.isdir(inside):
        infos = [info for info in fs.find(inside, detail=True).values() if info["type"] == "file"]
        return _only(path, {_address(fs, path, info["name"]): info["size"] or 0 for info in infos}, endings)
    return {path: fs.info(inside).get("size") or 0}


def _address(fs: Any, path: str, name: str) -> str:
    """Return the address of the file `name`, which was found under `path`.

    If `path` is a chained address, such as `zip://*.jpg::a.zip`, its first part is replaced by the file.
    """
    first, chained, rest = path.partition("::")
    scheme = first.partition("://")[0]
    plain = name if name.startswith(f"{scheme}://") else f"{scheme}://{name.lstrip('/') if chained else name}"
    return plain + chained + rest


def is_hidden(name: str) -> bool:
    """Say whether a file or folder is hidden, as `.x`, `__MACOSX` and `_metadata` are.

    Names that a camera gives, such as `_DSC0001.JPG`, are not hidden.
    """
    camera = re.match(r"_[A-Z]{2,4}_?\d", name)
    return name.startswith((".", "_")) and camera is None


def _only(folder: str, found: dict[str, int], endings: Sequence[str]) -> dict[str, int]:
    """Return a folder's files that end in one of `endings` and are not hidden. Raises RecipeError if there is no such file."""
    kept = {
        path: size
        for path, size in found.items()
        if path.lower().endswith(tuple(endings)) and not is_hidden(os.path.basename(path))
    }
    if not kept:
        plain = [one for one in endings if not any(one != other and one.startswith(f"{other}.") for other in endings)]
        which = "" if "" in endings else f" that ends in {', '.join(plain)}"
        raise RecipeError(f"{folder}: the folder holds no file{which}")
    return kept
