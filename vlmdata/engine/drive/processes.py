"""Runs workers as processes of this machine. They start in about a second and need no cluster."""

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
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import forkserver, resource_tracker
from types import ModuleType
from typing import Any

from vlmdata.engine.drive.driver import WorkFailed
from vlmdata.engine.drive.workers import Ended
from vlmdata.engine.partitions.calls import RunJob
from vlmdata.engine.work.open_partition import Keep
from vlmdata.engine.work.worker import Worker
from vlmdata.process.interrupt import delayed, held_back, ignore
from vlmdata.process.shortage import describe_error, is_short_of_memory
from vlmdata.process.thread import Thread, attempt
from vlmdata.web.rate_limiter import RateLimiter

NO_MEMORY = 12  # exit status of a process that ran out of memory: ENOMEM
PAUSES_S = (0.1, 1.0, 10.0)  # waiting time after each failed attempt to start a process
CALLS = 8  # number of threads of a worker; more than the number of calls that a driver sends at once
CONTEXT = multiprocessing.get_context("forkserver")  # plain fork would copy locks that the caller's threads hold
CONTEXT.set_forkserver_preload(["vlmdata.engine.work.worker"])


class LocalWorkers:
    """A pool of `count` processes that take calls through pipes. `processes[n]` is the current process of worker n.

    The RateLimiter is in the driver's process, where one thread per worker answers the worker's web client. Each process calls
    `initializer` before it takes calls.
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
        self._needs_script = b"__main__" in pickle.dumps((job, initializer))  # such as a step that a script defines
        self.processes: list[Any] = [None] * count
        self._pipes: list[Any] = [None] * count
        self._tickets: list[set[int]] = [set() for _ in range(count)]
        for number in range(count):
            self._start(number)

    def _start(self, number: int) -> None:
        ours, theirs = CONTEXT.Pipe()
        answers, asks = CONTEXT.Pipe()
        environment = dict(os.environ)
        if self._gpus:  # one GPU for each of the first workers, none for the others
            environment["CUDA_VISIBLE_DEVICES"] = self._gpus[number] if number < len(self._gpus) else ""
        arguments = (theirs, self._job, asks, environment, self._initializer)
        process = CONTEXT.Process(target=_serve, args=arguments, daemon=True)
        start_process(process, runs_script=self._needs_script)
        theirs.close()
        asks.close()
        self.processes[number], self._pipes[number] = process, ours
        if self._rate_limiter:
            Thread(_serve_rate_limiter, self._rate_limiter, answers, name="rate limiter").start()

    def is_ready(self, worker: int) -> bool:
        return True

    def send(self, worker: int, ticket: int, method: str, args: tuple[Any, ...]) -> None:
        self._tickets[worker].add(ticket)
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # the worker just died, which wait() reports
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
        except (EOFError, OSError):  # the pipe ended after a message or inside one
            return self._replace(worker)
        self._tickets[worker].discard(ticket)
        return [Ended(worker, ticket, result, error)]

    def _replace(self, worker: int) -> list[Ended]:
        """Start a new process for a dead worker and return the calls that it lost."""
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


def start_process(process: Any, *, runs_script: bool = True) -> None:
    """Start a process. If the forkserver was just killed or ran out of memory, start another forkserver and retry.

    With `runs_script`, the process first imports the script that Python was started with.
    """
    for pause_s in PAUSES_S:
        with contextlib.suppress(EOFError, ConnectionError):
            resource_tracker.ensure_running()  # outside of held_back, because this call unblocks Ctrl-C
            with held_back():  # the forkserver imports modules for a second before it ignores Ctrl-C
                forkserver.ensure_running()
            # A process that gets only a part of its data prints a traceback.
            with delayed(), contextlib.nullcontext() if runs_script else _script_hidden():
                process.start()
            return
        time.sleep(pause_s)  # gives a dying forkserver time to end
    raise WorkFailed("cannot start a process for a worker; run the same command again to resume")


@contextlib.contextmanager
def _script_hidden() -> Iterator[None]:
    """Hide the script that Python was started with, so that a process that starts in the `with` block does not import it.

    multiprocessing imports it in every new process, where a script that calls `run` would call it again.
    """
    script = sys.modules["__main__"]
    sys.modules["__main__"] = ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = script


def _serve_rate_limiter(rate_limiter: RateLimiter, pipe: Any) -> None:
    """Answer the calls that a worker's web client makes to the rate limiter, until the worker ends.

    If there is no memory for an answer, close the pipe, so that the worker exits.
    """
    worker = ""
    with pipe, contextlib.suppress(EOFError, OSError, MemoryError):
        while True:
            worker, *messages = pipe.recv()
            pipe.send(rate_limiter.exchange(worker, *messages))
    rate_limiter.leave(worker)


class _PipeRateLimiter:
    """Passes the calls of a worker's web client on to the run's rate limiter."""

    is_local = False

    def __init__(self, pipe: Any):
        self._pipe = pipe

    def exchange(self, *args: Any) -> Any:
        try:
            self._pipe.send(args)
            return self._pipe.recv()
        except (EOFError, OSError):  # no answer will come, so exit; a driver that still runs replaces this worker
            os._exit(NO_MEMORY)


def _serve(
    pipe: Any, job: RunJob, rate_limiter: Any, environment: dict[str, str], initializer: Callable[[], None] | None
) -> None:
    """Run calls until the driver closes the pipe or ends."""
    if initializer is not None:
        initializer()
    ignore()  # Ctrl-C: the driver stops its workers
    # With "fork", the lock of a library such as tqdm needs no named semaphore. Workers end with os._exit, which would leave the
    # semaphore, and Python would warn of a leak. A worker never starts a process with multiprocessing.
    multiprocessing.set_start_method("fork", force=True)
    os.environ.clear()
    os.environ.update(environment)  # the forkserver's environment is older and may lack credentials
    os.environ["OMP_NUM_THREADS"] = "1"  # a worker has one core; Ray sets the same for its actors
    threading.excepthook = sys.unraisablehook = _end_where_memory_is_short
    attempt(lambda: _do_calls(pipe, job, rate_limiter), _end_or_raise)


def _end_or_raise(error: BaseException) -> None:
    if is_short_of_memory(error):
        os._exit(NO_MEMORY)
    raise error


def _end_where_memory_is_short(failed: Any) -> None:
    """Exit if any thread runs out of memory, because the caller of that thread would hang."""
    if failed.exc_value is not None and is_short_of_memory(failed.exc_value):
        os._exit(NO_MEMORY)
    (threading.__excepthook__ if isinstance(failed, threading.ExceptHookArgs) else sys.__unraisablehook__)(failed)


def _do_calls(pipe: Any, job: RunJob, rate_limiter: Any) -> None:
    lock = threading.Lock()
    keep = Keep()  # the first call constructs the worker, and reports an error of the constructor as its own

    def do(ticket: int, method: str, args: tuple[Any, ...]) -> None:
        def work() -> bytes:
            worker = keep.get("worker", lambda: Worker(job, _PipeRateLimiter(rate_limiter)))
            return pickle.dumps((ticket, getattr(worker, method)(*args), None))

        # the driver reports the error
        answer = attempt(work, lambda error: pickle.dumps((ticket, None, describe_error(error))))
        with lock:
            pipe.send_bytes(answer)

    calls: queue.SimpleQueue[tuple[int, str, tuple[Any, ...]]] = queue.SimpleQueue()

    def serve() -> None:
        while True:
            do(*calls.get())

    # Start all threads now, while there is memory. A thread that could not start later would never answer. A thread that cannot
    # even report an error exits the process, because memory is short or the driver has ended.
    for _ in range(CALLS):
        Thread(attempt, serve, lambda _: os._exit(NO_MEMORY), name="call").start()
    while True:
        try:
            call = pipe.recv()
        except (EOFError, ConnectionResetError):  # the driver has ended: exit at once and drop what is not committed
            os._exit(1)
        if call is None:
            try:
                keep.close()
            finally:
                os._exit(0)
        calls.put(call)
