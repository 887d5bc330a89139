"""Want of memory is told as that, by whatever library; nothing else is."""

import errno
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.dying import in_process, little_memory
from vlmdata.engine.driver import WorkFailed, _result
from vlmdata.engine.shortage import in_short, is_short_of_memory, told
from vlmdata.engine.workers import Ended


def caught(error: BaseException, cause: BaseException | None = None) -> BaseException:
    try:
        raise error from cause
    except BaseException as again:
        return again


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        OSError(errno.ENOMEM, "no"),
        RuntimeError("can't start new thread"),
        ImportError("libssl.so.3: failed to map segment from shared object"),
        ValueError("Unknown error: Failed to launch worker thread: Resource temporarily unavailable"),
        caught(RuntimeError("the web client stopped early"), MemoryError()),
    ],
)
def test_words_and_causes(error: BaseException) -> None:
    assert is_short_of_memory(error)


@pytest.mark.parametrize("error", [ValueError("a"), OSError(errno.ENOSPC, "full"), ImportError("no module 'a'")])
def test_other_errors_are_told_as_they_are(error: BaseException) -> None:
    assert not is_short_of_memory(error)
    try:
        raise error
    except Exception as again:
        assert told(again).rstrip().endswith(str(error))


def test_what_a_worker_says_of_it_is_one_line_of_the_run() -> None:
    try:
        raise ImportError("libssl.so.3: failed to map segment\nfrom shared object")
    except ImportError as error:
        text = told(error)
    assert text.startswith("Traceback")
    with pytest.raises(WorkFailed) as failed:
        _result(Ended(0, 0, error=text))
    assert str(failed.value) == (
        "MemoryError: there is too little memory (ImportError: libssl.so.3: failed to map segment from shared object). "
        "Free some or take fewer --workers, then the same command goes on from here"
    )
    assert in_short(MemoryError()) == "MemoryError: there is too little memory"


def _judge_with_little_memory() -> None:
    half = AttributeError("partially initialized module 'pandas' has no attribute 'core'")
    assert not is_short_of_memory(half)
    little_memory(10_000_000)
    sys.exit(7 if is_short_of_memory(half) and not is_short_of_memory(AssertionError()) else 8)


def test_words_of_another_kind_are_judged_by_what_is_left() -> None:
    assert in_process(_judge_with_little_memory) == 7


@pytest.mark.parametrize("more", [1.02, 1.2])
def test_the_command_line_says_it_in_one_line(tmp_path: Path, more: float) -> None:
    """It is given what it needs to say which verbs there are, and little more."""
    needs = "import resource; from vlmdata.cli import build_parser; build_parser(); import vlmdata.engine.shortage"
    needs += "; print(open('/proc/self/statm').read().split()[0])"
    done = subprocess.run([sys.executable, "-c", needs], capture_output=True, text=True, check=True)
    most = int(int(done.stdout) * resource.getpagesize() * more)
    listing, recipe = tmp_path / "a.csv", tmp_path / "a.yaml"
    listing.write_text("url,caption\nhttp://127.0.0.1:9/a,one\n")
    recipe.write_text(f"source: {{type: url_list, path: {listing}}}\nsteps: [download, resize]\n")
    command = [sys.executable, "-m", "vlmdata.cli", "run", str(recipe), "--out", str(tmp_path / "out"), "--local"]
    failed = subprocess.run(
        command, capture_output=True, text=True, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (most, most))
    )
    assert failed.returncode == 1 and "Traceback" not in failed.stderr
    assert failed.stderr.splitlines()[-1].startswith("vlmdata: MemoryError")
