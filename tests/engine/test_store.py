"""A dataset's own files are those inside its folder, whatever its manifest or index says."""

import json

import pytest

from vlmdata.cli import main
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
            with pytest.raises(RecipeError, match="names a file outside of it"):
                use(name)
    assert (tmp_path / "secret").read_text() == "x"


@pytest.mark.parametrize("options", [[], ["--bytes"]])
def test_a_manifest_that_names_files_elsewhere_is_refused_in_one_line(tmp_path, capsys, options):
    out = tmp_path / "out"
    out.mkdir()
    (tmp_path / "secret").write_text("x")
    facts = {"bytes": 1, "sha256": "0" * 64, "rows": 1}
    (out / "manifest.json").write_text(
        json.dumps({"files": {"ledger/../../secret": facts}, "rows": 1, "kept": 0, "dropped": []})
    )
    assert main(["check", str(out), *options]) == 2
    said = f"vlmdata: {out}: names a file outside of it, 'ledger/../../secret'; do not trust this dataset\n"
    assert capsys.readouterr().err == said
