"""Errors from untrusted bytes and libraries become our errors; errors that the caller lets pass, and interrupts, stay."""

from contextlib import suppress

import pytest

from vlmdata.untrusted import Failed, errors_as, one_line


def raised(block: BaseException, becomes, **options) -> BaseException:
    """Return what leaves a block in which an error is raised."""
    with pytest.raises(BaseException) as left, errors_as(becomes, **options):
        raise block
    return left.value


def test_any_error_becomes_ours_without_its_own_traceback():
    for error in (KeyError("a"), RecursionError(), MemoryError(), StopIteration(), Exception("a")):
        ours = raised(error, lambda error: ValueError(one_line(error)))
        assert type(ours) is ValueError and ours.__cause__ is None and ours.__suppress_context__


def test_a_cause_that_is_set_stays():
    def becomes(error: Exception) -> Exception:
        ours = ValueError()
        ours.__cause__ = error
        return ours

    error = KeyError("a")
    assert raised(error, becomes).__cause__ is error


def test_what_passes_and_what_is_returned_is_raised_as_it_is():
    error = FileNotFoundError("a")
    assert raised(error, Failed, passes=(OSError,)) is error
    assert raised(error, lambda error: error) is error


def test_interrupts_are_no_errors():
    for interrupt in (KeyboardInterrupt(), SystemExit(3)):
        assert raised(interrupt, Failed) is interrupt


def test_a_block_that_fails_can_be_left():
    with suppress(Failed), errors_as(Failed):
        raise KeyError("a")
    assert raised(error := KeyError("a"), Failed).args == (error,)


def test_one_line():
    assert one_line(ValueError(" a\n b")) == "a b"
    assert one_line(ValueError()) == "ValueError"
