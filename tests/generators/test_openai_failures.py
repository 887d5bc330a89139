"""The generator `openai` asks again after passing failures, obeys Retry-After, and stops in one line without the key."""

import json
import socket
import threading
from contextlib import ExitStack

import pytest

from bench.inputs.certificate import Certificate
from tests.generators.faults import (
    always,
    by_attempt,
    by_share,
    close,
    cut,
    endless,
    first_of,
    late,
    malformed,
    redirect,
    reset,
    status,
    too_many,
)
from tests.generators.openai_server import OpenAIServer
from tests.generators.opened import answers, asking, opened, prompts
from tests.servers import LoopbackServer, reply
from vlmdata.errors import GeneratorStopped
from vlmdata.generation import endpoint as module
from vlmdata.generation.endpoint import MOST_PAUSE_S, pause_s
from vlmdata.generator import Prompt, Sampling

KEY = "sk-Aq7-very-long-and-secret-0123456789"


@pytest.fixture(autouse=True)
def short_delays(monkeypatch):
    monkeypatch.setattr(module, "FIRST_DELAY_S", 0.01)


def stopped(url, tmp_path, asked=1, **options) -> tuple[str, dict]:
    """Return the line with which the generator stops, and the answers that it stored before."""
    found = {}
    with opened(url, tmp_path, **options) as endpoint:
        for _ in range(2):  # a later call stops at once
            with pytest.raises(GeneratorStopped) as error:
                endpoint.answer(iter(prompts(*map(str, range(asked)))), Sampling(), found.__setitem__)
    line = str(error.value)
    assert "\n" not in line and line.startswith(f"openai: {url}")
    return line, found


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (status(408), "http_408"),
        (status(429), "http_429"),
        (status(500), "http_500"),
        (status(503), "http_503"),
        (reset, "connection"),
        (close, "connection"),
        (cut(), "cut"),
        (malformed("not_json"), "malformed"),
        (endless(every_s=0.05), "timeout"),
        (late(30), "timeout"),
    ],
)
def test_a_passing_failure_is_asked_again_and_a_lasting_one_is_stored(tmp_path, fault, failure):
    with asking(tmp_path, OpenAIServer(faults=by_attempt({0: fault})), retries=1, timeout_s=0.5) as (server, endpoint):
        assert answers(endpoint, prompts("a"))[0].failure is None
    assert server.requests == 2
    with asking(tmp_path, OpenAIServer(faults=always(fault)), retries=1, timeout_s=0.5) as (server, endpoint):
        (found,) = answers(endpoint, prompts("a"))
    assert (found.text, found.failure, server.requests) == (None, failure, 2)


@pytest.mark.parametrize(
    ("fault", "failure"),
    [
        (status(400), "http_400"),
        (status(413), "http_413"),
        (status(422), "http_422"),
        (status(501), "http_501"),
        (redirect("/elsewhere"), "redirect"),
    ],
)
def test_a_failure_of_a_row_is_stored_at_once(tmp_path, fault, failure):
    with asking(tmp_path, OpenAIServer(faults=always(fault)), retries=5) as (server, endpoint):
        assert answers(endpoint, prompts("a"))[0].failure == failure
    assert server.requests == 1 and server.by_path == {"/v1/chat/completions": 1}


def test_an_endless_answer_ends_after_the_time_limit_or_the_size_limit(tmp_path):
    with asking(tmp_path, OpenAIServer(faults=always(endless())), timeout_s=20) as (_, endpoint):
        assert answers(endpoint, prompts("a"))[0].failure == "too_large"


@pytest.mark.parametrize("is_date", [False, True])
def test_retry_after_pauses_the_requests_of_all_callers(tmp_path, is_date):
    def fault(request):
        return too_many(1, is_date=is_date) if request.number == 5 else late(0.01)

    with asking(tmp_path, OpenAIServer(faults=fault), concurrency=2, retries=3) as (server, endpoint):
        callers = [threading.Thread(target=answers, args=(endpoint, prompts(*f"{one}abcdefgh"))) for one in range(3)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert server.requests == 28
    assert [one for one in server.seen if one.not_before] and not server.asked_early(by_any=True, slack_s=0.1)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("2", 2),
        ("0.5", 0.5),
        ("-3", 0),
        ("nan", 0),
        ("inf", 0),
        ("1e300", MOST_PAUSE_S),
        ("99999999999999999999", MOST_PAUSE_S),
        ("soon", 0),
        ("", 0),
        ("Wed, 21 Oct 2026 07:28:30 GMT", 30),
        ("Wed, 21 Oct 2099 07:28:00 GMT", MOST_PAUSE_S),
        ("Wed, 99 Oct 99999999 07:28:00 GMT", 0),
    ],
)
def test_retry_after_is_read_and_bounded(value, seconds):
    assert pause_s({"retry-after": value, "date": "Wed, 21 Oct 2026 07:28:00 GMT"}) == seconds


@pytest.mark.parametrize(
    ("code", "fix"),
    [
        (401, "Check the key in the environment variable TEST_KEY"),
        (403, "TEST_KEY"),
        (404, "Correct `url`"),
        (402, "Add credit"),
    ],
)
def test_an_endpoint_that_refuses_stops_the_run_at_once_without_the_key(tmp_path, monkeypatch, code, fix):
    monkeypatch.setenv("TEST_KEY", KEY)
    echo = status(code, f"wrong\x1b[31m key\u200b {KEY[:20]}\u200b{KEY[20:]}\nline two")
    with OpenAIServer(faults=always(echo)) as server:
        line, found = stopped(server.url, tmp_path, key_from="TEST_KEY", retries=5, concurrency=1)
    assert server.requests == 1 and not found and f"answered {code}" in line and fix in line and "it resumes" in line
    assert KEY[:8] not in line and line.isprintable()
    assert server.seen[0].headers["authorization"] == f"Bearer {KEY}"


def test_a_server_that_needs_a_key_names_the_parameter(tmp_path):
    with OpenAIServer(key="k") as server:
        line, _ = stopped(server.url, tmp_path)
    assert 'answered 401 ("Incorrect API key provided")' in line and "in `key_from`" in line
    assert "authorization" not in server.seen[0].headers


def test_a_long_message_of_a_server_is_cut(tmp_path):
    with OpenAIServer(faults=always(status(404, "x" * 100_000))) as server:
        assert len(stopped(server.url, tmp_path)[0]) < 500


def test_a_spent_account_stops_the_run_though_it_answers_429(tmp_path):
    fault = always(lambda exchange: exchange.fail(429, "You exceeded your current quota.", code="insufficient_quota"))
    with OpenAIServer(faults=fault) as server:
        assert "Add credit" in stopped(server.url, tmp_path, retries=5)[0]
    assert server.requests == 1


@pytest.mark.parametrize("host", ["127.0.0.1", "no-such-host.invalid"])
def test_an_endpoint_that_cannot_be_reached_stops_the_run_at_once(tmp_path, host):
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # nothing listens
        line, found = stopped(f"http://{host}:{unused.getsockname()[1]}/v1", tmp_path, retries=5)
    assert not found and "cannot be reached" in line and "Start the server or correct `url`" in line


def test_a_certificate_is_checked_and_ca_file_adds_an_authority(tmp_path):
    trusted = Certificate("127.0.0.1")
    choice = {"message": {"content": "yes"}, "finish_reason": "stop"}
    answer = reply(json.dumps({"choices": [choice]}).encode(), headers={"Content-Type": "application/json"})
    with LoopbackServer(default=answer, tls=trusted) as server:
        line, found = stopped(server.url("/v1"), tmp_path, retries=5)
        assert not found and "cannot be reached" in line and "certificate" in line and server.paths() == []
        with opened(server.url("/v1"), tmp_path, ca_file=str(trusted.file)) as endpoint:
            assert answers(endpoint, prompts("a"))[0].text == "yes"


def test_an_endpoint_that_goes_away_later_is_asked_again(tmp_path):
    with ExitStack() as stack:
        server = stack.enter_context(OpenAIServer())
        with opened(server.url, tmp_path, retries=2) as endpoint:
            answers(endpoint, prompts("a"))
            stack.close()
            assert answers(endpoint, prompts("b"))[0].failure == "connection"


def test_failures_in_a_row_stop_the_run_and_are_not_stored(tmp_path):
    with OpenAIServer(faults=lambda request: status(500, "out of memory") if request.number >= 3 else None) as server:
        line, found = stopped(server.url, tmp_path, asked=50, stop_after_failures=4, concurrency=1)
    assert list(found) == [0, 1, 2] and all(answer.failure is None for answer in found.values())
    assert server.requests == 7
    assert 'the last 4 prompts failed, and the last failure is http_500 ("out of memory")' in line


def test_failures_between_answers_are_stored(tmp_path):
    fault = first_of(lambda request: status(400) if int(request.question) % 3 else None)
    with asking(tmp_path, OpenAIServer(faults=fault), stop_after_failures=3, concurrency=1) as (_, endpoint):
        found = answers(endpoint, prompts(*map(str, range(20))))
    assert [answer.failure for answer in found] == [("http_400" if number % 3 else None) for number in range(20)]


def test_a_redirect_never_gets_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    with OpenAIServer() as other:
        server = OpenAIServer(faults=always(redirect(f"{other.url}/chat/completions")))
        with asking(tmp_path, server, key_from="TEST_KEY") as (_, endpoint):
            assert answers(endpoint, prompts("a"))[0].failure == "redirect"
    assert other.connections == 0


def test_an_answer_never_holds_the_key(tmp_path, monkeypatch):
    monkeypatch.setenv("TEST_KEY", KEY)
    server = OpenAIServer(lambda request: request.headers["authorization"])
    with asking(tmp_path, server, key_from="TEST_KEY") as (_, endpoint):
        assert answers(endpoint, prompts("a"))[0].text == "Bearer REDACTED"


def test_a_proxy_of_the_environment_is_not_used(tmp_path, monkeypatch):
    with OpenAIServer() as proxy, OpenAIServer() as server:
        for name in ("http_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"):
            monkeypatch.setenv(name, proxy.url)
        with opened(server.url, tmp_path) as endpoint:
            answers(endpoint, prompts("a"))
    assert proxy.connections == 0 and server.requests == 1


def test_an_error_of_the_caller_is_raised_and_nothing_hangs(tmp_path):
    def full(number, answer):
        raise OSError(28, "No space left on device")

    def broken():
        yield Prompt("a")
        raise FileNotFoundError("image")

    with asking(tmp_path, OpenAIServer(), concurrency=2) as (server, endpoint):
        with pytest.raises(OSError, match="No space left"):
            endpoint.answer(iter(prompts(*map(str, range(100)))), Sampling(), full)
        assert server.requests < 100
        with pytest.raises(FileNotFoundError):
            endpoint.answer(broken(), Sampling(), lambda number, answer: None)
        assert answers(endpoint, prompts("b"))[0].failure is None


def test_an_error_of_the_caller_does_not_wait_for_prompts_to_be_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "FIRST_DELAY_S", 1000.0)

    def broken():
        yield Prompt("a")
        server.wait_for(lambda server: server.answered)
        raise FileNotFoundError("image")

    with asking(tmp_path, OpenAIServer(faults=always(too_many(500))), retries=9) as (server, endpoint):
        with pytest.raises(FileNotFoundError):
            endpoint.answer(broken(), Sampling(), lambda number, answer: None)
        assert server.requests == 1


def test_close_ends_a_request_under_way(tmp_path):
    errors = []

    def ask():
        try:
            answers(endpoint, prompts("a"))
        except GeneratorStopped as error:
            errors.append(error)

    with OpenAIServer(faults=always(late())) as server:
        with opened(server.url, tmp_path, retries=9) as endpoint:
            caller = threading.Thread(target=ask)
            caller.start()
            server.wait_for(lambda server: server.at_once)
        caller.join(5)
    assert len(errors) == 1 and not caller.is_alive()


def test_many_random_failures_leave_each_answer_as_it_would_be(tmp_path):
    faults = first_of(*(by_share(0.15, fault, seed=seed) for seed, fault in enumerate([reset, cut(), status(503), close])))
    asked = prompts(*map(str, range(60)))
    with asking(tmp_path, OpenAIServer()) as (server, endpoint):
        expected = [answer.text for answer in answers(endpoint, asked)]
    with asking(tmp_path, OpenAIServer(faults=faults), retries=30) as (server, endpoint):
        assert [answer.text for answer in answers(endpoint, asked)] == expected
    assert server.requests > 60
