"""One address in the client (`Fetch`), and the outcome that its caller gets (`Fetched`)."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO

import xxhash

from vlmdata.web.url import Url


@dataclass(frozen=True, slots=True)
class Fetched:
    """The outcome of one address: a `body` or a `failure`. The body is empty if it was written to a file.

    `url` is the address as it was submitted. `status` is the HTTP status of the last answer, or 0 if there was none. `headers`
    holds the opt-out headers of that answer in their order, with names in lower case.
    """

    url: str
    body: bytes | None
    failure: str | None
    status: int = 0
    final_url: str = ""
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True, eq=False)
class Fetch:
    """The state of one address while the client fetches it. `url` is the address of the current hop.

    `is_policy` says that the address is a robots.txt or tdmrep.json, which no policy can forbid. `sink` receives the body, if
    it should not be in memory.
    """

    text: str
    url: Url
    done: Callable[[Fetched], None]
    key: int
    is_policy: bool = False
    sink: BinaryIO | None = None
    hops: int = 0
    attempts: int = 0
    spent_s: float = 0.0  # seconds in transfers of this attempt
    waited_s: float = 0.0  # seconds of waiting in all attempts: for a host without progress, in pauses and before retries
    queued_at: float = 0.0
    is_looked_up: bool = False  # whether the rate limiter was asked about `key`
    failure: str | None = None  # failure of the previous attempt
    status: int = 0  # HTTP status of the last answer; the next two fields are from the same answer
    content_type: str = ""
    headers: tuple[tuple[str, str], ...] = ()


def url_key(url: Url) -> int:
    """Return a 64-bit hash of an address. Workers exchange these hashes to report refused addresses."""
    return xxhash.xxh3_64_intdigest(url.text.encode())
