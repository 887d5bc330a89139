"""Fetches robots.txt and tdmrep.json of a site and turns the answers into its policy."""

from collections.abc import Callable
from dataclasses import replace

from vlmdata.web.fetch import Fetch, Fetched
from vlmdata.web.options import WebOptions
from vlmdata.web.optout import parse_tdmrep
from vlmdata.web.policy import Policy
from vlmdata.web.robots import parse_robots
from vlmdata.web.turns import Site
from vlmdata.web.url import parse_url

MAX_REDIRECTS = 5  # RFC 9309, 2.3.1.2
SHORT_S = 600.0  # seconds for which a failure to read the policy is remembered
ROBOTS = "/robots.txt"
TDMREP = "/.well-known/tdmrep.json"

# no usable robots.txt: everything is allowed (2.3.1.3)
_UNAVAILABLE = frozenset({"too_many_redirects", "bad_redirect", "empty_body"})
# the site itself is unreachable: its rows get this failure instead of robots_unreachable
_SITE_FAILURES = frozenset({
    "dns_failed", "dns_temporary", "dns_timeout", "connect_failed", "connect_timeout", "tls_failed", "private_address",
    "proxy_failed", "host_busy", "http_429",
})  # fmt: skip


def robots_policy(origin: str, fetched: Fetched, agent: str) -> Policy:
    """Return the policy of a site according to its answer to the request for robots.txt.

    4xx allows everything, and 5xx or no answer allows nothing (RFC 9309, 2.3.1). 429 allows nothing either, because a site that
    asks for fewer requests has not allowed any. The RFC permits this: a crawler "may" fetch after 4xx, but need not.
    """
    if fetched.body is not None:
        rules, crawl_delay_s = parse_robots(fetched.body, agent)
        return Policy(rules, crawl_delay_s)
    failure = fetched.failure
    assert failure is not None
    last = parse_url(fetched.final_url)
    if failure in _SITE_FAILURES and last is not None and last.origin == origin:
        return Policy(failure=failure, ttl_s=SHORT_S)
    if failure in _UNAVAILABLE or (failure.startswith("http_") and failure != "http_429" and fetched.status < 500):
        return Policy()
    return Policy(failure="robots_unreachable", ttl_s=SHORT_S)


def add_tdmrep(policy: Policy, fetched: Fetched) -> Policy:
    """Return the policy with the rules of a tdmrep.json added. A missing or invalid file adds no rules."""
    return replace(policy, reserved=parse_tdmrep(fetched.body)) if fetched.body is not None else policy


class PolicyFetch:
    """Fetches the policy files of one site one after the other, and then calls `learnt` with the site and its policy.

    The function `add` queues the request for a file. If the client closes before the end, `learnt` is not called.
    """

    def __init__(
        self, site: Site, options: WebOptions, add: Callable[[Fetch], None], learnt: Callable[[Site, Policy], None]
    ) -> None:
        self._site, self._options, self._add, self._learnt = site, options, add, learnt
        self._policy = Policy()

    def begin(self) -> None:
        """Request the first policy file."""
        if self._options.robots:
            self._ask(ROBOTS, self._took_robots)
        else:
            self._ask(TDMREP, self._took_tdmrep)

    def _ask(self, path: str, done: Callable[[Fetched], None]) -> None:
        url = parse_url(self._site.origin + path)
        assert url is not None
        self._add(Fetch(url.text, url, done, 0, is_policy=True))

    def _took_robots(self, fetched: Fetched) -> None:
        if fetched.failure == "closed":
            return
        self._policy = robots_policy(self._site.origin, fetched, self._options.agent)
        if self._options.tdm_file and self._policy.failure is None:
            self._ask(TDMREP, self._took_tdmrep)
        else:
            self._learnt(self._site, self._policy)

    def _took_tdmrep(self, fetched: Fetched) -> None:
        if fetched.failure != "closed":
            self._learnt(self._site, add_tdmrep(self._policy, fetched))
