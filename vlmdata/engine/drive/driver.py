"""The driver: it sends a bounded number of calls to workers, repeats lost calls, and finds the image that kills a decoder."""

from __future__ import annotations

import builtins
import tempfile
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from vlmdata.engine.drive.workers import EXTERNAL_DEATHS, Ended, Workers
from vlmdata.errors import WorkFailed
from vlmdata.process.shortage import ADVICE, OWN_CODE

Workplace = Literal["all", "models", "one"]  # the workers on which a call may run

DEATHS_BEFORE_ALONE = 2  # number of deaths of its worker after which a call runs alone
MAX_DEATHS = 8  # number of deaths of a call's worker after which the run fails


@dataclass
class _Call:
    ticket: int
    args: tuple[Any, ...]
    deaths: int = 0
    suspect: int | None = None  # position of the image that was being decoded when this call, run alone, last died
    guilty: list[int] = field(default_factory=list)


class _Calls:
    """The calls of one `map`, sorted by state: not sent yet, sent to a worker, to be sent again, or to run alone.

    A call runs alone after two workers have died while running it.
    """

    def __init__(self, source: Iterable[tuple[Any, ...]], workers: int):
        self.load = [0] * workers  # number of calls on each worker
        self.sent: dict[int, tuple[_Call, int]] = {}  # ticket -> call and its worker
        self.again: deque[_Call] = deque()
        self.alone: deque[_Call] = deque()
        self.is_exhausted = False  # True once the source has no more calls
        self._source = enumerate(source)

    def take(self) -> _Call | None:
        """Return the call to send next, or None if there is none."""
        if self.again:
            return self.again.popleft()
        for ticket, args in self._source:
            return _Call(ticket, args)
        self.is_exhausted = True
        return None

    def add_sent(self, call: _Call, worker: int) -> None:
        """Record that a call was sent to a worker."""
        self.sent[call.ticket] = (call, worker)
        self.load[worker] += 1

    def take_sent(self, ticket: int) -> _Call:
        """Remove a call that ended, with or without a result, and return it."""
        call, worker = self.sent.pop(ticket)
        self.load[worker] -= 1
        return call


class Driver:
    """Runs calls on workers and repeats a call whose worker dies."""

    def __init__(self, workers: Workers, together: int, folder: Path | None):
        self.workers = workers
        self.together = together  # maximum number of calls at once on one worker
        self.deaths = 0  # number of deaths of workers in the whole run
        self._folder = folder or Path(tempfile.gettempdir())

    def map(
        self,
        method: str,
        calls: Iterable[tuple[Any, ...]],
        *,
        together: int | None = None,
        tracked: bool = False,
        on: Workplace = "all",
    ) -> Iterator[tuple[tuple[Any, ...], Any]]:
        """Yield the arguments and the result of every call, in the order of completion.

        At most `together` calls run at once on one worker. With on="models", calls run only on workers with a GPU, or on all
        workers if none has a GPU. With on="one", they run on one worker. Raises WorkFailed if a call ends with an error.

        A call whose worker died twice runs alone. With `tracked`, this call gets two more arguments: the positions of the
        images to skip, and the file in which the worker records the image that it decodes. So the driver finds and skips an
        image that kills its worker.
        """
        todo = _Calls(calls, self.workers.count)
        most = together or self.together
        numbers = range(1 if on == "one" else (on == "models" and self.workers.gpus) or self.workers.count)
        while True:
            self._send_all(todo, method, most, numbers)
            if not todo.sent:
                if todo.alone:
                    yield self._run_alone(todo.alone.popleft(), method, tracked, numbers)
                    continue
                if todo.is_exhausted and not todo.again:
                    return
            for ended in self.workers.wait():
                call = todo.take_sent(ended.ticket)
                if ended.died is None:
                    yield call.args, result_of(ended)
                    continue
                self._count_death(call, ended)
                (todo.alone if call.deaths >= DEATHS_BEFORE_ALONE else todo.again).append(call)

    def _send_all(self, todo: _Calls, method: str, most: int, numbers: Sequence[int]) -> None:
        """Send calls until every worker has `most` calls or no call is left to send.

        If a call waits to run alone and no other call is running, send nothing.
        """
        while todo.sent or not todo.alone:
            worker = self._free_worker(todo.load, most, numbers)
            call = None if worker is None else todo.take()
            if worker is None or call is None:
                return
            todo.add_sent(call, worker)
            self.workers.send(worker, call.ticket, method, call.args)

    def _free_worker(self, load: list[int], most: int, numbers: Sequence[int]) -> int | None:
        """Return the ready worker with the fewest calls, or None if every ready worker has `most` calls."""
        ready = [number for number in numbers if load[number] < most and self.workers.is_ready(number)]
        return min(ready, key=load.__getitem__) if ready else None

    def _count_death(self, call: _Call, ended: Ended) -> None:
        """Count a death of the call's worker. Raises WorkFailed after MAX_DEATHS deaths on this call."""
        call.deaths += 1
        self.deaths += 1
        if call.deaths >= MAX_DEATHS:
            died = str(ended.died)
            again = "; run the same command again to resume" if died.startswith(EXTERNAL_DEATHS) else ""
            raise WorkFailed(
                f"workers died {call.deaths} times in the call with {call.args[0]}; the last cause was {died}{again}"
            )

    def _run_alone(self, call: _Call, method: str, tracked: bool, numbers: Sequence[int]) -> tuple[tuple[Any, ...], Any]:
        """Run one call while no other call runs.

        If the worker dies twice in a row while it decodes the same image, later attempts skip this image.
        """
        journal = self._folder / f"journal-{call.ticket}"
        while True:
            args = call.args
            if tracked:
                args = (*call.args[:2], tuple(call.guilty), str(journal))
            journal.unlink(missing_ok=True)
            while (worker := self._free_worker([0] * self.workers.count, 1, numbers)) is None:
                self.workers.wait()
            self.workers.send(worker, call.ticket, method, args)
            while not (answers := self.workers.wait()):
                pass
            ended = answers[0]
            if ended.died is None:
                journal.unlink(missing_ok=True)
                return call.args, result_of(ended)
            position = _journaled(journal) if tracked and not ended.died.startswith(EXTERNAL_DEATHS) else None
            if position is None:
                self._count_death(call, ended)
            elif position == call.suspect:
                call.guilty.append(position)
                call.suspect = None
            else:
                call.suspect = position


def _journaled(journal: Path) -> int | None:
    """Return the position of the image that a worker recorded last in this file, or None if it recorded no image."""
    try:
        words = journal.read_text().split()
    except FileNotFoundError:
        return None
    return int(words[1]) if len(words) == 2 else None


def result_of(ended: Ended) -> Any:
    """Return the result of a call. Raises WorkFailed if the call ended with an error.

    If the machine or the source of the rows caused the error, the message is one line. If a user's step caused it,
    the message also shows lines of the step's code. Otherwise, it is the traceback.
    """
    if ended.error is None:
        return ended.result
    if ended.error.startswith(OWN_CODE):
        raise WorkFailed(ended.error.partition("\n")[2])
    last = ended.error.strip().splitlines()[-1]
    kind = last.partition(":")[0].rpartition(".")[2]  # drop the module of the class name, as in pyarrow.lib.ArrowMemoryError
    if kind in ("RecipeError", "GeneratorStopped"):  # a source could not be read to its end, or a model cannot go on
        raise WorkFailed(last.partition(": ")[2])
    if kind == "MemoryError":  # process/shortage.py reports every kind of memory error by this name
        raise WorkFailed(f"{last}. {ADVICE}")
    if _is_of_machine(kind):  # this is not a bug, so a traceback would not help
        raise WorkFailed(f"{last}. Fix this and run the same command again; it resumes.")
    raise WorkFailed(ended.error)


def _is_of_machine(kind: str) -> bool:
    """Return whether `kind` is the name of OSError or of a built-in class derived from it."""
    found = getattr(builtins, kind, None)
    return isinstance(found, type) and issubclass(found, OSError)
