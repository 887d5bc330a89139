"""Measures the length of each sample in tokens, in parallel, and caches the lengths.

The trainer provides the function that measures a sample, because the length depends on the tokenizer, the template and the
image tokens. Only the size of an image is read, not its pixels.
"""

import functools
import multiprocessing
import os
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, replace
from fractions import Fraction
from numbers import Integral
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import xxhash
from numpy.typing import NDArray

from vlmdata.errors import InputError
from vlmdata.fields import RAW
from vlmdata.images.formats import IMAGE_EXTENSIONS
from vlmdata.loader.captions import (
    SYNTHETIC,
    Weights,
    WeightTable,
    chances,
    code_of,
    count_groups,
    draw,
    draw_by_weights,
    table_of,
)
from vlmdata.loader.index.flat_index import SampleLocation
from vlmdata.loader.index.index_file import NoIndex, numbers_of, parsing
from vlmdata.loader.index.open_dataset import Dataset
from vlmdata.loader.index.scan_tar import image_size
from vlmdata.loader.order.order import Ints
from vlmdata.loader.read_samples import DamagedSample, Reader, Sample
from vlmdata.process.interrupt import ignore

Measure = Callable[[Sample], int | list[int] | list[tuple[int, str | None]]]
Report = Callable[[int, int], None]
_Measured = tuple[NDArray[np.int32], Ints, Ints]  # lengths and codes of some rows, concatenated; number of lengths of each row
LENGTHS_VERSION = 4  # version of the file format and of the measurement
DAMAGED = (1 << 31) - 1  # length of an unreadable sample with on_error="skip"; longer than any pack
_ROWS = 4096  # rows that one task measures
_AT_ONCE = 1 << 20  # rows whose weighted mean is computed together
_UNKNOWN = -1  # code of a caption whose origin `measure` did not return


@dataclass
class Lengths:
    """The lengths of the samples of a dataset in tokens.

    A row with alternative captions has one length per caption: `values[starts[r]:starts[r + 1]]`. If no row has alternatives,
    `starts` is None and row r has the length `values[r]`. `codes` holds the origin of each caption, as `code_of` returns it, or
    is None if origins are unknown or no row has alternatives. Without `weights`, all captions of a row are equally likely.
    `digest` is a hash of the lengths and, with weights, of the codes and weights.
    """

    values: NDArray[np.int32]
    starts: Ints | None
    digest: str
    codes: Ints | None = None
    weights: WeightTable | None = None

    def weighted(self, captions: Weights) -> "Lengths":
        """Return the same lengths, with captions drawn by weights: see `vlmdata.loader.captions`.

        Raises InputError if `measure` did not return the origins of captions.
        """
        if self.starts is None:
            return self
        if self.codes is None:
            raise InputError(
                "captions has weights, but `measure` returned lengths without origins. For a sample with alternatives, return"
                " a list of pairs (length, origin), with the origins of `vlmdata.loader.captions.origins_of`"
            )
        table = table_of(captions)
        marks = [self.digest, _digest(self.codes, None), table.weights.tolist(), table.codes.tolist()]
        return replace(self, weights=table, digest=xxhash.xxh3_64_hexdigest(repr(marks).encode()))

    def at(self, rows: Ints, seeds: Ints) -> Ints:
        """Return the lengths of the samples in these rows, each with the caption that its seed draws.

        `seeds` holds the `__seed__` of each sample.
        """
        if self.starts is None:
            return self.values[rows].astype(np.int64)
        first = self.starts[rows]
        counts = self.starts[rows + 1] - first
        if self.weights is None or self.codes is None:
            return self.values[first + draw(seeds, counts)].astype(np.int64)
        starts = np.concatenate([[0], np.cumsum(counts)])
        places = np.arange(starts[-1]) + np.repeat(first - starts[:-1], counts)
        drawn = draw_by_weights(seeds.astype(np.uint64), self.codes[places], starts, self.weights)
        return self.values[first + drawn].astype(np.int64)

    def can_be_drawn(self) -> NDArray[np.bool_]:
        """Return for each length whether a sample can draw its caption."""
        if self.starts is None or self.weights is None or self.codes is None:
            return np.ones(len(self.values), bool)
        groups = self.weights.groups(self.codes)
        likely = chances(count_groups(groups, self.starts, self.weights), self.weights) > 0
        return likely[np.repeat(np.arange(len(likely)), np.diff(self.starts)), groups]

    def mean(self) -> Fraction:
        """Return the exact mean length of a sample in tokens over its captions, as likely as they are drawn."""
        if self.starts is None:
            return Fraction(int(self.values.sum(dtype=np.int64)), len(self.values))
        if self.weights is not None and self.codes is not None:
            firsts = range(0, len(self.starts) - 1, _AT_ONCE)
            parts = (self._weighted_sum(first, self.codes, self.starts, self.weights) for first in firsts)
            return sum(parts, Fraction(0)) / (len(self.starts) - 1)
        counts = np.diff(self.starts)
        sums = np.add.reduceat(self.values.astype(np.int64), self.starts[:-1])
        return _sum_of_quotients(sums, counts) / len(counts)

    def _weighted_sum(self, first: int, codes: Ints, starts: Ints, table: WeightTable) -> Fraction:
        """Return the sum of the mean lengths of `_AT_ONCE` rows, from the row `first`."""
        starts = starts[first : first + _AT_ONCE + 1]
        part = slice(starts[0], starts[-1])
        starts, groups = starts - starts[0], table.groups(codes[part])
        counts = count_groups(groups, starts, table)
        cells = np.repeat(np.arange(len(counts)) * counts.shape[1], np.diff(starts)) + groups
        sums = np.zeros(counts.size, np.int64)
        np.add.at(sums, cells, self.values[part])
        tokens: Ints = sums.reshape(counts.shape)
        likely = chances(counts, table)
        is_weighted = ((counts[:, :-1] > 0) & (table.weights > 0)).any(axis=1)
        alike, can = ~is_weighted, likely > 0  # in rows without a weighted group, all captions that can be drawn are alike
        whole = _sum_of_quotients((tokens * can)[alike].sum(axis=1), (counts * can)[alike].sum(axis=1))
        for row in np.unique(likely[is_weighted], axis=0):
            shares = [Fraction(one) for one in row.tolist()]
            same = is_weighted & (likely == row).all(axis=1)
            for group in np.flatnonzero(row).tolist():
                whole += shares[group] / sum(shares) * _sum_of_quotients(tokens[same, group], counts[same, group])
        return whole


def check_named(captions: Weights, lengths: Sequence[Lengths]) -> None:
    """Raise InputError if `captions` names a step that wrote no caption in any of the datasets, such as a misspelt name.

    `lengths` has passed `Lengths.weighted`.
    """
    known = [one.codes for one in lengths if one.codes is not None]
    for name in captions:
        if name not in (RAW, SYNTHETIC) and not any((codes == code_of(name)).any() for codes in known):
            raise InputError(
                f"captions names {name!r}, but no step of this name wrote a caption. Correct the name or remove it"
            )


def _sum_of_quotients(sums: Ints, counts: Ints) -> Fraction:
    """Return the exact sum of all `sums[n] / counts[n]`."""
    whole = Fraction(0)
    for count in np.unique(counts).tolist():
        whole += Fraction(int(sums[counts == count].sum()), count)
    return whole


def measure_lengths(
    reader: Reader, measure: Measure, name: str, *, cache: Path, workers: int | None = None, report: Report | None = None
) -> Lengths:
    """Return the length of every sample, measured or read from the cache.

    `measure` receives a sample whose text members are bytes. `__image_names__` holds the names of its image members, and
    `__images__` the (width, height) of each of these images. An image whose size cannot be read has the size (0, 0), and
    `__unsized__` maps the member name of such an image to the bytes of the member. `measure` returns the number of tokens of
    the sample, which is at least 1. For a sample with alternative captions, `measure` returns a list with one number of tokens
    for each caption, because every epoch draws one of the captions. To draw them by weights, the items must be pairs (number of
    tokens, origin) with the origins of `vlmdata.loader.captions.origins_of`. `name` must change with everything on which
    `measure` depends, such as tokenizer, template and preprocessing.

    `workers` is the number of processes, by default one per available core. With more than one process, `measure` must be
    importable. `report(done, rows)` is called during the measurement. Errors of `measure` are raised. A damaged sample raises
    DamagedSample or, if the reader skips damaged samples, has the length DAMAGED. If a sample is damaged, the lengths are not
    cached, because the tar may be restored.
    """
    mark = xxhash.xxh3_64_hexdigest(f"{LENGTHS_VERSION} {reader.dataset.state()} {name}".encode())
    # the cache is not beside the tars, because a finished dataset holds only files that its manifest lists
    file = cache / "lengths" / f"{mark}.arrow"
    rows = len(reader.dataset.index)
    if file.exists():
        with suppress(NoIndex):  # the lengths are measured again if the file is damaged
            return _read(file, rows)
    values, codes, counts = _measure_all(reader, measure, workers or len(os.sched_getaffinity(0)), report)
    starts = None if (counts == 1).all() else np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
    found = Lengths(values, starts, _digest(values, starts), None if starts is None or _UNKNOWN in codes else codes)
    if DAMAGED in values:
        return found
    _write(file, found)
    return _read(file, rows)


def _read(file: Path, rows: int) -> Lengths:
    """Return the lengths in a file that `_write` wrote, mapped into memory.

    Raises NoIndex if the file is damaged or does not have `rows` rows.
    """
    with parsing(file):
        table = pa.ipc.open_file(pa.memory_map(str(file))).read_all()
        digest, tokens = table.schema.metadata[b"digest"].decode(), table["tokens"].chunk(0)
        is_single = pa.types.is_integer(tokens.type)
        values, starts = numbers_of(tokens if is_single else tokens.values), None if is_single else numbers_of(tokens.offsets)
        codes = numbers_of(table["origins"].chunk(0).values) if "origins" in table.column_names else None
        is_whole = codes is None or _digest(codes, None) == table.schema.metadata[b"origins"].decode()
        if len(tokens) != rows or _digest(values, starts) != digest or not is_whole:
            raise ValueError("the number or the hash of the lengths is wrong")
        return Lengths(values, starts, digest, codes)


def _digest(values: NDArray[Any], starts: Ints | None) -> str:
    digest = xxhash.xxh3_64(np.ascontiguousarray(values).data)
    if starts is not None:
        digest.update(np.diff(starts).data)
    return digest.hexdigest()


def _write(file: Path, lengths: Lengths) -> None:
    tokens = pa.array(lengths.values)
    if lengths.starts is not None:
        tokens = pa.LargeListArray.from_arrays(pa.array(lengths.starts), tokens)
    columns, marks = {"tokens": tokens}, {"digest": lengths.digest}
    if lengths.codes is not None:
        columns["origins"] = pa.LargeListArray.from_arrays(pa.array(lengths.starts), pa.array(lengths.codes))
        marks["origins"] = _digest(lengths.codes, None)
    table = pa.table(columns).replace_schema_metadata(marks)
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex}")  # machines that share the cache may measure at the same time
    with pa.OSFile(str(part), "wb") as sink, pa.ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)  # written in one batch, so that the column can be mapped
    os.replace(part, file)


def _measure_all(reader: Reader, measure: Measure, workers: int, report: Report | None) -> _Measured:
    tasks = list(_tasks(reader.dataset))
    work = functools.partial(_measure_rows, reader, measure)
    if workers == 1 or len(tasks) == 1:
        found = list(_reported((work(*task) for task in tasks), len(reader.dataset.index), report))
    else:
        with ProcessPoolExecutor(workers, multiprocessing.get_context(), ignore) as pool:
            found = list(_reported(pool.map(work, *zip(*tasks, strict=True)), len(reader.dataset.index), report))
    values, codes, counts = zip(*found, strict=True)
    return np.concatenate(values), np.concatenate(codes), np.concatenate(counts)


def _reported(parts: Iterable[_Measured], rows: int, report: Report | None) -> Iterator[_Measured]:
    done = 0
    for part in parts:
        yield part
        done += len(part[2])
        if report is not None:
            report(done, rows)


def _tasks(dataset: Dataset) -> Iterator[tuple[int, list[list[tuple[int, int]] | None]]]:
    """Yield batches of rows as (first row, image sizes of each row). The sizes of a row are None if the index lacks them."""
    first = 0
    with parsing(dataset.index_file):
        file = pq.ParquetFile(dataset.index_file, page_checksum_verification=True)
        for batch in file.iter_batches(_ROWS, columns=["images"]):
            batch.validate(full=True)
            known = [
                images and [(image["width"], image["height"]) for image in images] for images in batch["images"].to_pylist()
            ]
            yield first, known
            first += len(batch)


def _measure_rows(reader: Reader, measure: Measure, first: int, sizes: list[list[tuple[int, int]] | None]) -> _Measured:
    values: list[int] = []
    codes: list[int] = []
    counts: list[int] = []
    places = reader.dataset.index.locate(np.arange(first, first + len(sizes)))
    for place, known in zip(places, sizes, strict=True):
        try:
            tokens = measure(_text_of(reader, place, known))
        except DamagedSample:
            if reader.on_error == "raise":
                raise
            tokens = DAMAGED
        found = [tokens] if isinstance(tokens, Integral) else tokens
        if not (isinstance(found, list | tuple) and found and all(map(_is_length, found))):
            where = f"sample {place.key!r} of {reader.dataset.name}"
            raise InputError(
                f"{where} has the length {tokens!r}. `measure` must return an integer of at least 1, or a list of such integers"
                " or of pairs (integer, origin of the caption)"
            )
        values += [one[0] if isinstance(one, tuple) else one for one in found]
        codes += [code_of(one[1]) if isinstance(one, tuple) else 0 if len(found) == 1 else _UNKNOWN for one in found]
        counts.append(len(found))
    return np.array(values, np.int32), np.array(codes, np.int64), np.array(counts)


def _is_length(value: Any) -> bool:
    """Return whether an item of a list that `measure` returned is a length, or a pair of a length and an origin."""
    if isinstance(value, tuple):
        return len(value) == 2 and isinstance(value[1], str | None) and _is_length(value[0]) and not isinstance(value[0], tuple)
    return isinstance(value, Integral) and int(value) >= 1


def _text_of(reader: Reader, place: SampleLocation, known: list[tuple[int, int]] | None) -> Sample:
    """Return a sample without the bytes of its images, but with the size of each image."""
    is_image = [name.rpartition(".")[2] in IMAGE_EXTENSIONS for name in place.names]
    sample = reader.read(place.only([not image for image in is_image]))
    pictures = place.only(is_image)
    sample["__image_names__"] = pictures.names
    sample["__images__"] = known
    if known is None:
        reader.confirm(pictures)
        read = functools.partial(reader.read_at, pictures)
        sample["__images__"] = [image_size(read, *span) for span in zip(pictures.offsets, pictures.sizes, strict=True)]
    if (0, 0) in sample["__images__"] and len(sample["__images__"]) == len(pictures.names):
        unknown = pictures.only([size == (0, 0) for size in sample["__images__"]])
        sample["__unsized__"] = {name: data for name, data in reader.read(unknown).items() if name in unknown.names}
    return sample
