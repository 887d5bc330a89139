"""A shortage of memory is reported as such whichever library meets it, and no other error is."""

import errno
import os
import sys
from pathlib import Path

import pytest

from tests.engine.dying import in_process, little_memory
from vlmdata.cli import main
from vlmdata.engine.drive.driver import WorkFailed, result_of
from vlmdata.engine.drive.workers import Ended
from vlmdata.process.shortage import describe_error, in_short, is_short_of_memory


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
def test_each_library_error_caused_by_too_little_memory_is_recognized(error: BaseException) -> None:
    assert is_short_of_memory(error)


@pytest.mark.parametrize("error", [ValueError("a"), OSError(errno.ENOSPC, "full"), ImportError("no module 'a'")])
def test_other_errors_are_reported_unchanged(error: BaseException) -> None:
    assert not is_short_of_memory(error)
    try:
        raise error
    except Exception as again:
        assert describe_error(again).rstrip().endswith(str(error))


def test_a_shortage_in_a_worker_is_reported_in_one_line() -> None:
    try:
        raise ImportError("libssl.so.3: failed to map segment\nfrom shared object")
    except ImportError as error:
        text = describe_error(error)
    assert text.startswith("Traceback")
    with pytest.raises(WorkFailed) as failed:
        result_of(Ended(0, 0, error=text))
    assert str(failed.value) == (
        "MemoryError: there is too little memory (ImportError: libssl.so.3: failed to map segment from shared object). "
        "Free some memory or use fewer --workers, and run the same command again; it resumes."
    )
    assert in_short(MemoryError()) == "MemoryError: there is too little memory"


def _judge_with_little_memory() -> None:
    half = AttributeError("partially initialized module 'pandas' has no attribute 'core'")
    assert not is_short_of_memory(half)
    little_memory(10_000_000)
    sys.exit(7 if is_short_of_memory(half) and not is_short_of_memory(AssertionError()) else 8)


def test_an_unclear_error_is_a_shortage_only_if_little_memory_is_left() -> None:
    assert in_process(_judge_with_little_memory) == 7


def _run_with_little_memory(small: Path, large: Path, out: Path, output: Path) -> None:
    assert main(["check", str(small)]) == 0  # everything that the verb imports is loaded before memory becomes short
    little_memory(100_000_000)
    os.dup2(os.open(output, os.O_WRONLY | os.O_CREAT), 2)
    sys.exit(main(["run", str(large), "--out", str(out), "--local"]))


def test_the_command_line_reports_a_shortage_in_one_line(tmp_path: Path) -> None:
    """The recipe alone is larger than the memory limit."""
    small, large = tmp_path / "small.yaml", tmp_path / "large.yaml"
    small.write_text(f"source: {{type: url_list, path: {tmp_path / 'a.csv'}}}\nsteps: [download, resize]\n")
    (tmp_path / "a.csv").write_text("url,caption\nhttps://e.example/a,one\n")
    large.write_bytes(small.read_bytes())
    os.truncate(large, 1_000_000_000)
    assert in_process(_run_with_little_memory, small, large, tmp_path / "out", tmp_path / "output") == 1
    output = (tmp_path / "output").read_text()
    assert output.startswith("vlmdata: MemoryError") and output.count("\n") == 1
