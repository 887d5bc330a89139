"""Only files inside the folder of a dataset belong to it, whatever paths the dataset names."""

import os

import pytest

from vlmdata.engine.store.object_store import ObjectStore
from vlmdata.engine.store.open_store import open_store
from vlmdata.step import RecipeError

NAMES = ["../secret", "a/../../secret", "/etc/passwd", "s3://bucket/x", "file:///etc/passwd", "a::http://127.0.0.1/", "a\0b"]


@pytest.mark.parametrize("name", NAMES)
def test_a_path_that_leaves_the_folder_is_refused(tmp_path, name):
    (tmp_path / "secret").write_text("x")
    local, memory = open_store(tmp_path / "out", probe=False), ObjectStore("memory://out")
    for store in (local, memory):
        for use in (
            store.read,
            store.size,
            store.delete,
            lambda name, s=store: s.open(name),
            lambda name, s=store: s.put(name, b""),
        ):
            with pytest.raises(RecipeError, match="names a file outside of the dataset"):
                use(name)
    assert (tmp_path / "secret").read_text() == "x"


def test_pipes_and_links_to_files_outside_the_folder_are_refused(tmp_path):
    (tmp_path / "victim").mkdir()
    (tmp_path / "victim" / "kept.txt").write_text("x")
    out = tmp_path / "out"
    out.mkdir()
    (out / "forgotten").symlink_to(tmp_path / "victim")
    (out / "00000.tar").symlink_to(tmp_path / "victim" / "kept.txt")
    os.mkfifo(out / "index.parquet")
    store = open_store(out, probe=False)
    for use in (lambda: store.list("forgotten"), lambda: store.delete("forgotten/kept.txt"), lambda: store.read("00000.tar")):
        with pytest.raises(RecipeError, match="leads outside of the dataset through a link"):
            use()
    for use in (lambda: store.read("index.parquet"), lambda: store.open("index.parquet")):
        with pytest.raises(OSError, match="not a regular file"):
            use()
    assert (tmp_path / "victim" / "kept.txt").read_text() == "x"
