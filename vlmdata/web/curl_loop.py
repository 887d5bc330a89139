"""Runs libcurl's multi handle on an event loop, so that one thread serves thousands of sockets."""

import contextlib
import os
import selectors
import time

import pycurl


class CurlLoop:
    """The event loop of all transfers of a process. Only `wake` may be called by other threads.

    A process has only one event loop, because the transfers of one multi handle share connections, TLS sessions and the parsed
    certificate store.
    """

    def __init__(self, connections: int) -> None:
        self._timer_at: float | None = None
        self._watched: set[int] = set()
        self._asleep = self._woken = False  # set in this order and read in reverse, so no wake-up is lost between threads
        self._selector = selectors.DefaultSelector()
        self._wake_out, self._wake_in = os.pipe()
        os.set_blocking(self._wake_out, False)
        os.set_blocking(self._wake_in, False)
        self._selector.register(self._wake_out, selectors.EVENT_READ)
        self._multi = pycurl.CurlMulti()
        self._multi.setopt(pycurl.M_PIPELINING, pycurl.PIPE_MULTIPLEX)
        self._multi.setopt(pycurl.M_MAXCONNECTS, 2 * connections)  # maximum of open connections, including idle connections
        self._multi.setopt(pycurl.M_SOCKETFUNCTION, self._watch)
        self._multi.setopt(pycurl.M_TIMERFUNCTION, self._set_timer)

    def add(self, curl: pycurl.Curl) -> None:
        """Start a transfer."""
        self._multi.add_handle(curl)

    def remove(self, curl: pycurl.Curl) -> None:
        """Remove a transfer. If the transfer has not finished, its connection is closed."""
        self._multi.remove_handle(curl)

    def turn(self, timeout_s: float) -> list[tuple[pycurl.Curl, int, str]]:
        """Wait for an event, at most `timeout_s` seconds, and return (handle, code, message) of each finished transfer."""
        if self._timer_at is not None:
            timeout_s = min(timeout_s, self._timer_at - time.monotonic())
        self._asleep = True
        ready = self._selector.select(0.0 if self._woken else max(timeout_s, 0.0))
        self._asleep = self._woken = False
        for key, events in ready:
            if key.fd == self._wake_out:
                os.read(self._wake_out, 4096)
            else:  # EVENT_READ and EVENT_WRITE are CSELECT_IN and CSELECT_OUT, 1 and 2
                self._multi.socket_action(key.fd, events)
        if self._timer_at is not None and time.monotonic() >= self._timer_at:
            self._timer_at = None
            self._multi.socket_action(pycurl.SOCKET_TIMEOUT, 0)
        return self._finished()

    def wake(self) -> None:
        """Make `turn` return soon. Any thread may call this. It makes a system call only if the loop is waiting."""
        self._woken = True
        if self._asleep:
            with contextlib.suppress(BlockingIOError):  # the pipe is full of wake-ups already
                os.write(self._wake_in, b"w")

    def close(self) -> None:
        """Free everything. All transfers must have been removed before."""
        self._multi.close()
        self._selector.close()
        os.close(self._wake_out)
        os.close(self._wake_in)

    def _finished(self) -> list[tuple[pycurl.Curl, int, str]]:
        finished: list[tuple[pycurl.Curl, int, str]] = []
        left = 1
        while left:
            left, good, bad = self._multi.info_read()
            finished.extend((curl, 0, "") for curl in good)
            finished.extend(bad)
        return finished

    def _watch(self, what: int, fd: int, multi: pycurl.CurlMulti, data: object) -> None:
        if what == pycurl.POLL_REMOVE:
            if fd in self._watched:
                self._watched.remove(fd)
                self._selector.unregister(fd)
        elif fd in self._watched:
            self._selector.modify(fd, what)  # POLL_IN and POLL_OUT are EVENT_READ and EVENT_WRITE, 1 and 2
        else:
            self._watched.add(fd)
            self._selector.register(fd, what)

    def _set_timer(self, timeout_ms: int) -> None:
        self._timer_at = None if timeout_ms < 0 else time.monotonic() + timeout_ms / 1000
