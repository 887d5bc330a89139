"""A lease (lock) on an object store. The store creates records exclusively, so the lease has one holder at a time.

The record with the highest number is the valid one. A waiter creates the record with the next number in three cases: the holder
has released the lease, the holder is known to be dead, or the holder has not changed its record for SILENCE_S. The waiter
measures this time by its own clock, so clocks need not agree. A process that creates a record with a number below the highest,
because it was slow, deletes this record again and does not get the lease.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

from vlmdata.engine.store.store_protocol import Store

BEAT_S = 5.0  # seconds between changes of the holder's record
SILENCE_S = 60.0
POLL_S = 1.0  # seconds between a waiter's checks


class Lease:
    """A lock that is held during its `with` block.

    If the holder is suspended, another process can take the lock over. The holder can check this with `is_held`.
    """

    def __init__(self, store: Store, folder: str, waits: Callable[[str], None]):
        self.store = store
        self.folder = folder
        self.waits = waits
        self._record = {"holder": holder(), "process": process(os.getpid()), "beat": 0, "free": False}
        self._name = ""
        self._ended = threading.Event()

    def __enter__(self) -> Lease:
        seen: tuple[str, bytes] | None = None
        since = time.monotonic()
        while True:
            name, data = self._highest()
            if (name, data) != seen:
                if seen is None and not _is_over(data):
                    self.waits(json.loads(data)["holder"])
                seen, since = (name, data), time.monotonic()
            if _is_over(data) or time.monotonic() - since > SILENCE_S:
                if self._take(name):
                    break
            else:
                time.sleep(POLL_S)
        self._beating = threading.Thread(target=self._beat, daemon=True)
        self._beating.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._ended.set()
        self._beating.join()
        self._write(free=True)

    def is_held(self) -> bool:
        """Return whether this process still holds the lease, which means that its record has the highest number."""
        return self._highest()[0] == self._name

    def _highest(self) -> tuple[str, bytes]:
        """Return the name and the content of the record with the highest number. Both are empty if there is no record."""
        while True:
            names = self.store.list(self.folder)
            if not names:
                return "", b""
            try:
                return names[-1], self.store.read(names[-1])
            except FileNotFoundError:  # the next holder removed it
                continue

    def _take(self, after: str) -> bool:
        number = int(after.rpartition("/")[2].partition(".")[0]) + 1 if after else 1
        name = f"{self.folder}/{number:09d}.json"
        if not self.store.put_new(name, json.dumps(self._record).encode()):
            return False
        names = self.store.list(self.folder)
        if names[-1] != name:  # we were slow: this number was already used and removed
            self.store.delete(name)
            return False
        self._name = name
        for old in names[:-1]:
            self.store.delete(old)
        return True

    def _beat(self) -> None:
        while not self._ended.wait(BEAT_S):
            self._record["beat"] = uuid.uuid4().hex
            self._write()

    def _write(self, **changes: Any) -> None:
        self.store.put(self._name, json.dumps({**self._record, **changes}).encode())


def _is_over(data: bytes) -> bool:
    """Return whether the lease is free: it has no holder, or its holder has released it or is known to be dead."""
    if not data:
        return True
    record = json.loads(data)
    return record["free"] or is_dead(record["process"])


def holder() -> str:
    """Return the process number and the host of this process, as text for messages."""
    return f"process {os.getpid()} on {socket.gethostname()}"


def process(pid: int) -> list[str] | None:
    """Return the boot ID of the kernel, PID namespace, number and start time of a process, or None if they are unknown.

    Together, these four identify the process.
    """
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
        started = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[19]
        return [boot, os.readlink("/proc/self/ns/pid"), str(pid), started]
    except OSError:
        return None


def is_dead(who: list[str] | None) -> bool:
    """Return whether a process ran on this machine and has ended. False for a process of another machine."""
    here = process(os.getpid())
    return who is not None and here is not None and who[:2] == here[:2] and process(int(who[2])) != who
