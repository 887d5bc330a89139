"""Workers as processes of this machine: a second to start, no cluster needed."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import queue
import signal
import threading
from collections.abc import Sequence
from multiprocessing.managers import BaseManager
from typing import Any

from vlmdata.engine.shortage import is_short_of_memory, told
from vlmdata.engine.worker import Job, Worker
from vlmdata.engine.workers import Ended
from vlmdata.web.pace import Pace

NO_MEMORY = 12  # exit status: ENOMEM
CALLS = 8  # at once in a worker: more than a driver sends
CONTEXT = multiprocessing.get_context("forkserver")  # fork alone would copy the threads' locks of whoever calls us
CONTEXT.set_forkserver_preload(["vlmdata.engine.worker"])


class LocalWorkers:
    """`count` processes; calls go to them through pipes."""

    def __init__(self, job: Job, count: int, web: Any | None, gpus: Sequence[str] = ()):
        self.count = count
        self.gpus = min(len(gpus), count)
        self._gpus = gpus
        self._job = job
        self._pace_server = _PaceServer(web) if web else None
        self._processes: list[Any] = [None] * count
        self._pipes: list[Any] = [None] * count
        self._tickets: list[set[int]] = [set() for _ in range(count)]
        for number in range(count):
            self._start(number)

    def _start(self, number: int) -> None:
        ours, theirs = CONTEXT.Pipe()
        pace = self._pace_server.pace if self._pace_server else None
        environment = dict(os.environ)
        if self._gpus:  # one GPU to a worker; the others have none
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[number] if number < len(self._gpus) else ""
        process = CONTEXT.Process(target=_serve, args=(theirs, self._job, pace, environment), daemon=True)
        process.start()
        theirs.close()
        self._processes[number], self._pipes[number] = process, ours

    def is_ready(self, worker: int) -> bool:
        return True

    def send(self, worker: int, ticket: int, method: str, args: tuple[Any, ...]) -> None:
        self._tickets[worker].add(ticket)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # it just died: wait() finds that out
            self._pipes[worker].send((ticket, method, args))

    def wait(self) -> list[Ended]:
        while True:
            ready = multiprocessing.connection.wait(self._pipes)
            ended = [event for pipe in ready for event in self._receive(self._pipes.index(pipe))]
            if ended:
                return ended

    def _receive(self, worker: int) -> list[Ended]:
        try:
            ticket, result, error = self._pipes[worker].recv()
        except (EOFError, ConnectionResetError):
            return self._bury(worker)
        self._tickets[worker].discard(ticket)
        return [Ended(worker, ticket, result, error)]

    def _bury(self, worker: int) -> list[Ended]:
        process = self._processes[worker]
        process.join()
        code = process.exitcode
        died = signal.Signals(-code).name if code < 0 else "out of memory" if code == NO_MEMORY else f"exit {code}"
        lost, self._tickets[worker] = self._tickets[worker], set()
        self._pipes[worker].close()
        self._start(worker)
        return [Ended(worker, ticket, died=died) for ticket in sorted(lost)]

    def close(self) -> None:
        for process, pipe in zip(self._processes, self._pipes, strict=True):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                pipe.send(None)
            pipe.close()
            process.join(timeout=2)
            if process.is_alive():
                process.kill()
                process.join()
        if self._pace_server:
            self._pace_server.close()


class _PaceManager(BaseManager):
    """The server process that holds the run's one Pace."""


_PaceManager.register("Pace", Pace, exposed=("exchange", "leave"))


class _PaceServer:
    def __init__(self, web: Any):
        self._manager = _PaceManager(ctx=CONTEXT)
        self._manager.start(_end_with_the_driver)
        self.pace = self._manager.Pace(web)  # type: ignore[attr-defined]

    def close(self) -> None:
        self._manager.shutdown()


class _RemotePace:
    """The run's Pace, as a worker's client calls it."""

    is_local = False

    def __init__(self, proxy: Any):
        self.exchange = proxy.exchange
        self.leave = proxy.leave


def _ignore_interrupt() -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the driver's business; it ends its workers in order


def _end_with_the_driver() -> None:
    """Let the pace's server end when the driver is gone, however it went: a manager alone would stay for ever."""
    _ignore_interrupt()
    driver = multiprocessing.parent_process()
    assert driver is not None

    def watch() -> None:
        driver.join()
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def _serve(pipe: Any, job: Job, pace: Any, environment: dict[str, str]) -> None:
    """Do calls until the driver closes the pipe or is gone."""
    _ignore_interrupt()
    os.environ.clear()
    os.environ.update(environment)  # the driver's of now: the forkserver has that of its first run, perhaps without credentials
    os.environ["OMP_NUM_THREADS"] = "1"  # a worker is one core; Ray says the same to its actors
    lock = threading.Lock()
    try:
        worker = Worker(job, _RemotePace(pace) if pace is not None else None)
    except Exception as error:
        if is_short_of_memory(error):
            os._exit(NO_MEMORY)
        raise

    def do(ticket: int, method: str, args: tuple[Any, ...]) -> None:
        answer: tuple[int, Any, str | None]
        try:
            try:
                answer = (ticket, getattr(worker, method)(*args), None)
            except BaseException as error:  # whatever went wrong here is the driver's to report
                answer = (ticket, None, told(error))
            with lock, contextlib.suppress(BrokenPipeError):
                pipe.send(answer)
        except MemoryError:  # not even for that
            os._exit(NO_MEMORY)

    calls: queue.SimpleQueue[tuple[int, str, tuple[Any, ...]]] = queue.SimpleQueue()

    def serve() -> None:
        while True:
            do(*calls.get())

    try:
        for _ in range(CALLS):  # now: a thread that found no memory to begin would never answer
            threading.Thread(target=serve, daemon=True).start()
    except RuntimeError:  # "can't start new thread": there is no room for its stack
        os._exit(NO_MEMORY)
    while True:
        try:
            call = pipe.recv()
        except (EOFError, ConnectionResetError):  # the driver is gone: so are we, at once, with what was not committed
            os._exit(1)
        if call is None:
            worker.close()
            os._exit(0)
        calls.put(call)
