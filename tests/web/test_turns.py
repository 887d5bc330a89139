"""The queues of a worker start rows in turn. The test sets the clock."""

from collections.abc import Callable

from tests.web.ask import options
from vlmdata.web.fetch import Fetch, Fetched, url_key
from vlmdata.web.policy import Policy
from vlmdata.web.rate_limiter import RateLimiter
from vlmdata.web.turns import KEPT_SITES, Turns
from vlmdata.web.url import parse_url


def fetch(text: str, done: Callable[[Fetched], None] = print) -> Fetch:
    url = parse_url(text)
    assert url is not None
    return Fetch(text, url, done, url_key(url))


def settle(turns: Turns, rate_limiter: RateLimiter, now: float) -> list[Fetch]:
    """Exchange messages with the rate limiter until there are none, and return the requests that may start."""
    turns.advance(now)
    for _ in range(10):
        turns.take(rate_limiter.exchange("one", *turns.messages()), now)
        turns.advance(now)
    started, turns.starting = turns.starting, []
    return started


def test_rows_wait_for_a_policy_and_again_once_it_expires() -> None:
    now = 0.0
    rate_limiter, turns = RateLimiter(options(), lambda: now), Turns(needs_policy=True, max_wait_s=60.0)
    turns.add(fetch("http://a.example/1"), now)
    assert settle(turns, rate_limiter, now) == []
    [site] = turns.policy_wanted
    turns.learn_policy(site, Policy(ttl_s=100.0), now)
    assert [one.text for one in settle(turns, rate_limiter, now)] == ["http://a.example/1"]
    turns.ended("a.example")
    now = 100.0
    turns.policy_wanted = []
    turns.add(fetch("http://a.example/2"), now)
    assert settle(turns, rate_limiter, now) == [] and turns.policy_wanted == [site]
    turns.learn_policy(site, Policy(((False, "/2"),)), now)
    assert [(one.text, failure) for one, failure in turns.refused] == [("http://a.example/2", "robots")]


def test_rows_that_cannot_start_in_time_are_refused_with_their_last_failure() -> None:
    rate_limiter, turns = RateLimiter(options(host_requests_per_s=0.1), lambda: 0.0), Turns(needs_policy=False, max_wait_s=30.0)
    tried = fetch("http://a.example/tried")
    tried.failure, tried.waited_s = "http_500", 25.0
    for n in range(9):
        turns.add(fetch(f"http://a.example/{n}"), 0.0)
    turns.add(tried, 0.0)
    assert len(settle(turns, rate_limiter, 0.0)) == 1
    turns.advance(9.5)
    turns.expire(9.5)
    assert [failure for _, failure in turns.refused] == ["http_500"]


def test_rows_of_a_host_that_pauses_longer_than_they_may_wait_are_refused_at_once() -> None:
    rate_limiter, turns = RateLimiter(options(), lambda: 0.0), Turns(needs_policy=False, max_wait_s=30.0)
    turns.add(fetch("http://a.example/1"), 0.0)
    assert len(settle(turns, rate_limiter, 0.0)) == 1
    turns.ended("a.example", trouble=True, rest_s=3600.0)
    turns.add(fetch("http://a.example/2"), 0.0)
    settle(turns, rate_limiter, 0.0)
    assert [one.text for one, _ in turns.refused] == ["http://a.example/2"]
    turns.add(fetch("http://a.example/3"), 1.0)
    assert [(one.text, failure) for one, failure in turns.refused[1:]] == [("http://a.example/3", "host_busy")]


def test_sites_are_forgotten_without_losing_rows() -> None:
    rate_limiter, turns = RateLimiter(options(host_connections=0), lambda: 0.0), Turns(needs_policy=False, max_wait_s=60.0)
    for n in range(KEPT_SITES + 500):
        turns.add(fetch(f"http://{n}.example/"), 0.0)
        assert len(settle(turns, rate_limiter, 0.0)) == 1
        turns.ended(f"{n}.example")
    assert max(turns.known()) <= KEPT_SITES
    turns.add(fetch("http://0.example/again"), 0.0)
    assert len(settle(turns, rate_limiter, 0.0)) == 1


def test_drain_yields_every_row() -> None:
    turns = Turns(needs_policy=True, max_wait_s=60.0)
    texts = [f"http://{n % 3}.example/{n}" for n in range(9)]
    for text in texts:
        turns.add(fetch(text), 0.0)
    assert sorted(one.text for one in turns.drain()) == sorted(texts)


def test_rows_keep_waiting_while_their_host_makes_progress() -> None:
    """With 200 rows at five answers a second, the last row starts after 40 s, although no row may wait longer than 10 s."""
    now = 0.0
    rate_limiter, turns = RateLimiter(options(host_requests_per_s=5.0), lambda: now), Turns(needs_policy=False, max_wait_s=10.0)
    for n in range(200):
        turns.add(fetch(f"http://a.example/{n}"), now)
    started = 0
    while started < 200 and now < 60.0:
        for _ in settle(turns, rate_limiter, now):
            turns.ended("a.example", answered=True)
            started += 1
        turns.expire(now)
        now += 0.1
    assert (started, turns.refused) == (200, [])
    assert now > 39.0


def test_rows_of_a_host_that_answers_too_rarely_end_as_busy() -> None:
    """One answer in two seconds is less than one per second, so all other rows are refused after 10 s."""
    now = 0.0
    rate_limiter, turns = RateLimiter(options(host_requests_per_s=0.5), lambda: now), Turns(needs_policy=False, max_wait_s=10.0)
    for n in range(200):
        turns.add(fetch(f"http://a.example/{n}"), now)
    started = 0
    while len(turns.refused) + started < 200 and now < 60.0:
        for _ in settle(turns, rate_limiter, now):
            turns.ended("a.example", answered=True)
            started += 1
        turns.expire(now)
        now += 0.1
    assert 5 <= started <= 7 and {failure for _, failure in turns.refused} == {"host_busy"}
    assert now < 13.0


def test_rows_of_a_host_that_stops_answering_wait_no_longer_than_they_may() -> None:
    now = 0.0
    rate_limiter, turns = RateLimiter(options(host_requests_per_s=5.0), lambda: now), Turns(needs_policy=False, max_wait_s=10.0)
    for n in range(300):
        turns.add(fetch(f"http://a.example/{n}"), now)
    while not turns.refused and now < 90.0:
        for _ in settle(turns, rate_limiter, now):
            if now < 30.0:  # after that it accepts requests and never answers
                turns.ended("a.example", answered=True)
        turns.expire(now)
        now += 0.1
    assert 39.0 < now < 43.0 + 5.0
