"""Binds the server's address, and ends the server with its parent. Without torch, so that mistakes are reported at once."""

from __future__ import annotations

import errno
import os
import socket

from vlmdata.process.thread import Thread
from vlmdata.step import RecipeError
from vlmdata.untrusted import one_line


def bind(host: str, port: int) -> socket.socket:
    """Return a socket with this address that does not listen yet. Port 0 is any free port. Raises RecipeError if it cannot."""
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
    except (OSError, UnicodeError) as error:
        raise RecipeError(f"--host: there is no address {host} ({one_line(error)}). Use 127.0.0.1") from None
    bound = socket.socket(family, kind, protocol)
    bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # for a port whose last server ended a moment ago
    try:
        bound.bind(address)
    except OSError as error:
        bound.close()
        raise unusable(host, port, error) from None
    return bound


def listen(bound: socket.socket, backlog: int) -> None:
    """Accept connections from now on. Raises RecipeError if another process listens at the port by now."""
    try:
        bound.listen(backlog)
    except OSError as error:
        host, port = bound.getsockname()[:2]
        raise unusable(host, port, error) from None


def unusable(host: str, port: int, error: OSError) -> RecipeError:
    """Return the error to raise for an address that cannot be bound."""
    if error.errno == errno.EADDRINUSE:
        return RecipeError(f"--port: port {port} of {host} is in use. Choose another port, or 0 for any free one")
    where = "--host" if error.errno == errno.EADDRNOTAVAIL else "--port"
    return RecipeError(f"{where}: cannot listen at {host}, port {port}: {error.strerror}")


def address_of(bound: socket.socket) -> str:
    """Return the beginning of the server's addresses, such as http://127.0.0.1:8123."""
    host, port = bound.getsockname()[:2]
    return f"http://[{host}]:{port}" if bound.family == socket.AF_INET6 else f"http://{host}:{port}"


def end_when_stdin_closes() -> None:
    """End this process, with status 0, as soon as standard input ends. What is read from it is ignored.

    The end of a pipe comes also if the process that holds its other end is killed. The process ends at once, even while weights
    are loaded: it writes no files, so there is nothing to close in order.
    """

    def watch() -> None:
        try:
            while os.read(0, 1 << 16):
                pass
        finally:
            os._exit(0)

    Thread(watch, name="stdin").start()
