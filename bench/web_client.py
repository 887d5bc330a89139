"""CPU seconds per 1,000 requests of the web client, bare pycurl (its lower bound) and aiohttp (a peer), in one run.

    python -m bench.web_client            # 2,000 requests of 92 kB each, 64 at once, over loopback

Each client and its server run in two separate processes. The figure is the client's CPU time with its threads and without
imports. `close` opens a new connection for each request. `tls` adds a handshake with the certificate checked and no session
resumed, as a list of addresses on many hosts needs. `hosts` sends requests to 200 hosts, each with its own robots.txt.
"""

import argparse
import asyncio
import json
import multiprocessing
import resource
import ssl
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path

BODY = bytes(range(256)) * 360  # 92,160 bytes
AT_ONCE = 64
CASES = ("keep", "close", "tls", "hosts")
HOSTS = [f"127.0.0.{number}" for number in range(1, 201)]


class Serve(asyncio.Protocol):
    def __init__(self, closes: bool) -> None:
        self.closes = closes
        end = b"Connection: close\r\n" if closes else b""
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Type: image/jpeg\r\n%sContent-Length: %d\r\n\r\n" % (end, len(BODY)) + BODY
        self.missing = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n%s\r\n" % end
        self.seen = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.seen += data
        while b"\r\n\r\n" in self.seen:
            request, _, self.seen = self.seen.partition(b"\r\n\r\n")
            self.transport.write(self.missing if request.startswith(b"GET /robots.txt") else self.answer)  # type: ignore[attr-defined]
            if self.closes:
                self.transport.close()
                return


def serve(ready: Connection, certificate: Path, key: Path) -> None:
    async def run() -> None:
        loop = asyncio.get_running_loop()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        context.num_tickets = 0
        context.options |= ssl.OP_NO_TICKET
        ports = {}
        for case, closes, tls in (("keep", False, None), ("close", True, None), ("tls", True, context), ("hosts", False, None)):
            host = "0.0.0.0" if case == "hosts" else "127.0.0.1"
            server = await loop.create_server(lambda closes=closes: Serve(closes), host, 0, ssl=tls, backlog=1024)  # type: ignore[misc]
            ports[case] = server.sockets[0].getsockname()[1]
        ready.send(ports)
        await asyncio.sleep(3600)

    asyncio.run(run())


def with_vlmdata(urls: list[str], ca_file: str) -> Callable[[], int]:
    from vlmdata.web.client import Client
    from vlmdata.web.fetch import Fetched
    from vlmdata.web.options import WebOptions
    from vlmdata.web.rate_limiter import RateLimiter

    options = WebOptions(
        allowed_hosts=tuple(HOSTS), host_connections=0, host_requests_per_s=0.0, connections=AT_ONCE, ca_file=ca_file
    )

    def run() -> int:
        client = Client(options, RateLimiter(options))
        good = 0
        left = threading.Semaphore(0)

        def done(fetched: Fetched) -> None:
            nonlocal good
            good += len(fetched.body or b"") == len(BODY)
            left.release()

        for url in urls:
            client.submit(url, done)
        for _ in urls:
            left.acquire()
        client.close()
        return good

    return run


def with_pycurl(urls: list[str], ca_file: str) -> Callable[[], int]:
    """Do the least that a multi handle can do, without checks, limits or robots.txt."""
    import pycurl

    def run() -> int:
        multi = pycurl.CurlMulti()
        good, waiting, active = 0, list(urls), 0
        free = [pycurl.Curl() for _ in range(AT_ONCE)]
        bodies: dict[pycurl.Curl, list[bytes]] = {}
        for curl in free:
            curl.setopt(pycurl.CAINFO, ca_file)
            curl.setopt(pycurl.BUFFERSIZE, 131_072)
        while waiting or active:
            while waiting and free:
                curl = free.pop()
                bodies[curl] = []
                curl.setopt(pycurl.URL, waiting.pop())
                curl.setopt(pycurl.WRITEFUNCTION, bodies[curl].append)
                multi.add_handle(curl)
                active += 1
            multi.perform()
            _, ended, failed = multi.info_read()
            for curl in [*ended, *(entry[0] for entry in failed)]:
                multi.remove_handle(curl)
                good += len(b"".join(bodies[curl])) == len(BODY)  # in one piece, as the other clients return it
                free.append(curl)
                active -= 1
            if active:
                multi.select(0.1)
        return good

    return run


def with_aiohttp(urls: list[str], ca_file: str) -> Callable[[], int]:
    import aiohttp

    async def fetch() -> int:
        waiting, good = list(urls), 0
        context = ssl.create_default_context(cafile=ca_file)
        async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=AT_ONCE, ssl=context)) as session:

            async def work() -> None:
                nonlocal good
                while waiting:
                    async with session.get(waiting.pop()) as response:
                        body = await response.read()
                    good += len(body) == len(BODY)

            await asyncio.gather(*(work() for _ in range(AT_ONCE)))
        return good

    return lambda: asyncio.run(fetch())


CLIENTS = {"vlmdata": with_vlmdata, "pycurl": with_pycurl, "aiohttp": with_aiohttp}


def measure_here(name: str, case: str, port: int, requests: int, ca_file: str) -> None:
    scheme = "https" if case == "tls" else "http"
    hosts = HOSTS if case == "hosts" else HOSTS[:1]
    run = CLIENTS[name]([f"{scheme}://{hosts[n % len(hosts)]}:{port}/{n}.jpg" for n in range(requests)], ca_file)
    before, start = resource.getrusage(resource.RUSAGE_SELF), time.monotonic()
    good = run()
    wall_s, after = time.monotonic() - start, resource.getrusage(resource.RUSAGE_SELF)
    cpu_s = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"cpu_s": cpu_s, "wall_s": wall_s, "good": good, "rss_mb": after.ru_maxrss / 1024}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2_000)
    parser.add_argument(
        "--rounds", type=int, default=3, help="number of rounds in which each client runs once; the median is printed"
    )
    parser.add_argument("--here", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.here:
        name, case, port, ca_file = given.here
        measure_here(name, case, int(port), given.requests, ca_file)
        return

    import certifi

    from bench.inputs.certificate import Certificate

    certificate = Certificate(*HOSTS)
    with tempfile.NamedTemporaryFile(suffix=".pem") as bundle:
        # as many certificate authorities as certifi has
        bundle.write(Path(certifi.where()).read_bytes() + certificate.file.read_bytes())
        bundle.flush()
        ours, theirs = multiprocessing.Pipe()
        server = multiprocessing.Process(target=serve, args=(theirs, certificate.file, certificate.key_file), daemon=True)
        server.start()
        ports = ours.recv()
        print(f"{'case':6} {'client':8} {'CPU s/1000':>10} {'x pycurl':>8} {'requests/s':>10} {'peak MB':>8}")
        for case in CASES:
            report(case, ports[case], given.requests, given.rounds, bundle.name)
        server.terminate()
        server.join()


def report(case: str, port: int, requests: int, rounds: int, ca_file: str) -> None:
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CLIENTS}
    for _ in range(rounds):
        for name in CLIENTS:
            command = [sys.executable, "-m", "bench.web_client", "--requests", str(requests)]
            command += ["--here", name, case, str(port), ca_file]
            results[name].append(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))
            assert results[name][-1]["good"] == requests, (name, case, results[name][-1])
    cpu_s = {
        name: statistics.median(entry["cpu_s"] for entry in entries) * 1000 / requests for name, entries in results.items()
    }
    for name, entries in results.items():
        rate = requests / statistics.median(entry["wall_s"] for entry in entries)
        rss = max(entry["rss_mb"] for entry in entries)
        print(f"{case:6} {name:8} {cpu_s[name]:10.3f} {cpu_s[name] / cpu_s['pycurl']:8.2f} {rate:10.0f} {rss:8.0f}")


if __name__ == "__main__":
    main()
