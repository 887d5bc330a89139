"""Read images in folders and zip archives, and the files beside them, within limits of size."""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from vlmdata.readers.find_files import find, is_hidden, is_remote, listing_errors
from vlmdata.readers.open_file import raw_file
from vlmdata.readers.source_images import ENDINGS, LARGEST, OTHER_ENDINGS, in_place, inline
from vlmdata.readers.zip_members import UnusableFile, archive, read_member
from vlmdata.safe_path import Refused, real_path_inside
from vlmdata.step import RecipeError

IMAGES = (*ENDINGS, *OTHER_ENDINGS)
_ARCHIVE = re.compile(r".+\.(zip|tar|tgz|tbz2?|txz|tzst|rar|7z|cab|iso|cbz|cbr|cb7)(\.(gz|bz2|xz|zst|lz4?|lzma|br|z|\d{3}))?")


class FileStore(Protocol):
    """A set of folders or an archive that holds images and files beside them. Paths use `/`."""

    def folders(self) -> set[str]:
        """Return folders that hold a file. The list may be incomplete, so `survey` also examines the folders of its images."""
        ...

    def names(self, folder: str) -> Mapping[str, list[str]]:
        """Return the file names in a folder, grouped by their lower-case form."""
        ...

    def read(self, path: str, most: int) -> bytes:
        """Return a file's bytes. Raises UnusableFile if the file cannot be read or has more than `most` bytes."""
        ...

    def image(self, path: str) -> dict[str, Any]:
        """Return an image as fields of IMAGE. Raises UnusableFile if its file cannot be read."""
        ...


class Folder:
    """A `FileStore` of local or fsspec folders. A link to a file outside `roots` is not read.

    `survey` examines the folders in `whole` with all their subfolders. Of other folders, it examines only those with images.
    """

    def __init__(self, roots: Sequence[str], whole: Sequence[str] = ()) -> None:
        self._roots = roots
        self._whole = whole
        self._names: dict[str, Mapping[str, list[str]]] = {}

    def folders(self) -> set[str]:
        """Return the folders that hold a file: the constructor's folders `whole` and their subfolders at any depth."""
        return {path.rpartition("/")[0] for path in self.members(("",))}

    def members(self, endings: tuple[str, ...]) -> list[str]:
        """Return the paths of the files with one of these endings. Hidden files are left out.

        Only the constructor's folders `whole` are searched, with their subfolders at any depth.
        """
        try:
            return [file.path for file in find(self._whole, endings)] if self._whole else []
        except RecipeError:  # no such file
            return []

    def names(self, folder: str) -> Mapping[str, list[str]]:
        """Return the names in a folder, grouped by their lower-case form. In a local folder, links and pipes are included."""
        if folder not in self._names:
            self._names[folder] = _by_lower_case(_listed(folder))
        return self._names[folder]

    def read(self, path: str, most: int) -> bytes:
        """Return a file's bytes.

        Raises UnusableFile with the reason outside_folder, no_file, unreadable_file or too_large.
        """
        if not is_remote(path):
            self._check(path)
        try:
            if not is_remote(path) and os.path.getsize(path) > most:
                raise UnusableFile("too_large", f"the file is longer than {most:,} bytes")
            with raw_file(path) as file:
                data: bytes = file.read(most + 1)
        except FileNotFoundError:
            raise UnusableFile("no_file", "there is no such file") from None
        except OSError as error:
            raise UnusableFile("unreadable_file", error.strerror or type(error).__name__) from None
        if len(data) > most:
            raise UnusableFile("too_large", f"the file is longer than {most:,} bytes")
        return data

    def image(self, path: str) -> dict[str, Any]:
        """Return an image as fields of IMAGE that refer to its file.

        If the path is not UTF-8, the fields hold the image's bytes instead, because Arrow cannot store the path. Raises
        UnusableFile if the file cannot be read.
        """
        data = self.read(path, LARGEST)
        return in_place(path, 0, data) if _is_text(path) else inline(data)

    def _check(self, path: str) -> None:
        refused = "outside_folder"
        for root in self._roots:
            try:
                real = real_path_inside(path, root)
            except Refused as error:
                refused = str(error)
                continue
            if not os.path.isfile(real):  # opening a pipe would block
                raise UnusableFile("no_file", "the path is not a file")
            return
        raise UnusableFile(refused, "the link leads to a file outside the folder")


class Zip:
    """A `FileStore` of the members of a zip archive. Raises Damage if the archive cannot be read."""

    def __init__(self, path: str) -> None:
        self._path = path
        every = [name for name in archive(path).namelist() if not name.endswith("/")]
        self._members = list(dict.fromkeys(every))
        self.repeats = len(every) - len(self._members)  # of several members with one name, zip reads the last
        names: dict[str, list[str]] = defaultdict(list)
        for name in self._members:
            names[name.rpartition("/")[0]].append(name.rpartition("/")[2])
        self._names = {folder: _by_lower_case(some) for folder, some in names.items()}

    def members(self, endings: tuple[str, ...]) -> list[str]:
        """Return the sorted names of the members that have one of these endings and are not hidden.

        Files that macOS adds count as hidden.
        """
        return sorted(
            name
            for name in self._members
            if name.lower().endswith(endings)
            and not any(is_hidden(part) and part not in (".", "..") for part in name.split("/"))
        )

    def folders(self) -> set[str]:
        """Return the folders that hold a member, without hidden folders."""
        return {folder for folder in self._names if not any(is_hidden(part) for part in folder.split("/"))}

    def names(self, folder: str) -> Mapping[str, list[str]]:
        """Return the names of the members in a folder, grouped by their lower-case form."""
        return self._names.get(folder, {})

    def read(self, path: str, most: int) -> bytes:
        """Return a member's bytes. Raises UnusableFile if the member cannot be read or has more than `most` bytes."""
        return read_member(self._path, path, most)

    def image(self, path: str) -> dict[str, Any]:
        """Return an image as fields of IMAGE, with its bytes.

        Raises UnusableFile, with the reason outside_folder if the member's name points outside the archive.
        """
        if path.startswith("/") or ".." in path.replace("\\", "/").split("/"):
            raise UnusableFile("outside_folder", "the member's name points outside the archive")
        return inline(self.read(path, LARGEST))


def image_at(store: FileStore, path: str) -> dict[str, Any]:
    """Return the image at a path of a store as fields of IMAGE. If it cannot be used, `drop` and `reason` are set."""
    try:
        image = store.image(path)
    except UnusableFile as error:
        return {"drop": "source", "reason": error.reason}
    if image.get("reason") == "not_an_image" and path.lower().endswith(OTHER_ENDINGS):
        image["reason"] = "unsupported_format"
    return image


def beside(store: FileStore, path: str, ending: str) -> list[str]:
    """Return the paths of the files with this ending that belong to an image: `a.jpg.txt` and `a.txt` for `a.jpg`.

    Case is ignored. If the folder also holds `A.jpg`, `a.txt` belongs only to `a.jpg`.
    """
    folder, slash, name = path.rpartition("/")
    names = store.names(folder)
    found: list[str] = []
    for stem in (name, os.path.splitext(name)[0]):
        same = names.get((stem + ending).lower(), [])
        own = [stem + ending] if stem + ending in same else [one for one in same if one.startswith(stem)]
        found += own or [one for one in same if not _is_anothers(one[: len(stem)], names)]
    return [folder + slash + one for one in dict.fromkeys(found)]


def _is_anothers(stem: str, names: Mapping[str, list[str]]) -> bool:
    """Say whether `names` holds an image whose name, with or without its ending, is exactly `stem`."""
    return any(
        os.path.splitext(one)[0] == stem or one == stem for e in ("", *IMAGES) for one in names.get(stem.lower() + e, ())
    )


class Survey(NamedTuple):
    """The result of `survey`: counts of the files that are not images."""

    has_texts: bool  # whether an image has a file beside it that may hold its caption
    orphans: int  # text files that belong to no image
    no_files: int  # broken links, pipes, devices and folders with the name of an image
    archives: int  # .zip, .tar.gz, .rar and similar files, which are not opened

    def others(self) -> dict[str, int]:
        """Return the number of files of each kind, without kinds that have no files."""
        counts = {"text_without_image": self.orphans, "no_file": self.no_files, "archive": self.archives}
        return {name: count for name, count in counts.items() if count}


def survey(store: FileStore, images: Iterable[str], endings: Sequence[str], archives: Iterable[str] = ()) -> Survey:
    """Count the files that are not images, in the folders that hold `images` and in `store.folders()`.

    `endings` are the endings of text files. `archives` are archives that the caller reads, so they are not counted.
    """
    has_texts, orphans, no_files, unread = False, 0, 0, 0
    given: dict[str, set[str]] = {folder: set() for folder in store.folders()}
    for path in images:
        given.setdefault(path.rpartition("/")[0], set()).add(path.rpartition("/")[2])
    read = set(archives)
    lower = [ending.lower() for ending in endings]
    for folder, known in sorted(given.items()):
        names = [name for some in store.names(folder).values() for name in some if not is_hidden(name)]
        shown = {name.lower() for name in names if name.lower().endswith(IMAGES) or name in known}
        stems = shown | {os.path.splitext(name)[0] for name in shown}
        for name in names:
            low, path = name.lower(), f"{folder}/{name}"
            if low in shown:
                no_files += isinstance(store, Folder) and name not in known and not is_remote(path) and not os.path.isfile(path)
            elif is_archive(name):
                unread += path not in read
            elif any(stem in stems for stem in (os.path.splitext(low)[0], *_without(low, lower))):
                has_texts = True
            else:
                orphans += low.endswith(tuple(lower))
    return Survey(has_texts, orphans, no_files, unread)


def _without(name: str, endings: Iterable[str]) -> Iterator[str]:
    """Yield `name` without its ending, once for each entry of `endings` that matches."""
    return (name.removesuffix(one) for one in endings if name.endswith(one))


def is_archive(name: str) -> bool:
    """Say whether a file's name is that of an archive, or of one volume of an archive."""
    return _ARCHIVE.fullmatch(name.lower()) is not None


def _by_lower_case(names: Iterable[str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = defaultdict(list)
    for name in sorted(names):
        found[name.lower()].append(name)
    return dict(found)


def _listed(folder: str) -> Iterable[str]:
    if not is_remote(folder):
        return os.listdir(folder or "/")
    import fsspec

    with listing_errors(folder):
        fs, inside = fsspec.url_to_fs(folder)
        return [info["name"].rstrip("/").rpartition("/")[2] for info in fs.ls(inside, detail=True) if info["type"] == "file"]


def _is_text(path: str) -> bool:
    return path.encode("utf-8", "replace") == path.encode("utf-8", "surrogateescape")
