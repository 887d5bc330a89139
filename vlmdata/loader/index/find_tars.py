"""Finds the tars of a dataset, which is given as a folder, a tar, a pattern, an address, or a list of these."""

import glob
import os
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path

from vlmdata.arguments import check_protocol
from vlmdata.endpoint import check_answers
from vlmdata.errors import InputError
from vlmdata.loader.index.energon import DEFAULT, Splits, find_split_file, read_splits
from vlmdata.loader.index.missing_tars import no_path_line, no_tar_line, no_tars_line
from vlmdata.sizes import counted, noun

PathLike = str | os.PathLike
_MOST_NAMES = 1_000_000  # most names to which the braces in one untrusted file may expand


@dataclass(frozen=True)
class TarSet:
    """A set of tars.

    `names` are relative to `base`, a folder or an address. `excluded` maps the name of a tar to the keys of samples that are
    left out.
    """

    base: str
    names: list[str]
    excluded: Mapping[str, frozenset[str]] = field(default_factory=dict)

    def address(self, name: str) -> str:
        """Return the path or address of the tar `name`."""
        return join(self.base, name)


def join(base: str, name: str) -> str:
    """Return the path or address of a shard in `base`. A name that is an absolute path or an address is returned unchanged."""
    if "://" in name or os.path.isabs(name):
        return name
    return f"{base.rstrip('/')}/{name}" if "://" in base else os.path.join(base, name)


def first_outside(base: str, names: Iterable[str], listed_in: Path) -> str | None:
    """Return the first name that points outside of `base` (a folder or an address), or None if there is none.

    A name points outside if it is empty, an absolute path or an address, if it contains `..`, or if it is a link to a place
    outside. But a link may point into the folder of `listed_in`, the file that lists the names. If `listed_in` is itself a
    link, the folder of its target counts, because all files of a dataset in a download cache may be links into one folder.
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
            if "::" in name:  # fsspec reads the part after `::` as the address of another file
                return name
        elif "/" in name or name in links:
            place = Path(base, name).resolve()
            if not any(place.is_relative_to(folder) for folder in allowed):
                return name
    return None


def find_shards(paths: PathLike | Sequence[PathLike]) -> TarSet:
    """Return the tars that `paths` names. Raises ValueError with the paths if there are no tars.

    A folder gives its *.tar files or, if it has none, the *.tar files in its subfolders. `{000..123}` and `{a,b}` expand as in
    a shell, and the wildcards *, ? and [] match names. The tars of a folder or pattern are sorted; a list of paths keeps its
    order. In a folder with Energon splits, `FOLDER#val` selects a split. The default split is `train`.
    """
    entries = [paths] if isinstance(paths, str | os.PathLike) else list(paths)
    if not entries:
        raise InputError("no path is given")
    check_protocol(*entries)
    excluded: dict[str, frozenset[str]] = {}
    found = [address for path in entries for address in _expand(os.fspath(path), excluded)]
    if not found:
        raise InputError(no_tars_line([os.fspath(one) for one in entries]))
    twice = len(found) - len(set(found))
    if twice:
        raise InputError(
            f"tars are named twice in {', '.join(map(str, entries))} (duplicates: {twice}). Use weights to repeat a dataset"
        )
    base = _common_folder(found)
    names = [address[len(base) :].lstrip("/") if base else address for address in found]
    return TarSet(base, names, {name: excluded[one] for name, one in zip(names, found, strict=True) if one in excluded})


def is_remote(path: str) -> bool:
    """Return whether a path is an address such as `s3://bucket/a.tar`, which is read through fsspec.

    A `file://` address counts as remote. A plain path to the same file is read faster, without fsspec.
    """
    return "://" in path


def named_split(path: str) -> tuple[str, str | None]:
    """Return the folder and the split that `FOLDER#val` names. If a path names no split, return the path and None."""
    folder, sign, split = path.rpartition("#")
    if not sign or not folder or "/" in split or (not is_remote(path) and os.path.exists(path)):
        return path, None
    return folder, split


def split_file(path: str) -> str | None:
    """Return the Energon split file for `FOLDER` or `FOLDER#split`, or None if there is none."""
    folder, split = named_split(path)
    if folder.endswith((".tar", ".parquet")) or (not is_remote(folder) and not os.path.isdir(folder)):
        return None
    if split is None and folder.startswith("http"):  # a web server may answer anything for a missing name
        return None
    return find_split_file(folder)


def _split(path: str, excluded: dict[str, frozenset[str]]) -> list[str] | None:
    """Return the tars of a split, or None for a path without splits. Add the samples that the split excludes to `excluded`."""
    folder, split = named_split(path)
    file = split_file(path)
    if file is None:
        if split is not None:
            raise InputError(f"{folder} has no .nv-meta/split.yaml, so it has no split #{split}")
        return None
    base = folder if is_remote(folder) else os.path.abspath(folder)
    names, samples = _names_of(read_splits(file), split or DEFAULT, folder)
    outside = first_outside(base, names, Path(file))
    if outside is not None:
        raise InputError(f"{file} names a tar outside of {base}: {outside!r}")
    missing = [name for name in names if not is_remote(base) and not os.path.isfile(join(base, name))]
    if missing:
        verb = noun(len(missing), "is", "are")
        raise InputError(
            f"{file}: {len(missing)} of the {counted(len(names), 'tar')} of the split {split or DEFAULT!r} {verb} missing."
            f" The first is {missing[0]!r}"
        )
    excluded.update({join(base, name): keys for name, keys in samples.items()})
    return [join(base, name) for name in names]


def _names_of(splits: Splits, split: str, folder: str) -> tuple[list[str], dict[str, frozenset[str]]]:
    """Return the tars of a split without the excluded ones, and the keys of excluded samples by tar."""
    if split not in splits.parts:
        others = ", ".join(f"{folder}#{name}" for name in splits.parts)
        raise InputError(f"{splits.file} has no split {split!r}. Use one of: {others}")
    exclude = set(_expand_untrusted(splits.exclude, splits.file))
    names = [name for name in _expand_untrusted(splits.parts[split], splits.file) if name not in exclude]
    if not names:
        raise InputError(f"{splits.file} lists no tars for the split {split!r}")
    keys: dict[str, set[str]] = {name: set() for name in names}
    for entry in exclude:
        name, sign, key = entry.partition(".tar/")
        if sign and f"{name}.tar" in keys:
            keys[f"{name}.tar"].add(key)
    return names, {name: frozenset(own) for name, own in keys.items() if own}


def _expand_untrusted(patterns: list[str], file: str) -> list[str]:
    """Return the names to which untrusted patterns expand.

    Raises ValueError for more than a million names, which would fill the memory.
    """
    names: list[str] = []
    for pattern in patterns:
        count = 1
        for inside in re.findall(r"\{([^{}]*)\}", pattern):
            span = re.fullmatch(r"(\d{1,18})\.\.(\d{1,18})", inside)
            count *= int(span[2]) - int(span[1]) + 1 if span else inside.count(",") + 1
            if (".." in inside and not span) or count + len(names) > _MOST_NAMES:
                raise InputError(f"{file}: {pattern[:80]!r} expands to too many names, or to none")
        names += expand_braces(pattern)
    return names


def _expand(path: str, excluded: dict[str, frozenset[str]]) -> Iterator[str]:
    for one in expand_braces(path):
        tars = _split(one, excluded)
        if tars is not None:
            yield from tars
        elif is_remote(one):
            yield from _expand_remote(one)
        elif any(sign in one for sign in "*?[") and not os.path.exists(one):
            yield from map(os.path.abspath, sorted(glob.glob(one, recursive=True)))
        elif os.path.isdir(one):
            folder = Path(one).absolute()
            yield from map(str, sorted(folder.glob("*.tar")) or sorted(folder.rglob("*.tar")))
        elif os.path.exists(one):
            if (wrong := no_tar_line(one)) is not None:
                raise InputError(wrong)
            yield os.path.abspath(one)
        else:
            raise InputError(no_path_line(one))


def _expand_remote(address: str) -> Iterator[str]:
    import fsspec

    signs = "*[" if address.startswith("http") else "*?["  # a ? begins the query of a web address
    is_pattern = any(sign in address for sign in signs)
    if address.endswith(".tar") and not is_pattern:
        yield address
        return
    files, path = fsspec.core.url_to_fs(address)
    check_answers(files, address)
    pattern = path if is_pattern else path.rstrip("/") + "/*.tar"
    yield from (files.unstrip_protocol(name) for name in sorted(files.glob(pattern)))


def expand_braces(pattern: str) -> list[str]:
    """Return the names to which a pattern with `{000..123}` or `{a,b}` expands, as in a shell.

    Numbers keep their leading zeros.
    """
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
    if base.endswith((":", ":/")) or (not base and any(map(is_remote, addresses))):  # tars on different servers have no base
        return ""
    return base or "/"
