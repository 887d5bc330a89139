"""Build batches from a stream in threads, ahead of their use. Each batch comes with the stream's position after the batch.

The stream yields units. With packing, a unit is a pack of samples, which the loader plans from the measured lengths. A batch
then holds one pack in one row. Without packing, a unit is one sample that training can use. A batch then holds several samples,
one in each row.
"""

from __future__ import annotations

import functools
import itertools
import queue
import threading
from collections import Counter, deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

from vlmdata.loader.packed import PackedPlan
from vlmdata.process.thread import attempt
from vlmdata.sizes import counted
from vlmdata.step import RecipeError
from vlmdata_train.data.collate import Ready, build_batch
from vlmdata_train.data.left_out import UnusableSample
from vlmdata_train.data.prompt import Prompt
from vlmdata_train.data.reading import Reading, Sample, source_of
from vlmdata_train.data.sample_positions import FeedPosition, SamplePosition
from vlmdata_train.model.batch import Batch

MAX_UNUSED = 10_000  # the run stops after this many consecutive unusable samples


class SampleStream(Protocol):
    """The stream of `vlmdata.stream`. It yields packs (lists of samples). Its position counts packs over all ranks together."""

    epochs: int | None
    skipped: int
    plan: Any

    def __iter__(self) -> Iterator[Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class Feed:
    """An iterable that yields each batch with the stream's position after the batch.

    `skipped` counts, by reason, the samples that could not be used and the images that failed to decode.
    """

    open: Callable[[int, int], SampleStream]  # (rank, number of ranks) -> the rank's stream
    reading: Reading
    position: FeedPosition  # the position to begin at
    packed_tokens: int | None  # tokens of a packed row; None: the stream yields single samples
    samples: int = 1  # samples per batch, if they are not packed
    workers: int = 2  # threads that build batches
    ahead: int = 4  # batches that may wait in the queue
    names: tuple[str, str] = ("", "")  # hashes of the data and of its order; a position is valid only for the same hashes
    plan: PackedPlan | None = None  # the stream's plan, with the measured lengths
    skipped: Counter[str] = field(default_factory=Counter)
    blank_answers: int = 0  # empty or blank answers in used samples; they have no loss
    unseen_turns: int = 0  # texts of used samples that were left out, because the model cannot see their boxes

    @property
    def units(self) -> int:
        """Number of stream units (packs or samples) in a batch."""
        return 1 if self.packed_tokens is not None else self.samples

    def __iter__(self) -> Iterator[tuple[Batch, FeedPosition]]:
        """Yield batches with their positions until the stream ends. The threads stop if the caller leaves the loop early."""
        batches: queue.Queue[Any] = queue.Queue(self.ahead)
        ended = threading.Event()
        fill = functools.partial(self._fill, batches, ended)
        thread = threading.Thread(target=attempt, args=(fill, batches.put), daemon=True, name="vlmdata-feed")
        thread.start()
        try:
            while (item := batches.get()) is not None:
                if isinstance(item, BaseException):
                    raise item
                yield item
        finally:
            ended.set()
            while thread.is_alive():
                _drain(batches)
                thread.join(0.01)

    def _fill(self, batches: queue.Queue, ended: threading.Event) -> None:
        """Put all batches into the queue, then None. Stop early if `ended` is set."""
        with ThreadPoolExecutor(self.workers, "vlmdata-feed") as pool:
            for item in self._batches(pool):
                batches.put(item)
                if ended.is_set():
                    return
        batches.put(None)

    def _batches(self, pool: ThreadPoolExecutor) -> Iterator[tuple[Batch, FeedPosition]]:
        """Build several batches at a time, and yield them in order, each with the position after it."""
        building: deque[tuple[Future[Batch | None], FeedPosition, int]] = deque()
        unbatched = 0  # samples read since the last batch

        def finish() -> Iterator[tuple[Batch, FeedPosition]]:
            nonlocal unbatched
            future, after, tried = building.popleft()
            batch = future.result()
            unbatched += tried
            if batch is not None:
                yield replace(batch, taken=unbatched), after
                unbatched = 0
            elif unbatched >= MAX_UNUSED:  # stop, because an endless stream may have no usable sample
                last = counted(unbatched, "sample")
                raise RecipeError(f"data: none of the last {last} can be used. Skipped, by reason: {dict(self.skipped)}")

        for samples, after, tried in self._steps():
            building.append((pool.submit(self.build, samples), after, tried))
            if len(building) > self.workers:
                yield from finish()
        while building:
            yield from finish()

    def _steps(self) -> Iterator[tuple[list[Sample], FeedPosition, int]]:
        """Yield for each batch (samples, position after the batch, number of samples that were read).

        The number includes the damaged samples of packs, which are not yielded. The batches for `position.pieces` come first.
        A piece is a step that an earlier rank had not done when the run stopped (see `sample_positions.py`).
        """
        start = self.position
        for number, piece in enumerate(start.pieces, 1):
            samples, _, tried = next(self._read_from(piece), ([], piece, 0))
            yield samples, FeedPosition(start.main, start.pieces[number:]), tried
        for samples, place, tried in self._read_from(start.main):
            yield samples, FeedPosition(place), tried

    def _read_from(self, start: SamplePosition) -> Iterator[tuple[list[Sample], SamplePosition, int]]:
        stream = self.open(start.rank, start.world)
        if start.position:
            _resume_at(stream, start)
        units, damaged = iter(stream), stream.skipped
        while taken := list(itertools.islice(units, self.units)):
            state = stream.state_dict()
            hint = tuple(state["window"]) if "window" in state else None
            # The stream repeats samples to pad an epoch's last step. Drop the repeats: they would count twice in the loss.
            samples = [sample for unit in taken for sample in unit if "__pad__" not in sample]
            lost, damaged = stream.skipped - damaged, stream.skipped
            self.skipped.update({"damaged": lost} if lost else {})
            # A pack loses its damaged samples. Without packing, the next sample replaces a damaged one.
            tried = len(samples) + (lost if self.packed_tokens is not None else 0)
            yield samples, SamplePosition(state["position"], start.rank, start.world, hint), tried

    def first_prompt(self) -> Prompt | None:
        """Return the prompt of the first usable sample, or None if none of the first 100 samples is usable."""
        first = itertools.islice((sample for unit in self.open(0, 1) for sample in unit), 100)
        for sample in first:
            with suppress(UnusableSample):
                return self.reading.prompt(sample)
        return None

    def build(self, samples: list[Sample]) -> Batch | None:
        """Return a batch of these samples, or None if none of them can be used."""
        ready = [prepared for sample in samples if (prepared := self.prepare(sample)) is not None]
        prompter = self.reading.prompter
        if not ready:
            return None
        return build_batch(ready, self.reading.plan, prompter.pad_id, packed_tokens=self.packed_tokens, broken=self.skipped)

    def prepare(self, sample: Sample) -> Ready | None:
        """Return a sample's prompt, or None if the sample has no prompt or is on the other side of the held-out split.

        A sample without a prompt is counted in `skipped`.
        """
        if not self.reading.takes(sample["__key__"]):
            return None
        try:
            prompt = self.reading.prompt(sample)
        except UnusableSample as error:
            self.skipped[error.reason] += 1
            return None
        self.blank_answers += prompt.blank_answers
        self.unseen_turns += prompt.unseen_turns
        return Ready(prompt, source_of(sample), f"{sample.get('__url__', '')} {sample['__key__']}")


def _resume_at(stream: SampleStream, start: SamplePosition) -> None:
    """Set a stream to a position.

    In a finite stream this also sets `until`, the position at which the stream ends. A stream that resumes at its end would
    otherwise start another epoch.
    """
    state = {**stream.state_dict(), "position": start.position}
    if start.hint is not None:
        state["window"] = list(start.hint)
    stream.load_state_dict(state)
    if stream.epochs is not None:
        end, _ = stream.plan.end(start.position - 1, stream.epochs, 1 << 62)
        stream.load_state_dict({**state, "until": end})


def _drain(batches: queue.Queue) -> None:
    """Remove everything from the queue."""
    try:
        while True:
            batches.get_nowait()
    except queue.Empty:
        pass
