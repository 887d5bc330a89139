"""Each answer with random changes, cuts, repeats and mixtures of bytes becomes a known outcome in time."""

import gzip
import random

from tests.servers import LoopbackServer, head, raw
from tests.web.ask import ask
from vlmdata.web.outcomes import is_passing

SEEDS = 400


def noisy_answer(seed: int) -> bytes:
    chance = random.Random(seed)
    body = bytes(chance.randrange(256) for _ in range(200))
    headers = [
        ("Content-Length", str(chance.choice([200, 0, 10**9]))),
        ("Content-Encoding", chance.choice(["gzip", "br", "zstd", "x"])),
        ("Transfer-Encoding", chance.choice(["chunked", "gzip, chunked"])),
        ("Location", "/\x00\xff" * 3),
        ("X-Robots-Tag", ":,:noai"),
        ("Retry-After", "²"),
        ("Date", "\xff"),
        ("tdm-reservation", "1"),
        ("Connection", "upgrade"),
        ("Content-Length", "²"),
    ]
    status = chance.choice([100, 101, 103, 200, 200, 200, 204, 206, 301, 304, 400, 500, 999])
    answer = bytearray(
        head(status, chance.sample(headers, chance.randrange(4))) + chance.choice([body, gzip.compress(body), b"c8\r\n" + body])
    )
    for _ in range(chance.randrange(6)):
        place = chance.randrange(len(answer) + 1)
        match chance.randrange(4):
            case 0:
                answer[place : place + 1] = bytes([chance.randrange(256)])
            case 1:
                del answer[place : place + chance.randrange(1, 20)]
            case 2:
                answer[place:place] = bytes(answer[: chance.randrange(60)])
            case _:
                answer[place:place] = chance.choice([b"\r\n", b"\n", b"\r\n\r\n", b"\x00", b":", b"HTTP/1.1 200 OK\r\n"])
    return bytes(answer)


def test_noise_becomes_an_outcome() -> None:
    with LoopbackServer({f"/{seed}": raw(noisy_answer(seed)) for seed in range(SEEDS)}) as server:
        fetched = ask([server.url(f"/{seed}") for seed in range(SEEDS)], robots=False, host_connections=32, max_bytes=100_000)
        for one in fetched:
            assert (one.body is None) == (one.failure is not None)
            assert one.failure is None or is_passing(one.failure) in (True, False)
        assert len({one.failure for one in fetched}) > 8
