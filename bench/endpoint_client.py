"""Requests per second and CPU seconds per 1,000 requests of the generator `openai`, beside plain loops with other clients.

    python -m bench.endpoint_client       # 2,000 requests with a picture of 30 kB each, 16 and 64 at once, over loopback

Each client and the server run in two processes. The figures are the client's, with its threads and without imports.
`vlmdata` makes the prompts, sends them, reads the answers and stores each in the journal of a partition. `httpx` is a thread
pool with one httpx.Client that only sends a body made before and parses the answer. `pycurl` is the same with a handle for
each thread. Both are lower bounds of what a client with their library takes.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection
from pathlib import Path
from threading import local

from vlmdata.generator import Prompt, Sampling

PICTURE = b"\xff\xd8\xff" + bytes(range(256)) * 120  # 30 kB
ANSWER = {
    "model": "bench",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "A red cube. " * 20}}],
    "usage": {"prompt_tokens": 300, "completion_tokens": 100, "total_tokens": 400},
}


class Serve(asyncio.Protocol):
    """Answers each request as soon as its body has come."""

    def __init__(self) -> None:
        body = json.dumps(ANSWER).encode()
        self.answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body) + body
        self.left = -1  # bytes of the body that have not come; -1: the head has not come
        self.head = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        if self.left < 0:
            self.head += data
            head, end, rest = self.head.partition(b"\r\n\r\n")
            if not end:
                return
            lines = [line.partition(b":") for line in head.lower().split(b"\r\n")]
            self.left = next(int(value) for name, _, value in lines if name == b"content-length")
            self.head, data = b"", rest
        self.left -= len(data)
        if self.left == 0:
            self.left = -1
            self.transport.write(self.answer)  # type: ignore[attr-defined]


def serve(ready: Connection) -> None:
    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(Serve, "127.0.0.1", 0, backlog=1024)
        ready.send(server.sockets[0].getsockname()[1])
        await asyncio.sleep(3600)

    asyncio.run(run())


def with_vlmdata(url: str, count: int, at_once: int, folder: Path) -> Callable[[], int]:
    from vlmdata.engine.partitions.answer_journal import AnswerJournal
    from vlmdata.engine.store.folder_store import LocalStore
    from vlmdata.engine.work.open_partition import StoredRecord
    from vlmdata.generator import Answer
    from vlmdata.generators.openai import OpenAI

    def run() -> int:
        store = LocalStore(folder)
        endpoint = OpenAI(model="bench", url=url, concurrency=at_once).open(StoredRecord(store, "record"))
        journal = AnswerJournal(store, "bench", 0)
        good = 0

        def done(number: int, answer: Answer) -> None:
            nonlocal good
            journal.add(f"{number:032x}", f"{number:026x}", answer)
            good += answer.text is not None

        endpoint.answer((Prompt("What is it?", (PICTURE,), seed=one) for one in range(count)), Sampling(), done)
        journal.close()
        endpoint.close()
        return good

    return run


def body() -> bytes:
    from vlmdata.generation.chat import request

    return request(Prompt("What is it?", (PICTURE,)), Sampling(), "bench", "max_tokens", {})


def with_httpx(url: str, count: int, at_once: int, folder: Path) -> Callable[[], int]:
    import httpx

    def run() -> int:
        data, limits = body(), httpx.Limits(max_connections=at_once, max_keepalive_connections=at_once)
        with httpx.Client(limits=limits, timeout=60) as client, ThreadPoolExecutor(at_once) as pool:

            def ask(_: int) -> bool:
                return bool(client.post(f"{url}/chat/completions", content=data).json()["choices"])

            return sum(pool.map(ask, range(count)))

    return run


def with_pycurl(url: str, count: int, at_once: int, folder: Path) -> Callable[[], int]:
    import pycurl

    def run() -> int:
        data, mine = body(), local()

        def ask(_: int) -> bool:
            if not hasattr(mine, "curl"):
                mine.curl = pycurl.Curl()
                mine.curl.setopt(pycurl.URL, f"{url}/chat/completions")
                mine.curl.setopt(pycurl.POSTFIELDS, data)
                mine.curl.setopt(pycurl.HTTPHEADER, ["Expect:"])
            return bool(json.loads(mine.curl.perform_rb())["choices"])

        with ThreadPoolExecutor(at_once) as pool:
            return sum(pool.map(ask, range(count)))

    return run


CLIENTS = {"vlmdata": with_vlmdata, "httpx": with_httpx, "pycurl": with_pycurl}


def measure(client: str, url: str, count: int, at_once: int) -> None:
    """Print the requests per second and the CPU seconds per 1,000 requests of one client as JSON."""
    with tempfile.TemporaryDirectory() as folder:
        run = CLIENTS[client](url, count, at_once, Path(folder))
        before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
        good = run()
        took, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    assert good == count, f"{client} got {good} of {count} answers"
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(json.dumps({"per_s": count / took, "cpu_s": 1000 * cpu / count}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--measure", nargs=3, metavar=("CLIENT", "URL", "AT_ONCE"), help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.measure:
        client, url, at_once = arguments.measure
        measure(client, url, arguments.requests, int(at_once))
        return
    here, there = multiprocessing.Pipe()
    server = multiprocessing.get_context("spawn").Process(target=serve, args=(there,), daemon=True)
    server.start()
    url = f"http://127.0.0.1:{here.recv()}/v1"
    print(f"{'client':<10}{'at once':>8}{'requests/s':>12}{'CPU s per 1,000':>17}")
    for at_once in (16, 64):
        for client in CLIENTS:
            found = []
            for _ in range(3):
                own = ["--requests", str(arguments.requests), "--measure", client, url, str(at_once)]
                done = subprocess.run(
                    [sys.executable, "-m", "bench.endpoint_client", *own], capture_output=True, text=True, check=True
                )
                found.append(json.loads(done.stdout))
            best = min(found, key=lambda one: one["cpu_s"])
            print(f"{client:<10}{at_once:>8}{best['per_s']:>12,.0f}{best['cpu_s']:>17.2f}", flush=True)
    server.terminate()


if __name__ == "__main__":
    main()
