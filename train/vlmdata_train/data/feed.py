"""From a stream to batches, prepared ahead in threads, with an exact position.

A unit of the stream is a pack, planned by the loader from lengths that the reading measured; where nothing is packed, each
sample that is not left out is a pack by itself. A batch is one pack in one row, or some samples in a row each.
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
from vlmdata.step import RecipeError
from vlmdata_train.data.collate import Ready, build_batch
from vlmdata_train.data.left_out import UnusableSample
from vlmdata_train.data.prompt import Prompt
from vlmdata_train.data.reading import Reading, Sample, source_of
from vlmdata_train.data.sample_positions import FeedPosition, SamplePosition
from vlmdata_train.model.batch import Batch

MAX_IN_VAIN = 10_000  # samples in a row of which none can be used


class SampleStream(Protocol):
    """What `vlmdata.stream` gives: packs, lists of samples, from a position on that counts over all ranks."""

    epochs: int | None
    skipped: int
    plan: Any

    def __iter__(self) -> Iterator[Any]: ...
    def state_dict(self) -> dict[str, Any]: ...
    def load_state_dict(self, state: dict[str, Any]) -> None: ...


@dataclass
class Feed:
    """An iterable of (batch, position after it). `skipped` counts the samples that gave nothing, by reason."""

    open: Callable[[int, int], SampleStream]  # the stream of a rank, by its number and the number of ranks
    reading: Reading
    position: FeedPosition  # to begin at
    packed_tokens: int | None  # of a row; None: the stream gives single samples
    samples: int = 1  # of a batch, where nothing is packed
    workers: int = 2
    ahead: int = 4
    names: tuple[str, str] = ("", "")  # of what the stream reads and of its order: a position means nothing in another one
    plan: PackedPlan | None = None  # what the stream goes through, with the measured lengths
    skipped: Counter[str] = field(default_factory=Counter)
    blank_answers: int = 0  # of the samples that were used: answers that say nothing and have no loss

    @property
    def units(self) -> int:
        """How many units of the stream make a batch."""
        return 1 if self.packed_tokens is not None else self.samples

    def __iter__(self) -> Iterator[tuple[Batch, FeedPosition]]:
        """Give batches until the stream ends. Leaving the loop early ends the threads."""
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
        with ThreadPoolExecutor(self.workers, "vlmdata-feed") as pool:
            for item in self._batches(pool):
                batches.put(item)
                if ended.is_set():
                    return
        batches.put(None)

    def _batches(self, pool: ThreadPoolExecutor) -> Iterator[tuple[Batch, FeedPosition]]:
        """Build some batches at a time, and give them in their order."""
        building: deque[tuple[Future[Batch | None], FeedPosition, int]] = deque()
        in_vain = 0  # samples since the last batch

        def finish() -> Iterator[tuple[Batch, FeedPosition]]:
            nonlocal in_vain
            future, after, tried = building.popleft()
            batch = future.result()
            in_vain += tried
            if batch is not None:
                yield replace(batch, taken=in_vain), after
                in_vain = 0
            elif in_vain >= MAX_IN_VAIN:  # a stream without end would be searched for ever
                raise RecipeError(f"data: {in_vain} samples in a row gave nothing: {dict(self.skipped)}")

        for samples, after, tried in self._steps():
            building.append((pool.submit(self.build, samples), after, tried))
            if len(building) > self.workers:
                yield from finish()
        while building:
            yield from finish()

    def _steps(self) -> Iterator[tuple[list[Sample], FeedPosition, int]]:
        """Give the samples of each batch, the position after them, and how many of the plan's samples came by for it.

        First come those of the pieces, then those of the main stream.
        """
        start = self.position
        for number, piece in enumerate(start.pieces, 1):
            samples, _, tried = next(self._stretch(piece), ([], piece, 0))
            yield samples, FeedPosition(start.main, start.pieces[number:]), tried
        for samples, place, tried in self._stretch(start.main):
            yield samples, FeedPosition(place), tried

    def _stretch(self, start: SamplePosition) -> Iterator[tuple[list[Sample], SamplePosition, int]]:
        stream = self.open(start.rank, start.world)
        if start.position:
            _resume_at(stream, start)
        units, damaged = iter(stream), stream.skipped
        while taken := list(itertools.islice(units, self.units)):
            state = stream.state_dict()
            hint = tuple(state["window"]) if "window" in state else None
            # What fills up the last step of an epoch for all ranks is a repetition; we count tokens instead.
            samples = [sample for unit in taken for sample in unit if "__pad__" not in sample]
            gone, damaged = stream.skipped - damaged, stream.skipped
            self.skipped.update({"damaged": gone} if gone else {})
            # A pack goes without its damaged samples; a single one is replaced by the next.
            tried = len(samples) + (gone if self.packed_tokens is not None else 0)
            yield samples, SamplePosition(state["position"], start.rank, start.world, hint), tried

    def first_prompt(self) -> Prompt | None:
        """Make the prompt of the first sample that the run can use; None if the first hundred give none."""
        first = itertools.islice((sample for unit in self.open(0, 1) for sample in unit), 100)
        for sample in first:
            with suppress(UnusableSample):
                return self.reading.prompt(sample)
        return None

    def build(self, samples: list[Sample]) -> Batch | None:
        """Make a batch of some samples; None if none of them can be used."""
        ready = [made for sample in samples if (made := self.prepare(sample)) is not None]
        prompter = self.reading.prompter
        if not ready:
            return None
        return build_batch(ready, self.reading.plan, prompter.pad_id, packed_tokens=self.packed_tokens, broken=self.skipped)

    def prepare(self, sample: Sample) -> Ready | None:
        """Make one sample's prompt; None, and counted, if it gives none."""
        if not self.reading.takes(sample["__key__"]):
            return None
        try:
            prompt = self.reading.prompt(sample)
        except UnusableSample as error:
            self.skipped[error.reason] += 1
            return None
        self.blank_answers += prompt.blank_answers
        return Ready(prompt, source_of(sample), f"{sample.get('__url__', '')} {sample['__key__']}")


def _resume_at(stream: SampleStream, start: SamplePosition) -> None:
    """Set a stream to a position. A finite stream at its end is over: without `until` it would begin its next epochs."""
    state = {**stream.state_dict(), "position": start.position}
    if start.hint is not None:
        state["window"] = list(start.hint)
    stream.load_state_dict(state)
    if stream.epochs is not None:
        end, _ = stream.plan.end(start.position - 1, stream.epochs, 1 << 62)
        stream.load_state_dict({**state, "until": end})


def _drain(batches: queue.Queue) -> None:
    try:
        while True:
            batches.get_nowait()
    except queue.Empty:
        pass
