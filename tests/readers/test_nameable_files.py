"""The folder of a user's path, which must hold the files that rows name."""

import pytest

from vlmdata.readers.nameable_files import folder_of


@pytest.mark.parametrize("path", ["data", "data/", "data/a.csv", "data/*.csv", "data/a*.csv", "data/*/b.csv", "data/[ab].csv"])
def test_a_path_means_its_folder_or_the_one_its_files_lie_in(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "data").mkdir()
    assert folder_of(path, (".csv",)).rstrip("/") in ("data", str(tmp_path / "data"))
    assert folder_of("*.csv", (".csv",)) == folder_of("a.csv", (".csv",)) == str(tmp_path)
