"""How long to wait before asking again."""

import random
from email.utils import parsedate_to_datetime
from time import time

FIRST_DELAY_S = 1.0
LAST_DELAY_S = 30.0
LONGEST_REST_S = 86_400.0


def retry_delay_s(attempts: int) -> float:
    """Return a random wait after so many failed attempts: anything up to a limit that doubles, which spreads those that
    failed together best. Source: Brooker 2015, "Exponential Backoff and Jitter", full jitter."""
    return random.uniform(0.0, min(LAST_DELAY_S, FIRST_DELAY_S * 2.0 ** (attempts - 1)))


def retry_after_s(value: str, date: str) -> float:
    """Return the seconds that a Retry-After header asks for, 0 if it cannot be read (RFC 9110, 10.2.3).

    A date is read against the server's own `Date`, for it is the server's clock that it was written by.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), LONGEST_REST_S)
    try:
        until = parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return 0.0
    try:
        now = parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        now = time()
    return min(max(until - now, 0.0), LONGEST_REST_S)
