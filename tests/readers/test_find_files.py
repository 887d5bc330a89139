"""A folder of a source that cannot be listed is a mistake, because its files would be missing from the dataset."""

import os
import shutil

import pytest

from vlmdata.readers.find_files import find
from vlmdata.step import RecipeError


@pytest.fixture
def unlisted(tmp_path):
    """Return a folder with a file, and with folders in folders whose path is too long to be opened, also for root."""
    (tmp_path / "a.csv").touch()
    place = os.open(tmp_path, os.O_RDONLY)
    for _ in range(20):  # 20 names of 250 characters; a path has at most 4,096
        os.mkdir("x" * 250, dir_fd=place)
        inner = os.open("x" * 250, os.O_RDONLY, dir_fd=place)
        os.close(place)
        place = inner
    os.close(place)
    yield tmp_path
    shutil.rmtree(tmp_path / ("x" * 250))


def test_a_folder_that_cannot_be_listed_is_refused(unlisted):
    with pytest.raises(RecipeError, match=r"xxx cannot be listed: File name too long. Change its permissions, or move it"):
        find(str(unlisted), [".csv"])


@pytest.mark.skipif(os.geteuid() == 0, reason="root may list every folder")
def test_a_folder_without_permission_is_refused(tmp_path):
    (tmp_path / "a.csv").touch()
    (tmp_path / "closed").mkdir(mode=0)
    with pytest.raises(RecipeError, match=r"closed cannot be listed: Permission denied. Change its permissions"):
        find(str(tmp_path), [".csv"])
