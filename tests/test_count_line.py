"""A long evaluation shows its progress, in a terminal on one updated line and in a pipe at intervals. A short one shows
nothing."""

import sys

import pytest

from tests.train.runs import tiny_recipe, write_data
from vlmdata import count_line
from vlmdata.count_line import PIPE_INTERVAL_S, TERMINAL_INTERVAL_S, CountLine
from vlmdata_train.evaluate import evaluate_checkpoint
from vlmdata_train.loop.loop import run_training


class Clock:
    """A clock that the test advances."""

    now = 100.0

    def __call__(self):
        return self.now


def shown(steps, capsys, **options):
    """Return what is written when counts of 10 are added, each after a given number of seconds."""
    clock = Clock()
    with CountLine("asking", 100, clock=clock, **options) as line:
        for seconds in steps:
            clock.now += seconds
            line.add(10)
    return capsys.readouterr().err


def test_a_pipe_gets_a_line_at_intervals(capsys):
    assert (
        shown([PIPE_INTERVAL_S / 2] * 5, capsys)
        == "asking: 20 of 100, 0.7/s, 120 s left\nasking: 40 of 100, 0.7/s, 90 s left\n"
    )
    assert shown([PIPE_INTERVAL_S / 20] * 10, capsys) == ""


def test_a_terminal_shows_one_line_that_is_updated_and_erased(capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "20")
    written = shown([TERMINAL_INTERVAL_S] * 2, capsys)
    assert written == "\r\033[Kasking: 10 of 100,…\r\033[Kasking: 20 of 100,…\r\033[K"
    assert shown([TERMINAL_INTERVAL_S / 9] * 5, capsys) == ""


def test_other_ranks_write_nothing(capsys):
    assert shown([PIPE_INTERVAL_S] * 3, capsys, active=False) == ""


@pytest.mark.whole
def test_a_run_and_an_evaluation_show_their_progress(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(count_line, "PIPE_INTERVAL_S", 0.0)
    data = write_data(tmp_path / "data", captions=40)
    held_out = {"fraction": 0.3, "every": 2, "answers": 5}
    result = run_training(tiny_recipe(data, tmp_path / "out", steps=2, held_out=held_out))
    printed = capsys.readouterr().err
    assert f"measuring {data}: 40 of 40" in printed and "held-out loss: " in printed and "held-out answers: 5 of 5" in printed
    evaluate_checkpoint(str(result.checkpoint), data, samples=33, answer_tokens=2, device="cpu")
    out, printed = capsys.readouterr()
    for how in ("with images", "images blanked"):
        assert f"{how}, loss: " in printed and f"{how}, answers: 33 of 33" in printed
    assert out == ""
