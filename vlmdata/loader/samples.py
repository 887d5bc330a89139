"""An endless or finite walk through a plan, with exact state. Plain Python: torch is neither needed nor imported."""

import os
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
from vlmdata.loader.read_samples import DamagedSample, Reader, Sample
from vlmdata.loader.schedule import Schedule, StepLayout

PORTION = 2048  # positions planned at once
AHEAD = 2  # batches made ahead of the reader, at least
_TRIES = 1000  # positions tried to replace a damaged one before giving up


class StreamBatch(list):
    """Samples handed out together. `position` and `skipped` are the stream's after it, over all ranks: see state_dict."""

    position: int
    skipped: int


class SampleJob(NamedTuple):
    """One sample to make: its position, where it lies, its random number, and whether it fills up the last step."""

    position: int
    dataset: int
    place: SampleLocation
    seed: int
    pad: bool


Unit = SampleJob | list[SampleJob]  # what stands at one position
StreamStep = tuple[int, int, Any]  # the position after it, this worker's own state then, and its samples, planned or made


class Samples:
    """Iterates over the samples of a plan from the current position to the end of the current epochs.

    The position counts samples handed out over all ranks. With `batch_size` None samples come one by one. See `stream` for the
    parameters.
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
        """The state after what was handed out last, or after the batch `after`: at most 200 bytes as JSON.

        It holds for any number of ranks and workers. Where other processes iterate (a plain DataLoader with workers), name
        the batch; `stream.loader` does this by itself. In a DataLoader's worker it is that worker's own, for torchdata.
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
        """Go on after `state`, on any number of ranks and workers. Raises ValueError if index or order are not the same."""
        if not isinstance(state, Mapping):
            raise wrong("state", "what state_dict() returned", state)
        if not {"position", "index", "order"} <= state.keys():
            raise InputError(f"this is no state of a stream: it has {', '.join(map(str, state)) or 'nothing'}")
        check_whole(0, position=state["position"])
        if state["index"] != self.plan.index_digest:
            raise InputError(
                f"the state was saved with another index ({state['index']}, now {self.plan.index_digest}): tars were added,"
                " removed or rewritten since, so what was already given is not known. Restore them, or begin anew"
            )
        if state["order"] != self.plan.order_digest:
            raise InputError("the state was saved with another seed, weights or packing: use the same, or begin anew")
        layout = self._layout()
        if state.get("worker") not in (None, [layout.worker, layout.num_workers, layout.stride]):
            raise InputError(f"this state is of one worker of several, {state['worker']}: load it through StatefulDataLoader")
        if "window" in state:
            self.plan.use_hint(state["window"])
        self._origin = self._position = int(state["position"])
        self._until = state.get("until")

    def set_epoch(self, epoch: int) -> None:
        """Go to the start of an epoch."""
        check_whole(0, epoch=epoch)
        self._origin = self._position = self.plan.epoch_start(epoch)
        self._until = None

    @property
    def position(self) -> int:
        """Samples handed out so far, over all ranks and epochs."""
        return self._position

    # -- lengths

    def __len__(self) -> int:
        """Steps of one iteration on each rank, from where it began: the same on all. Samples, with batch_size=None."""
        return self._layout().steps(self._origin, self._end(), drop=self.drop_last)

    def _end(self) -> int:
        """Where the iteration ends that begins at the origin: `epochs` epochs, less what was given of them before."""
        if self._until is not None:
            return self._until
        if self.epochs is None:
            raise TypeError("an endless stream (epochs=None) has no length")
        return self.plan.end(self._origin, self.epochs, 1 << 62)[0]

    def tail_samples(self) -> tuple[int, int]:
        """How many samples are given twice to fill the last step, and how many are left out, at the end of an iteration."""
        over = (self._end() - self._origin) % self._layout().stride
        return (0, over) if self.drop_last else (-over % self._layout().stride, 0)

    def audit(self, epoch: int = 0, *, trials: int = 10, seed: int = 0) -> Audit:
        """Prove from the index, without reading tars, that an epoch gives every sample once: see `audit`."""
        if not isinstance(self.plan, PackedPlan):
            return audit(self.plan, epoch, trials, seed)
        audit_packs(self.plan, epoch)
        return audit(self.plan.plan, epoch, trials, seed)

    # -- iteration

    def __iter__(self) -> Iterator[Any]:
        return map(itemgetter(1), self.walk())

    def walk(self) -> Iterator[tuple[int, Any]]:
        """Iterate as `iter` does, with the position after each step."""
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

    def moved(self, begun: int, position: int, skipped: int) -> None:
        """Take over how far worker processes have come in the iteration that began at `begun`."""
        self._origin, self._position, self.skipped = begun, position, skipped

    def finished(self, begun: int) -> None:
        """Take over that the iteration that began at `begun` came to its end."""
        self._origin = begun
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
        """Make the samples of each step in threads, ahead of the reader."""
        waiting: deque[tuple[int, int, list[Future]]] = deque()
        is_ending = sys.is_finalizing
        pool = ThreadPoolExecutor(self.threads, "vlmdata")
        piece = -(-layout.batch_size // self.threads)  # each thread makes its piece of a batch, so that the first comes soon
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
            if not is_ending():  # the end of a script has ended the threads, and taken apart what shutdown needs
                pool.shutdown(cancel_futures=True)

    def _result(self, after: int, own: int, pieces: list[Future]) -> StreamStep:
        made = [unit for piece in pieces for unit in piece.result()]
        return after, own, made[0] if self.batch_size is None else made

    def _planned(self, layout: StepLayout, start: int) -> Iterator[StreamStep]:
        """Each step of this worker, with what is to be made for it."""

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
            # the state in a worker is its own: as if all workers had done as many steps
            done = start + layout.stride * (numbers - layout.worker + layout.num_workers)
            own = after if layout.num_workers == 1 else np.minimum(done, known_end).tolist()
            portion = list(zip(after, own, steps, strict=True))
            if not self._is_remote or numbers[0] == layout.worker:
                yield from portion
                continue
            self._fetch_ahead(units)  # while the portion before is read
            yield from waiting
            waiting = portion
        yield from waiting

    def _fetch_ahead(self, units: list[Unit]) -> None:
        jobs = [job for unit in units for job in ([unit] if isinstance(unit, SampleJob) else unit)]
        for number, reader in enumerate(self._readers):
            reader.ahead([job.place for job in jobs if job.dataset == number])

    def _plan_units(self, positions: Ints, end: int) -> list[Unit]:
        """What is to be made for these positions: a job each, or with packs a list of jobs."""
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
        """Make one sample, or the list of a pack's. What is damaged is an error, or is counted and replaced."""
        try:
            return self._sample(unit) if isinstance(unit, SampleJob) else list(map(self._sample, unit))
        except DamagedSample:
            if self.on_error == "raise":
                raise
            return self._mend(unit)

    def _mend(self, unit: Unit) -> Any:
        """Make what can be made: the next whole sample of the order in place of a damaged one; a pack without it.

        A pack of which nothing is left is replaced by the next one.
        """
        position = unit.position if isinstance(unit, SampleJob) else unit[0].position
        for other in range(position + 1, position + 1 + _TRIES):
            made = self._try(unit)
            if made is not None:
                return made
            unit = self._plan_units(np.array([other]), 0)[0]
        raise DamagedSample(f"the {_TRIES} samples after position {position} are damaged too: see the warnings")

    def _try(self, unit: Unit) -> Any:
        if isinstance(unit, list):
            return [sample for sample in map(self._try, unit) if sample is not None] or None
        try:
            return self._sample(unit)
        except DamagedSample as error:
            self.skipped += 1
            warnings.warn(f"skipped: {error}", stacklevel=2)
            return None

    def _sample(self, job: SampleJob) -> Any:
        _, dataset, place, seed, pad = job
        sample = self._readers[dataset].read(place)
        sample["__seed__"] = seed
        if pad:
            sample["__pad__"] = True
        return sample if self.decode is None else self.decode(sample)

    def _layout(self) -> StepLayout:
        """How positions are dealt, as far as this process knows; `Stream` adds the DataLoader's workers."""
        return StepLayout(self.batch_size or 1, self.rank, self.world_size)


@cache
def _keep_freed_memory() -> None:
    """Keep glibc from giving a batch's memory back to the system after each batch, only to ask for it again.

    Freeing one large block raises its threshold to twice that size. Worth a third of the time of reading raw samples. Once
    a process: the second such block would be taken from the heap, and cleared.
    """
    bytes((32 << 20) - 8192)


def position_of(batch: Any) -> int:
    """The position that a batch carries. Raises ValueError if it carries none."""
    position = getattr(batch, "position", None)
    if position is None:
        raise InputError("this carries no position: give the stream batch_size=N, and the DataLoader batch_size=None")
    return position


def ranks(rank: int | None, world_size: int | None) -> tuple[int, int]:
    """This process among the ranks: as given, else as torch.distributed says, else as torchrun's environment says."""
    if (rank is None) != (world_size is None):
        raise InputError("give both rank and world_size, or neither")
    if rank is None or world_size is None:
        distributed = sys.modules.get("torch.distributed")
        if distributed is not None and distributed.is_available() and distributed.is_initialized():
            rank, world_size = distributed.get_rank(), distributed.get_world_size()
        else:
            rank, world_size = int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1"))
    if not 0 <= rank < world_size:
        raise InputError(f"rank {rank} is not one of {world_size}: ranks count from 0")
    return rank, world_size
