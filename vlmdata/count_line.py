"""Show the progress of a long task on stderr.

A terminal shows one line that is rewritten. A pipe receives a new line every 30 s.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable

from vlmdata.notes import is_quiet
from vlmdata.terminal import columns, cut

TERMINAL_INTERVAL_S = 0.5  # between updates in a terminal, the same as in `vlmdata run`
PIPE_INTERVAL_S = 30.0  # between lines in a pipe


class CountLine:
    """A context manager that shows how much of a task is done. `what` names the task, and `total` is its size.

    It shows nothing until one update interval has passed since the start.
    """

    def __init__(self, what: str, total: int = 0, *, active: bool = True, clock: Callable[[], float] = time.monotonic) -> None:
        self.what, self.total, self.done = what, total, 0
        self._active, self._clock = active and not is_quiet(), clock
        self._is_terminal = sys.stderr.isatty()
        self._started = self._last_shown = clock()

    def __enter__(self) -> CountLine:
        return self

    def __exit__(self, *_: object) -> None:
        if self._active and self._is_terminal and self._last_shown != self._started:
            self._write("\r\033[K")

    def add(self, count: int) -> None:
        """Add to the count, and show it if an update interval has passed since it was last shown."""
        self.show(self.done + count, self.total)

    def show(self, done: int, total: int) -> None:
        """Set the count and the task's size, and show them if an update interval has passed since they were last shown."""
        self.done, self.total = done, total
        now = self._clock()
        if not self._active or now - self._last_shown < (TERMINAL_INTERVAL_S if self._is_terminal else PIPE_INTERVAL_S):
            return
        self._last_shown = now
        rate = self.done / max(now - self._started, 1e-9)
        left = max(0, self.total - self.done) / rate if rate else 0.0
        line = f"{self.what}: {self.done:,} of {self.total:,}, {rate:,.1f}/s, {left:,.0f} s left"
        if self._is_terminal:
            self._write(f"\r\033[K{cut(line, columns() - 1)}")
        else:
            self._write(f"{line}\n")

    def _write(self, text: str) -> None:
        sys.stderr.write(text)
        sys.stderr.flush()
