"""The rate limiter leases slots fairly and obeys pauses. The test advances its clock."""

import tracemalloc
from dataclasses import replace

import pytest

from tests.web.ask import options
from vlmdata.web.policy import Policy
from vlmdata.web.rate_limiter import ASK_AGAIN_S, DUTY_S, SILENT_S, Ask, Grant, HostReport, News, RateLimiter

HOST = "a.example"
ORIGIN = "http://a.example:80"


class Clock:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


def lease(rate_limiter: RateLimiter, worker: str, starts: int, *reports: HostReport, needs_policy: bool = False) -> Grant:
    return rate_limiter.exchange(worker, [Ask(ORIGIN, HOST, starts, needs_policy)], reports, [])[0]


def test_slots_are_leased_and_given_back() -> None:
    rate_limiter = RateLimiter(options(host_connections=6), Clock())
    assert lease(rate_limiter, "one", 4).starts == 4
    assert lease(rate_limiter, "two", 4).starts == 2
    assert lease(rate_limiter, "two", 4) == Grant(ORIGIN, 0, ASK_AGAIN_S, 0.0)
    assert lease(rate_limiter, "two", 4, HostReport(HOST, 1)).starts == 1
    assert lease(rate_limiter, "two", 4, HostReport(HOST, 99)).starts == 2  # it leased two, so only two are freed


def test_workers_are_served_in_order() -> None:
    rate_limiter = RateLimiter(options(host_connections=1), Clock())
    assert [lease(rate_limiter, worker, 1).starts for worker in ("one", "two", "three")] == [1, 0, 0]
    assert lease(rate_limiter, "one", 1, HostReport(HOST, 1)).starts == 0  # the slot that it gave back is for the second
    assert lease(rate_limiter, "three", 1).starts == 0
    assert lease(rate_limiter, "two", 1).starts == 1


def test_a_worker_that_stops_asking_loses_its_position() -> None:
    clock = Clock()
    rate_limiter = RateLimiter(options(host_connections=1), clock)
    assert [lease(rate_limiter, worker, 1).starts for worker in ("one", "two")] == [1, 0]
    clock.now += 10.0
    assert lease(rate_limiter, "one", 1, HostReport(HOST, 1)).starts == 1


def test_all_workers_share_the_rate_of_a_host() -> None:
    clock = Clock()
    rate_limiter = RateLimiter(options(host_connections=0, host_requests_per_s=10.0), clock)
    first, second, third = (lease(rate_limiter, worker, 15) for worker in ("one", "two", "three"))
    assert (first.starts, first.wait_s, first.interval_s) == (15, 0.0, pytest.approx(0.1))
    assert (second.starts, second.wait_s) == (15, pytest.approx(1.5))
    assert third.starts == 0 and 0 < third.wait_s < 3.0
    clock.now += 60.0
    assert lease(rate_limiter, "three", 100).starts == 20  # at most two seconds of the host's time


def test_a_host_may_have_another_rate() -> None:
    rate_limiter = RateLimiter(
        options(host_connections=0, host_requests_per_s=1.0, host_rates={HOST: 100.0, "b.example": 0.0}), Clock()
    )
    asks = [
        Ask(ORIGIN, HOST, 9, False),
        Ask("http://b.example:80", "b.example", 9, False),
        Ask("http://c.example:80", "c.example", 9, False),
    ]
    grants = rate_limiter.exchange("one", asks, [], [])
    assert [(grant.starts, grant.interval_s) for grant in grants] == [(9, 0.01), (9, 0.0), (2, 1.0)]


def test_one_worker_fetches_a_policy_for_all() -> None:
    clock = Clock()
    rate_limiter = RateLimiter(options(), clock)
    assert [lease(rate_limiter, worker, 5, needs_policy=True).fetch_policy for worker in ("one", "two")] == [True, False]
    policy = Policy(((False, "/a"),), crawl_delay_s=2.0, ttl_s=100.0)
    rate_limiter.exchange("one", [], [HostReport(HOST, 1)], [News(ORIGIN, HOST, policy)])
    granted = lease(rate_limiter, "two", 5, needs_policy=True)
    assert (granted.policy, granted.fetch_policy, granted.interval_s, granted.starts) == (policy, False, 2.0, 1)
    clock.now += 100.0
    assert lease(rate_limiter, "two", 5, needs_policy=True).fetch_policy  # it has expired


def test_another_worker_fetches_a_policy_that_is_not_reported() -> None:
    clock = Clock()
    rate_limiter = RateLimiter(options(), clock)
    assert lease(rate_limiter, "one", 1, needs_policy=True).fetch_policy
    for _ in range(10):
        assert not lease(rate_limiter, "two", 1, needs_policy=True).fetch_policy
        rate_limiter.exchange("one", [], [], [])  # it is alive, but reports no policy
        clock.now += DUTY_S / 10
    assert lease(rate_limiter, "two", 1, needs_policy=True).fetch_policy


@pytest.mark.parametrize("how", ["silent", "left"])
def test_leases_of_a_dead_worker_are_freed(how: str) -> None:
    clock = Clock()
    rate_limiter = RateLimiter(options(host_connections=2), clock)
    assert lease(rate_limiter, "dead", 2, needs_policy=True).fetch_policy and lease(rate_limiter, "dead", 2).starts == 1
    if how == "left":
        rate_limiter.leave("dead")
    else:
        clock.now += SILENT_S - 1
        assert lease(rate_limiter, "one", 2).starts == 0
        clock.now += SILENT_S / 10 + 1
        rate_limiter.exchange("one", [], [], [])
    granted = lease(rate_limiter, "one", 2, needs_policy=True)
    assert granted.fetch_policy and lease(rate_limiter, "one", 2).starts == 1
    rate_limiter.exchange("dead", [], [HostReport(HOST, 2)], [])  # it was only slow, and its old leases no longer count
    assert lease(rate_limiter, "one", 2).starts == 0


def test_trouble_pauses_a_host_and_halves_its_slots() -> None:
    clock = Clock()
    rate_limiter = RateLimiter(options(host_connections=8), clock)
    assert lease(rate_limiter, "one", 8).starts == 8
    closed = lease(rate_limiter, "two", 8, HostReport(HOST, 0), HostReport(HOST, 0, trouble=True))
    assert closed.starts == 0 and 0.5 <= closed.wait_s <= 1.0
    lease(rate_limiter, "one", 0, HostReport(HOST, 8, trouble=True))  # requests that fail together count once
    assert lease(rate_limiter, "two", 8).wait_s == closed.wait_s
    clock.now += closed.wait_s
    assert lease(rate_limiter, "two", 8).starts == 4
    lease(rate_limiter, "two", 0, HostReport(HOST, 4, answered=True))
    assert lease(rate_limiter, "two", 8).starts == 8


def test_pauses_double_and_last_at_least_retry_after() -> None:
    clock = Clock()
    rate_limiter = RateLimiter(options(), clock)
    waits = []
    for _ in range(12):
        waits.append(lease(rate_limiter, "one", 1, HostReport(HOST, 0, trouble=True)).wait_s)
        clock.now += waits[-1]
    assert all(0.5 * 2.0**n <= wait <= 2.0**n for n, wait in enumerate(waits[:8]))
    assert max(waits) <= 300.0
    assert lease(rate_limiter, "one", 1, HostReport(HOST, 0, trouble=True, rest_s=7200.0)).wait_s == pytest.approx(7200.0)


def test_a_grant_lists_refused_addresses() -> None:
    rate_limiter = RateLimiter(options(), Clock())
    rate_limiter.exchange("one", [], [], [News(url_key=7, failure="noai")])
    granted = rate_limiter.exchange("two", [Ask(ORIGIN, HOST, 2, False, (7, 8))], [], [])[0]
    assert (granted.refused, granted.starts) == (((7, "noai"),), 1)


def test_idle_hosts_are_forgotten_but_not_their_crawl_delay() -> None:
    clock = Clock()
    rate_limiter = RateLimiter(options(), clock)
    tracemalloc.start()
    for n in range(1000):
        rate_limiter.exchange("one", [Ask(f"http://{n}.example:80", f"{n}.example", 1, False)], [], [])
        rate_limiter.exchange("one", [], [HostReport(f"{n}.example", 1)], [])
    rate_limiter.exchange("one", [], [], [News(ORIGIN, HOST, Policy(crawl_delay_s=9.0))])
    held, _ = tracemalloc.get_traced_memory()
    clock.now += SILENT_S
    rate_limiter.exchange("one", [], [], [])
    left, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert left < held / 2 and held > 200_000
    assert lease(rate_limiter, "one", 1).interval_s == 9.0


def test_all_messages_can_be_pickled() -> None:
    import pickle

    grant = replace(lease(RateLimiter(options(), Clock()), "one", 1), policy=Policy(((True, "/"),)), refused=((1, "noai"),))
    messages = (Ask(ORIGIN, HOST, 1, True, (1,)), HostReport(HOST, 1, True, 2.0, True), News(ORIGIN, HOST, Policy()), grant)
    assert pickle.loads(pickle.dumps(messages)) == messages
