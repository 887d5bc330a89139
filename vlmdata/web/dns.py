"""Names to addresses, with a cache, on threads of its own.

libcurl in the wheels starts a thread for each lookup and tells a name that does not exist from a resolver that is down by
the same error; here lookups of one name are shared, failures are remembered, and the two are told apart.
"""

import queue
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from vlmdata.process.thread import Thread

KEPT_S = 60.0  # getaddrinfo does not tell a record's time to live; libcurl keeps answers as long
KEPT_FAILURE_S = {"dns_failed": 300.0, "dns_temporary": 5.0}
KEPT_NAMES = 50_000
THREADS = 32  # lookups at once: 430 new names a second at 75 ms each

Lookup = Callable[[str], list[str]]


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """`addresses` in the order to try them, or a `failure`."""

    addresses: tuple[str, ...]
    failure: str | None = None


def system_lookup(host: str) -> list[str]:
    """Ask the system's resolver. Raises socket.gaierror."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Resolver:
    """`ask` is called on one thread, the client's; `answered(host, answer)` on a thread of the resolver."""

    def __init__(self, answered: Callable[[str, DnsAnswer], None], lookup: Lookup = system_lookup) -> None:
        self._answered = answered
        self._lookup = lookup
        self._cache: OrderedDict[str, tuple[DnsAnswer, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._asked: set[str] = set()  # and not answered yet
        self._names: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._threads = 0

    def ask(self, host: str) -> DnsAnswer | None:
        """Return what is known of a name, or None: then `answered` will be called, once for all who asked meanwhile."""
        with self._lock:
            known = self._cache.get(host)
            if known is not None and time.monotonic() < known[1]:
                return known[0]
            if host in self._asked:
                return None
            self._asked.add(host)
            # by the names, not by the threads that wait: one that waits may be about to take a name asked for before
            if len(self._asked) > self._threads and self._threads < THREADS:
                self._threads += 1
                # daemons: the system's resolver may hold a thread for half a minute, which must not hold the process
                Thread(self._work, name="dns").start()
        self._names.put(host)
        return None

    def close(self) -> None:
        for _ in range(self._threads):
            self._names.put(None)

    def _work(self) -> None:
        while True:
            host = self._names.get()
            if host is None:
                return
            answer = self._resolve(host)
            with self._lock:
                kept_s = KEPT_FAILURE_S[answer.failure] if answer.failure else KEPT_S
                self._cache[host] = (answer, time.monotonic() + kept_s)
                self._cache.move_to_end(host)
                if len(self._cache) > KEPT_NAMES:
                    self._cache.popitem(last=False)
                self._asked.discard(host)
            self._answered(host, answer)

    def _resolve(self, host: str) -> DnsAnswer:
        try:
            addresses = self._lookup(host)
        except socket.gaierror as error:
            return DnsAnswer((), "dns_temporary" if error.errno in (socket.EAI_AGAIN, socket.EAI_SYSTEM) else "dns_failed")
        except (OSError, UnicodeError):  # no descriptors left; a name the codec of the C library refuses
            return DnsAnswer((), "dns_temporary")
        return DnsAnswer(tuple(addresses)) if addresses else DnsAnswer((), "dns_failed")
