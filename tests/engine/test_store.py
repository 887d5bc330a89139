"""A dataset's own files are those inside its folder, whatever it names."""

import pytest

from vlmdata.engine.store import ObjectStore, open_store, store_file
from vlmdata.step import RecipeError

NAMES = ["../secret", "a/../../secret", "/etc/passwd", "s3://bucket/x", "file:///etc/passwd", "a::http://127.0.0.1/", "a\0b"]


@pytest.mark.parametrize("name", NAMES)
def test_a_name_that_leads_out_of_the_folder_is_refused(tmp_path, name):
    (tmp_path / "secret").write_text("x")
    local, memory = open_store(tmp_path / "out", probe=False), ObjectStore("memory://out")
    for store in (local, memory):
        for use in (
            store.read,
            store.size,
            store.delete,
            lambda name, s=store: store_file(s, name),
            lambda name, s=store: s.put(name, b""),
        ):
            with pytest.raises(RecipeError, match="names a file outside of the dataset"):
                use(name)
    assert (tmp_path / "secret").read_text() == "x"
