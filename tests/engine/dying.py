"""Processes that die before a chosen change to the file system, as if the power had failed.

An audit hook sees each file that any code is about to open for writing, link, rename or remove, and each folder it is about
to make. Only the workers of the code under test are replaced: each call runs at once in the driver's process, so the changes
of a whole run come in one order and can be numbered.
"""

from __future__ import annotations

import contextlib
import functools
import itertools
import os
import random
import resource
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vlmdata import build
from vlmdata.cli import main
from vlmdata.engine.drive.processes import CONTEXT, LocalWorkers
from vlmdata.engine.drive.workers import Ended
from vlmdata.engine.partitions.calls import RunJob
from vlmdata.engine.work.worker import Worker
from vlmdata.steps.download import Download
from vlmdata.takedown import Request, take_down
from vlmdata.web.rate_limiter import RateLimiter

DIED = 137
CONTEXT.set_forkserver_preload(["vlmdata.engine.work.worker", "tests.engine.dying"])  # hundreds of processes are forked from it
WRITES = os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_TRUNC
# event -> position of the path among its arguments
CHANGES = {"os.link": 1, "os.rename": 1, "os.remove": 0, "os.mkdir": 0, "os.rmdir": 0, "os.truncate": 0}


def die_before(change: int, folder: Path, once: Path | None = None) -> None:
    """End this process before its change number `change` under a folder. With `once`, only the first process that makes that
    file ends."""
    root, count = f"{folder}/", itertools.count()

    def look(event: str, arguments: tuple[Any, ...]) -> None:
        if event == "open" and isinstance(arguments[2], int) and arguments[2] & WRITES:
            path = arguments[0]
        elif event in CHANGES:
            path = arguments[CHANGES[event]]
        else:
            return
        if str(path).startswith(root) and next(count) == change and (once is None or is_first(once)):
            os._exit(DIED)

    sys.addaudithook(look)


def is_first(mark: Path) -> bool:
    """Return True for the first caller among all processes. The file `mark` records that a process has called."""
    try:
        os.close(os.open(mark, os.O_CREAT | os.O_EXCL))
    except FileExistsError:
        return False
    return True


class Inline:
    """Workers that run each call at once, in this process."""

    count = 1
    gpus = 0

    def __init__(self, job: RunJob):
        web = web_of(job)
        self.worker = Worker(job, web and RateLimiter(web))
        self.ended: list[Ended] = []

    def is_ready(self, worker: int) -> bool:
        return True

    def send(self, worker: int, ticket: int, method: str, args: tuple[Any, ...]) -> None:
        self.ended.append(Ended(worker, ticket, getattr(self.worker, method)(*args)))

    def wait(self) -> list[Ended]:
        ended, self.ended = self.ended, []
        return ended

    def close(self) -> None:
        self.worker.close()


def web_of(job: RunJob) -> Download | None:
    return next((step for step in job.recipe.steps if isinstance(step, Download)), None)


def inline(job: RunJob, count: int) -> contextlib.AbstractContextManager[Inline]:
    return contextlib.closing(Inline(job))


def spoiled(spoil: Callable[[], None], job: RunJob, count: int) -> contextlib.AbstractContextManager[LocalWorkers]:
    return contextlib.closing(LocalWorkers(job, count, web_of(job), initializer=spoil))


def in_process(work: Callable[..., None], *args: Any) -> int:
    """Run `work` in a new process and return its exit status."""
    process = CONTEXT.Process(target=_with_environment, args=(dict(os.environ), work, args))
    process.start()
    process.join()
    return int(process.exitcode or 0)


def _with_environment(environment: dict[str, str], work: Callable[..., None], args: tuple[Any, ...]) -> None:
    """Run `work` with the caller's environment, because the fork server has the environment of the first test that started
    it."""
    os.environ.clear()
    os.environ.update(environment)
    work(*args)


def _run(recipe: Path, out: Path, change: int | None) -> None:
    _quiet()
    if change is not None:
        die_before(change, out)
    build.run(recipe, out, open_workers=inline)


def _forget(out: Path, request: Request, change: int | None) -> None:
    _quiet()
    if change is not None:
        die_before(change, out)
    take_down(out, request)


def _run_spoiled(recipe: Path, out: Path, spoil: Callable[[], None], output: Path) -> None:
    file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(file, 1)
    os.dup2(file, 2)
    build.run = functools.partial(build.run, open_workers=functools.partial(spoiled, spoil))  # the command calls this function
    sys.exit(main(["run", str(recipe), "--out", str(out), "--local", "--workers", "2"]))


def little_memory(more: int) -> None:
    """Limit this process to `more` bytes of address space beyond what it uses now."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + more
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def jumping_clock() -> None:
    """Make each call of `time.time` return a time that is wrong by up to a day in either direction."""
    true, dice = time.time, random.Random(0)
    time.time = lambda: true() + dice.uniform(-86_400, 86_400)


def _quiet() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)


def dying_run(recipe: Path, out: Path, change: int | None) -> int:
    """Run a recipe in one process that dies before its change number `change`. Return DIED, or 0 if it did not die."""
    return in_process(_run, recipe, out, change)


def dying_forget(out: Path, request: Request, change: int | None) -> int:
    """Take samples down in a process that dies before its change number `change`. Return DIED, or 0 if it did not die."""
    return in_process(_forget, out, request, change)


def spoiled_run(recipe: Path, out: Path, spoil: Callable[[], None], output: Path) -> int:
    """Run a recipe on two workers, each of which calls `spoil` first. Write the output of the run to the file `output`."""
    return in_process(_run_spoiled, recipe, out, spoil, output)
