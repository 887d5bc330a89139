"""A dataset as the loader sees it: the tars behind a path, with their index, found, or made once and kept."""

import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import xxhash

from vlmdata.loader.build import OnError, build_index
from vlmdata.loader.find import Shards, find_shards, is_remote, join
from vlmdata.loader.flat import FlatIndex, open_index
from vlmdata.loader.index import INDEX_FILE

PathLike = str | os.PathLike
CACHE = Path("~/.cache/vlmdata")
CACHE_BYTES = 20_000_000_000  # of remote tars


@dataclass
class Dataset:
    """One indexed set of tars. `base` is the folder or address its shards' names are relative to."""

    name: str
    index: FlatIndex
    index_file: Path
    base: str

    def address(self, shard: int) -> str:
        return join(self.base, self.index.shards[shard])

    @cached_property
    def is_remote(self) -> bool:
        """Whether any of its tars is: those of different servers have no base."""
        return is_remote(self.base) or any(map(is_remote, self.index.shards))


def open_dataset(path: PathLike | Sequence[PathLike], cache: PathLike = CACHE, on_error: OnError = "raise") -> Dataset:
    """Open what `find_shards` understands, a folder with an index.parquet, or an index file.

    Where there is no index, one is made and kept under `cache`, named by the tars' addresses, sizes and times. Raises
    ValueError where tars and index do not belong together; with on_error="skip", missing tars are left for the reader.
    """
    cache = Path(cache).expanduser()
    name = os.fspath(path) if isinstance(path, str | os.PathLike) else ", ".join(os.fspath(one) for one in path)
    file = _index_beside(path, cache)
    if file is None:
        shards = find_shards(path)
        file = cache / "index" / _state_of(shards) / INDEX_FILE
        if not file.exists():
            build_index(shards, out=file, on_error=on_error)
    index = open_index(file, cache)
    dataset = Dataset(name, index, file, _folder_of(path) if index.base is None else index.base)
    if not dataset.is_remote:
        _check_shards(index, dataset.base, file, on_error)
    return dataset


def _index_beside(path: PathLike | Sequence[PathLike], cache: Path) -> Path | None:
    if not isinstance(path, str | os.PathLike):
        return None
    text = os.fspath(path)
    if is_remote(text):
        return _fetch_index(text, cache)
    file = Path(text) if text.endswith(".parquet") else Path(text) / INDEX_FILE
    return file.absolute() if file.is_file() else None


def _fetch_index(address: str, cache: Path) -> Path | None:
    """Copy the index beside remote tars into the cache, under a name that changes with it."""
    import fsspec

    if address.endswith(".tar"):
        return None
    address = address if address.endswith(".parquet") else f"{address.rstrip('/')}/{INDEX_FILE}"
    files, path = fsspec.core.url_to_fs(address)
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


def _state_of(shards: Shards) -> str:
    """A name for these tars as they now are: changed ones get a new index."""
    facts = []
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


def _check_shards(index: FlatIndex, base: str, file: Path, on_error: OnError) -> None:
    """Compare the index with the folder: tars it lacks would be left out silently, tars it misses fail in mid-epoch."""
    there = set(os.listdir(base)) if os.path.isdir(base) else set()  # one listing: 10,000 tars are asked for in 10 ms
    missing = [name for name in index.shards if name not in there and not os.path.exists(join(base, name))]
    if missing:
        what = f"{len(missing)} of the {len(index.shards)} tars of {file} are missing, the first is {join(base, missing[0])}"
        if on_error == "raise":
            raise ValueError(f'{what}. Restore them, index again (vlmdata index), or read the others with on_error="skip"')
        warnings.warn(f"{what}: their samples are skipped", stacklevel=3)
    if file.parent == Path(base):
        unknown = sorted({name for name in there if name.endswith(".tar")} - set(index.shards))
        if unknown:
            raise ValueError(f"{file} does not know {len(unknown)} tars beside it, such as {unknown[0]}: vlmdata index {base}")
