"""Calls a function at regular times while other code runs."""

from __future__ import annotations

import threading
from collections.abc import Callable

from vlmdata.process.thread import Thread


class Ticker:
    """Calls `tick` every `every_s` seconds in a thread, from `start` to `stop`."""

    def __init__(self, tick: Callable[[], None], every_s: float):
        self._tick, self._every_s = tick, every_s
        self._ended = threading.Event()
        self._thread = Thread(self._run, name="ticker")

    def start(self) -> None:
        """Start the thread. Raises MemoryError if memory is short."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread and wait for it. Does nothing if the thread was not started."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._every_s):
            self._tick()
