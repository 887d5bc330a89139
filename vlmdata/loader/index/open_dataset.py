"""Opens a dataset for the loader: the tars of a path and their index. A missing index is built once and cached."""

import os
import warnings
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import xxhash

from vlmdata.arguments import check_protocol, paths_of
from vlmdata.endpoint import check_answers
from vlmdata.errors import InputError
from vlmdata.loader.index.build_index import OnError, build_index
from vlmdata.loader.index.find_tars import TarSet, find_shards, first_outside, is_remote, join, named_split, split_file
from vlmdata.loader.index.flat_index import FlatIndex, open_index
from vlmdata.loader.index.grouping import VERSION
from vlmdata.loader.index.index_file import INDEX_FILE, NoIndex, NoSamples
from vlmdata.loader.index.missing_tars import no_samples_line
from vlmdata.sizes import counted, noun

PathLike = str | os.PathLike
CACHE = Path("~/.cache/vlmdata")
CACHE_BYTES = 20_000_000_000  # default size of the cache of remote tars, in bytes


@dataclass
class Dataset:
    """An indexed set of tars.

    `name` is the path that the user gave. The names of shards are relative to `base`, a folder or an address.
    """

    name: str
    index: FlatIndex
    index_file: Path
    base: str

    def address(self, shard: int) -> str:
        """Return the path or address of the shard with this number."""
        return join(self.base, self.index.shards[shard])

    @cached_property
    def is_beside(self) -> bool:
        """Whether the index is in the folder of the tars. Such an index must list all tars of the folder."""
        return self.index_file.parent == Path(self.base)

    @cached_property
    def is_remote(self) -> bool:
        """Whether any tar is remote.

        The names of the tars are checked in addition to `base`. Tars on different servers have no common base, so their names
        are whole addresses.
        """
        return is_remote(self.base) or any(map(is_remote, self.index.shards))

    def state(self) -> str:
        """Return a hash of the index, its path, and the sizes and times of local tars, to be used as a cache key.

        Remote tars are not queried for their sizes and versions. If the index was built from remote tars, its path already
        depends on these facts.
        """
        facts = [self.index.digest, self.base, str(self.index_file)]
        for shard in range(0 if self.is_remote else len(self.index.shards)):
            with suppress(OSError):  # a missing tar
                stat = os.stat(self.address(shard))
                facts.append(f"{shard} {stat.st_size} {stat.st_mtime_ns}")
        return xxhash.xxh3_64_hexdigest("\n".join(facts).encode())


def open_dataset(path: PathLike | Sequence[PathLike], cache: PathLike = CACHE, on_error: OnError = "raise") -> Dataset:
    """Return the dataset for a path: a path for `find_shards`, a folder with an index.parquet, or an index file.

    In a folder with Energon splits, the function opens one split and ignores the folder's index. A missing index is built and
    kept in `cache`, under a hash of the addresses, sizes and times of the tars. Raises ValueError if tars and index do not
    match, or if there are no samples. With on_error="skip", missing tars cause a warning, and the reader skips their samples.
    """
    paths = paths_of(path=path)
    path = paths[0] if isinstance(path, str | os.PathLike) else paths
    check_protocol(*paths)
    cache = Path(cache).expanduser()
    name = ", ".join(paths)
    try:
        dataset = _open(path, name, cache, on_error)
    except NoSamples:
        raise NoSamples(no_samples_line(name)) from None
    if not dataset.is_remote:
        _check_shards(dataset, on_error)
    return dataset


def _open(path: PathLike | Sequence[PathLike], name: str, cache: Path, on_error: OnError) -> Dataset:
    file = _index_beside(path, cache)
    if file is not None:
        index = _opened(file, name, cache)
        is_given = name.endswith(".parquet") and not is_remote(name)
        return Dataset(name, index, file, _base_of(index, path, file, is_given=is_given))
    shards = find_shards(path)
    file = cache / "index" / _state_of(shards) / INDEX_FILE
    return Dataset(name, _kept_index(shards, file, cache, on_error), file, shards.base)


def _opened(file: Path, name: str, cache: Path) -> FlatIndex:
    """Return the index in a file. If the file is a damaged copy of a remote index, the index is fetched again once."""
    if not is_remote(name):
        return open_index(file, cache)
    with suppress(NoIndex):
        return open_index(file, cache)
    file.unlink(missing_ok=True)
    _fetch_index(name, cache)
    try:
        return open_index(file, cache)
    except NoSamples:
        raise
    except NoIndex as error:
        raise NoIndex(f"{name}: {error}") from None


def _base_of(index: FlatIndex, path: PathLike | Sequence[PathLike], file: Path, *, is_given: bool) -> str:
    """Return the folder or address of an index's tars.

    This is the base that the index records or, if the index records no base, the folder of the index. `is_given` says whether
    the user named the index file. Raises InputError if the index records a base but the user did not name the file.
    """
    base = _folder_of(path)
    if index.base is not None:
        if not is_given:
            raise InputError(
                f"the tars that {file} lists are not beside this file, but in {index.base or 'several places'}."
                " Pass the path of the index file instead of the path of its folder"
            )
        base = index.base
    name = first_outside(base, index.shards, file) if base else None  # without a base, names are full addresses
    if name is not None:
        raise InputError(f"{file} names a tar outside of {base}: {name!r}. Index the tars in {base} again (vlmdata index)")
    return base


def _kept_index(shards: TarSet, file: Path, cache: Path, on_error: OnError) -> FlatIndex:
    """Return the index of these tars from the cache. The index is built if it is missing or damaged."""
    if file.exists():
        with suppress(NoIndex):
            return open_index(file, cache)
    build_index(shards, out=file, on_error=on_error)
    return open_index(file, cache)


def _index_beside(path: PathLike | Sequence[PathLike], cache: Path) -> Path | None:
    if not isinstance(path, str | os.PathLike):
        return None
    text = os.fspath(path)
    if split_file(text) is not None or named_split(text)[1] is not None:
        return None  # the index beside the tars lists the tars of all splits
    if is_remote(text):
        return _fetch_index(text, cache)
    file = Path(text) if text.endswith(".parquet") else Path(text) / INDEX_FILE
    if file.exists() and not file.is_file():
        raise InputError(f"{file} is not a file. Remove it, or restore the index")
    return file.absolute() if file.is_file() else None


def _fetch_index(address: str, cache: Path) -> Path | None:
    """Copy the index beside remote tars into the cache, under a hash of its address, size and version.

    Return the path of the copy, or None if there is no index.
    """
    import fsspec

    if address.endswith(".tar"):
        return None
    address = address if address.endswith(".parquet") else f"{address.rstrip('/')}/{INDEX_FILE}"
    files, path = fsspec.core.url_to_fs(address)
    check_answers(files, address)
    if not files.exists(path):
        return None
    copy = cache / "index" / _named(address, files.info(path)) / INDEX_FILE
    if not copy.exists():
        part = copy.with_name(f".{os.getpid()}")
        part.parent.mkdir(parents=True, exist_ok=True)
        files.get_file(path, str(part))
        os.replace(part, copy)
    return copy


def _folder_of(path: PathLike | Sequence[PathLike]) -> str:
    assert isinstance(path, str | os.PathLike)
    text = os.fspath(path)
    folder = text.rpartition("/")[0] if text.endswith(".parquet") else text.rstrip("/")
    return folder if is_remote(text) else os.path.abspath(folder or ".")


def _state_of(shards: TarSet) -> str:
    """Return the name of the cache folder for the index of these tars.

    It is a hash of the addresses, sizes and times of the tars, of the excluded samples, and of the VERSION of the grouping.
    """
    facts = [f"version {VERSION}", *(f"{name} without {sorted(keys)}" for name, keys in sorted(shards.excluded.items()))]
    for address in map(shards.address, shards.names):
        if is_remote(address):
            import fsspec

            files, path = fsspec.core.url_to_fs(address)
            facts.append(_named(address, files.info(path)))
        else:
            stat = os.stat(address)
            facts.append(f"{address} {stat.st_size} {stat.st_mtime_ns}")
    return xxhash.xxh3_64_hexdigest("\n".join(facts).encode())


def _named(address: str, info: dict) -> str:
    marks = [str(info[mark]) for mark in ("size", "mtime", "ETag", "etag", "LastModified", "last_modified") if info.get(mark)]
    return xxhash.xxh3_64_hexdigest(" ".join([address, *marks]).encode())


def _check_shards(dataset: Dataset, on_error: OnError) -> None:
    """Raise InputError if tars are missing, or if an index beside the tars does not list all of them.

    Without this check, missing tars would fail in the middle of an epoch, and unlisted tars would be left out silently. With
    on_error="skip", missing tars cause a warning.
    """
    index, base, file = dataset.index, dataset.base, dataset.index_file
    there = set(os.listdir(base)) if os.path.isdir(base) else set()  # one listing takes 10 ms for 10,000 tars
    missing = [name for name in index.shards if name not in there and not os.path.exists(join(base, name))]
    if missing:
        found = f"{len(missing)} of the {counted(len(index.shards), 'tar')} of {file} {noun(len(missing), 'is', 'are')} missing"
        what = f"{found}. The first is {join(base, missing[0])!r}"
        if on_error == "raise":
            raise InputError(
                f"{what}. Restore the tars, index again (vlmdata index), or skip missing tars with"
                ' reading=ReadOptions(on_error="skip")'
            )
        warnings.warn(f"{what}. The samples of missing tars are skipped", stacklevel=3)
    if dataset.is_beside:
        unknown = sorted({name for name in there if name.endswith(".tar")} - set(index.shards))
        if unknown:
            raise InputError(
                f"{file} does not list {counted(len(unknown), 'tar')} beside it, such as {unknown[0]}."
                f" Run `vlmdata index {base}`"
            )
