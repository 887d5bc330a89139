"""Waiting for a site's turn, with the time given by the test."""

from collections.abc import Callable

from tests.web.ask import options
from vlmdata.web.fetch import Fetch, Fetched, url_key
from vlmdata.web.pace import Pace
from vlmdata.web.policy import Policy
from vlmdata.web.turns import KEPT_SITES, Turns
from vlmdata.web.url import parse_url


def fetch(text: str, done: Callable[[Fetched], None] = print) -> Fetch:
    url = parse_url(text)
    assert url is not None
    return Fetch(text, url, done, url_key(url))


def settle(turns: Turns, pace: Pace, now: float) -> list[Fetch]:
    """Talk with the arbiter until nothing more is to be said; return what may begin."""
    turns.advance(now)
    for _ in range(10):
        turns.take(pace.exchange("one", *turns.messages()), now)
        turns.advance(now)
    begun, turns.starting = turns.starting, []
    return begun


def test_rows_wait_for_a_policy_and_again_when_it_has_grown_old() -> None:
    now = 0.0
    pace, turns = Pace(options(), lambda: now), Turns(needs_policy=True, max_wait_s=60.0)
    turns.add(fetch("http://a.example/1"), now)
    assert settle(turns, pace, now) == []
    [site] = turns.policy_wanted
    turns.learn_policy(site, Policy(ttl_s=100.0), now)
    assert [one.text for one in settle(turns, pace, now)] == ["http://a.example/1"]
    turns.ended("a.example")
    now = 100.0
    turns.policy_wanted = []
    turns.add(fetch("http://a.example/2"), now)
    assert settle(turns, pace, now) == [] and turns.policy_wanted == [site]
    turns.learn_policy(site, Policy(((False, "/2"),)), now)
    assert [(one.text, failure) for one, failure in turns.refused] == [("http://a.example/2", "robots")]


def test_rows_that_cannot_begin_in_time_are_refused_at_once_with_their_last_failure() -> None:
    pace, turns = Pace(options(host_requests_per_s=0.1), lambda: 0.0), Turns(needs_policy=False, max_wait_s=30.0)
    tried = fetch("http://a.example/tried")
    tried.failure, tried.waited_s = "http_500", 25.0
    for n in range(9):
        turns.add(fetch(f"http://a.example/{n}"), 0.0)
    turns.add(tried, 0.0)
    assert len(settle(turns, pace, 0.0)) == 1
    turns.advance(9.5)
    turns.expire(9.5)
    assert [failure for _, failure in turns.refused] == ["http_500"]


def test_sites_are_forgotten_without_losing_rows() -> None:
    pace, turns = Pace(options(host_connections=0), lambda: 0.0), Turns(needs_policy=False, max_wait_s=60.0)
    for n in range(KEPT_SITES + 500):
        turns.add(fetch(f"http://{n}.example/"), 0.0)
        assert len(settle(turns, pace, 0.0)) == 1
        turns.ended(f"{n}.example")
    assert len(turns._sites) <= KEPT_SITES and len(turns._by_host) <= KEPT_SITES
    turns.add(fetch("http://0.example/again"), 0.0)
    assert len(settle(turns, pace, 0.0)) == 1


def test_draining_gives_every_row_back() -> None:
    turns = Turns(needs_policy=True, max_wait_s=60.0)
    texts = [f"http://{n % 3}.example/{n}" for n in range(9)]
    for text in texts:
        turns.add(fetch(text), 0.0)
    assert sorted(one.text for one in turns.drain()) == sorted(texts)
