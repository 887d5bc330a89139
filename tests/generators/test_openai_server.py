"""The test server speaks the protocol, counts exactly, and leaves no thread."""

import base64
import io
import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from PIL import Image

from tests.generators.ask import PICTURES, ask, ask_raw, body_of, say, send
from tests.generators.chat import Reply
from tests.generators.faults import always, endless, late, status, too_many
from tests.generators.openai_server import OpenAIServer


def test_the_default_answer_is_a_function_of_the_request():
    with OpenAIServer() as server:
        said = [say(server.url, text, seed=seed) for text, seed in [("a", 1), ("b", 1), ("a", 2), ("a", 1)]]
    assert said[0] == said[3] and len(set(said)) == 3
    with OpenAIServer() as server:
        assert say(server.url, "a", seed=1) == said[0]


def test_the_answer_gets_text_images_model_seed_and_temperature():
    asked = []

    def answer(request):
        asked.append((request.question, request.system, request.images, request.model, request.seed, request.temperature))
        return "yes"

    with OpenAIServer(answer) as server:
        body = body_of("Is it red?", b"one", b"two", model="m", seed=7, temperature=0.5)
        body["messages"].insert(0, {"role": "system", "content": "Be short."})
        assert ask(server.url, body)[0] == 200
    assert asked == [("Is it red?", "Be short.", (b"one", b"two"), "m", 7, 0.5)]


def test_usage_counts_words_and_85_tokens_for_each_image():
    with OpenAIServer(lambda request: "three short words") as server:
        value = ask(server.url, body_of("What is it?", b"one", b"two"))[1]
    assert value["usage"] == {"prompt_tokens": 173, "completion_tokens": 3, "total_tokens": 176}


def test_n_answers_are_given_and_differ():
    with OpenAIServer() as server:
        choices = ask(server.url, body_of(n=3))[1]["choices"]
    assert [one["index"] for one in choices] == [0, 1, 2]
    assert len({one["message"]["content"] for one in choices}) == 3


@pytest.mark.parametrize(("limit", "text", "reason"), [(3, "one two three", "stop"), (2, "one two", "length")])
def test_an_answer_is_cut_at_max_tokens(limit, text, reason):
    with OpenAIServer(lambda request: "one two three") as server:
        (choice,) = ask(server.url, body_of(max_tokens=limit))[1]["choices"]
    assert (choice["message"]["content"], choice["finish_reason"]) == (text, reason)


def test_log_probabilities_are_sent_if_asked_for():
    reply = Reply("yes", first_token={"no": -2.0, "yes": -0.1})
    with OpenAIServer(lambda request: reply) as server:
        plain, asked = [ask(server.url, body_of(**more))[1] for more in ({}, {"logprobs": True, "top_logprobs": 2})]
    assert plain["choices"][0]["logprobs"] is None
    (first,) = asked["choices"][0]["logprobs"]["content"]
    assert (first["token"], [one["logprob"] for one in first["top_logprobs"]]) == ("yes", [-0.1, -2.0])


def test_models_are_listed_and_another_model_is_not_found():
    with OpenAIServer(models=["a", "b"]) as server:
        assert [one["id"] for one in ask(server.url, None, "/models")[1]["data"]] == ["a", "b"]
        assert ask(server.url, body_of(model="b"))[0] == 200
        code, value = ask(server.url, body_of(model="c"))
    assert (code, value["error"]["code"]) == (404, "model_not_found")
    assert server.requests == 2 and server.by_path == {"/v1/models": 1, "/v1/chat/completions": 2}


def test_the_list_of_models_can_fail():
    with OpenAIServer(models_fault=status(500)) as server:
        assert ask(server.url, None, "/models")[0] == 500


def test_a_request_without_the_key_gets_401_and_its_headers_are_noted():
    with OpenAIServer(key="secret") as server:
        codes = [ask(server.url, body_of(), headers={"Authorization": f"Bearer {key}"})[0] for key in ("wrong", "secret")]
        codes.append(ask(server.url, body_of())[0])
    assert codes == [401, 200, 401]
    assert [one.headers.get("authorization") for one in server.seen] == ["Bearer wrong", "Bearer secret", None]
    assert [one.status for one in server.seen] == codes


def of_content(content):
    return {"model": "m", "messages": [{"role": "user", "content": content}]}


def of_image(url):
    return of_content([{"type": "image_url", "image_url": {"url": url}}])


NOT_ALLOWED = {
    "no_json": b"no json",
    "a_list": b"[]",
    "no_model": {"messages": [{"role": "user", "content": "a"}]},
    "no_messages": {"model": "m"},
    "messages_empty": {"model": "m", "messages": []},
    "no_role": {"model": "m", "messages": [{"content": "a"}]},
    "content_a_number": of_content(3),
    "unknown_part": of_content([{"type": "image"}]),
    "text_a_number": of_content([{"type": "text", "text": 3}]),
    "remote_image": of_image("http://a/b.png"),
    "no_base64": of_image("data:image/png;base64,%"),
    "temperature_a_text": body_of(temperature="hot"),
    "streamed": body_of(stream=True),
}


@pytest.mark.parametrize("body", NOT_ALLOWED.values(), ids=NOT_ALLOWED)
def test_what_the_protocol_does_not_allow_is_answered_with_400(body):
    with OpenAIServer() as server:
        assert ask(server.url, body)[0] == 400


def test_an_unknown_address_is_answered_with_404():
    with OpenAIServer() as server:
        assert ask(server.url, body_of(), "/completions")[0] == 404
        assert ask(server.url, None)[0] == 404
    assert server.requests == 0


def test_pictures_are_a_function_of_the_prompt_and_have_the_size_asked_for():
    def made(**body):
        data = ask(server.url, {"model": "m", "size": "48x32", **body}, PICTURES)[1]["data"]
        return [base64.b64decode(one["b64_json"]) for one in data]

    with OpenAIServer() as server:
        cat, again, (dog, other) = made(prompt="cat"), made(prompt="cat"), made(prompt="dog", n=2)
        assert ask(server.url, {"model": "m"}, PICTURES)[0] == 400
        assert ask(server.url, {"model": "m", "prompt": "a", "size": "0x9"}, PICTURES)[0] == 400
    assert cat == again and len({*cat, dog, other}) == 3
    with Image.open(io.BytesIO(dog)) as picture:
        assert (picture.format, picture.size) == ("PNG", (48, 32))


def test_requests_are_counted_by_content_without_what_does_not_change_the_answer():
    with OpenAIServer() as server:
        for more in ({}, {"user": "me"}, {"seed": 1}):
            say(server.url, "a", **more)
    assert sorted(server.by_content.values()) == [1, 2]
    assert [(one.number, one.attempt) for one in server.seen] == [(0, 0), (1, 1), (2, 0)]
    assert server.received_bytes == sum(len(json.dumps(body_of("a", **more))) for more in ({}, {"user": "me"}, {"seed": 1}))
    assert server.sent_bytes == sum(one.sent_bytes for one in server.seen) > 0


def test_the_most_requests_at_once_are_counted():
    gate = threading.Event()
    with ThreadPoolExecutor(8) as pool, OpenAIServer(faults=always(late(until=gate))) as server:
        asked = [pool.submit(say, server.url, str(number)) for number in range(20)]
        server.wait_for(lambda s: s.at_once == 8)
        assert (server.requests, server.answered) == (8, 0)
        gate.set()
        assert len({one.result() for one in asked}) == 20
    assert (server.most_at_once, server.requests, server.answered, server.at_once) == (8, 20, 20, 0)


def test_more_requests_than_the_concurrency_get_429():
    gate = threading.Event()
    server = OpenAIServer(faults=lambda request: late(until=gate) if request.number < 2 else None, concurrency=2)
    with ThreadPoolExecutor(2) as pool, server:
        asked = [pool.submit(say, server.url, str(number)) for number in range(2)]
        server.wait_for(lambda s: s.at_once == 2)
        assert ask(server.url, body_of("c"))[0] == 429
        gate.set()
        assert all(one.result() for one in asked)
        assert ask(server.url, body_of("c"))[0] == 200
    assert server.most_at_once == 3


def test_waiting_for_what_does_not_happen_ends_with_an_error():
    with OpenAIServer() as server, pytest.raises(TimeoutError, match="requests=0"):
        server.wait_for(lambda s: s.requests, timeout_s=0.01)


def test_a_request_before_retry_after_is_over_is_found():
    faults = {0: too_many(60), 1: too_many(0)}
    with OpenAIServer(faults=faults) as server:
        for text in ("a", "b", "b", "a"):
            ask(server.url, body_of(text))
    assert [one.number for one in server.asked_early()] == [3]
    assert [one.number for one in server.asked_early(by_any=True)] == [1, 2, 3]


def test_a_mistake_in_the_answer_of_a_test_fails_the_test():
    with pytest.raises(KeyError, match="colour"), OpenAIServer(lambda request: {}["colour"]) as server:
        assert ask(server.url, body_of())[0] == 500


def test_one_connection_serves_many_requests():
    with OpenAIServer() as server:
        connection, answer = send(server.url, body_of())
        answer.read()
        connection.request("POST", "/v1/chat/completions", json.dumps(body_of()))
        assert connection.getresponse().status == 200
        connection.close()
    assert (server.connections, server.requests) == (1, 2)


def test_no_thread_is_left_after_the_end_whatever_it_was_doing():
    before = set(threading.enumerate())
    gate = threading.Event()
    faults = {0: endless(), 1: endless(every_s=3600), 2: late(until=gate), 3: late(3600)}
    with ThreadPoolExecutor(2) as pool:
        with OpenAIServer(faults=faults) as server:
            opened = [send(server.url, body_of(str(number))) for number in range(2)]  # their bodies are never read
            waiting = [pool.submit(ask_raw, server.url, body_of("c")) for _ in range(2)]
            server.wait_for(lambda s: s.requests == 4)
            opened.append(send(server.url, body_of("idle")))
        left = [thread for thread in set(threading.enumerate()) - before if not thread.name.startswith("ThreadPool")]
        assert left == [] and gate.is_set()
        for one in waiting:
            one.exception()
        for connection, answer in opened:
            answer.close()
            connection.close()


ASK = """
import http.client, json, sys
body = {"model": "m", "messages": [{"role": "user", "content": sys.argv[2]}]}
connection = http.client.HTTPConnection(sys.argv[1].split("/")[2], timeout=60)
connection.request("POST", "/v1/chat/completions", json.dumps(body))
print(json.load(connection.getresponse())["choices"][0]["message"]["content"])
"""


@pytest.mark.slow
def test_requests_of_other_processes_are_counted():
    gate = threading.Event()
    with OpenAIServer(lambda request: request.text, always(late(until=gate))) as server:
        programs = [
            subprocess.Popen([sys.executable, "-c", ASK, server.url, text], stdout=subprocess.PIPE, text=True) for text in "ab"
        ]
        server.wait_for(lambda s: s.at_once == 2)
        gate.set()
        assert [program.communicate()[0] for program in programs] == ["a\n", "b\n"]
    assert (server.most_at_once, server.connections) == (2, 2)
