"""Workers as the driver sees them: numbered, each doing a few calls at once. Local processes or Ray actors are behind."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(frozen=True)
class Ended:
    """A call that ended: with a result, with an error of ours (its traceback), or because its worker died."""

    worker: int
    ticket: int
    result: Any = None
    error: str | None = None
    died: str | None = None  # how: "SIGSEGV", "exit 1", "node lost"


class Workers(Protocol):
    """What both kinds of workers offer. A worker that died is replaced under its number; its calls end with `died`."""

    count: int
    gpus: int  # so many workers, the first, have a GPU each; they alone measure with models. 0: all do

    def is_ready(self, worker: int) -> bool:
        """Say whether a worker takes calls: one that replaces a dead one may have to wait for a place."""
        ...

    def send(self, worker: int, ticket: int, method: str, args: tuple[Any, ...]) -> None:
        """Start a call of a Worker's method."""
        ...

    def wait(self) -> list[Ended]:
        """Block until a call has ended or a worker has become ready; the latter gives an empty list."""
        ...

    def close(self) -> None:
        """End all workers, busy or not."""
        ...


KNOWN_FROM_OUTSIDE = ("SIGKILL", "SIGTERM", "SIGINT", "SIGHUP", "node lost", "out of memory")
"""Deaths that say nothing about the row in hand: somebody else ended the worker."""
