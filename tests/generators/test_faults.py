"""Each fault is what a plain client sees, and the same requests are chosen in every run."""

import gzip
import http.client
import io
import json
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from email.utils import parsedate_to_datetime

import pycurl
import pytest

from tests.generators.ask import CHAT, PICTURES, ask, ask_raw, body_of, say, send
from tests.generators.chat import ChatRequest
from tests.generators.faults import (
    MALFORMED,
    always,
    by_attempt,
    by_share,
    close,
    cut,
    endless,
    filtered,
    first_of,
    gzip_bomb,
    huge,
    late,
    length,
    malformed,
    redirect,
    refusing,
    reset,
    status,
    too_many,
)
from tests.generators.openai_server import OpenAIServer

WORDS = "a red cube at the left"


def answered(fault, path=CHAT, body=None):
    """Return status, headers and body of the answer to one request."""
    with OpenAIServer(lambda request: WORDS, always(fault)) as server:
        return ask_raw(server.url, body or body_of(), path)


def first_choice(fault):
    return json.loads(answered(fault)[2])["choices"][0]


@pytest.mark.parametrize("code", [400, 401, 403, 404, 429, 500, 502, 503])
def test_an_error_has_its_status_and_the_form_of_the_protocol(code):
    got, headers, body = answered(status(code, "busy", Retry_After="3"))
    assert (got, headers["retry-after"], json.loads(body)["error"]["message"]) == (code, "3", "busy")


def test_too_many_requests_say_when_to_come_again_in_seconds():
    with OpenAIServer(faults=always(too_many(2.5))) as server:
        code, headers, _ = ask_raw(server.url, body_of())
    assert (code, headers["retry-after"]) == (429, "2.5")
    assert server.seen[0].at + 2.5 <= server.seen[0].not_before <= server.seen[0].answered_at + 2.5


def test_too_many_requests_say_when_to_come_again_as_a_date():
    before = time.time()
    with OpenAIServer(faults=always(too_many(5, is_date=True))) as server:
        code, headers, _ = ask_raw(server.url, body_of())
    seen, named = server.seen[0], parsedate_to_datetime(headers["retry-after"]).timestamp()
    assert code == 429 and before + 5 <= named <= time.time() + 6
    assert seen.at + 5 <= seen.not_before <= seen.answered_at + 6


def test_a_late_answer_comes_after_its_event():
    gate = threading.Event()
    with ThreadPoolExecutor(1) as pool, OpenAIServer(faults=always(late(until=gate))) as server:
        asked = pool.submit(say, server.url)
        server.wait_for(lambda s: s.at_once)
        assert server.answered == 0 and not asked.done()
        gate.set()
        assert asked.result()


def test_an_answer_that_is_late_by_seconds_comes():
    with OpenAIServer(faults=always(late(0.05, then=status(503)))) as server:
        assert ask(server.url, body_of())[0] == 503
    assert server.seen[0].answered_at - server.seen[0].at >= 0.05


def test_a_cut_answer_ends_inside_its_body():
    with pytest.raises(http.client.IncompleteRead) as failed:
        answered(cut(0.5))
    assert len(failed.value.partial) > 50 and failed.value.expected > 50


@pytest.mark.parametrize(("fault", "error"), [(reset, ConnectionResetError), (close, http.client.RemoteDisconnected)])
def test_a_connection_ends_before_an_answer(fault, error):
    with OpenAIServer(faults=by_attempt({0: fault})) as server:
        with pytest.raises(error) as failed:
            ask(server.url, body_of())
        assert failed.type is error
        assert say(server.url)
    assert [(one.status, one.sent_bytes > 0) for one in server.seen] == [(0, False), (200, True)]


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_answer_has_status_200_and_differs_from_the_correct_one(name):
    with OpenAIServer(lambda request: WORDS, by_attempt({0: malformed(name)})) as server:
        (code, _, wrong), (_, _, correct) = ask_raw(server.url, body_of()), ask_raw(server.url, body_of())
    assert code == 200 and wrong != correct
    assert json.loads(correct)["choices"][0]["message"]["content"] == WORDS


@pytest.mark.parametrize(
    "name", ["no_choices", "choices_empty", "choice_empty", "content_null", "content_a_number", "half_json"]
)
def test_a_malformed_list_of_pictures_lacks_its_picture(name):
    _, _, body = answered(malformed(name), PICTURES, {"model": "m", "prompt": "a cat"})
    with pytest.raises((ValueError, LookupError, TypeError)):
        assert len(json.loads(body)["data"][0]["b64_json"]) == 0


def test_a_refusal_has_no_content_and_says_why():
    message = first_choice(refusing("I can't."))["message"]
    assert (message["content"], message["refusal"]) == (None, "I can't.")


@pytest.mark.parametrize("text", [None, "a red"])
def test_a_filtered_answer_names_the_filter(text):
    choice = first_choice(filtered(text))
    assert (choice["message"]["content"], choice["finish_reason"]) == (text, "content_filter")


def test_an_answer_that_is_too_long_has_its_first_words():
    choice = first_choice(length(3))
    assert (choice["message"]["content"], choice["finish_reason"]) == ("a red cube", "length")


def test_a_redirect_leads_to_another_host_and_shows_what_the_client_sends_there():
    with OpenAIServer(host="127.0.0.2") as other, OpenAIServer(faults=always(redirect(f"{other.url}{CHAT}"))) as server:
        curl = curl_for(server.url, io.BytesIO().write)
        curl.setopt(pycurl.FOLLOWLOCATION, True)
        curl.setopt(pycurl.HTTPHEADER, ["Authorization: Bearer secret", "X-Key: secret"])
        curl.perform()
        assert curl.getinfo(pycurl.RESPONSE_CODE) == 200
        curl.close()
    assert [one.status for one in server.seen] == [307]
    (seen,) = other.seen  # libcurl removes its own header of the user, but keeps others
    assert ("authorization" in seen.headers, seen.headers["x-key"]) == (False, "secret")


@pytest.mark.parametrize("every_s", [0, 0.001])
def test_an_endless_body_is_sent_until_the_client_ends_it(every_s):
    with OpenAIServer(faults=always(endless(every_s=every_s))) as server:
        connection, answer = send(server.url, body_of())
        assert answer.read(100).startswith(b'{"choices"')
        answer.close()
        connection.close()
        server.wait_for(lambda s: s.gone == 1)


def test_a_huge_body_is_correct_and_has_its_size():
    _, headers, body = answered(huge(3_000_000))
    assert len(json.loads(body)["choices"][0]["message"]["content"]) == 3_000_000
    assert int(headers["content-length"]) == len(body)


def test_a_gzip_bomb_is_a_thousand_times_larger_after_decompression():
    _, headers, body = answered(gzip_bomb(20_000_000))
    assert headers["content-encoding"] == "gzip" and len(body) < 30_000
    assert len(json.loads(gzip.decompress(body))["choices"][0]["message"]["content"]) == 20_000_000


def test_a_gzip_bomb_reaches_a_client_that_decompresses():
    with OpenAIServer(faults=always(gzip_bomb(1 << 30))) as server:
        sizes = []

        def write(data):
            sizes.append(len(data))
            return len(data) if sum(sizes) < 10_000_000 else 0

        curl = curl_for(server.url, write)
        curl.setopt(pycurl.ACCEPT_ENCODING, "gzip")
        with pytest.raises(pycurl.error) as failed:
            curl.perform()
        curl.close()
    assert failed.value.args[0] == pycurl.E_WRITE_ERROR and server.sent_bytes < 2_000_000


def curl_for(url, write):
    curl = pycurl.Curl()
    curl.setopt(pycurl.URL, url + CHAT)
    curl.setopt(pycurl.NOPROXY, "*")
    curl.setopt(pycurl.POSTFIELDS, json.dumps(body_of()))
    curl.setopt(pycurl.WRITEFUNCTION, write)
    return curl


def test_large_requests_of_curl_wait_for_no_permission():
    with OpenAIServer(lambda request: str(len(request.text))) as server:
        found = io.BytesIO()
        curl = curl_for(server.url, found.write)
        curl.setopt(pycurl.POSTFIELDS, json.dumps(body_of("x" * 3_000_000)))
        curl.setopt(pycurl.HTTPHEADER, ["Expect: 100-continue"])
        curl.setopt(pycurl.EXPECT_100_TIMEOUT_MS, 60_000)
        curl.setopt(pycurl.TIMEOUT, 30)
        curl.perform()
        curl.close()
    assert json.loads(found.getvalue())["choices"][0]["message"]["content"] == "3000000"


def requests_of(contents, attempt=0):
    return [ChatRequest(CHAT, {}, {}, str(content), attempt=attempt) for content in range(contents)]


def test_a_share_of_the_requests_is_chosen_by_content_attempt_and_seed():
    chosen = {
        (seed, attempt): [by_share(0.2, reset, seed=seed)(one) is reset for one in requests_of(5000, attempt)]
        for seed in (0, 1)
        for attempt in (0, 1)
    }
    assert all(abs(sum(one) / 5000 - 0.2) < 0.02 for one in chosen.values())
    assert len({tuple(one) for one in chosen.values()}) == 4
    assert chosen[0, 0] == [by_share(0.2, reset)(one) is reset for one in requests_of(5000)]


def test_a_share_may_be_limited_to_the_first_attempts():
    choose = by_share(1.0, reset, attempts=2)
    assert [choose(one) for attempt in (0, 1, 2) for one in requests_of(1, attempt)] == [reset, reset, None]


def test_the_first_choice_that_has_a_fault_counts():
    fault, other = status(500), status(503)
    choose = first_of(by_attempt({0: fault}), by_attempt({0: other, 1: other}))
    assert [choose(one) for attempt in (0, 1, 2) for one in requests_of(1, attempt)] == [fault, other, None]


def test_faults_of_numbers_hit_these_requests_only():
    with OpenAIServer(faults={1: status(500), 3: status(503)}) as server:
        assert [ask(server.url, body_of("a"))[0] for _ in range(5)] == [200, 500, 200, 503, 200]
