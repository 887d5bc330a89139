"""Resolves host names on background threads, with a cache.

The libcurl in pycurl's wheels starts a thread for each lookup, and reports the same error for a name that does not
exist and for a resolver that is down. Here, concurrent lookups of one name are shared, failures are cached, and the two cases
have different errors.
"""

import queue
import socket
import threading
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from vlmdata.process.thread import Thread

KEPT_S = 60.0  # getaddrinfo does not return a time to live; this is libcurl's default
KEPT_FAILURE_S = {"dns_failed": 300.0, "dns_temporary": 5.0}
KEPT_NAMES = 50_000
THREADS = 32  # maximum of concurrent lookups; enough for 430 new names a second at 75 ms each

Lookup = Callable[[str], list[str]]


@dataclass(frozen=True, slots=True)
class DnsAnswer:
    """The answer for one host: either `addresses`, in the order in which to try them, or a `failure`."""

    addresses: tuple[str, ...]
    failure: str | None = None


def system_lookup(host: str) -> list[str]:
    """Return the addresses of a host from the system's resolver. Raise socket.gaierror if the lookup fails."""
    found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


class Resolver:
    """Resolves names on its own threads. The client calls `ask`, and one of the threads calls `answered(host, answer)`."""

    def __init__(self, answered: Callable[[str, DnsAnswer], None], lookup: Lookup = system_lookup) -> None:
        self._answered = answered
        self._lookup = lookup
        self._cache: OrderedDict[str, tuple[DnsAnswer, float]] = OrderedDict()
        self._lock = threading.Lock()
        self._in_progress: set[str] = set()  # hosts whose lookup has not ended
        self._names: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._threads = 0

    def ask(self, host: str) -> DnsAnswer | None:
        """Return the answer if it is cached. Otherwise return None, and call `answered` later.

        Calls for the same host share one lookup, and `answered` is called once for all of them.
        """
        with self._lock:
            known = self._cache.get(host)
            if known is not None and time.monotonic() < known[1]:
                return known[0]
            if host in self._in_progress:
                return None
            self._in_progress.add(host)
            # counting idle threads instead would be wrong, because an idle thread may be about to take an earlier name
            if len(self._in_progress) > self._threads and self._threads < THREADS:
                self._threads += 1
                # daemon threads, because the system's resolver may block for half a minute, which must not delay the exit
                Thread(self._work, name="dns").start()
        self._names.put(host)
        return None

    def close(self) -> None:
        """Stop each thread after its current lookup."""
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
                self._in_progress.discard(host)
            self._answered(host, answer)

    def _resolve(self, host: str) -> DnsAnswer:
        try:
            addresses = self._lookup(host)
        except socket.gaierror as error:
            return DnsAnswer((), "dns_temporary" if error.errno in (socket.EAI_AGAIN, socket.EAI_SYSTEM) else "dns_failed")
        except (OSError, UnicodeError):  # no descriptors left, or a name that Python's codec refuses
            return DnsAnswer((), "dns_temporary")
        return DnsAnswer(tuple(addresses)) if addresses else DnsAnswer((), "dns_failed")
