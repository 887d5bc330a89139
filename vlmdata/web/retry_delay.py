"""Computes the delay before another attempt."""

import random
from email.utils import parsedate_to_datetime
from time import time

FIRST_DELAY_S = 1.0
MAX_DELAY_S = 30.0
MAX_REST_S = 86_400.0


def retry_delay_s(attempts: int) -> float:
    """Return a random delay in seconds, from 0 to a limit that doubles with each failed attempt.

    A delay from the whole range is the best way to spread requests that failed together. Source: Brooker 2015, "Exponential
    Backoff and Jitter", full jitter.
    """
    return random.uniform(0.0, min(MAX_DELAY_S, FIRST_DELAY_S * 2.0 ** (attempts - 1)))


def retry_after_s(value: str, date: str) -> float:
    """Return the seconds that a Retry-After header asks for, or 0 if it is unreadable (RFC 9110, 10.2.3).

    A date is compared with the server's `Date` header, because the server's clock wrote both.
    """
    value = value.strip()
    if value.isascii() and value.isdigit():
        return min(float(value[:9]), MAX_REST_S)
    try:
        until = parsedate_to_datetime(value).timestamp()
    except (ValueError, OverflowError):
        return 0.0
    try:
        now = parsedate_to_datetime(date).timestamp()
    except (ValueError, OverflowError):
        now = time()
    return min(max(until - now, 0.0), MAX_REST_S)
