"""Errors from untrusted bytes and libraries become our errors; interrupts and errors that the caller lets pass do not
change."""

from contextlib import suppress

import pytest

from vlmdata.untrusted import Failed, errors_as, one_line


def raised(block: BaseException, becomes, **options) -> BaseException:
    """Return the exception that leaves `errors_as` when an error is raised inside."""
    with pytest.raises(BaseException) as left, errors_as(becomes, **options):
        raise block
    return left.value


def test_any_error_becomes_ours_without_the_traceback_of_the_original():
    for error in (KeyError("a"), RecursionError(), MemoryError(), StopIteration(), Exception("a")):
        ours = raised(error, lambda error: ValueError(one_line(error)))
        assert type(ours) is ValueError and ours.__cause__ is None and ours.__suppress_context__


def test_a_cause_that_is_already_set_is_kept():
    def becomes(error: Exception) -> Exception:
        ours = ValueError()
        ours.__cause__ = error
        return ours

    error = KeyError("a")
    assert raised(error, becomes).__cause__ is error


def test_errors_that_pass_or_are_returned_are_raised_unchanged():
    error = FileNotFoundError("a")
    assert raised(error, Failed, passes=(OSError,)) is error
    assert raised(error, lambda error: error) is error


def test_interrupts_are_not_converted():
    for interrupt in (KeyboardInterrupt(), SystemExit(3)):
        assert raised(interrupt, Failed) is interrupt


def test_a_converted_error_can_be_suppressed():
    with suppress(Failed), errors_as(Failed):
        raise KeyError("a")
    assert raised(error := KeyError("a"), Failed).args == (error,)


def test_one_line_joins_the_lines_of_a_message():
    assert one_line(ValueError(" a\n b")) == "a b"
    assert one_line(ValueError()) == "ValueError"
