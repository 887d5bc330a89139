"""A user's path stands for the folder whose files rows may name."""

import pytest

from vlmdata.readers.nameable_files import folder_of


@pytest.mark.parametrize("path", ["data", "data/", "data/a.csv", "data/*.csv", "data/a*.csv", "data/*/b.csv", "data/[ab].csv"])
def test_a_path_stands_for_its_folder_or_for_the_folder_of_its_files(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert folder_of(path, (".csv",)).rstrip("/") in ("data", str(tmp_path / "data"))
    assert folder_of("*.csv", (".csv",)) == folder_of("a.csv", (".csv",)) == str(tmp_path)
