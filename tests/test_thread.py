"""A thread passes on every exception of its work."""

import sys

import pytest

from vlmdata.process.thread import attempt


def test_the_result_of_the_work_is_returned():
    assert attempt(lambda: 3, lambda error: 4) == 3


@pytest.mark.parametrize("error", [ValueError("a"), MemoryError(), KeyboardInterrupt(), SystemExit(3), GeneratorExit()])
def test_any_exception_of_the_work_is_passed_to_the_handler(error):
    def fail():
        raise error

    assert attempt(fail, lambda given: (given, sys.exc_info()[1])) == (error, error)


def test_an_error_raised_again_is_the_same_object():
    def again(error):
        raise error

    error = ValueError("a")
    with pytest.raises(ValueError) as left:
        attempt(lambda: again(error), again)
    assert left.value is error and left.value.__context__ is None
