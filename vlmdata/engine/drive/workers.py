"""The interface between the driver and its workers, which are processes or Ray actors.

Workers are numbered, and each runs a few calls at once.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Ended:
    """A call that ended: with a result, with an error (its traceback), or because its worker died."""

    worker: int
    ticket: int
    result: Any = None
    error: str | None = None
    died: str | None = None  # the cause: "SIGSEGV", "exit 1", "node lost"


class Workers(Protocol):
    """A pool of workers. A worker that dies is replaced under the same number. Its calls end with the cause in `Ended.died`."""

    count: int
    gpus: int  # the first `gpus` workers have a GPU each, and only they run steps that use a GPU; if 0, all workers do

    def is_ready(self, worker: int) -> bool:
        """Return whether a worker takes calls. The replacement of a dead worker may have to wait for a free CPU."""
        ...

    def send(self, worker: int, ticket: int, method: str, args: tuple[Any, ...]) -> None:
        """Make a worker call its method `method`, without waiting. The `Ended` of the call will have this ticket."""
        ...

    def wait(self) -> list[Ended]:
        """Block until a call ends or a worker becomes ready. Return the calls that ended, or [] if none ended."""
        ...

    def close(self) -> None:
        """Stop all workers, including busy ones."""
        ...


EXTERNAL_DEATHS = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "node lost", "out of memory")
"""Deaths caused from outside the worker, which say nothing about the row that the worker was processing."""
