"""Shows progress on stderr. In a terminal, one line is updated in place.

In a pipe, a line is printed every 30 seconds, at the end of each stage, and for the estimate.
"""

from __future__ import annotations

import shutil
import sys
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

from vlmdata.count_line import PIPE_INTERVAL_S, TERMINAL_INTERVAL_S
from vlmdata.engine.output.run_log import RunLog
from vlmdata.generation.totals import amount, generations
from vlmdata.notes import is_quiet
from vlmdata.process.ticker import Ticker
from vlmdata.sizes import counted, megabytes, noun
from vlmdata.step import Step
from vlmdata.terminal import cell, columns, cut, filled, width

WINDOW_S = 60.0  # seconds that the rate covers; finished partitions of an earlier run pass quickly and then no longer count
ESTIMATE_PARTITIONS = 3  # number of partitions that this run fetches before it prints the estimate
REASONS = 3  # number of the most frequent reasons for drops that the line names
NAME, REASON = 28, 40  # columns of a stage's name and of a step with its reason; longer ones are cut


class Progress:
    """Counts the rows of the current stage by outcome, and shows the rate, the bytes and the time left.

    `rows` is the number of input rows, or None if it is unknown. `folder` is the folder where images are written, or None if
    they are written to another machine. `steps` are those of the recipe, whose generators know what tokens cost. Inside the
    `with` block, a thread calls `tick`, so that the time is shown even if no partition ends.
    """

    def __init__(
        self,
        rows: int | None,
        log: RunLog,
        folder: Any = None,
        *,
        steps: Sequence[Step] = (),
        clock: Callable[[], float] = time.monotonic,
    ):
        self.total = rows
        self.steps = steps
        self.log = log
        self.folder = folder
        self.is_terminal = sys.stderr.isatty()
        self.is_estimated = False
        self._clock = clock
        self._lock = threading.RLock()
        self._is_quiet = is_quiet()  # here, because the thread that calls `tick` does not see it
        self._ticker = Ticker(self.tick, TERMINAL_INTERVAL_S)
        self.start = self.shown = clock()
        self.recent: deque[tuple[float, int]] = deque()  # (time, rows so far)
        self.known: Counter[str] = Counter()  # the outcomes that were shown last
        self._begin("")

    def __enter__(self) -> Progress:
        if not self._is_quiet:
            self._ticker.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ticker.stop()
        self._end_stage()

    def stage(self, name: str) -> None:
        """Print the summary line of the previous stage and start a new one."""
        with self._lock:
            self._end_stage()
            self._begin(name)
        self.log.add("stage", name=name)

    def add(self, counts: dict[str, Any]) -> None:
        """Count a partition that ended.

        `counts` holds numbers of rows: `rows` (all), `alive` (not dropped), `dropped` (by step and reason) and `measured` (by
        step, in this call). Its `bytes` is the size of the partition's images that this run wrote, and its `asked` holds by
        step what the answers took that this run got.
        """
        with self._lock:
            now = self._clock()
            self.rows += counts["rows"]
            self.alive += counts["alive"]
            self.dropped.update(counts["dropped"])
            self.bytes += counts["bytes"]
            self.measured.update(counts["measured"])
            for step, sums in counts["asked"].items():
                self.asked.setdefault(step, Counter()).update(sums)
            if counts["bytes"]:
                self.fresh_rows += counts["rows"]
                self.fresh_partitions += 1
            self.recent.append((now, self.rows))
            while self.recent[0][0] < now - WINDOW_S and len(self.recent) > 2:
                self.recent.popleft()
            self.tick()
            if not self.is_estimated and self.fresh_partitions >= ESTIMATE_PARTITIONS and self.total and self.rows < self.total:
                self._estimate(self.total)

    def tick(self) -> None:
        """Show the current line if it is due: half a second after the last one in a terminal, and 30 seconds in a pipe."""
        with self._lock:
            now = self._clock()
            if not self.name or now - self.shown < (TERMINAL_INTERVAL_S if self.is_terminal else PIPE_INTERVAL_S):
                return
            self.shown = now
            if self.is_terminal:
                self._update(self._line(max(12, columns() // 3), "", short=True))
            else:
                self._say(f"{_time(now - self.start)}  {self._line(NAME, ' of {:,}', short=False)}")

    def _begin(self, name: str) -> None:
        self.name, self.rows, self.alive, self.bytes, self.fresh_rows, self.fresh_partitions = name, 0, 0, 0, 0, 0
        self.dropped: Counter[str] = Counter()
        self.measured: Counter[str] = Counter()
        self.asked: dict[str, Counter[str]] = {}
        self.began = self._clock()
        self.recent = deque([(self.began, 0)])

    def _rate(self) -> float:
        """Return rows per second over the last minute."""
        (first, before), (last, rows) = self.recent[0], self.recent[-1]
        return (rows - before) / max(last - first, 1e-3)

    def _line(self, most: int, of: str, *, short: bool) -> str:
        """Return the line that shows the state of the stage, whose name is cut to `most` columns.

        `of` is the format of the total. `short` leaves out the names of steps, so that the reasons for drops fit in 80 columns.
        """
        name = cut(self.name, most)
        if not self.rows:
            return f"{name}: running for {_time(self._clock() - self.began)}"
        rate, total = self._rate(), self.total or 0
        text = f"{name} {self.rows:,}{of.format(total) if total else ''} {noun(total or self.rows, 'row')} {rate:,.0f}/s"
        if self.bytes:
            text += f" {megabytes(self.bytes)}"
        if self.asked:
            text += f" {' '.join(self._answers())}"
        if self.rows < total:
            text += f" {self.rows / total:.0%} {_time((total - self.rows) / max(rate, 1e-9))} left"
        return "  ".join([text, " ".join(self._outcomes(short=short))]).rstrip()

    def _answers(self) -> list[str]:
        """Return what the answers of this stage took, as words to join by spaces: 12 answers, 1,204 tokens, cost 0.12."""
        found = list(generations(self.steps, [self.asked]).values())
        failed, money = sum(sum(one["failed"].values()) for one in found), [one["money"] for one in found]
        words = [f"{counted(sum(one['answers'] for one in found), 'answer')},", *([f"{failed:,} failed,"] if failed else [])]
        words.append(counted(sum(one["prompt_tokens"] + one["tokens"] for one in found), "token"))
        if any(one is not None for one in money):
            words[-1] += ","
            words.append(f"cost {amount(sum(one or 0 for one in money))}")
        return words

    def _outcomes(self, *, short: bool = False) -> list[str]:
        """Return the number of rows that are not dropped and the most frequent reasons for drops, as words to join by spaces.

        `short` leaves out the names of steps.
        """
        if not self.dropped:
            return []
        most = self.dropped.most_common(REASONS)
        named = [f"{cut(why.partition(': ')[2] if short else why, REASON)} {count:,}" for why, count in most]
        rest = self.dropped.total() - sum(count for _, count in most)
        words = [*named, *([f"others {rest:,}"] if rest else [])]
        return [f"kept {self.alive:,};", *(f"{word}," for word in words[:-1]), words[-1]]

    def _estimate(self, total: int) -> None:
        """Print once how much disk space and time the whole run needs, and whether the disk has enough space."""
        self.is_estimated = True
        images = self.bytes / self.fresh_rows * total
        left = _time((total - self.rows) / max(self._rate(), 1e-9))
        text = f"estimate for {counted(total, 'row')}: {_bytes(images)} of images and as much again in tars, {left} left"
        is_enough = True
        if self.folder is not None:
            free = shutil.disk_usage(self.folder).free + self.bytes
            is_enough = free > 2 * images
            text += f"; {_bytes(free)} free" + ("" if is_enough else ": NOT ENOUGH")
        self._say(text, is_loss=not is_enough)

    def _end_stage(self) -> None:
        if not self.name:
            return
        seconds = self._clock() - self.began
        self._say("\n".join(self._table_row(seconds)))
        self.known = self.dropped
        facts = {"rows": self.rows, "alive": self.alive, "dropped": dict(self.dropped), "bytes": self.bytes}
        facts["measured"] = dict(self.measured)
        facts |= {"generations": generations(self.steps, [self.asked])} if self.asked else {}
        self.log.add("counts", name=self.name, seconds=round(seconds, 1), **(facts if self.rows else {}))
        self.name = ""

    def _table_row(self, seconds: float) -> list[str]:
        """Return the row of the table of stages: one line, or several of which none is wider than the terminal."""
        cells = [""] * 3
        if self.rows:
            size = _bytes(self.bytes) if self.bytes else ""
            cells = [counted(self.rows, "row"), f"{self.rows / max(seconds, 1e-9):,.0f}/s", size]
        cells.append(f"{seconds:,.1f} s")
        line = cell(self.name, NAME) + "".join(f" {one:>{wide}}" for one, wide in zip(cells, (18, 11, 9, 10), strict=True))
        words = self._outcomes() if self.dropped != self.known else []
        if self.asked:
            words = [" ".join(self._answers()) + (";" if words else ""), *words]
        most = columns() if self.is_terminal else None
        if most is None or width(line) + 2 + width(" ".join(words)) <= most:
            return ["  ".join([line, " ".join(words)]).rstrip()]
        if width(line) <= most:
            return [line, *filled(words, most)]
        return [cut(self.name, most), *filled([one for one in cells if one], most), *filled(words, most)]

    def _say(self, line: str, *, is_loss: bool = False) -> None:
        self.shown = self._clock()
        if not self._is_quiet or is_loss:
            sys.stderr.write(f"\r\033[K{line}\n" if self.is_terminal else f"{line}\n")
            sys.stderr.flush()

    def _update(self, line: str) -> None:
        """Replace the progress line in the terminal with `line`.

        The new line is cut to the terminal's width. A longer line would wrap, and the next update would replace only its end.
        """
        if not self._is_quiet:
            sys.stderr.write(f"\r\033[K{cut(line, columns() - 1)}")
            sys.stderr.flush()


def _bytes(size: float) -> str:
    return megabytes(int(size))


def _time(seconds: float) -> str:
    hours, rest = divmod(int(seconds), 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}"
