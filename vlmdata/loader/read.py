"""Samples from tars: one read for each member, no header parsed."""

import os
import resource
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmdata.loader.dataset import Dataset
from vlmdata.loader.flat import Place

if TYPE_CHECKING:
    from vlmdata.loader.remote import RemoteTar, RemoteTars

Sample = dict[str, Any]
OPEN_TARS = min(2048, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)  # a window reads up to 1,024 tars in turn


class DamagedSample(ValueError):
    """A sample that cannot be read or decoded: names the shard, the byte and what to do. on_error="skip" passes over it."""


class Reader:
    """Reads samples of one dataset. Safe for threads, and in processes that were forked or sent a copy."""

    def __init__(self, dataset: Dataset, remote: "RemoteTars | None" = None) -> None:
        self.dataset = dataset
        self._remote = remote
        self._process = os.getpid()
        self._open: OrderedDict[int, Tar | RemoteTar] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}

    def read(self, place: Place) -> Sample:
        """Return the sample's members as bytes, by extension, with `__key__` and `__url__`. Raises DamagedSample."""
        _, key, shard, names, offsets, sizes = place
        tar = self._open.get(shard) or self._tar(place)
        pread = tar.pread
        sample: Sample = {"__key__": key, "__url__": tar.address}
        for name, offset, size in zip(names, offsets, sizes, strict=True):
            try:
                sample[name] = data = pread(size, offset)
            except OSError as error:
                raise self._damage(place, offset, f"member {name!r} cannot be read: {error}") from error
            if len(data) != size:
                raise self._damage(place, offset, f"member {name!r} has {len(data)} of its {size} bytes")
        return sample

    def read_at(self, place: Place, offset: int, size: int) -> bytes:
        """Return bytes of the sample's tar, fewer at its end."""
        return (self._open.get(place.shard) or self._tar(place)).pread(size, offset)

    def ahead(self, places: list[Place]) -> None:
        """Fetch what these samples need soon; nothing to do for local tars. Errors are left for the reading itself."""
        if self._remote is None:
            return
        spans: dict[int, list[tuple[int, int]]] = {}
        shards: dict[int, Place] = {}
        for place in places:
            spans.setdefault(place.shard, []).extend(zip(place.offsets, place.sizes, strict=True))
            shards[place.shard] = place
        for shard, found in spans.items():
            try:
                tar = self._open.get(shard) or self._tar(shards[shard])
            except DamagedSample:
                continue
            self._remote.ahead(tar, found)  # type: ignore[arg-type]

    def _tar(self, place: Place) -> "Tar | RemoteTar":
        address = self.dataset.address(place.shard)
        try:
            tar = Tar(address) if self._remote is None else self._remote.open(address)
        except OSError as error:
            raise self._damage(place, place.offsets[0] if place.offsets else 0, f"cannot be opened: {error}") from error
        self._open[place.shard] = tar
        while len(self._open) > OPEN_TARS:
            self._open.popitem(last=False)  # closed when the last thread that reads from it lets go
        return tar

    def forked(self) -> None:
        """Drop what a forked process must not use: connections of its parent."""
        if self._remote is not None and self._process != os.getpid():
            self._process, self._open = os.getpid(), OrderedDict()

    def _damage(self, place: Place, offset: int, why: str) -> DamagedSample:
        address = self.dataset.address(place.shard)
        return DamagedSample(
            f"{address}, byte {offset}, sample {place.key!r}: {why}. The tar is not what {self.dataset.index_file} describes:"
            f' restore it, index again (vlmdata index), or pass over such samples with on_error="skip"'
        )


def open_readers(datasets: list[Dataset], cache: Path, cache_bytes: int) -> list[Reader]:
    """A reader for each dataset; the remote ones share one cache of at most `cache_bytes`, and its connections."""
    if not any(dataset.is_remote for dataset in datasets):
        return [Reader(dataset) for dataset in datasets]
    from vlmdata.loader.remote import BlockCache, RemoteTars

    (cache / "blocks").mkdir(parents=True, exist_ok=True)
    remote = RemoteTars(BlockCache(cache / "blocks", cache_bytes))
    return [Reader(dataset, remote if dataset.is_remote else None) for dataset in datasets]


class Tar:
    """An open local tar. `pread(size, offset)` gives bytes, fewer at its end; it is closed when nobody holds it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._number = os.open(address, os.O_RDONLY)
        self.pread: Callable[[int, int], bytes] = partial(os.pread, self._number)

    def __del__(self) -> None:
        if hasattr(self, "_number"):
            os.close(self._number)
