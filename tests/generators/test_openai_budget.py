"""A budget stops a run cleanly, is exceeded by at most the requests under way, and survives the death of a worker."""

import json
import threading

import pytest

from tests.generators.faults import always, late, malformed
from tests.generators.openai_server import OpenAIServer
from tests.generators.opened import asking, opened, prompts
from vlmdata.errors import GeneratorStopped
from vlmdata.generator import Sampling

TEXT = "one two three four"  # 4 tokens; each prompt has 6


def words(count: int) -> list[str]:
    return [f"{number} b c d e f" for number in range(count)]


def spend(endpoint, count: int = 1000, sampling: Sampling | None = None) -> tuple[str, dict]:
    found = {}
    with pytest.raises(GeneratorStopped) as error:
        endpoint.answer(iter(prompts(*words(count))), sampling or Sampling(), found.__setitem__)
    return str(error.value), found


def test_a_budget_of_tokens_stops_after_the_requests_under_way(tmp_path):
    with (
        OpenAIServer(lambda request: TEXT) as server,
        opened(server.url, tmp_path, budget_tokens=100, concurrency=4) as endpoint,
    ):
        line, found = spend(endpoint)
    assert 10 <= len(found) == server.requests <= 13 and all(answer.failure is None for answer in found.values())
    assert f"(budget_tokens 100) is spent: {10 * len(found)} tokens, {len(found)} answers" in line and "\n" not in line


def test_a_budget_of_money_counts_prices_of_prompts_and_answers(tmp_path):
    prices = {"price_prompt": 1e6, "price_answer": 1e7}  # an answer costs 6 + 40
    with asking(tmp_path, OpenAIServer(lambda request: TEXT), budget_money=460.0, concurrency=1, **prices) as (
        server,
        endpoint,
    ):
        line, found = spend(endpoint)
    assert len(found) == server.requests == 10
    assert "(budget_money 460.0000) is spent: 100 tokens and 460.0000 of money, 10 answers" in line


def test_all_callers_stop_only_when_nothing_is_under_way(tmp_path):
    stored, lines, may_end = [], [], threading.Event()

    def call(one: int) -> None:
        asked = prompts(*(f"{one} {word}" for word in words(100)))
        with pytest.raises(GeneratorStopped) as error:
            endpoint.answer(iter(asked), Sampling(), lambda number, answer: stored.append((one, number)))
        lines.append((str(error.value), len(stored)))

    fault = always(late(until=may_end))
    server = OpenAIServer(lambda request: TEXT, lambda request: fault(request) if request.number in (0, 1) else None)
    with server, opened(server.url, tmp_path, budget_tokens=200, concurrency=6) as endpoint:
        callers = [threading.Thread(target=call, args=(one,)) for one in range(3)]
        for caller in callers:
            caller.start()
        server.wait_for(lambda server: server.answered >= 18 and server.at_once == 2)
        assert not lines
        may_end.set()
        for caller in callers:
            caller.join()
    assert len(stored) == server.requests and len({line for line, _ in lines}) == 1
    assert {count for _, count in lines} == {len(stored)}


def test_an_answer_that_just_fits_the_budget_does_not_stop_the_run(tmp_path):
    with (
        OpenAIServer(lambda request: TEXT) as server,
        opened(server.url, tmp_path, budget_tokens=30, concurrency=1) as endpoint,
    ):
        endpoint.answer(iter(prompts(*words(3))), Sampling(), lambda number, answer: None)
    assert server.requests == 3


def test_a_server_that_counts_nothing_still_ends_a_budget(tmp_path):
    with asking(
        tmp_path, OpenAIServer(lambda request: TEXT, always(malformed("usage_missing"))), budget_tokens=100, concurrency=1
    ) as (_, endpoint):
        _, found = spend(endpoint, sampling=Sampling(max_tokens=20))
    assert len(found) == 5


def test_a_worker_that_replaces_a_dead_one_begins_with_what_was_reserved(tmp_path):
    with OpenAIServer(lambda request: TEXT) as server:
        for _ in range(20):  # each worker dies with its answers under way; its successor opens the generator
            with opened(server.url, tmp_path, budget_tokens=1000, concurrency=2) as endpoint:
                try:
                    endpoint.answer(iter(prompts(*words(6))), Sampling(max_tokens=10), lambda number, answer: None)
                except GeneratorStopped:
                    break
                held = json.loads((tmp_path / "record.json").read_text())
                assert held["tokens"] >= 10 * server.requests
        else:
            raise AssertionError("the budget was not counted")
    assert 40 <= server.requests <= 102


def test_without_a_budget_no_record_is_written(tmp_path):
    with asking(tmp_path, OpenAIServer()) as (_, endpoint):
        endpoint.answer(iter(prompts("a")), Sampling(), lambda number, answer: None)
    assert not (tmp_path / "record.json").exists()
