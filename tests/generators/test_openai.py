"""The generator `openai` sends what the protocol asks for, reads every form of an answer, and refuses wrong parameters."""

import dataclasses
import json
import threading
from pathlib import Path

import pytest

from tests.generators.faults import MALFORMED, always, filtered, gzip_bomb, huge, late, length, malformed, refusing
from tests.generators.openai_server import OpenAIServer
from tests.generators.opened import answers, asking, prompts
from vlmdata.errors import RecipeError
from vlmdata.generator import Prompt, Sampling
from vlmdata.generators.openai import OpenAI
from vlmdata.parameters import parameters

JPEG, PNG, WEBP = b"\xff\xd8\xff one", b"\x89PNG two", b"RIFF....WEBP three"


def test_a_request_has_system_text_images_before_the_text_and_sampling(tmp_path):
    bodies = []
    with asking(tmp_path, OpenAIServer(lambda request: bodies.append(request.body) or "yes")) as (_, endpoint):
        asked = [Prompt("What?", (JPEG, PNG, WEBP), "Be short.", 7), Prompt("Why?")]
        found = answers(endpoint, asked, Sampling(9, 0.5, 0.9))
    (first, second) = sorted(bodies, key=lambda body: len(str(body)), reverse=True)
    system, user = first["messages"]
    assert system == {"role": "system", "content": "Be short."}
    assert [part["type"] for part in user["content"]] == ["image_url"] * 3 + ["text"]
    kinds = [part["image_url"]["url"].partition(";")[0] for part in user["content"][:3]]
    assert kinds == ["data:image/jpeg", "data:image/png", "data:image/webp"]
    assert [first[name] for name in ("model", "max_tokens", "temperature", "top_p", "seed")] == ["tester", 9, 0.5, 0.9, 7]
    assert second["messages"] == [{"role": "user", "content": "Why?"}]
    assert [(one.text, one.finish, one.failure, one.prompt_tokens, one.tokens) for one in found] == [
        ("yes", "stop", None, 3 + 3 * 85, 1),
        ("yes", "stop", None, 1, 1),
    ]
    assert all(one.seconds > 0 for one in found)


def test_extra_fields_are_sent_and_null_leaves_out_what_a_server_refuses(tmp_path):
    bodies = []
    extra = {"reasoning_effort": "low", "seed": None, "temperature": None, "stop": None}
    options = {"extra_body": extra, "max_tokens_name": "max_completion_tokens"}
    with asking(tmp_path, OpenAIServer(lambda request: bodies.append(request.body) or "yes"), **options) as (_, endpoint):
        answers(endpoint, prompts("a"))
    assert sorted(bodies[0]) == ["max_completion_tokens", "messages", "model", "reasoning_effort", "stop", "top_p"]


@pytest.mark.parametrize(
    ("fault", "text", "finish"),
    [
        (refusing("No."), "No.", "refusal"),
        (filtered("A red"), "A red", "filter"),
        (filtered(), "", "filter"),
        (length(2), "one two", "length"),
        (malformed("content_empty"), "", "stop"),
        (malformed("finish_reason_null"), "one two three", "stop"),
        (malformed("content_a_lone_surrogate"), "a ? b", "stop"),
    ],
)
def test_each_end_of_an_answer_has_its_name(tmp_path, fault, text, finish):
    with asking(tmp_path, OpenAIServer(lambda request: "one two three", always(fault))) as (_, endpoint):
        (found,) = answers(endpoint, prompts("a"))
    assert (found.text, found.finish, found.failure) == (text, finish, None)


def test_a_content_of_parts_is_joined_and_may_refuse(tmp_path):
    parts = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": "a "}, {"type": "text", "text": "cat"}]
    said = {"a": parts, "b": [{"type": "refusal", "refusal": "No."}], "c": [{"type": "text"}], "d": ["a"]}

    def in_parts(exchange):
        value = exchange.value()
        value["choices"][0]["message"]["content"] = said[exchange.request.question]
        return exchange.send(value)

    with asking(tmp_path, OpenAIServer(faults=always(in_parts))) as (_, endpoint):
        found = answers(endpoint, prompts(*said))
    assert [(one.text, one.finish, one.failure) for one in found] == [
        ("a cat", "stop", None),
        ("No.", "refusal", None),
        (None, None, "malformed"),
        (None, None, "malformed"),
    ]


GOOD = {"usage_missing", "usage_null", "content_empty", "content_a_lone_surrogate", "finish_reason_null"}


@pytest.mark.parametrize("name", sorted(MALFORMED))
def test_a_malformed_answer_is_a_failure_and_never_an_error(tmp_path, name):
    with asking(tmp_path, OpenAIServer(faults=always(malformed(name)))) as (_, endpoint):
        (found,) = answers(endpoint, prompts("a"))
    assert found.failure == (None if name in GOOD else "malformed")
    assert (found.text is None) == (found.failure is not None)


def test_an_answer_without_usage_is_kept_with_no_tokens_and_noted(tmp_path):
    with asking(tmp_path, OpenAIServer(faults=always(malformed("usage_missing")))) as (_, endpoint):
        (found,) = answers(endpoint, prompts("a"))
    assert (found.text is not None, found.prompt_tokens, found.tokens) == (True, 0, 0)
    assert endpoint.facts["answers_without_usage"] is True


@pytest.mark.parametrize("fault", [huge(64 << 20), gzip_bomb(1 << 30)])
def test_a_huge_answer_or_bomb_is_read_only_up_to_a_limit(tmp_path, fault):
    with asking(tmp_path, OpenAIServer(faults=always(fault))) as (server, endpoint):
        (found,) = answers(endpoint, prompts("a"))
        assert found.failure == "too_large"
    assert server.sent_bytes < 40 << 20


def test_the_facts_name_what_the_server_says_and_do_not_grow(tmp_path):
    def named(exchange):
        value = exchange.value() | {"model": f"m-{exchange.request.question}", "system_fingerprint": "fp\n1"}
        return exchange.send(value)

    with asking(tmp_path, OpenAIServer(faults=always(named))) as (server, endpoint):
        assert endpoint.facts == {"url": server.url, "model": "tester"}
        answers(endpoint, prompts(*(f"{number:02d}" for number in range(20))))
    assert len(endpoint.facts["served_models"]) == 8 and endpoint.facts["system_fingerprints"] == ["fp 1"]


def test_at_most_concurrency_requests_of_all_callers_run_at_once(tmp_path):
    with asking(tmp_path, OpenAIServer(faults=always(late(0.02))), concurrency=3) as (server, endpoint):
        callers = [threading.Thread(target=answers, args=(endpoint, prompts(*f"{one}abcdefgh"))) for one in range(4)]
        for caller in callers:
            caller.start()
        for caller in callers:
            caller.join()
    assert server.requests == 36 and server.most_at_once == 3 and server.connections == 3


def test_a_prompt_is_taken_only_when_it_can_be_sent(tmp_path):
    taken, may_end = [], threading.Event()
    stored = []

    def lazy():
        for prompt in prompts(*"abcdef"):
            taken.append(prompt.text)
            yield prompt

    with asking(tmp_path, OpenAIServer(faults=always(late(until=may_end))), concurrency=2) as (server, endpoint):
        caller = threading.Thread(target=endpoint.answer, args=(lazy(), Sampling(), lambda *done: stored.append(done)))
        caller.start()
        server.wait_for(lambda server: server.at_once == 2)
        assert taken == ["a", "b"] and not stored
        may_end.set()
        caller.join()
    assert len(stored) == 6


def test_the_identity_holds_address_model_and_extra_fields_only():
    one = OpenAI(model="m", url="http://host/v1/", extra_body={"a": 1})
    changed = {"concurrency": 2, "timeout_s": 1, "price_prompt": 1, "budget_tokens": 9, "key_from": "KEY", "retries": 1}
    same = dataclasses.replace(one, url="http://host/v1", **changed)
    assert one.identity() == same.identity() == json.dumps(["http://host/v1", "m", {"a": 1}])
    others = [dataclasses.replace(one, **{name: value}) for name, value in (("model", "n"), ("extra_body", {}))]
    assert len({one.identity(), *(other.identity() for other in others)}) == 3


def test_the_money_is_that_of_the_prices():
    one = OpenAI(model="m", url="http://host/v1", price_prompt=2.0, price_answer=8.0)
    assert one.money(1_000_000, 500_000) == 6.0 and dataclasses.replace(one, price_prompt=0, price_answer=0).money(1, 1) is None


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"url": "ftp://host/v1"}, "url must be an http or https address"),
        ({"url": "host/v1"}, "url must be an http or https address"),
        ({"url": "http://host:99999/v1"}, "url must be an http or https address"),
        ({"url": "http://ho st/v1"}, "url must be an http or https address"),
        ({"url": "http://host/v1\r\nX: y"}, "url must be an http or https address"),
        ({"url": "https://user:SECRET-WORD@host/v1"}, "url must not hold a user or a password"),
        ({"url": "https://user:SECRET-WORD@host:99999/v1"}, "url must not hold a user or a password"),
        ({"url": "user:SECRET-WORD@host/v1"}, "url must not hold a user or a password"),
        ({"url": "https://host/v1?key=SECRET-WORD"}, "url must end with its path"),
        ({"url": "https://host:99999/v1?key=SECRET-WORD"}, "url must end with its path"),
        ({"url": "https://host/v1/chat/completions"}, "url must end before /chat/completions"),
        ({"model": " "}, "model is empty"),
        ({"key_from": "sk-SECRET-WORD"}, "key_from must be the name of an environment variable"),
        ({"key_from": "NO_SUCH_KEY"}, "the environment variable NO_SUCH_KEY is not set"),
        ({"key_from": "BROKEN_KEY"}, "the value of BROKEN_KEY is no key"),
        ({"concurrency": 0}, r"concurrency must lie in \[1, 1024\], not 0"),
        ({"timeout_s": float("nan")}, "timeout_s must lie in"),
        ({"retries": -1}, "retries must lie in"),
        ({"stop_after_failures": 0}, "stop_after_failures must lie in"),
        ({"budget_tokens": -1}, "budget_tokens must be 0 or more"),
        ({"price_answer": float("inf")}, "price_answer must be 0 or more"),
        ({"budget_money": 1.0}, "budget_money needs prices"),
        ({"extra_body": {"messages": []}}, "extra_body must not set 'messages'"),
        ({"extra_body": {"temperature": 1}}, "extra_body.temperature may only be null"),
        ({"extra_body": {"a": float("nan")}}, "extra_body must hold plain JSON values"),
        ({"extra_body": {"a": {1}}}, "extra_body must hold plain JSON values"),
        ({"ca_file": "/nowhere/ca.pem"}, "ca_file: there is no file"),
    ],
)
def test_a_wrong_parameter_is_one_line_without_secrets(monkeypatch, wrong, message):
    monkeypatch.setenv("BROKEN_KEY", "SECRET-WORD\nX-Header: y")
    monkeypatch.delenv("NO_SUCH_KEY", raising=False)
    with pytest.raises(RecipeError, match=message) as found:
        OpenAI(**{"model": "m", "url": "https://host/v1", **wrong}).check()
    line = str(found.value)
    assert "\n" not in line and "SECRET-WORD" not in line and line.startswith(next(iter(wrong)))


def test_the_declared_rules_of_a_generator_hold():
    assert dataclasses.is_dataclass(OpenAI) and OpenAI.id == "vlmdata.generators.openai" and OpenAI.needs == ("endpoint",)
    one = OpenAI(model="m", url="http://host/v1")
    one.check()
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.model = "n"


def test_the_page_of_generators_lists_every_parameter_and_its_default():
    page = (Path(__file__).parents[2] / "docs" / "generators.md").read_text()
    table = page.partition("## `openai`")[2].partition("\n\n**")[0]
    rows = [line.split("|")[1:3] for line in table.splitlines() if line.startswith("| `")]
    listed = {name.strip("` "): default.strip().strip("`") for names, default in rows for name in names.split(",")}
    wanted = {one.name: "required" if one.is_required else str(one.default or "empty") for one in parameters(OpenAI)}
    zero = dict.fromkeys(("budget_tokens", "budget_money", "price_prompt", "price_answer"), "0")
    assert listed == wanted | zero | {"timeout_s": "300", "extra_body": "{}"}
