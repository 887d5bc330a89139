"""A map-style dataset that reads samples by row number, for custom samplers. It does not need torch."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from vlmdata.loader.index.find_tars import PathLike
from vlmdata.loader.index.open_dataset import CACHE, CACHE_BYTES, open_dataset
from vlmdata.loader.order.order import key, noise
from vlmdata.loader.read_samples import Sample, open_readers
from vlmdata.sizes import counted


class Rows:
    """The samples of a dataset by row number: `rows[i]` is sample i of the index, decoded by `decode`.

    `rows.__getitems__([...])` returns several samples at once. DataLoader calls this method for a batch. The samples are not
    shuffled. The `__seed__` of a sample depends only on its row and on `seed`. Indexing raises IndexError for a row past the
    end, and DamagedSample for a sample that cannot be read.
    """

    def __init__(
        self,
        path: PathLike | Sequence[PathLike],
        *,
        decode: Callable[[Sample], Any] | None = None,
        seed: int = 0,
        cache: PathLike = CACHE,
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        self.dataset = open_dataset(path, cache)
        self.decode = decode
        self._of = key(seed, 4)
        (self._reader,) = open_readers([self.dataset], Path(cache).expanduser(), cache_bytes)

    def __len__(self) -> int:
        return len(self.dataset.index)

    def __getitem__(self, row: int) -> Any:
        return self.__getitems__([row])[0]

    def __getitems__(self, rows: Sequence[int]) -> list[Any]:
        """Return the samples of these rows, in this order. Negative row numbers count from the end."""
        numbers = np.asarray(rows, np.int64)
        numbers = np.where(numbers < 0, numbers + len(self), numbers)
        if len(numbers) and (numbers.min() < 0 or numbers.max() >= len(self)):
            raise IndexError(f"some of the rows {list(rows)} do not exist: the dataset has {counted(len(self), 'row')}")
        seeds = (noise(self._of, numbers) >> np.uint64(1)).tolist()
        samples = []
        self._reader.forked()
        for place, seed in zip(self.dataset.index.locate(numbers), seeds, strict=True):
            sample = self._reader.read(place) | {"__seed__": seed}
            samples.append(sample if self.decode is None else self.decode(sample))
        return samples
