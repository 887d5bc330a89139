"""Runs whose step asks an endpoint: kills, budgets and failures lose no answer, and no key leaves the process."""

import json
import math
import os
import signal
import tarfile
import threading
import time
from pathlib import Path

import pytest

from tests.buckets import bucket, objects
from tests.chaos import below
from tests.engine.test_killed import is_at_work, workers_of
from tests.generators.chat import ChatRequest, Reply, share_of
from tests.generators.faults import always, by_share, late, status, too_many
from tests.generators.openai_server import OpenAIServer
from tests.generators.say import end, models, recipe, start, tars
from vlmdata.takedown import forget

pytestmark = [pytest.mark.whole, pytest.mark.slow]

ROWS = 60
KEY = "sk-Aq7-very-long-and-secret-0123456789"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """The tars of a run that nothing disturbs. Answers depend on the request, not on the address."""
    folder = tmp_path_factory.mktemp("undisturbed")
    with OpenAIServer() as server:
        status, printed = end(start(recipe(folder, server.url, ROWS), folder / "out"))
        assert status == 0, printed
    assert server.requests == ROWS
    return tars(folder / "out")


def kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
    while is_at_work(pid):
        time.sleep(0.01)


def test_killed_workers_and_drivers_ask_again_only_what_was_under_way(tmp_path, undisturbed):
    out = tmp_path / "out"
    with OpenAIServer(faults=always(late(0.05))) as server:
        file = recipe(tmp_path, server.url, ROWS)
        driver, kills = start(file, out), 0
        for moment in (3, 17, 30):
            server.wait_for(lambda server, moment=moment: server.requests >= moment)
            kill(workers_of(driver.pid)[0])
            kills += 1
        for moment in (40, 50):
            server.wait_for(lambda server, moment=moment: server.requests >= moment)
            workers = workers_of(driver.pid)
            kill(driver.pid)
            driver.communicate()
            while any(map(is_at_work, workers)):
                time.sleep(0.01)
            driver, kills = start(file, out), kills + 1
        assert end(driver)[0] == 0
    assert ROWS < server.requests <= ROWS + kills * 4
    assert len(server.by_content) == ROWS and tars(out) == undisturbed


def captions(out: Path) -> list[str]:
    """Return the captions in the tars of a dataset."""
    found = []
    for path in out.glob("*.tar"):
        with tarfile.open(path) as tar:
            names = [name for name in tar.getnames() if name.endswith(".json")]
            found += [json.load(tar.extractfile(name))["caption"] for name in names]
    return found


def judged(request: ChatRequest) -> Reply:
    """Return probabilities of yes and no that depend on the request."""
    share = share_of(request.content)
    return Reply("Yes", first_token={"Yes": math.log(share * 0.7), " yes": math.log(share * 0.3), "No": math.log1p(-share)})


def test_a_killed_run_with_choices_resumes_with_equal_probabilities(tmp_path):
    """The captions of the rows hold all digits of the probabilities."""
    choices = ("--set", "own_say.choices=['yes', 'no']")
    with OpenAIServer(judged) as server:
        (tmp_path / "undisturbed").mkdir()
        file = recipe(tmp_path / "undisturbed", server.url, ROWS)
        status, printed = end(start(file, tmp_path / "undisturbed" / "out", *choices))
        assert status == 0 and server.requests == ROWS, printed
    expected = tars(tmp_path / "undisturbed" / "out")
    with OpenAIServer(judged, faults=always(late(0.05))) as server:
        file, out = recipe(tmp_path, server.url, ROWS), tmp_path / "out"
        driver = start(file, out, *choices)
        server.wait_for(lambda server: server.requests >= 9)
        kill(workers_of(driver.pid)[0])
        server.wait_for(lambda server: server.requests >= 33)
        workers = workers_of(driver.pid)
        kill(driver.pid)
        driver.communicate()
        while any(map(is_at_work, workers)):
            time.sleep(0.01)
        assert end(start(file, out, *choices))[0] == 0
    assert ROWS < server.requests <= ROWS + 2 * 4 and tars(out) == expected
    texts = captions(out)
    assert len(set(texts)) == ROWS and all(text.startswith(("yes 0.", "no 0.")) for text in texts)


def test_a_killed_run_on_ray_asks_again_only_what_was_under_way(tmp_path, undisturbed):
    out = tmp_path / "out"
    with OpenAIServer(faults=always(late(0.05))) as server:
        driver = start(recipe(tmp_path, server.url, ROWS), out, local=False)
        for moment in (5, 25):
            server.wait_for(lambda server, moment=moment: server.requests >= moment)
            for pid, name in below(driver.pid):
                if name.startswith("ray::_Actor"):
                    kill(pid)
        code, printed = end(driver)
    assert code == 0, printed
    assert ROWS < server.requests <= ROWS + 2 * 4 and tars(out) == undisturbed


def test_passing_failures_change_no_byte(tmp_path, undisturbed):
    faults = by_share(0.2, status(503), attempts=2)
    with OpenAIServer(faults=faults) as server:
        code, printed = end(start(recipe(tmp_path, server.url, ROWS), tmp_path / "out"))
    assert code == 0, printed
    failed = sum(one.status == 503 for one in server.seen)
    assert failed and server.requests == ROWS + failed and tars(tmp_path / "out") == undisturbed


def test_a_budget_stops_a_run_and_the_same_command_resumes(tmp_path, undisturbed):
    out, lines = tmp_path / "out", []
    with OpenAIServer() as server:
        file = recipe(tmp_path, server.url, ROWS, budget_tokens=1500)
        while True:
            code, printed = end(start(file, out))
            if code == 0:
                break
            lines.append(printed)
            assert len(lines) < 10
    assert len(lines) >= 2 and server.requests == ROWS and set(server.by_content.values()) == {1}
    for line in lines:
        assert "the budget of this run (budget_tokens 1,500) is spent" in line and "Traceback" not in line
    assert tars(out) == undisturbed


def test_killed_workers_do_not_exceed_a_budget(tmp_path):
    with OpenAIServer(faults=always(late(0.03))) as server:
        driver = start(recipe(tmp_path, server.url, ROWS, budget_tokens=4000), tmp_path / "out")
        for moment in (5, 15):
            server.wait_for(lambda server, moment=moment: server.requests >= moment)
            kill(workers_of(driver.pid)[0])
        code, printed = end(driver)
    assert code == 1 and "is spent" in printed
    each = 85 + 3 + 8  # tokens: the picture, the prompt and about the answer
    assert 2000 < server.requests * each <= 4000 + 4 * each


def test_a_changed_prompt_asks_again_and_a_changed_threshold_does_not(tmp_path):
    out = tmp_path / "out"
    with OpenAIServer() as server:
        file = recipe(tmp_path, server.url, 20)
        for more, requests in (((), 20), (("--set", "own_say.min_chars=45"), 20), (("--set", "own_say.prompt=tell "), 40)):
            code, printed = end(start(file, out, *more))
            assert code == 0 and server.requests == requests, printed
    assert [one["served_models"] for one in models(out) if "url" in one] == [["tester"]]


def test_the_key_is_in_no_file_and_no_line(tmp_path):
    def words(request):
        return f"I got {request.headers['authorization']}"

    def fault(request):
        echo = status(400 if request.number < 12 else 401, words(request))
        return echo if request.number > 8 else None

    with OpenAIServer(words, fault, key=KEY) as server:
        file = recipe(tmp_path, server.url, 20, key_from="TEST_KEY")
        code, printed = end(start(file, tmp_path / "out", TEST_KEY=KEY))
        assert code == 1 and "answered 401 (its message repeats the key)" in printed
    (tmp_path / "second").mkdir()
    with OpenAIServer(words, key=KEY) as server:
        file = recipe(tmp_path / "second", server.url, 20, key_from="TEST_KEY")
        code, more = end(start(file, tmp_path / "second" / "out", TEST_KEY=KEY))
    assert code == 0, more
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert len(files) > 50 and any(b"I got Bearer REDACTED" in path.read_bytes() for path in files)
    assert [path for path in files if KEY.encode() in path.read_bytes()] == [] and KEY not in printed + more


def test_a_missing_key_is_one_line_before_work_starts(tmp_path):
    with OpenAIServer() as server:
        code, printed = end(start(recipe(tmp_path, server.url, 3, key_from="NO_SUCH_KEY"), tmp_path / "out"))
    assert code != 0 and "the environment variable NO_SUCH_KEY is not set" in printed and "On a cluster" in printed
    assert server.requests == 0 and not (tmp_path / "out").exists()


def test_retry_after_pauses_all_partitions(tmp_path, undisturbed):
    with OpenAIServer(faults={9: too_many(2), 30: too_many(1)}) as server:
        code, printed = end(start(recipe(tmp_path, server.url, ROWS), tmp_path / "out"))
    assert code == 0, printed
    assert server.requests == ROWS + 2 and not server.asked_early(by_any=True, slack_s=0.2)
    assert tars(tmp_path / "out") == undisturbed


def test_on_an_object_store_a_kill_loses_only_answers_under_way(tmp_path):
    with bucket() as data, OpenAIServer(faults=always(late(0.1))) as server:
        driver = start(recipe(tmp_path, server.url, ROWS), f"{data}/out")
        for moment in (10, 30):
            server.wait_for(lambda server, moment=moment: server.requests >= moment)
            kill(workers_of(driver.pid)[0])
        code, printed = end(driver)
        assert code == 0, printed
        assert not [name for name in objects(f"{data}/out") if "work/answers" in name]
    assert ROWS < server.requests <= ROWS + 2 * 4


def test_forget_removes_answers_from_the_journals_of_an_unfinished_run(tmp_path):
    out, may_end = tmp_path / "out", threading.Event()
    words = "an answer that must be forgotten"
    fault = late(until=may_end)

    def stuck(request):
        return fault if "tell" in request.text and "caption 11" in request.text else None

    def answer(request):
        return words if request.text.endswith("caption 3") else "fine"

    with OpenAIServer(answer, stuck) as server:
        file = recipe(tmp_path, server.url, 12, part_rows=12)
        assert end(start(file, out))[0] == 0
        driver = start(file, out, "--set", "own_say.prompt=tell ")
        server.wait_for(lambda server: server.requests == 24 and server.at_once == 1)
        workers = workers_of(driver.pid)
        kill(driver.pid)
        driver.communicate()
        may_end.set()
        while any(map(is_at_work, workers)):
            time.sleep(0.01)
    journals = sorted((out / "work" / "answers").rglob("*.jsonl"))
    lines = [json.loads(line) for path in journals for line in path.read_text().splitlines()]
    (line,) = [line for line in lines if line["answer"]["text"] == words]
    forget(out, key=line["key"])
    assert not [path for path in out.rglob("*") if path.is_file() and words.encode() in path.read_bytes()]
    left = [json.loads(line) for path in journals if path.exists() for line in path.read_text().splitlines()]
    assert len(lines) == 11 and left == [other for other in lines if other != line]
