"""Workers as processes of this machine: a second to start, no cluster needed."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import os
import pickle
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from multiprocessing import forkserver, resource_tracker
from typing import Any

from vlmdata.engine.drive.driver import WorkFailed
from vlmdata.engine.drive.workers import Ended
from vlmdata.engine.partitions.calls import RunJob
from vlmdata.engine.work.open_partition import Keep
from vlmdata.engine.work.worker import Worker
from vlmdata.process.interrupt import held_back, ignore
from vlmdata.process.shortage import is_short_of_memory, told
from vlmdata.process.thread import Thread, attempt
from vlmdata.web.rate_limiter import RateLimiter

NO_MEMORY = 12  # exit status: ENOMEM
PAUSES_S = (0.1, 1.0, 10.0)  # after an attempt to start a process
CALLS = 8  # at once in a worker: more than a driver sends
CONTEXT = multiprocessing.get_context("forkserver")  # fork alone would copy the threads' locks of whoever calls us
CONTEXT.set_forkserver_preload(["vlmdata.engine.work.worker"])


class LocalWorkers:
    """`count` processes; calls go to them through pipes. The run's Pace is held here: a thread answers each worker's client.

    Each process calls `initializer` first. `processes[n]` is the process that is now worker n.
    """

    def __init__(
        self,
        job: RunJob,
        count: int,
        web: Any | None,
        gpus: Sequence[str] = (),
        *,
        initializer: Callable[[], None] | None = None,
    ):
        self.count = count
        self.gpus = min(len(gpus), count)
        self._gpus = gpus
        self._job = job
        self._rate_limiter = RateLimiter(web) if web else None
        self._initializer = initializer
        self.processes: list[Any] = [None] * count
        self._pipes: list[Any] = [None] * count
        self._tickets: list[set[int]] = [set() for _ in range(count)]
        for number in range(count):
            self._start(number)

    def _start(self, number: int) -> None:
        ours, theirs = CONTEXT.Pipe()
        answers, asks = CONTEXT.Pipe()
        environment = dict(os.environ)
        if self._gpus:  # one GPU to a worker; the others have none
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[number] if number < len(self._gpus) else ""
        given = (theirs, self._job, asks, environment, self._initializer)
        process = CONTEXT.Process(target=_serve, args=given, daemon=True)
        _begin(process)
        theirs.close()
        asks.close()
        self.processes[number], self._pipes[number] = process, ours
        if self._rate_limiter:
            Thread(_serve_rate_limiter, self._rate_limiter, answers, name="pace").start()

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
            ticket, result, error = pickle.loads(self._pipes[worker].recv_bytes())
        except (EOFError, OSError):  # at the end of a message, or in the midst of one
            return self._bury(worker)
        self._tickets[worker].discard(ticket)
        return [Ended(worker, ticket, result, error)]

    def _bury(self, worker: int) -> list[Ended]:
        process = self.processes[worker]
        process.join()
        code = process.exitcode
        died = signal.Signals(-code).name if code < 0 else "out of memory" if code == NO_MEMORY else f"exit {code}"
        lost, self._tickets[worker] = self._tickets[worker], set()
        self._pipes[worker].close()
        self._start(worker)
        return [Ended(worker, ticket, died=died) for ticket in sorted(lost)]

    def close(self) -> None:
        for process, pipe in zip(self.processes, self._pipes, strict=True):
            with contextlib.suppress(BrokenPipeError, ConnectionResetError):
                pipe.send(None)
            pipe.close()
            process.join(timeout=2)
            if process.is_alive():
                process.kill()
                process.join()


def _begin(process: Any) -> None:
    """Start a process. What it is forked from may just have been killed, or end as it finds no memory: another is begun."""
    for pause_s in PAUSES_S:
        with contextlib.suppress(EOFError, ConnectionError):
            resource_tracker.ensure_running()  # starting it lets Ctrl-C through again
            with held_back():  # it imports for a second before it ignores Ctrl-C
                forkserver.ensure_running()
            process.start()
            return
        time.sleep(pause_s)  # until who is dying is seen as dead
    raise WorkFailed("no process can be started for a worker; run the same command again to resume")


def _serve_rate_limiter(rate_limiter: RateLimiter, pipe: Any) -> None:
    """Answer a worker's client until the worker is gone; where there is no memory to answer, it finds its pipe closed."""
    worker = ""
    with pipe, contextlib.suppress(EOFError, OSError, MemoryError):
        while True:
            worker, *messages = pipe.recv()
            pipe.send(rate_limiter.exchange(worker, *messages))
    rate_limiter.leave(worker)


class _RemoteRateLimiter:
    """The run's Pace, as a worker's client calls it."""

    is_local = False

    def __init__(self, pipe: Any):
        self._pipe = pipe

    def exchange(self, *args: Any) -> Any:
        try:
            self._pipe.send(args)
            return self._pipe.recv()
        except (EOFError, OSError):  # nobody answers: our end is what the driver, if it is there, sees and mends
            os._exit(NO_MEMORY)


def _serve(
    pipe: Any, job: RunJob, rate_limiter: Any, environment: dict[str, str], initializer: Callable[[], None] | None
) -> None:
    """Do calls until the driver closes the pipe or is gone."""
    if initializer is not None:
        initializer()
    ignore()  # the driver ends its workers in order
    os.environ.clear()
    os.environ.update(environment)  # the driver's of now: the forkserver has that of its first run, perhaps without credentials
    os.environ["OMP_NUM_THREADS"] = "1"  # a worker is one core; Ray says the same to its actors
    threading.excepthook = sys.unraisablehook = _end_where_memory_is_short
    attempt(lambda: _do_calls(pipe, job, rate_limiter), _end_or_raise)


def _end_or_raise(error: BaseException) -> None:
    if is_short_of_memory(error):
        os._exit(NO_MEMORY)
    raise error


def _end_where_memory_is_short(failed: Any) -> None:
    """End the process with a thread that found no memory to go on or to begin: somebody waits for it and would for ever."""
    if failed.exc_value is not None and is_short_of_memory(failed.exc_value):
        os._exit(NO_MEMORY)
    (threading.__excepthook__ if isinstance(failed, threading.ExceptHookArgs) else sys.__unraisablehook__)(failed)


def _do_calls(pipe: Any, job: RunJob, rate_limiter: Any) -> None:
    lock = threading.Lock()
    keep = Keep()  # the worker, made by the first call, which tells what hinders it

    def do(ticket: int, method: str, args: tuple[Any, ...]) -> None:
        def work() -> bytes:
            worker = keep.get("worker", lambda: Worker(job, _RemoteRateLimiter(rate_limiter)))
            return pickle.dumps((ticket, getattr(worker, method)(*args), None))

        answer = attempt(work, lambda error: pickle.dumps((ticket, None, told(error))))  # the driver reports the error
        with lock:
            pipe.send_bytes(answer)

    calls: queue.SimpleQueue[tuple[int, str, tuple[Any, ...]]] = queue.SimpleQueue()

    def serve() -> None:
        while True:
            do(*calls.get())

    # Now: a thread that found no memory to begin would never answer. One ends the process where there is no memory even to
    # report an error, or the driver is gone.
    for _ in range(CALLS):
        Thread(attempt, serve, lambda _: os._exit(NO_MEMORY), name="call").start()
    while True:
        try:
            call = pipe.recv()
        except (EOFError, ConnectionResetError):  # the driver is gone: so are we, at once, with what was not committed
            os._exit(1)
        if call is None:
            try:
                keep.close()
            finally:
                os._exit(0)
        calls.put(call)
