"""Progress on stderr: one line that renews itself in a terminal, one line a stage in a pipe."""

from __future__ import annotations

import sys
import time
from types import TracebackType
from typing import Any

EVERY_S = 0.5


class Progress:
    """Counts rows of the present stage and says rate and time left."""

    def __init__(self, rows: int | None):
        self.total = rows
        self.is_terminal = sys.stderr.isatty()
        self.name = ""
        self.rows = 0
        self.began = self.told = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end_stage()

    def stage(self, name: str) -> None:
        """Begin a stage: what was counted before is closed with a line of its own."""
        self._end_stage()
        self.name, self.rows = name, 0
        self.began = self.told = time.monotonic()

    def add(self, counts: dict[str, Any]) -> None:
        """Count the rows of a part that ended."""
        self.rows += counts["rows"]
        now = time.monotonic()
        if self.is_terminal and now - self.told >= EVERY_S:
            self.told = now
            sys.stderr.write(f"\r\033[K{self._line(now)}")
            sys.stderr.flush()

    def _line(self, now: float) -> str:
        rate = self.rows / max(now - self.began, 1e-9)
        text = f"{self.name:<28} {self.rows:>12,} rows {rate:>10,.0f}/s"
        if self.total and self.rows < self.total:
            text += f"  {self.rows / self.total:4.0%}, {_clock((self.total - self.rows) / max(rate, 1e-9))} left"
        return text

    def _end_stage(self) -> None:
        if not self.name:
            return
        start = "\r\033[K" if self.is_terminal else ""
        now = time.monotonic()
        line = self._line(now) if self.rows else self.name
        sys.stderr.write(f"{start}{line:<62} {now - self.began:7.1f} s\n")
        sys.stderr.flush()
        self.name = ""


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
