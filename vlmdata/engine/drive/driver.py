"""The driver: hands out calls in a bounded window, does lost ones again, and finds the image that kills a decoder."""

from __future__ import annotations

import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from vlmdata.engine.drive.workers import KNOWN_FROM_OUTSIDE, Ended, Workers
from vlmdata.errors import WorkFailed
from vlmdata.process.shortage import ADVICE

STRIKES = 2  # deaths of its worker after which a call is done alone
MACHINE = {"OSError", "PermissionError", "FileNotFoundError", "BlockingIOError", "ConnectionError"}
LAST_STRIKE = 8  # deaths after which we give up: somebody or something keeps killing us


@dataclass
class _Call:
    ticket: int
    args: tuple[Any, ...]
    deaths: int = 0
    suspect: int | None = None  # the image in hand when its worker last died alone
    guilty: list[int] = field(default_factory=list)


class _Calls:
    """The calls of one `map`: not begun, on a worker, to be sent again, or to be done alone: their workers died too often."""

    def __init__(self, source: Iterable[tuple[Any, ...]], workers: int):
        self.load = [0] * workers  # calls on each worker
        self.flying: dict[int, tuple[_Call, int]] = {}  # by ticket, each with its worker
        self.again: deque[_Call] = deque()
        self.alone: deque[_Call] = deque()
        self.is_exhausted = False  # the source has no more
        self._source = enumerate(source)

    def take(self) -> _Call | None:
        """Return the call to send next, None where there is none now."""
        if self.again:
            return self.again.popleft()
        for ticket, args in self._source:
            return _Call(ticket, args)
        self.is_exhausted = True
        return None

    def sent(self, call: _Call, worker: int) -> None:
        self.flying[call.ticket] = (call, worker)
        self.load[worker] += 1

    def landed(self, ticket: int) -> _Call:
        """Return a call that ended, well or not."""
        call, worker = self.flying.pop(ticket)
        self.load[worker] -= 1
        return call


class Driver:
    """Does calls on workers, each until it has ended."""

    def __init__(self, workers: Workers, together: int, folder: Path | None):
        self.workers = workers
        self.together = together  # calls at once on one worker
        self.deaths = 0  # of workers, in the whole run
        self._folder = folder or Path(tempfile.gettempdir())

    def map(
        self,
        method: str,
        calls: Iterable[tuple[Any, ...]],
        *,
        together: int | None = None,
        tracked: bool = False,
        with_models: bool = False,
    ) -> Iterator[tuple[tuple[Any, ...], Any]]:
        """Yield the arguments and result of every call, in the order they end.

        `with_models`: on the workers that are there for models alone. `tracked` calls take `guilty` and `journal`, so that an
        image which kills its worker can be found and passed over.
        """
        todo = _Calls(calls, self.workers.count)
        room = together or self.together
        among = range((with_models and self.workers.gpus) or self.workers.count)
        while True:
            self._send_all(todo, method, room, among)
            if not todo.flying:
                if todo.alone:
                    yield self._do_alone(todo.alone.popleft(), method, tracked, among)
                    continue
                if todo.is_exhausted and not todo.again:
                    return
            for ended in self.workers.wait():
                call = todo.landed(ended.ticket)
                if ended.died is None:
                    yield call.args, result_of(ended)
                    continue
                self._mourn(call, ended)
                (todo.alone if call.deaths >= STRIKES else todo.again).append(call)

    def _send_all(self, todo: _Calls, method: str, room: int, among: Sequence[int]) -> None:
        """Send calls while a worker has room; none where one has to be done alone and all others have ended."""
        while todo.flying or not todo.alone:
            worker = self._free_worker(todo.load, room, among)
            call = None if worker is None else todo.take()
            if worker is None or call is None:
                return
            todo.sent(call, worker)
            self.workers.send(worker, call.ticket, method, call.args)

    def _free_worker(self, load: list[int], room: int, among: Sequence[int]) -> int | None:
        """Return the ready worker with the fewest calls, or None where all have as many as they may."""
        ready = [number for number in among if load[number] < room and self.workers.is_ready(number)]
        return min(ready, key=load.__getitem__) if ready else None

    def _mourn(self, call: _Call, ended: Ended) -> None:
        call.deaths += 1
        self.deaths += 1
        if call.deaths >= LAST_STRIKE:
            died = str(ended.died)
            again = "; run the same command again to resume" if died.startswith(KNOWN_FROM_OUTSIDE) else ""
            raise WorkFailed(f"the worker doing {call.args[0]} died {call.deaths} times, the last time by {died}{again}")

    def _do_alone(self, call: _Call, method: str, tracked: bool, among: Sequence[int]) -> tuple[tuple[Any, ...], Any]:
        """Do one call with nothing beside it. A death that the same image brings about twice makes that image guilty."""
        journal = self._folder / f"journal-{call.ticket}"
        while True:
            args = call.args
            if tracked:
                args = (*call.args[:2], tuple(call.guilty), str(journal))
            journal.unlink(missing_ok=True)
            while (worker := self._free_worker([0] * self.workers.count, 1, among)) is None:
                self.workers.wait()
            self.workers.send(worker, call.ticket, method, args)
            while not (answers := self.workers.wait()):
                pass
            ended = answers[0]
            if ended.died is None:
                journal.unlink(missing_ok=True)
                return call.args, result_of(ended)
            position = _noted(journal) if tracked and not ended.died.startswith(KNOWN_FROM_OUTSIDE) else None
            if position is None:
                self._mourn(call, ended)
            elif position == call.suspect:
                call.guilty.append(position)
                call.suspect = None
            else:
                call.suspect = position


def _noted(journal: Path) -> int | None:
    try:
        words = journal.read_text().split()
    except FileNotFoundError:
        return None
    return int(words[1]) if len(words) == 2 else None


def result_of(ended: Ended) -> Any:
    """Return the result of a call that its worker ended. WorkFailed: an error, a fault of the machine's in one line."""
    if ended.error is None:
        return ended.result
    last = ended.error.strip().splitlines()[-1]
    kind = last.partition(":")[0].rpartition(".")[2]  # of pyarrow.lib.ArrowMemoryError the last word
    if kind == "RecipeError":  # of a source that could not be read to its end
        raise WorkFailed(last.partition(": ")[2])
    if kind == "MemoryError":  # as `told` says of every kind
        raise WorkFailed(f"{last}. {ADVICE}")
    if kind in MACHINE:  # not a fault of ours: where in our code it happened helps nobody
        raise WorkFailed(f"{last}. Fix this and run the same command again; it resumes.")
    raise WorkFailed(ended.error)
