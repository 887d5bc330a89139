"""Finds out within seconds whether the server of a remote store answers. The library of the store would try for longer."""

from __future__ import annotations

import errno
import functools
import os
import queue
import selectors
import socket
import time
import urllib.request
from typing import Any
from urllib.parse import urlsplit

from vlmdata.errors import Unreachable
from vlmdata.process.thread import Thread
from vlmdata.untrusted import STORE_ADVICE, one_line

NAME_S = 6.0  # for an answer of the name servers; a system asks the second after 5 s
AGAIN_S = 3.0  # to ask again; a name server of a new container, or a busy one, first says "temporary failure"
ANSWER_S = 2.0  # for a connection, which is tried twice; a system repeats a lost packet after 1 s
STARTS_S = 0.5  # until the second try, because a server may just be starting
PORTS = {"http": 80, "https": 443}
OWN = (".amazonaws.com", ".amazonaws.com.cn")  # a bucket may have another host than the endpoint, so only the name is looked up


def check_answers(files: Any, address: str) -> None:
    """Raise Unreachable if nothing answers at the server of `files`, the fsspec file system of `address`.

    Only S3 and HTTP are checked, and nothing is checked if the environment names a proxy for the server. The result is kept
    for the process.
    """
    protocol = address.partition("://")[0]
    try:
        endpoint = _endpoint(files, protocol, address)
        parts = urlsplit(endpoint or "")
        host, port = parts.hostname, parts.port or PORTS.get(parts.scheme)
    except ValueError as error:  # an endpoint that is no address
        raise Unreachable(_line(address, protocol, one_line(error).rstrip("."))) from None
    if not host or not port or _by_proxy(files, parts.scheme, parts.netloc):
        return
    try:
        _answers(host, port)
    except ConnectionError as error:
        raise Unreachable(_line(address, protocol, str(error))) from None


def _line(address: str, protocol: str, why: str) -> str:
    return f"{address}: cannot reach this store: {why}. {STORE_ADVICE['Endpoint' if protocol in ('s3', 's3a') else 'Connect']}"


def _endpoint(files: Any, protocol: str, address: str) -> str | None:
    """Return the URL of the server, or None for other protocols, and for archives inside other files (`zip://a::s3://b`)."""
    if "::" in address:
        return None
    if protocol in ("s3", "s3a"):
        files.connect()  # reads the settings, and sends nothing to the server
        return files.s3.meta.endpoint_url
    return address if protocol in PORTS else None


def _by_proxy(files: Any, scheme: str, place: str) -> bool:
    """Return whether requests go through a proxy. botocore reads these variables of the environment in the same way."""
    if (getattr(files, "config_kwargs", None) or {}).get("proxies"):
        return True
    return scheme in urllib.request.getproxies() and not urllib.request.proxy_bypass(place)


@functools.lru_cache(maxsize=64)  # errors are not kept
def _answers(host: str, port: int) -> None:
    """Raise ConnectionError, which says why, if a host has no address or no address accepts a connection in time."""
    found: queue.SimpleQueue[Any] = queue.SimpleQueue()
    Thread(_resolve, host, port, found).start()  # a name server that is silent cannot be interrupted
    try:
        places = found.get(timeout=NAME_S)
    except queue.Empty:
        raise ConnectionError(f"no name server answers for the host {host} within {NAME_S:g} s") from None
    if isinstance(places, OSError):
        raise ConnectionError(f"the host {host} has no address ({places.strerror})")
    place = f"{host}:{port}"
    if not f".{host}".endswith(OWN) and _refusal(places, place):
        time.sleep(STARTS_S)
        if why := _refusal(places, place):
            raise ConnectionError(why)


def _resolve(host: str, port: int, found: queue.SimpleQueue[Any]) -> None:
    end = time.monotonic() + AGAIN_S
    while True:
        try:
            found.put(socket.getaddrinfo(host, port, type=socket.SOCK_STREAM))
        except UnicodeError as error:  # a part of the name is empty, or too long
            found.put(OSError(0, one_line(error)))
        except OSError as error:
            if error.errno == socket.EAI_AGAIN and time.monotonic() < end:
                time.sleep(0.2)  # the library of the store would ask again too
                continue
            found.put(error)
        return


def _refusal(places: list[Any], shown: str) -> str:
    """Connect to all addresses at the same time, until one accepts. Return why none does, or an empty string."""
    end = time.monotonic() + ANSWER_S
    why = f"nothing answers at {shown} within {ANSWER_S:g} s"
    with selectors.DefaultSelector() as waiting:
        try:
            for family, kind, protocol, _, place in places:
                try:
                    one = socket.socket(family, kind, protocol)
                except OSError:  # this machine has no IPv6
                    continue
                one.setblocking(False)
                error = one.connect_ex(place)
                if error in (0, errno.EINPROGRESS):
                    waiting.register(one, selectors.EVENT_WRITE, one)
                else:  # such as no route to any address of IPv6
                    why = f"nothing answers at {shown} ({os.strerror(error)})"
                    one.close()
            while waiting.get_map() and (left := end - time.monotonic()) > 0:
                for key, _ in waiting.select(left):
                    one = key.data
                    error = one.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
                    if not error:
                        return ""
                    why = f"nothing answers at {shown} ({os.strerror(error)})"
                    waiting.unregister(one)
                    one.close()
        finally:
            for key in list(waiting.get_map().values()):
                key.data.close()
    return why
