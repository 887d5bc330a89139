"""Reads samples from tars: one read for a small sample, two reads for each member of a large sample.

Each read compares the tar's headers with the index. Without this check, a tar that was replaced or changed would give other
bytes under the same key.
"""

import os
import resource
import stat
import warnings
from collections import OrderedDict
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vlmdata.errors import Error
from vlmdata.loader.index.build_index import OnError
from vlmdata.loader.index.flat_index import SampleLocation
from vlmdata.loader.index.open_dataset import Dataset
from vlmdata.loader.index.tar import BLOCK
from vlmdata.loader.index.tar_header import SIZE_AT, has_samples, is_member

if TYPE_CHECKING:
    from vlmdata.loader.remote_tars import RemoteTar, RemoteTars

Sample = dict[str, Any]
OPEN_TARS = min(2048, resource.getrlimit(resource.RLIMIT_NOFILE)[0] // 2)  # a window reads up to 1,024 tars in turn
# Size in bytes up to which a sample is read at once, because copying its members takes less time than more reads.
TOGETHER = 1 << 17


class _Ends(dict[str, bytes]):
    """Maps an extension to the bytes that follow the key in a tar header, such as `.jpg\\0`. Each entry is computed once."""

    def __missing__(self, extension: str) -> bytes:
        return self.setdefault(extension, f".{extension}\0".encode())


_ENDS = _Ends()


class DamagedSample(Error, ValueError):
    """Raised for a sample that cannot be read or decoded.

    The message names the shard and the sample, and says how to fix the problem. With on_error="skip", the sample is skipped.
    """


class Reader:
    """Reads the samples of one dataset. A reader can be shared by threads, used after a fork, and pickled."""

    def __init__(self, dataset: Dataset, remote: "RemoteTars | None" = None, on_error: OnError = "raise") -> None:
        self.dataset = dataset
        self.on_error = on_error
        self._remote = remote
        self._process = os.getpid()
        self._open: OrderedDict[int, Tar | RemoteTar] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return self.__dict__ | {"_open": OrderedDict()}

    def read(self, place: SampleLocation) -> Sample:
        """Return the sample as a dict: the bytes of each member under its extension, and the strings `__key__` and `__url__`.

        Raises DamagedSample if the tar cannot be read or differs from the index.
        """
        _, key, shard, names, offsets, sizes = place
        tar = self._open.get(shard) or self._tar(place)
        sample: Sample = {"__key__": key, "__url__": tar.address}
        if not names:
            return sample
        start = offsets[0] - BLOCK
        span = offsets[-1] + sizes[-1] - start
        if not 0 < span <= TOGETHER:
            return self._read_apart(place, tar, sample)
        try:
            data = tar.pread(span, start)
        except OSError as error:
            raise self._damage(place, start, f"the tar cannot be read: {error}") from error
        holds, begin, base, size_at = data.startswith, key.encode(), start + BLOCK, start + BLOCK - SIZE_AT
        for name, offset, size in zip(names, offsets, sizes, strict=True):
            if not holds(begin + _ENDS[name], offset - base) or not holds(b"%011o" % size, offset - size_at):
                return self._read_apart(place, tar, sample)  # the name is long, or the tar differs from the index
            sample[name] = data[offset - start : offset - start + size]
        return sample if len(data) == span else self._read_apart(place, tar, sample)  # fewer bytes mean a truncated tar

    def _read_apart(self, place: SampleLocation, tar: "Tar | RemoteTar", sample: Sample) -> Sample:
        """Add the members of a sample to the dict `sample`, each with a separate read, and return the dict.

        The header of each member is checked first. Large members are not copied. If the index states a size that exceeds the
        tar, no memory is allocated for it.
        """
        for name, offset, size in zip(place.names, place.offsets, place.sizes, strict=True):
            self._confirm(place, tar, name, offset, size)
            there = max(0, tar.size - offset)
            data = self._bytes(place, tar, min(size, there), offset)
            if len(data) != size:
                raise self._damage(place, offset, f"the tar holds only {len(data)} of the {size} bytes of member {name!r}")
            sample[name] = data
        return sample

    def _bytes(self, place: SampleLocation, tar: "Tar | RemoteTar", size: int, offset: int) -> bytes:
        try:
            return tar.pread(size, offset)
        except OSError as error:
            raise self._damage(place, offset, f"the tar cannot be read: {error}") from error

    def confirm(self, place: SampleLocation) -> None:
        """Raise DamagedSample if the header of a member of this sample is not where the index places it."""
        tar = self._open.get(place.shard) or self._tar(place)
        for name, offset, size in zip(place.names, place.offsets, place.sizes, strict=True):
            self._confirm(place, tar, name, offset, size)

    def _confirm(self, place: SampleLocation, tar: "Tar | RemoteTar", name: str, offset: int, size: int) -> None:
        """Raise DamagedSample if the header before this member does not match the member's name and size."""

        def read(at: int, size: int) -> bytes:
            return self._bytes(place, tar, size, at)

        if not is_member(read, f"{place.key}.", name, offset, size):
            raise self._damage(place, offset, f"there is no member {name!r} of {size} bytes")

    def read_at(self, place: SampleLocation, offset: int, size: int) -> bytes:
        """Return `size` bytes at `offset` of the sample's tar, or fewer at the end of the tar."""
        return (self._open.get(place.shard) or self._tar(place)).pread(size, offset)

    def ahead(self, places: list[SampleLocation]) -> None:
        """Prefetch these samples if the tars are remote; do nothing for local tars.

        An error is raised later, when the affected sample is read.
        """
        if self._remote is None:
            return
        spans: dict[int, list[tuple[int, int]]] = {}
        shards: dict[int, SampleLocation] = {}
        for place in places:
            found = zip(place.offsets, place.sizes, strict=True)
            spans.setdefault(place.shard, []).extend((offset - BLOCK, size + BLOCK) for offset, size in found)
            shards[place.shard] = place
        for shard, wanted in spans.items():
            try:
                tar = self._open.get(shard) or self._tar(shards[shard])
            except DamagedSample:
                continue
            self._remote.ahead(tar, wanted)  # type: ignore[arg-type]

    def _tar(self, place: SampleLocation) -> "Tar | RemoteTar":
        address = self.dataset.address(place.shard)
        try:
            tar = Tar(address) if self._remote is None else self._remote.open(address)
        except OSError as error:
            raise self._damage(place, place.offsets[0] if place.offsets else 0, f"the tar cannot be opened: {error}") from error
        if self.dataset.is_beside:
            self._check_end(place, tar)
        self._open[place.shard] = tar
        while len(self._open) > OPEN_TARS:
            self._open.popitem(last=False)  # garbage collection closes the tar once no thread reads from it
        return tar

    def _check_end(self, place: SampleLocation, tar: "Tar | RemoteTar") -> None:
        """Raise DamagedSample, or warn with on_error="skip", if the tar has samples after the last indexed one.

        Without this check, such samples would be left out silently.
        """
        end = int(self.dataset.index.arrays["shard_ends"][place.shard])

        def read(at: int, size: int) -> bytes:
            return self._bytes(place, tar, size, end + at)

        if has_samples(read, tar.size - end):
            damage = self._damage(place, end, "the tar continues here with samples that the index does not list")
            if self.on_error == "raise":
                raise damage
            warnings.warn(f"some samples are not used: {damage}", stacklevel=2)

    def forked(self) -> None:
        """Forget the connections if this process was forked, because two processes must not share a connection."""
        if self._remote is not None and self._process != os.getpid():
            self._process, self._open = os.getpid(), OrderedDict()

    def _damage(self, place: SampleLocation, offset: int, why: str) -> DamagedSample:
        address = self.dataset.address(place.shard)
        return DamagedSample(
            f"{address}, byte {offset}, sample {place.key!r}: {why}. The tar does not match {self.dataset.index_file}."
            " Restore the tar, index the tars again (vlmdata index), or skip damaged samples with"
            ' reading=ReadOptions(on_error="skip")'
        )


def open_readers(datasets: list[Dataset], cache: Path, cache_bytes: int, on_error: OnError = "raise") -> list[Reader]:
    """Return one reader for each dataset.

    The readers of remote datasets share connections and a cache of about `cache_bytes` bytes in the folder `cache`.
    """
    if not any(dataset.is_remote for dataset in datasets):
        return [Reader(dataset, None, on_error) for dataset in datasets]
    from vlmdata.loader.remote_tars import BlockCache, RemoteTars

    (cache / "blocks").mkdir(parents=True, exist_ok=True)
    remote = RemoteTars(BlockCache(cache / "blocks", cache_bytes))
    return [Reader(dataset, remote if dataset.is_remote else None, on_error) for dataset in datasets]


class Tar:
    """An open local tar of `size` bytes, which garbage collection closes.

    `pread(size, offset)` returns fewer bytes at the end of the tar.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._number = os.open(address, os.O_RDONLY | os.O_NONBLOCK)  # a named pipe would block until a writer opens it
        status = os.fstat(self._number)
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"{address} is not a file")
        self.size = status.st_size
        self.pread: Callable[[int, int], bytes] = partial(os.pread, self._number)

    def __del__(self, close: Callable[[int], None] = os.close) -> None:
        if hasattr(self, "_number"):
            close(self._number)  # `close` is an argument, because at interpreter exit the module `os` may already be empty
