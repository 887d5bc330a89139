"""A served checkpoint answers as a chat does, refuses what it cannot answer in one line, and ends with its parent."""

import json
import math
import shutil
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from bench.inputs.tars import jpeg
from tests.train.runs import tiny_recipe, write_data
from tests.train.served import CHAT, COMMAND, Client, asks, data_url, running, shown
from tests.train.shards import drawing
from vlmdata.models.weights_identity import identity
from vlmdata_train.__main__ import main
from vlmdata_train.chat import Conversation
from vlmdata_train.loop.loop import run_training
from vlmdata_train.model.decoding import Decoding

pytestmark = pytest.mark.whole

RED, BLUE = jpeg(drawing("red", "circle")), jpeg(drawing("blue", "square"))
QUESTION = "What colour is it?"


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a model for conversations for a few steps."""
    folder = tmp_path_factory.mktemp("serve")
    data = write_data(folder / "data", captions=0, conversations=16)
    return run_training(tiny_recipe(data, folder / "run", steps=4)).checkpoint


@pytest.fixture(scope="module")
def port(checkpoint: Path) -> Iterator[int]:
    with running(str(checkpoint)) as (_, port):
        yield port


@pytest.fixture
def client(port: int) -> Client:
    return Client(port)


@pytest.fixture
def red(tmp_path: Path) -> str:
    (tmp_path / "red.jpg").write_bytes(RED)
    return str(tmp_path / "red.jpg")


def said(document: Any) -> str:
    text = document["choices"][0]["message"]["content"]
    assert isinstance(text, str)
    return text


def test_the_server_names_its_model_and_the_hash_of_its_weights(client: Client, checkpoint: Path) -> None:
    assert client.request("GET", "/health")[:2] == (200, {"status": "ok"})
    status, document, headers = client.request("GET", "/v1/models")
    (model,) = document["data"]
    assert (status, document["object"]) == (200, "list")
    assert (model["id"], model["object"], model["max_model_len"]) == (f"run/{checkpoint.name}", "model", 512)
    assert model["weights"] == headers["Vlmdata-Weights"] == identity(str(checkpoint))


@pytest.mark.parametrize(
    ("settings", "way"),
    [
        ({}, Decoding()),
        ({"temperature": 0, "top_p": 0.5, "seed": 3}, Decoding()),
        ({"temperature": 1.5, "seed": 1}, Decoding(temperature=1.5, seed=1)),
        ({"temperature": 2, "top_p": 0.9, "seed": 2}, Decoding(temperature=2.0, top_p=0.9, seed=2)),
    ],
)
def test_an_answer_is_that_of_a_chat_with_the_same_image_and_seed(
    client: Client, checkpoint: Path, red: str, settings: dict[str, Any], way: Decoding
) -> None:
    talk = Conversation.open(str(checkpoint), [red], device="cpu", max_tokens=12, decoding=way)
    first = client.ask(asks(QUESTION, RED), max_tokens=12, **settings)
    assert said(first) == talk.ask(QUESTION)
    history = [*asks(QUESTION, RED), {"role": "assistant", "content": said(first)}, *asks("And what shape?")]
    assert said(client.ask(history, max_completion_tokens=12, model=first["model"], **settings)) == talk.ask("And what shape?")


def test_an_answer_has_the_form_of_openai_and_true_counts(client: Client, checkpoint: Path) -> None:
    document = client.ask(asks(QUESTION, RED), max_tokens=1, temperature=2, seed=4, user="me", n=1, stream=False)
    assert document["id"].startswith("chatcmpl-") and isinstance(document["created"], int)
    (choice,) = document["choices"]
    assert document["object"] == "chat.completion" and document["model"] == f"run/{checkpoint.name}"
    assert choice["index"] == 0 and choice["message"]["role"] == "assistant"
    usage, without = document["usage"], client.ask(asks(QUESTION), max_tokens=1)["usage"]
    assert usage["total_tokens"] == usage["prompt_tokens"] + usage["completion_tokens"]
    talk = Conversation.open(str(checkpoint), [], device="cpu")
    image = talk.model.tokens_of(48, 48)
    newline = len(talk.model.tokenizer("\n", add_special_tokens=False)["input_ids"])
    assert usage["prompt_tokens"] == without["prompt_tokens"] + image + newline


def test_a_limit_or_the_end_of_a_turn_or_a_stop_text_ends_an_answer(client: Client) -> None:
    drawn = {"temperature": 3, "seed": 11}
    whole = client.ask(asks(QUESTION, RED), max_tokens=60, **drawn)
    cut = client.ask(asks(QUESTION, RED), max_tokens=3, **drawn)
    assert cut["choices"][0]["finish_reason"] == "length" and cut["usage"]["completion_tokens"] == 3
    assert said(whole).startswith(said(cut))
    stop = said(whole)[4:6]
    stopped = client.ask(asks(QUESTION, RED), max_tokens=60, stop=[stop, "never"], **drawn)
    assert said(stopped) == said(whole)[: said(whole).index(stop)].strip()
    assert stopped["choices"][0]["finish_reason"] == "stop"
    assert stopped["usage"]["completion_tokens"] < whole["usage"]["completion_tokens"]


def test_eight_clients_at_once_get_the_answers_that_each_gets_alone(port: int) -> None:
    questions = [
        (asks(f"Is it {'very ' * number}red?", *[RED, BLUE][: number % 3]), {"temperature": number % 3, "seed": number})
        for number in range(24)
    ]
    alone = [said(Client(port).ask(messages, max_tokens=10, **settings)) for messages, settings in questions]
    barrier = threading.Barrier(8)

    def ask(start: int) -> list[str]:
        client = Client(port)
        barrier.wait()
        return [said(client.ask(messages, max_tokens=10, **settings)) for messages, settings in questions[start::8]]

    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(ask, range(8)))
    assert [together[number % 8][number // 8] for number in range(24)] == alone
    assert len(set(alone)) > 8


def test_the_probabilities_of_tokens_are_sent_if_they_are_asked_for(client: Client) -> None:
    asked = {"max_tokens": 1, "temperature": 1, "seed": 3}
    for more in ({}, {"logprobs": False, "top_logprobs": 0}, {"logprobs": None, "top_logprobs": None}):
        assert client.ask(asks(QUESTION, RED), **asked, **more)["choices"][0]["logprobs"] is None
    plain, listed = (
        client.ask(asks(QUESTION, RED), **asked, logprobs=True, **more)["choices"][0] for more in ({}, {"top_logprobs": 20})
    )
    assert plain["message"] == listed["message"] == client.ask(asks(QUESTION, RED), **asked)["choices"][0]["message"]
    (first,), (alone,) = listed["logprobs"]["content"], plain["logprobs"]["content"]
    assert alone == {**first, "top_logprobs": []} and listed["logprobs"]["refusal"] is None
    assert len(first["top_logprobs"]) == 20 and all(bytes(one["bytes"]).decode() for one in first["top_logprobs"][:1])
    values = [one["logprob"] for one in first["top_logprobs"]]
    assert values == sorted(values, reverse=True) and 0.1 < sum(map(math.exp, values)) <= 1
    assert first["logprob"] in values or first["logprob"] < values[-1]


def test_without_a_seed_a_drawn_answer_changes(client: Client) -> None:
    assert len({said(client.ask(asks(QUESTION), max_tokens=20, temperature=2)) for _ in range(4)}) > 1


def body(messages: Any = None, **settings: Any) -> bytes:
    return json.dumps({"messages": asks("?") if messages is None else messages, **settings}).encode()


def picture(url: Any) -> bytes:
    return body([{"role": "user", "content": [{"type": "image_url", "image_url": url}]}])


MISTAKES = [
    (b"{", 400, "the body is not JSON"),
    (b"\xff", 400, "the body is not JSON"),
    (b"[" * 100_000, 400, "the body is nested too deeply"),
    (b'{"messages": ' + b"[" * 400 + b"]" * 400 + b"}", 400, "messages[0] must be an object"),
    (b"[]", 400, "the body must be a JSON object"),
    (b"{}", 400, "`messages` must be a list with at least one message"),
    (body(stream=True), 400, "answers are not streamed, so `stream` must be false"),
    (body(logprobs=5), 400, "`logprobs` must be true or false, not 5"),
    (body(logprobs=True, top_logprobs=21), 400, "`top_logprobs` must be from 0 to 20, not 21"),
    (body(logprobs=True, top_logprobs=-1), 400, "`top_logprobs` must be from 0 to 20, not -1"),
    (body(logprobs=True, top_logprobs=True), 400, "`top_logprobs` must be an integer, not True"),
    (body(logprobs=False, top_logprobs=2), 400, "`top_logprobs` needs `logprobs`, which must be true"),
    (body(n=2), 400, "`n` must be 1, because a request has one answer"),
    (body(n=True), 400, "`n` must be 1"),
    (body(tools=[{}]), 400, "the parameter 'tools' is not supported"),
    (body(logit_bias={"1": 2}), 400, "the parameter 'logit_bias' is not supported"),
    (body(model="gpt"), 404, "there is no model 'gpt'. This server has the model 'run/step_00000004'"),
    (body(temperature="hot"), 400, "`temperature` must be a number, not 'hot'"),
    (body(temperature=-1), 400, "temperature must be 0, or from 0.001 to 1000, not -1.0"),
    (body(temperature=10**400), 400, "temperature must be 0, or from 0.001 to 1000"),
    (body(temperature=float("nan")), 400, "temperature must be 0, or from 0.001 to 1000, not nan"),
    (body(top_p=0), 400, "top_p must be more than 0 and at most 1, not 0"),
    (body(temperature=0, top_p=2), 400, "top_p must be more than 0 and at most 1, not 2"),
    (body(seed=1.5), 400, "`seed` must be an integer, not 1.5"),
    (body(seed=2**64), 400, "seed must be"),
    (body(max_tokens=0), 400, "`max_tokens` must be 1 or more, not 0"),
    (body(max_tokens=True), 400, "`max_tokens` must be an integer, not True"),
    (body(stop=[""]), 400, "`stop` must be a string or a list of at most 4 strings that are not empty"),
    (body("hi"), 400, "`messages` must be a list with at least one message"),
    (body([3]), 400, "messages[0] must be an object, not 3"),
    (body([{"role": "tool", "content": "a"}]), 400, "messages[0].role must be one of system, user, assistant, not 'tool'"),
    (body([{"role": ["user"], "content": "a"}]), 400, "messages[0].role must be one of system, user, assistant"),
    (body([{"role": "user"}]), 400, "messages[0].content must be a string or a list of parts, not None"),
    (body([{"role": "user", "content": [{"type": "text"}]}]), 400, "messages[0].content[0] must be a part of the type text"),
    (body([{"role": "user", "content": "", "tool_calls": [1]}]), 400, "messages[0] has the key 'tool_calls'"),
    (picture("data:,"), 400, 'messages[0].content[0].image_url must be an object {"url": "data:..."}'),
    (picture({"url": "http://127.0.0.1:9/a.jpg"}), 400, "messages[0].content[0].image_url.url must be a data: URL"),
    (picture({"url": "file:///etc/hostname"}), 400, "messages[0].content[0].image_url.url must be a data: URL"),
    (picture({"url": "/etc/hostname"}), 400, "messages[0].content[0].image_url.url must be a data: URL"),
    (picture({"url": "data:image/png;base64,é"}), 400, "messages[0].content[0].image_url.url is not valid base64"),
    (picture({"url": data_url(b"words")}), 400, "messages[0].content[0]: the image cannot be used: not_an_image"),
    (picture({"url": data_url(RED[:300])}), 400, "messages[0].content[0]: the image cannot be used: truncated"),
    (body([{"role": "user", "content": "many words " * 400}]), 400, "a prompt of "),
    (body([{"role": "user", "content": "a" * 60_000}]), 400, "a prompt of more than 51,200 characters leaves no room"),
    (body([{"role": "user", "content": [shown(RED)] * 200}]), 400, "a prompt of "),
]


@pytest.mark.parametrize(
    ("sent", "status", "message"), MISTAKES, ids=[f"{n} {case[2][:40]}" for n, case in enumerate(MISTAKES)]
)
def test_a_request_that_cannot_be_answered_is_refused_in_one_line(
    client: Client, sent: bytes, status: int, message: str
) -> None:
    found, document, _ = client.request("POST", CHAT, sent)
    assert found == status, document
    assert document["error"]["message"].startswith(message) and "\n" not in document["error"]["message"]
    assert document["error"]["type"] == "invalid_request_error" and document["error"]["code"]
    assert client.request("GET", "/health")[0] == 200  # on the same connection


def test_an_image_bomb_is_refused_and_so_are_many_large_images(client: Client) -> None:
    def message_about(side: int, count: int) -> str:
        png = cv2.imencode(".png", np.zeros((side, side), np.uint8))[1].tobytes()
        status, document, _ = client.request("POST", CHAT, body([{"role": "user", "content": [shown(png)] * count}]))
        assert status == 400 and len(png) < 100_000
        return str(document["error"]["message"])

    assert message_about(9_000, 1).startswith("messages[0].content[0]: the image cannot be used: too_large: ")
    assert message_about(5_000, 30).startswith("messages[0].content[19]: the image cannot be used: too_costly: ")


def test_other_places_and_methods_are_refused(client: Client) -> None:
    assert client.request("GET", "/")[0] == 404
    status, document, headers = client.request("GET", CHAT)
    assert (status, headers["Allow"]) == (405, "POST")
    assert document["error"]["message"] == "/v1/chat/completions takes only POST, not GET"
    assert client.request("POST", "/v1/models", b"{}")[0] == 405
    assert client.request("BREW", "/v1/models")[0] == 405
    status, document, _ = client.request("POST", CHAT, body(), Origin="https://example.org")
    assert (status, document["error"]["code"]) == (400, "web_page")


def test_a_body_that_is_too_large_or_has_no_length_is_refused(client: Client) -> None:
    status, document, _ = client.request("POST", CHAT, bytes(64_000_001))
    assert (status, document["error"]["code"]) == (413, "body_too_large")
    client.connection.request("POST", CHAT, iter([b"{}"]), {}, encode_chunked=True)
    assert client.connection.getresponse().status == 400


def test_bytes_that_are_not_a_request_do_not_stop_the_server(client: Client, port: int) -> None:
    for sent in (b"\x16\x03\x01\r\n\r\n", b"GET /" + b"a" * 70_000 + b" HTTP/1.1\r\n\r\n", b"POST /v1 HTTP/9.9\r\n\r\n"):
        with socket.create_connection(("127.0.0.1", port)) as raw:
            raw.sendall(sent)
            raw.shutdown(socket.SHUT_WR)
            assert b'{"error": {"message": ' in b"".join(iter(lambda raw=raw: raw.recv(65_536), b""))
    with socket.create_connection(("127.0.0.1", port)) as raw:
        raw.sendall(f"POST {CHAT} HTTP/1.1\r\nContent-Length: 99\r\n\r\n{{".encode())  # the rest of the body never comes
    assert said(client.ask(asks(QUESTION), max_tokens=2)) is not None


def test_a_captioner_continues_the_text_as_a_chat_does(tmp_path: Path, red: str) -> None:
    data = write_data(tmp_path / "data", captions=16)
    captioner = run_training(tiny_recipe(data, tmp_path / "run", steps=1, stage="align")).checkpoint
    way = Decoding(temperature=1.5, seed=3)
    talk = Conversation.open(str(captioner), [red], device="cpu", max_tokens=8, decoding=way)
    with running(str(captioner)) as (_, port):
        answer = Client(port).ask(asks("a red", RED), max_tokens=8, temperature=1.5, seed=3)
    assert said(answer) == talk.ask("a red")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_the_server_in_one_line_and_frees_its_port(checkpoint: Path, number: signal.Signals) -> None:
    with running(str(checkpoint)) as (process, port):
        client = Client(port)
        client.ask(asks(QUESTION), max_tokens=2)  # leaves an open connection
        process.send_signal(number)
        out, error = process.communicate()
        assert (process.returncode, out, error) == (128 + number, "", "vlmdata train: stopped\n")
        with pytest.raises(ConnectionRefusedError):
            Client(port).request("GET", "/health")


@pytest.mark.parametrize("command", [COMMAND, [sys.executable, "-m", "vlmdata", "train", "serve"]], ids=["trainer", "vlmdata"])
def test_the_end_of_stdin_ends_the_server(checkpoint: Path, command: list[str]) -> None:
    with running(str(checkpoint), "--until-stdin-closes", command=command) as (process, _):
        assert process.stdin is not None
        process.stdin.write("ignored")
        assert process.communicate() == ("", "")
        assert process.returncode == 0


def test_the_end_of_stdin_ends_the_server_while_it_loads_the_weights(checkpoint: Path) -> None:
    words = [*COMMAND, str(checkpoint), "--until-stdin-closes"]
    done = subprocess.run(words, stdin=subprocess.DEVNULL, capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_the_server_ends_when_its_parent_is_killed(checkpoint: Path) -> None:
    words = [*COMMAND, str(checkpoint), "--until-stdin-closes"]
    parent = f"import subprocess\nsubprocess.Popen({words!r}, stdin=subprocess.PIPE).wait()"
    with running(command=[sys.executable, "-c", parent]) as (process, port):
        assert Client(port).request("GET", "/health")[0] == 200
        process.kill()
        assert process.stdout is not None
        assert process.stdout.read() == ""  # the server has this pipe too, so the pipe ends when the server ends
        with pytest.raises(ConnectionRefusedError):
            Client(port).request("GET", "/health")


def test_a_mistake_on_the_command_line_is_reported_in_one_line(
    checkpoint: Path, port: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = shutil.copytree(checkpoint, tmp_path / "short")
    weights = short / "model-00000.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    bare = shutil.copytree(checkpoint, tmp_path / "bare")
    (bare / "recipe.json").write_text("{")
    mistakes = [
        ([str(tmp_path)], f"{tmp_path} is not a checkpoint, because it has no recipe.json"),
        ([str(checkpoint), "--port", "65536"], "--port must be from 0 to 65535, not 65536"),
        ([str(checkpoint), "--batch", "0"], "--batch must be 1 or more, not 0"),
        ([str(checkpoint), "--port", str(port)], f"--port: port {port} of 127.0.0.1 is in use. Choose another port"),
        ([str(bare), "--host", "192.0.2.1"], "--host: cannot listen at 192.0.2.1, port 0: "),
        ([str(checkpoint), "--host", "a" * 64], f"--host: there is no address {'a' * 64} ("),
        ([str(short)], f"{weights} is damaged"),
        ([str(bare)], f"the weights {bare} cannot be loaded: "),
    ]
    for words, message in mistakes:
        assert main(["serve", *words]) == 2
        captured = capsys.readouterr()
        (line,) = captured.err.splitlines()
        assert line.startswith(f"vlmdata train: {message}") and captured.out == ""


def test_mistakes_are_reported_before_torch_is_imported(checkpoint: Path, port: int) -> None:
    code = (
        "import sys\nfrom vlmdata_train.__main__ import main\nassert main(sys.argv[1:]) == 2\nassert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code, "serve", str(checkpoint), "--port", str(port)], check=True)
