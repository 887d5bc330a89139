"""One address on its way through the client, and what its caller gets in the end."""

from collections.abc import Callable
from dataclasses import dataclass

import xxhash

from vlmdata.web.url import Url


@dataclass(frozen=True, slots=True)
class Fetched:
    """`url` is the address as submitted. Without a `failure` there is a body; with one there is none. `status` is the last
    answer's, 0 without one. `headers` are those that speak of opting out, lower-case names, in the order they came."""

    url: str
    body: bytes | None
    failure: str | None
    status: int = 0
    final_url: str = ""
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True, eq=False)
class Fetch:
    """`url` is the hop that is asked now. `is_policy`: robots.txt or tdmrep.json, which no policy can forbid."""

    text: str
    url: Url
    done: Callable[[Fetched], None]
    key: int
    is_policy: bool = False
    hops: int = 0
    attempts: int = 0
    spent_s: float = 0.0  # in transfers of this attempt
    waited_s: float = 0.0  # for turns of a host that does not get on, pauses and retries, all attempts
    queued_at: float = 0.0
    is_looked_up: bool = False  # whether the arbiter was asked about its key
    failure: str | None = None  # of the attempt before
    status: int = 0  # of the last answer, as are the next two
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()


def url_key(url: Url) -> int:
    return xxhash.xxh3_64_intdigest(url.text.encode())
