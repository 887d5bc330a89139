"""From what a user calls a dataset to its tars: a folder, a tar, a pattern, an address, or a list of these."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

PathLike = str | os.PathLike


@dataclass(frozen=True)
class Shards:
    """Tars: `names` relative to `base`, a folder or an address."""

    base: str
    names: list[str]

    def address(self, name: str) -> str:
        return join(self.base, name)


def join(base: str, name: str) -> str:
    """The address of a shard: absolute names and addresses stand for themselves."""
    if "://" in name or os.path.isabs(name):
        return name
    return f"{base.rstrip('/')}/{name}" if "://" in base else os.path.join(base, name)


def first_outside(base: str, names: Iterable[str], listed_in: Path) -> str | None:
    """The first name that leads out of `base`, the folder or address that a list of names speaks of, if one does.

    An absolute path, an address, `..`, or a link to elsewhere lead out; a link to where the file `listed_in` really lies
    does not, for a cache of downloads keeps all files of a dataset elsewhere.
    """
    links: set[str] = set()
    allowed = [Path(base).resolve(), listed_in.resolve().parent]
    if not is_remote(base) and os.path.isdir(base):
        with os.scandir(base) as entries:
            links = {entry.name for entry in entries if entry.is_symlink()}
    for name in names:
        if not name or os.path.isabs(name) or ".." in name.split("/") or any(sign in name for sign in ("://", "\0")):
            return name
        if is_remote(base):
            if "::" in name:  # fsspec takes what follows for the address of another file
                return name
        elif "/" in name or name in links:
            place = Path(base, name).resolve()
            if not any(place.is_relative_to(folder) for folder in allowed):
                return name
    return None


def find_shards(paths: PathLike | Sequence[PathLike]) -> Shards:
    """List the tars that `paths` means. Raises ValueError, saying what was looked for, if there are none.

    A folder means its *.tar, or those of its subfolders if it has none of its own; `{000..123}` and `{a,b}` are expanded as
    by a shell, * ? [] are matched. Listings are sorted; what is listed one by one keeps its order.
    """
    given = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    found = [address for path in given for address in _expand(os.fspath(path))]
    if not found:
        raise ValueError(f"no tars in {', '.join(map(str, given))}")
    twice = len(found) - len(set(found))
    if twice:
        raise ValueError(f"{twice} tars are named twice in {', '.join(map(str, given))}: give weights to repeat a dataset")
    base = _common_folder(found)
    return Shards(base, [address[len(base) :].lstrip("/") if base else address for address in found])


def is_remote(path: str) -> bool:
    """Whether a path is an address for fsspec; `file://` is one too, but plain paths are read faster."""
    return "://" in path


def _expand(path: str) -> Iterator[str]:
    for one in expand_braces(path):
        if is_remote(one):
            yield from _expand_remote(one)
        elif any(sign in one for sign in "*?[") and not os.path.exists(one):
            yield from map(os.path.abspath, sorted(glob.glob(one, recursive=True)))
        elif os.path.isdir(one):
            folder = Path(one).absolute()
            yield from map(str, sorted(folder.glob("*.tar")) or sorted(folder.rglob("*.tar")))
        elif os.path.exists(one):
            yield os.path.abspath(one)
        else:
            raise ValueError(f"{one} does not exist")


def _expand_remote(address: str) -> Iterator[str]:
    import fsspec

    signs = "*[" if address.startswith("http") else "*?["  # a ? begins the query of a web address
    is_pattern = any(sign in address for sign in signs)
    if address.endswith(".tar") and not is_pattern:
        yield address
        return
    files, path = fsspec.core.url_to_fs(address)
    pattern = path if is_pattern else path.rstrip("/") + "/*.tar"
    yield from (files.unstrip_protocol(name) for name in sorted(files.glob(pattern)))


def expand_braces(pattern: str) -> list[str]:
    """Write out `{000..123}` (digits keep their width) and `{a,b}`, as a shell does."""
    parts = re.split(r"\{([^{}]*)\}", pattern)
    choices: list[list[str]] = []
    for number, part in enumerate(parts):
        span = re.fullmatch(r"(\d+)\.\.(\d+)", part)
        if number % 2 == 0:
            choices.append([part])
        elif span:
            first, last = span.groups()
            choices.append([str(value).zfill(len(first)) for value in range(int(first), int(last) + 1)])
        else:
            choices.append(part.split(","))
    return ["".join(choice) for choice in product(*choices)]


def _common_folder(addresses: list[str]) -> str:
    folders = [address.rpartition("/")[0] for address in addresses]
    base = folders[0]
    while base and any(folder != base and not folder.startswith(base + "/") for folder in folders):
        base = base.rpartition("/")[0]
    if base.endswith((":", ":/")) or (not base and any(map(is_remote, addresses))):  # of different servers: whole addresses
        return ""
    return base or "/"
