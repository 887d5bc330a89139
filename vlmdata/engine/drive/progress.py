"""Shows progress on stderr. In a terminal, one line is updated in place.

In a pipe, one line is printed for each stage and one for the estimate.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections import Counter, deque
from types import TracebackType
from typing import Any

from vlmdata.engine.output.run_log import RunLog
from vlmdata.sizes import megabytes

EVERY_S = 0.5
WINDOW_S = 60.0  # seconds that the rate covers; finished partitions of an earlier run pass quickly and then no longer count
ESTIMATE_PARTITIONS = 3  # number of partitions that this run fetches before it prints the estimate
REASONS = 3  # number of the most frequent reasons for drops that the line names


class Progress:
    """Counts the rows of the current stage by outcome, and shows the rate, the bytes and the time left.

    `rows` is the number of input rows, or None if it is unknown. `folder` is the folder where images are written, or None if
    they are written to another machine.
    """

    def __init__(self, rows: int | None, log: RunLog, folder: Any = None):
        self.total = rows
        self.log = log
        self.folder = folder
        self.is_terminal = sys.stderr.isatty()
        self.is_estimated = False
        self.began = self.shown = time.monotonic()
        self.recent: deque[tuple[float, int]] = deque()  # (time, rows so far)
        self.known: Counter[str] = Counter()  # the outcomes that were shown last
        self._begin("")

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._end_stage()

    def stage(self, name: str) -> None:
        """Print the summary line of the previous stage and start a new one."""
        self._end_stage()
        self._begin(name)
        self.log.add("stage", name=name)

    def add(self, counts: dict[str, Any]) -> None:
        """Count a partition that ended.

        `counts` holds numbers of rows: `rows` (all), `alive` (not dropped), `dropped` (by step and reason) and `measured` (by
        step, in this call). Its `bytes` is the size of the partition's images that this run wrote.
        """
        now = time.monotonic()
        self.rows += counts["rows"]
        self.alive += counts["alive"]
        self.dropped.update(counts["dropped"])
        self.bytes += counts["bytes"]
        self.measured.update(counts["measured"])
        if counts["bytes"]:
            self.fresh_rows += counts["rows"]
            self.fresh_partitions += 1
        self.recent.append((now, self.rows))
        while self.recent[0][0] < now - WINDOW_S and len(self.recent) > 2:
            self.recent.popleft()
        if self.is_terminal and now - self.shown >= EVERY_S:
            self.shown = now
            self._update(self._line())
        if not self.is_estimated and self.fresh_partitions >= ESTIMATE_PARTITIONS and self.total and self.rows < self.total:
            self._estimate(self.total)

    def _begin(self, name: str) -> None:
        self.name, self.rows, self.alive, self.bytes, self.fresh_rows, self.fresh_partitions = name, 0, 0, 0, 0, 0
        self.dropped: Counter[str] = Counter()
        self.measured: Counter[str] = Counter()
        self.began = self.shown = time.monotonic()
        self.recent = deque([(self.began, 0)])

    def _rate(self) -> float:
        """Return rows per second over the last minute."""
        (first, before), (last, rows) = self.recent[0], self.recent[-1]
        return (rows - before) / max(last - first, 1e-3)

    def _line(self) -> str:
        """Return the line that a terminal shows. It is short, so that the reasons for drops fit in 80 columns."""
        rate = self._rate()
        text = f"{self.name} {self.rows:,} rows {rate:,.0f}/s"
        if self.bytes:
            text += f" {_bytes(self.bytes)}"
        if self.total and self.rows < self.total:
            text += f" {self.rows / self.total:.0%} {_clock((self.total - self.rows) / max(rate, 1e-9))} left"
        return text + self._outcomes(short=True)

    def _outcomes(self, *, short: bool = False) -> str:
        """Return a text with the number of rows that are not dropped and the most frequent reasons for drops.

        `short` leaves out the names of steps.
        """
        if not self.dropped:
            return ""
        most = self.dropped.most_common(REASONS)
        named = [f"{why.partition(': ')[2] if short else why} {count:,}" for why, count in most]
        rest = self.dropped.total() - sum(count for _, count in most)
        return f"  alive {self.alive:,}; " + ", ".join([*named, *([f"others {rest:,}"] if rest else [])])

    def _estimate(self, total: int) -> None:
        """Print once how much disk space and time the whole run needs, and whether the disk has enough space."""
        self.is_estimated = True
        images = self.bytes / self.fresh_rows * total
        left = _clock((total - self.rows) / max(self._rate(), 1e-9))
        text = f"estimate for {total:,} rows: {_bytes(images)} of images and as much again in tars, {left} left"
        if self.folder is not None:
            free = shutil.disk_usage(self.folder).free + self.bytes
            text += f"; {_bytes(free)} free" + ("" if free > 2 * images else ": NOT ENOUGH")
        self._say(text)

    def _end_stage(self) -> None:
        if not self.name:
            return
        seconds = time.monotonic() - self.began
        line = self.name
        if self.rows:
            line = f"{self.name:<28} {self.rows:>12,} rows {self.rows / max(seconds, 1e-9):>8,.0f}/s"
            line += f" {_bytes(self.bytes):>9}" if self.bytes else ""
        self._say(f"{line:<62} {seconds:7.1f} s{self._outcomes() if self.dropped != self.known else ''}")
        self.known = self.dropped
        facts = {"rows": self.rows, "alive": self.alive, "dropped": dict(self.dropped), "bytes": self.bytes}
        facts["measured"] = dict(self.measured)
        self.log.add("counts", name=self.name, seconds=round(seconds, 1), **(facts if self.rows else {}))
        self.name = ""

    def _say(self, line: str) -> None:
        sys.stderr.write(f"\r\033[K{line}\n" if self.is_terminal else f"{line}\n")
        sys.stderr.flush()

    def _update(self, line: str) -> None:
        """Replace the progress line in the terminal with `line`.

        The new line is cut to the terminal's width. A longer line would wrap, and the next update would replace only its end.
        """
        sys.stderr.write(f"\r\033[K{line[: shutil.get_terminal_size().columns - 1]}")
        sys.stderr.flush()


def _bytes(size: float) -> str:
    return megabytes(int(size))


def _clock(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
