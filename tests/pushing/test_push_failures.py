"""A push continues after a failure of the network or the Hub, and explains it in one line, without the token."""

import json
import os
import signal
import subprocess
import sys

import pytest
from huggingface_hub import constants

from tests.hub_server import READER, TOKEN, Stored
from tests.pushing.pushed import REPO, forget_tar, in_repository, travelling
from tests.servers import nobody
from vlmdata import RecipeError, push
from vlmdata.cli import main
from vlmdata.errors import WorkFailed

pytestmark = pytest.mark.whole


def test_the_token_is_sent_and_never_printed_or_stored(hub, out, capsys):
    push(out, REPO)
    printed = capsys.readouterr()
    assert hub.tokens <= {TOKEN, ""} and TOKEN not in printed.out + printed.err
    assert not [path for path in out.rglob("*") if path.is_file() and TOKEN.encode() in path.read_bytes()]


@pytest.mark.parametrize(("status", "code"), [(401, 2), (403, 2), (400, 1), (429, 1), (507, 1)])
def test_a_token_and_a_signature_that_the_hub_repeats_are_not_printed(hub, out, capsys, status, code):
    message = f"bad {TOKEN} for https://bucket.example/a?X-Amz-Signature=5ecret {'x' * 400}{TOKEN}"
    hub.fail("POST", "/api/repos/create", status, message=message, times=9, Retry_After="3600")
    assert main(["push", str(out), REPO, "--json"]) == code
    printed = capsys.readouterr()
    assert "bad REDACTED for https://bucket.example/a?X-Amz-Signature=REDACTED xxx" in printed.err
    assert TOKEN not in printed.out + printed.err and "5ecret" not in printed.out + printed.err


@pytest.mark.parametrize("token", ["hf_a b", "hf_ä"])
def test_a_token_with_a_wrong_character_is_one_line_without_it(hub, out, monkeypatch, token):
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(RecipeError, match="the token of the Hub has a character that no token has") as caught:
        push(out, REPO)
    assert "hf_" not in str(caught.value) and hub.requests == []


FAILURES = [
    (("POST", "/api/repos/create", 401), RecipeError, "does not accept the token.*hf auth login.*HF_TOKEN"),
    (("POST", "/api/repos/create", 403), RecipeError, "may not write to jane/cats.*Use a token with write access"),
    (("POST", "/preupload/", 403), RecipeError, "may not write to jane/cats"),
    (("POST", "/preupload/", 404), RecipeError, "there is no dataset repository jane/cats"),
    (("POST", "/objects/batch", 413), WorkFailed, "no room for the upload.*Free storage"),
    (("PUT", "/lfs/", 400), WorkFailed, "refuses the upload"),
    (("POST", "/commit/", 412), WorkFailed, "changed during the upload"),
    (("POST", "/commit/", 413), WorkFailed, "no room for the upload"),
]


@pytest.mark.parametrize(("fault", "error", "message"), FAILURES)
def test_a_refusal_is_one_line_with_the_fix(hub, out, fault, error, message):
    hub.fail(*fault)
    with pytest.raises(error, match=message) as caught:
        push(out, REPO)
    assert "\n" not in str(caught.value)
    push(out, REPO)
    assert in_repository(hub) == travelling(out)


@pytest.mark.parametrize(
    ("method", "part"), [("POST", "/api/repos/create"), ("POST", "/preupload/"), ("POST", "/commit/"), ("PUT", "/lfs/")]
)
@pytest.mark.parametrize(("status", "headers"), [(429, {"Retry_After": "0"}), (500, {})])
def test_a_busy_hub_is_asked_again(hub, out, method, part, status, headers):
    hub.fail(method, part, status, **headers)
    push(out, REPO)
    assert in_repository(hub) == travelling(out)


def test_a_long_wait_is_left_to_the_user(hub, out):
    hub.fail("POST", "/api/repos/create", 429, times=1, Retry_After="3600")
    with pytest.raises(WorkFailed, match=r"limits requests.*Wait 3600 s and run the same command again"):
        push(out, REPO)


def test_a_connection_that_is_cut_during_an_upload_is_opened_again(hub, out):
    hub.cut("PUT", "/lfs/")
    push(out, REPO)
    assert in_repository(hub) == travelling(out)


def test_a_cut_commit_is_one_line_and_the_same_push_continues(hub, out):
    hub.cut("POST", "/commit/")
    with pytest.raises(WorkFailed, match=r"does not answer.*run the same command again; it continues"):
        push(out, REPO)
    sent = len(hub.uploads())
    push(out, REPO)
    assert in_repository(hub) == travelling(out) and len(hub.uploads()) == sent


def test_a_commit_whose_answer_was_lost_is_found_in_the_repository(hub, out):
    hub.lose_answer("POST", "/commit/")
    done = push(out, REPO)
    assert done["commit"] == hub.repos[REPO].branches["main"] and in_repository(hub) == travelling(out)
    sent, commits = len(hub.requests), list(hub.repos[REPO].commits)
    done = push(out, REPO)
    assert (done["uploaded"], done["replaced"], done["deleted"], done["commit"]) == (0, [], [], commits[-1])
    assert in_repository(hub) == travelling(out) and list(hub.repos[REPO].commits) == commits
    assert {method for method, _ in hub.requests[sent + 1 :]} == {"GET", "HEAD"}  # after the one that creates the repository


def test_a_commit_that_the_hub_made_but_called_failed_is_a_success(hub, out):
    hub.fail("POST", "/commit/", 504, is_done=True)
    done = push(out, REPO)
    assert done["commit"] == hub.repos[REPO].branches["main"] and in_repository(hub) == travelling(out)
    forget_tar(out, "00001.tar")
    hub.fail("POST", "/commit/", 500, is_done=True)
    assert push(out, REPO)["deleted"] == ["00001.tar"] and in_repository(hub) == travelling(out)


def test_a_commit_of_someone_else_after_a_failed_one_is_an_error(hub, out):
    def other():
        repo = hub.repos[REPO]
        repo.commit("main", {**repo.commits[repo.branches["main"]], "LICENSE": Stored(b"theirs", False)})

    hub.cut("POST", "/commit/", before=other)
    with pytest.raises(WorkFailed, match="does not answer"):
        push(out, REPO)
    assert in_repository(hub) == {"LICENSE": b"theirs"}


def test_a_killed_push_continues_without_sending_a_file_twice(hub, out):
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HUB_DISABLE_XET": "1", "HF_HUB_OFFLINE": "0"}
    command = [sys.executable, "-m", "vlmdata", "push", str(out), REPO]
    child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    hub.cut("POST", "/commit/", before=lambda: os.kill(child.pid, signal.SIGKILL))
    assert child.wait() == -signal.SIGKILL
    assert in_repository(hub) == {} and len(hub.uploads()) >= 4
    done = subprocess.run([*command, "--json"], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["deleted"] == [] and in_repository(hub) == travelling(out)
    assert len(hub.uploads()) == len(set(hub.uploads()))


def test_a_dataset_that_changes_during_the_upload_is_not_committed(hub, out):
    def change():
        path = out / "manifest.json"
        path.write_text(path.read_text().replace("\n", " \n", 1))

    hub.cut("PUT", "/lfs/", before=change)
    with pytest.raises(RecipeError, match="was changed during the upload"):
        push(out, REPO)
    assert in_repository(hub) == {}


def test_without_a_token_nothing_is_requested(hub, out, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    with pytest.raises(RecipeError, match=r"push needs a token of the Hub\. Log in with `hf auth login`, or set HF_TOKEN"):
        push(out, REPO)
    assert hub.requests == []


def test_a_token_that_only_reads_is_refused(hub, out, monkeypatch):
    monkeypatch.setenv("HF_TOKEN", READER)
    with pytest.raises(RecipeError, match="may not write to jane/cats"):
        push(out, REPO)


def test_a_network_that_is_down_is_one_line(hub, out, monkeypatch):
    with nobody() as address:
        monkeypatch.setattr(constants, "ENDPOINT", address)
        with pytest.raises(
            WorkFailed, match=rf"the Hub at {address} does not answer.*[^.]\. Check the network and HF_ENDPOINT, and run"
        ):
            push(out, REPO)


def test_offline_mode_is_named(hub, out, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(RecipeError, match="HF_HUB_OFFLINE"):
        push(out, REPO)
