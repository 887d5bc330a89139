"""An error on the trainer's command line ends in a line or a traceback without secrets, and a status."""

import pytest

from vlmdata.loader.index.index_file import NoIndex
from vlmdata_train.__main__ import main

SECRET = "https://user:SECRET@h/data?sig=SECRET"


@pytest.mark.parametrize(
    ("error", "is_line"),
    [(ValueError(SECRET), False), (KeyError(SECRET), False), (OSError(2, "gone", SECRET), True), (NoIndex(SECRET), True)],
)
def test_the_error_that_ends_the_trainer_is_printed_without_secrets(error, is_line, monkeypatch, capsys):
    def fails(*_, **__):
        raise error

    monkeypatch.setattr("vlmdata_train.recipe_file.load", fails)
    assert main(["align", "tiny"]) == 1
    printed = capsys.readouterr().err
    assert "REDACTED@h/data?sig=REDACTED" in printed and "SECRET" not in printed
    assert (len(printed.splitlines()) == 1) == is_line
