"""Warns if the rate limit of one host slows the whole run."""

import os
from collections import Counter
from collections.abc import Iterable

from vlmdata.sizes import counted
from vlmdata.web.options import WebOptions
from vlmdata.web.url import parse_url

ROWS_PER_S = 100.0  # rows per second that one core fetches, decodes and writes if the servers are fast enough
MIN_RUN_S = 60.0  # shorter runs get no warning
MIN_SAMPLED = 50  # minimum number of a host's addresses in the sample; the share of fewer may be chance


def crowd(urls: Iterable[str | None], rows: int | None, options: WebOptions) -> str | None:
    """Return a warning of one line about the host whose rate limit slows the whole run, or None if there is no such host.

    `urls` is a sample of the run's addresses. `rows` is the number of rows in the run, or None if it is not known.
    """
    hosts = Counter(parsed.host for parsed in map(parse_url, filter(None, urls)) if parsed is not None)
    sampled = hosts.total()
    slowest = None
    for host, count in hosts.items():
        rate = options.host_rates.get(host, options.host_requests_per_s)
        if count >= MIN_SAMPLED and rate and (slowest is None or count / rate > slowest[0]):
            slowest = (count / rate, host, count / sampled, rate)
    if slowest is None:
        return None
    _, host, share, rate = slowest
    run_s = (rows or sampled) * share / rate
    if run_s < MIN_RUN_S or rate / share > ROWS_PER_S * (os.cpu_count() or 1):
        return None
    requests = f"{rate:g} {'request' if rate == 1 else 'requests'}"
    return (
        f"{share:.0%} of the addresses are on {host}, which gets at most {requests} a second, so the run takes "
        f"{'' if rows else 'more than '}{_duration(run_s)}. If the owner of the host allows more, add "
        f"--set 'download.host_rates={{{host}: {10 * rate:g}}}'"
    )


def _duration(seconds: float) -> str:
    for size, name in ((86_400, "days"), (3_600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {name}"
    return counted(round(seconds), "second")
