"""Iterates over the samples of a schedule, for some epochs or endlessly, and resumes exactly from a saved state.

This module does not import torch.
"""

import sys
import warnings
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache
from itertools import pairwise
from operator import itemgetter
from typing import Any, NamedTuple

import numpy as np

from vlmdata.arguments import check_whole, wrong
from vlmdata.errors import InputError
from vlmdata.loader.audit_stream import Audit, audit, audit_packs
from vlmdata.loader.index.build_index import OnError
from vlmdata.loader.index.flat_index import SampleLocation
from vlmdata.loader.order.order import Ints
from vlmdata.loader.packed import PackedPlan
from vlmdata.loader.ranks import ranks
from vlmdata.loader.read_samples import DamagedSample, Reader, Sample
from vlmdata.loader.schedule import Schedule, StepLayout
from vlmdata.loader.stream_batch import StreamBatch, position_of

PORTION = 2048  # positions that are planned at once
AHEAD = 2  # minimum number of prefetched batches
_TRIES = 1000  # positions that are tried in place of a damaged sample before an error is raised


class SampleJob(NamedTuple):
    """A sample to read: its position, dataset, location and random number.

    `pad` is true for a sample of the next epoch that only fills up the last step.
    """

    position: int
    dataset: int
    place: SampleLocation
    seed: int
    pad: bool


Unit = SampleJob | list[SampleJob]  # the content of one position: a sample, or the samples of a pack
StreamStep = tuple[int, int, Any]  # (position after the step, position in the worker's saved state, jobs or read samples)


class Samples:
    """Iterates over the samples of a schedule, starting at the current position.

    An iteration ends before the next epoch whose number is a multiple of `epochs`. With epochs=None, it never ends. The
    position is the number of samples that all ranks together have yielded. With batch_size=None, an iteration yields single
    samples. `stream` describes the parameters.
    """

    def __init__(
        self,
        plan: Schedule | PackedPlan,
        *,
        batch_size: int | None = None,
        collate_fn: Callable[[list], Any] | None = None,
        drop_last: bool = False,
        epochs: int | None = 1,
        decode: Callable[[Sample], Any] | None = None,
        rank: int | None = None,
        world_size: int | None = None,
        threads: int = 0,
        on_error: OnError = "raise",
        readers: list[Reader] | None = None,
    ) -> None:
        self.plan = plan
        self.batch_size = batch_size
        self.collate_fn = collate_fn
        self.drop_last = drop_last
        self.epochs = epochs
        self.decode = decode
        self.threads = threads
        self.on_error = on_error
        self.rank, self.world_size = ranks(rank, world_size)
        self.skipped = 0
        self._is_remote = any(dataset.is_remote for dataset in plan.datasets)
        self._readers = readers or [Reader(dataset) for dataset in plan.datasets]
        self._origin = self._position = 0
        self._until: int | None = None

    # -- state

    def state_dict(self, after: Any = None) -> dict[str, Any]:
        """Return the state of the stream after the last yielded batch, or after the batch `after`.

        The state takes at most 200 bytes as JSON, and can be loaded with any number of ranks and workers. If other processes
        iterate, as in a plain DataLoader with workers, pass the last batch as `after`. `stream.loader` does not need `after`.
        In a DataLoader worker, the result is the state of that worker, which torchdata's StatefulDataLoader collects.
        """
        position = self._position if after is None else position_of(after)
        state = {"position": position, "index": self.plan.index_digest, "order": self.plan.order_digest}
        hint = self.plan.hint(position)
        if hint is not None:
            state["window"] = hint
        layout = self._layout()
        if layout.num_workers > 1:
            state |= {"worker": [layout.worker, layout.num_workers, layout.stride], "until": self._end()}
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue after the point where `state` was saved, on any number of ranks and workers.

        Raises ValueError if the index or the order has changed.
        """
        if not isinstance(state, Mapping):
            raise wrong("state", "a mapping that state_dict() returned", state)
        if not {"position", "index", "order"} <= state.keys():
            found = f"the keys {', '.join(map(repr, state))}" if state else "no keys"
            raise InputError(
                f"this is not the state of a stream: it has {found}, but must have 'position', 'index' and 'order'"
            )
        check_whole(0, position=state["position"])
        if state["index"] != self.plan.index_digest:
            raise InputError(
                f"the state was saved with another index ({state['index']}, now {self.plan.index_digest}). Tars were added,"
                " removed or rewritten since then, so the samples that were already seen are unknown. Restore the tars, or"
                " start over"
            )
        if state["order"] != self.plan.order_digest:
            raise InputError("the state was saved with another seed, weights or packing. Use the same values, or start over")
        layout = self._layout()
        if state.get("worker") not in (None, [layout.worker, layout.num_workers, layout.stride]):
            raise InputError(
                "the state is that of one DataLoader worker. Load it with StatefulDataLoader and the same batch size, number of"
                " workers and number of ranks"
            )
        if "window" in state:
            self.plan.use_hint(state["window"])
        self._origin = self._position = int(state["position"])
        self._until = state.get("until")

    def set_epoch(self, epoch: int) -> None:
        """Move to the start of the epoch with this number, which counts from 0."""
        check_whole(0, epoch=epoch)
        self._origin = self._position = self.plan.epoch_start(epoch)
        self._until = None

    @property
    def position(self) -> int:
        """The number of samples that all ranks together have yielded so far, over all epochs."""
        return self._position

    @property
    def epoch(self) -> int:
        """The number of the epoch, from 0, that the next sample belongs to."""
        return self.plan.epoch_of(self._position)

    # -- lengths

    def __len__(self) -> int:
        """Return the number of steps of one iteration on each rank, which is the same on all ranks.

        With batch_size=None, a step is one sample.
        """
        return self._layout().steps(self._origin, self._end(), drop=self.drop_last)

    def steps_left(self) -> int:
        """Return the number of steps from the current position to the end of the iteration, on each rank."""
        return self._layout().steps(self._position, self._end(), drop=self.drop_last)

    def _end(self) -> int:
        """Return the position at which the current iteration ends.

        If a worker's saved state holds the end, return it. Otherwise, return the start of the next epoch whose number is a
        multiple of `epochs`. Raises TypeError for an endless stream.
        """
        if self._until is not None:
            return self._until
        if self.epochs is None:
            raise TypeError("an endless stream (epochs=None) has no length")
        return self.plan.end(self._origin, self.epochs, 1 << 62)[0]

    def tail_samples(self) -> tuple[int, int]:
        """Return (number of repeated samples, number of samples left out) for the last step of an iteration.

        With `drop_last`, the samples of a partial last step are left out. Otherwise, the step is filled with samples of the
        next epoch, which yields them again.
        """
        over = (self._end() - self._origin) % self._layout().stride
        return (0, over) if self.drop_last else (-over % self._layout().stride, 0)

    def audit(self, epoch: int = 0, *, trials: int = 10, seed: int = 0) -> Audit:
        """Check that an epoch yields every sample once, without reading a tar: see `audit_stream.audit`."""
        if not isinstance(self.plan, PackedPlan):
            return audit(self.plan, epoch, trials, seed)
        audit_packs(self.plan, epoch)
        return audit(self.plan.plan, epoch, trials, seed)

    # -- iteration

    def __iter__(self) -> Iterator[Any]:
        return map(itemgetter(1), self.walk())

    def __call__(self) -> Iterator[Any]:
        """Return `iter(self)`: the first stage of a webdataset pipeline is a torch IterableDataset or a function."""
        return iter(self)

    def walk(self) -> Iterator[tuple[int, Any]]:
        """Yield (position, batch) for each step of one iteration. `iter` yields only the batches.

        The position is that of the stream after the batch. With batch_size=None, the second item is a single sample.
        """
        layout = self._layout()
        self._origin = start = self._position
        _keep_freed_memory()
        for reader in self._readers:
            reader.forked()
        for after, own, made in self._made(layout, start):
            self._position = own
            yield after, made if self.batch_size is None else self._finish(made, after)
        if self.epochs is not None:
            self.finished(start)

    def moved(self, origin: int, position: int, skipped: int) -> None:
        """Record the progress of worker processes: the stream's position and the number of skipped samples.

        `origin` is the position at which the current iteration started.
        """
        self._origin, self._position, self.skipped = origin, position, skipped

    def finished(self, origin: int) -> None:
        """Mark the iteration that started at `origin` as complete."""
        self._origin = origin
        self._origin = self._position = self._end()
        self._until = None

    def _finish(self, units: list, position: int) -> Any:
        if self.collate_fn is not None:
            return self.collate_fn(units)
        batch = StreamBatch(units)
        batch.position, batch.skipped = position, self.skipped
        return batch

    def _made(self, layout: StepLayout, start: int) -> Iterator[StreamStep]:
        planned = self._planned(layout, start)
        if self.threads:
            return self._made_ahead(layout, planned)
        make = self._make if self.batch_size is None else self._make_all
        return ((after, own, make(units)) for after, own, units in planned)

    def _made_ahead(self, layout: StepLayout, planned: Iterator[StreamStep]) -> Iterator[StreamStep]:
        """Yield each planned step with its samples, which threads prefetch."""
        waiting: deque[tuple[int, int, list[Future]]] = deque()
        is_ending = sys.is_finalizing
        pool = ThreadPoolExecutor(self.threads, "vlmdata")
        piece = -(-layout.batch_size // self.threads)  # samples or packs per task, so that all threads work on the first batch
        least = max(AHEAD, 2 * self.threads // layout.batch_size)
        try:
            for after, own, units in planned:
                units = [units] if self.batch_size is None else units
                pieces = [units[first : first + piece] for first in range(0, len(units), piece)]
                waiting.append((after, own, [pool.submit(self._make_all, units) for units in pieces]))
                if len(waiting) > least:
                    yield self._result(*waiting.popleft())
            while waiting:
                yield self._result(*waiting.popleft())
        finally:
            if not is_ending():  # at interpreter exit, the threads and the modules that shutdown needs are gone
                pool.shutdown(cancel_futures=True)

    def _result(self, after: int, own: int, pieces: list[Future]) -> StreamStep:
        made = [unit for piece in pieces for unit in piece.result()]
        return after, own, made[0] if self.batch_size is None else made

    def _planned(self, layout: StepLayout, start: int) -> Iterator[StreamStep]:
        """Yield each step of this worker, with jobs for the samples that the worker must read."""

        def end(upto: int) -> tuple[int, bool]:
            if self._until is not None:
                return self._until, True
            return self.plan.end(start, self.epochs, upto) if self.epochs else (1 << 62, True)

        waiting: list[StreamStep] = []
        for numbers, positions, known_end in layout.deal(start, end, PORTION, drop=self.drop_last):
            units = self._plan_units(positions.ravel(), known_end)
            steps: list[Any] = units
            if self.batch_size is not None:
                steps = [units[first : first + self.batch_size] for first in range(0, len(units), self.batch_size)]
            after = np.minimum(start + layout.stride * (numbers + 1), known_end).tolist()
            # a worker's state assumes that all workers have done the same number of steps
            done = start + layout.stride * (numbers - layout.worker + layout.num_workers)
            own = after if layout.num_workers == 1 else np.minimum(done, known_end).tolist()
            portion = list(zip(after, own, steps, strict=True))
            if not self._is_remote or numbers[0] == layout.worker:
                yield from portion
                continue
            self._fetch_ahead(units)  # prefetch this portion while the previous one is read
            yield from waiting
            waiting = portion
        yield from waiting

    def _fetch_ahead(self, units: list[Unit]) -> None:
        jobs = [job for unit in units for job in ([unit] if isinstance(unit, SampleJob) else unit)]
        for number, reader in enumerate(self._readers):
            reader.ahead([job.place for job in jobs if job.dataset == number])

    def _plan_units(self, positions: Ints, end: int) -> list[Unit]:
        """Return one job for each position. With packs, return one list of jobs for each position."""
        picks = self.plan.at(positions)
        if picks.starts is not None:
            positions = np.repeat(positions, np.diff(picks.starts))
        places: list[SampleLocation] = []
        for number, dataset in enumerate(self.plan.datasets):
            mine = np.flatnonzero(picks.datasets == number)
            found = dataset.index.locate(picks.rows[mine])
            if len(found) == len(positions):
                places = found
                break
            places = places or found[:1] * len(positions)
            for at, place in zip(mine.tolist(), found, strict=True):
                places[at] = place
        columns = (positions.tolist(), picks.datasets.tolist(), places, picks.seeds.tolist(), (positions >= end).tolist())
        jobs = list(map(SampleJob._make, zip(*columns, strict=True)))
        if picks.starts is None:
            return jobs  # type: ignore[return-value]
        starts = picks.starts.tolist()
        return [jobs[first:last] for first, last in pairwise(starts)]

    def _make_all(self, units: list[Unit]) -> list:
        return list(map(self._make, units))

    def _make(self, unit: Unit) -> Any:
        """Return the sample of a unit, or a list of samples if the unit is a pack.

        A damaged sample raises DamagedSample or, with on_error="skip", is counted and replaced (see `_replace`).
        """
        try:
            return self._sample(unit) if isinstance(unit, SampleJob) else list(map(self._sample, unit))
        except DamagedSample:
            if self.on_error == "raise":
                raise
            return self._replace(unit)

    def _replace(self, unit: Unit) -> Any:
        """Return the next intact sample in place of a damaged one, or a pack without its damaged samples.

        A pack without intact samples is replaced by the next pack.
        """
        position = unit.position if isinstance(unit, SampleJob) else unit[0].position
        for other in range(position + 1, position + 1 + _TRIES):
            made = self._try(unit)
            if made is not None:
                return made
            unit = self._plan_units(np.array([other]), 0)[0]
        raise DamagedSample(f"{_TRIES} samples in succession are damaged, the first at position {position}. See the warnings")

    def _try(self, unit: Unit) -> Any:
        if isinstance(unit, list):
            return [sample for sample in map(self._try, unit) if sample is not None] or None
        try:
            return self._sample(unit)
        except DamagedSample as error:
            self.skipped += 1
            warnings.warn(f"a sample is skipped: {error}", stacklevel=2)
            return None

    def _sample(self, job: SampleJob) -> Any:
        _, dataset, place, seed, pad = job
        sample = self._readers[dataset].read(place)
        sample["__seed__"] = seed
        if pad:
            sample["__pad__"] = True
        return sample if self.decode is None else self.decode(sample)

    def _layout(self) -> StepLayout:
        """Return how positions are dealt to the ranks. `Stream` overrides this method to add the workers of a DataLoader."""
        return StepLayout(self.batch_size or 1, self.rank, self.world_size)


@cache
def _keep_freed_memory() -> None:
    """Make glibc keep the memory of a batch for the next batch, instead of returning it to the system each time.

    glibc returns freed blocks above a threshold. This function frees one large block, which raises the threshold to twice its
    size and saves a third of the time of reading raw samples. It runs once, because clearing a second block takes time.
    """
    bytes((32 << 20) - 8192)
