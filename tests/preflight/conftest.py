"""The tests of this folder change into the folder of the test, which is restored here."""

import pytest


@pytest.fixture(autouse=True)
def restored_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
