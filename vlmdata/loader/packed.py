"""A schedule whose positions are packs. It packs one window of samples at a time, as a pure function.

The number of packs in a window is known only after the window is packed. A saved state therefore also contains a window and the
number of packs before it. A resume then packs only this window, or reads it from the cache.
"""

import os
from bisect import bisect_right
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
import xxhash

from vlmdata.arguments import (
    check_bool,
    check_callable,
    check_choice,
    check_text,
    check_weights,
    check_whole,
    check_whole_or_none,
    wrong,
)
from vlmdata.errors import InputError
from vlmdata.loader.captions import Weights
from vlmdata.loader.lengths import Lengths, Measure, Report, measure_lengths
from vlmdata.loader.order.order import Ints, distinct, key
from vlmdata.loader.order.packing import Overlong, Packs, each_alone, pack
from vlmdata.loader.read_samples import Reader
from vlmdata.loader.schedule import Picks, Schedule, digest
from vlmdata.untrusted import Failed, errors_as

PACKING_VERSION = 2  # version of the order, which is part of every state
FILE_VERSION = 2  # version of the files that hold packed windows
KEPT_WINDOWS = 8  # number of windows in the cache folder; older windows are packed again when they are needed


@dataclass(frozen=True)
class Packing:
    """Options of packing: samples are put together into sequences of `tokens` tokens.

    `measure`, `name`, `workers` and `report` are as in `measure_lengths`, and `overlong` is as in `pack`. `window` is the
    number of samples that are packed together. A smaller window adds padding (less than 0.1% at 65,536 samples). A larger
    window takes longer to pack (1 to 18 CPU seconds per million samples). With `single`, each sample is a pack, in the order of
    the samples. Then the only effect of packing is that overlong="drop" leaves out long samples. `captions` are the weights of
    `Decode`, which must be the same.
    """

    tokens: int
    measure: Measure
    name: str
    overlong: Overlong = "alone"
    window: int = 1 << 20
    workers: int | None = None
    single: bool = False
    report: Report | None = None
    captions: Weights | None = None

    def __post_init__(self) -> None:
        check_whole(1, tokens=self.tokens, window=self.window)
        check_whole_or_none(1, workers=self.workers)
        check_text(name=self.name)
        check_choice(get_args(Overlong), overlong=self.overlong)
        check_bool(single=self.single)
        check_callable(report=self.report)
        if self.captions is not None:
            check_weights(captions=self.captions)
        if not callable(self.measure):
            raise wrong("measure", "a function", self.measure)

    def lengths(self, reader: Reader, cache: Path) -> Lengths:
        """Return the lengths of the reader's samples, measured or read from the folder `cache`: see `measure_lengths`.

        Raises InputError if there are `captions` and `measure` did not return origins.
        """
        found = measure_lengths(reader, self.measure, self.name, cache=cache, workers=self.workers, report=self.report)
        return found if self.captions is None else found.weighted(self.captions)


class _PackedWindow(NamedTuple):
    """The packs of one window: pack p holds the samples `starts[p]` to `starts[p + 1]` of `picks`."""

    picks: Picks
    starts: Ints


@dataclass
class PackedPlan:
    """A schedule with a pack of samples at each position. The samples come from `plan`.

    It has the methods of `Schedule`. `lengths` holds one `Lengths` for each dataset: the lengths of its samples in tokens. A
    window is a group of successive samples, and each window is packed separately. `cache` is the folder that keeps packed
    windows.
    """

    plan: Schedule
    lengths: list[Lengths]
    packing: Packing
    cache: Path
    _known: list[tuple[int, int, int]] = field(default_factory=lambda: [(0, 0, 0)])  # (epoch, window, packs before the window)
    _windows: OrderedDict[tuple[int, int], _PackedWindow] = field(default_factory=OrderedDict)

    def __post_init__(self) -> None:
        self.datasets = self.plan.datasets
        self.epoch_windows = -(-self.plan.epoch_size // self.packing.window)

    @cached_property
    def index_digest(self) -> str:
        """A hash of the tars, their samples and the samples' order in the tars."""
        return self.plan.index_digest

    @cached_property
    def order_digest(self) -> str:
        """A hash of the order of the samples, of their lengths, and of the options of packing."""
        marks = [lengths.digest for lengths in self.lengths]
        how = self.packing
        facts = [PACKING_VERSION, self.plan.order_digest, how.tokens, how.overlong, how.window, marks]
        return digest([*facts, "single"] if how.single else facts)

    def at(self, positions: Ints) -> Picks:
        """Return the samples of the packs at these ascending positions, concatenated.

        `starts` of the result separates the packs.
        """
        parts: list[Picks] = []
        counts: list[Ints] = []
        self._know(int(positions[-1]))
        befores = [before for _, _, before in self._known]
        which = np.searchsorted(befores, positions, "right") - 1
        for number in distinct(which):
            epoch, window, before = self._known[number]
            found = self._window(epoch, window)
            packs = positions[which == number] - before
            sizes = found.starts[packs + 1] - found.starts[packs]
            inside = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes)
            members = np.repeat(found.starts[packs], sizes) + inside
            parts.append(Picks(*(column[members] for column in found.picks[:4])))
            counts.append(sizes)
        columns = [np.concatenate(column) for column in zip(*(part[:4] for part in parts), strict=True)]
        return Picks(*columns)._replace(starts=np.concatenate([[0], np.cumsum(np.concatenate(counts))]))

    def end(self, position: int, epochs: int, upto: int) -> tuple[int, bool]:
        """Return (end, True), where `end` is the position at which an iteration that contains `position` ends.

        `end` is the start of the next epoch whose number is a multiple of `epochs`. To find `end`, samples are packed up to the
        position `upto`. If `end` is still unknown, return (bound, False), where `upto < bound <= end`.
        """
        epoch = self.epoch_of(position)
        last = (epoch // epochs + 1) * epochs
        while True:
            known_epoch, _, before = self._known[-1]
            if known_epoch >= last:
                return next(packs for at, _, packs in self._known if at == last), True
            if before > upto:
                return before, False
            self._grow()

    def epoch_start(self, epoch: int) -> int:
        """Return the number of packs before an epoch. This packs every earlier window that is not in the cache."""
        self._known = [(0, 0, 0)] if self._known[0][0] > epoch else self._known
        while self._known[-1][0] < epoch:
            self._grow()
        return next(before for at, _, before in self._known if at == epoch)

    def epoch_of(self, position: int) -> int:
        """Return the number of the epoch that contains a position."""
        self._know(position)
        return self._known[bisect_right([before for *_, before in self._known], position) - 1][0]

    def hint(self, position: int) -> list[int]:
        """Return [epoch, window, number of packs before the window] for the window that holds the last pack before `position`.

        A saved state contains this list, so that a resumed stream need not pack the earlier windows again to count their packs.
        """
        befores = [before for _, _, before in self._known]
        return list(self._known[max(0, bisect_right(befores, position - 1) - 1)])

    def use_hint(self, hint: list[int]) -> None:
        """Count packs from the window in `hint`, not from the first window. `hint` is a result of the method `hint`."""
        epoch, window, before = hint
        self._known = [(epoch, window, before)]

    def packs(self, epoch: int, window: int) -> Packs:
        """Return the packs of one window of samples.

        The packs depend only on the schedule, the lengths and the options of packing.
        """
        return self._pack(self._picks(epoch, window), epoch, window)

    def samples(self, epoch: int) -> int:
        """Return the number of samples in the packs of an epoch.

        With overlong="drop", samples that are too long with the caption drawn in this epoch do not count.
        """
        if self.packing.overlong != "drop":
            return self.plan.epoch_size
        size, all_lengths = self.packing.tokens, self.lengths
        if len(all_lengths) == 1 and all_lengths[0].starts is None:
            return int((all_lengths[0].values <= size).sum())
        windows = (self._lengths_of(self._picks(epoch, window)) for window in range(self.epoch_windows))
        return sum(int((lengths <= size).sum()) for lengths in windows)

    def _know(self, position: int) -> None:
        while self._known[-1][2] <= position:
            self._grow()

    def _grow(self) -> None:
        epoch, window, before = self._known[-1]
        after = (epoch, window + 1) if window + 1 < self.epoch_windows else (epoch + 1, 0)
        packs = before + self._count(epoch, window)
        if after == (epoch + 1, 0) and (epoch, 0, packs) in self._known:
            raise InputError(f"no sample fits into {self.packing.tokens} tokens. Raise `tokens`, or pass overlong='alone'")
        self._known.append((*after, packs))

    def _count(self, epoch: int, window: int) -> int:
        for marker in self._folder.glob(f"{epoch}-{window}.*.packs"):
            return int(marker.name.split(".")[1])
        return len(self._window(epoch, window).starts) - 1

    def _window(self, epoch: int, window: int) -> _PackedWindow:
        found = self._windows.get((epoch, window))
        if found is None:
            file = self._folder / f"{epoch}-{window}.npy"
            found = _load(file)
            if found is None:
                made = self._make(epoch, window)
                self._save(file, made)
                found = _load(file) or made  # another process may already have deleted the file
            self._windows[epoch, window] = found
            while len(self._windows) > 2:
                self._windows.popitem(last=False)
        return found

    @cached_property
    def _folder(self) -> Path:
        folder = self.cache / "packs" / digest([FILE_VERSION, self.index_digest, self.order_digest])
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def _picks(self, epoch: int, window: int) -> Picks:
        size, count = self.plan.epoch_size, self.epoch_windows
        first = epoch * size
        return self.plan.at(np.arange(first + window * size // count, first + (window + 1) * size // count))

    def _lengths_of(self, picks: Picks) -> Ints:
        lengths = np.empty(len(picks.rows), np.int64)
        for number, known in enumerate(self.lengths):
            mine = picks.datasets == number
            lengths[mine] = known.at(picks.rows[mine], picks.seeds[mine])
        return lengths

    def _pack(self, picks: Picks, epoch: int, window: int) -> Packs:
        lengths = self._lengths_of(picks)
        if self.packing.single:
            return each_alone(lengths, self.packing.tokens, overlong=self.packing.overlong)
        seed = key(self.plan.seed, epoch, window, 3)
        return pack(lengths, self.packing.tokens, seed=seed, overlong=self.packing.overlong)

    def _make(self, epoch: int, window: int) -> _PackedWindow:
        picks = self._picks(epoch, window)
        packs = self._pack(picks, epoch, window)
        return _PackedWindow(Picks(*(column[packs.members] for column in picks[:4])), packs.starts)

    def _save(self, file: Path, window: _PackedWindow) -> None:
        """Write a packed window for the other processes of this machine. Delete all but the KEPT_WINDOWS newest windows."""
        part = file.with_name(f".{file.name}.{os.getpid()}")
        flat = np.concatenate([[0, len(window.starts)], window.starts, *window.picks[:4]]).astype(np.int64)
        flat[0] = xxhash.xxh3_64_intdigest(flat[1:].data) >> 1
        with open(part, "wb") as target:
            np.save(target, flat)
        os.replace(part, file)
        file.with_suffix(f".{len(window.starts) - 1}.packs").touch()
        ages = []
        for one in self._folder.glob("*.npy"):
            with suppress(FileNotFoundError):  # another process has deleted it
                ages.append((one.stat().st_mtime_ns, one))
        for _, one in sorted(ages)[:-KEPT_WINDOWS]:
            one.unlink(missing_ok=True)


def _load(file: Path) -> _PackedWindow | None:
    """Return the window in a file that `_save` wrote, or None if the file is missing or damaged.

    The file is mapped into memory, because a batch needs only a few of the window's samples.
    """
    try:
        with errors_as(Failed):  # NumPy's header is Python source, and its parser may raise any error
            flat = np.load(file, mmap_mode="r").view(np.ndarray)
            if flat[0] != xxhash.xxh3_64_intdigest(flat[1:].data) >> 1:
                return None
    except Failed:
        return None
    count = int(flat[1])
    return _PackedWindow(Picks(*flat[2 + count :].reshape(4, -1)), flat[2 : 2 + count])
