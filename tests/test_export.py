"""What is exported is what lies in the tars, and comes back in as a source without loss."""

import json
from pathlib import Path

import datasets
import pytest
import yaml

from tests.engine.site import manifest, site
from tests.test_forget import samples
from vlmdata import run
from vlmdata.export import export
from vlmdata.step import RecipeError

pytestmark = pytest.mark.whole


@pytest.fixture(scope="session")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("export")
    with site(folder, 48, samples=20) as web:
        run(web.recipe, folder / "out", local=True, workers=1)
        run(web.recipe, folder / "documents", set={"shards.layout": "documents"}, local=True, workers=1)
    return folder / "out"


def raw(loaded: datasets.Dataset, column: str) -> datasets.Dataset:
    kind = datasets.Image(decode=False)
    return loaded.cast_column(column, kind if column == "image" else datasets.List(kind))


@pytest.mark.parametrize("to", ["parquet", "hf"])
def test_pairs_keep_every_byte(out, tmp_path, to):
    assert export(out, to, tmp_path / "to") == 36
    if to == "hf":
        loaded = datasets.load_from_disk(str(tmp_path / "to"))
    else:
        loaded = datasets.load_dataset(str(tmp_path / "to"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded[0]["image"].size == (48, 48)
    found = {
        row["key"]: {"jpg": row["image"]["bytes"], "txt": row["caption"].encode(), "json": row["json"].encode()}
        for row in raw(loaded, "image")
    }
    assert found == samples(out)


def test_documents_become_aligned_lists(out, tmp_path):
    source = out.parent / "documents"
    export(source, "parquet", tmp_path / "to")
    loaded = raw(datasets.load_dataset(str(tmp_path / "to"), split="train", cache_dir=str(tmp_path / "cache")), "images")
    expected = samples(source)
    for row in loaded:
        sample = expected.pop(row["key"])
        assert [image["bytes"] for image in row["images"] if image] == [sample["0.jpg"]]
        assert row["texts"] == json.loads(sample["json"])["texts"] and len(row["texts"]) == len(row["images"])
    assert not expected


def test_a_folder_comes_back_in_as_the_source_files(out, tmp_path):
    export(out, "folder", tmp_path / "to")
    recipe = tmp_path / "again.yaml"
    steps = [{"resize": {"mode": "no", "skip_reencode": True}}]
    recipe.write_text(yaml.safe_dump({"source": {"type": "files", "path": str(tmp_path / "to")}, "steps": steps}))
    run(recipe, tmp_path / "again", local=True, workers=1)
    assert manifest(tmp_path / "again")["kept"] == 36
    pairs = {(sample["jpg"], sample["txt"]) for sample in samples(tmp_path / "again").values()}
    assert pairs == {(sample["jpg"], sample["txt"]) for sample in samples(out).values()}
    addresses = {json.loads(sample["json"])["url"] for sample in samples(out).values()}
    assert {json.loads(sample["json"])["url"] for sample in samples(tmp_path / "again").values()} == addresses


def test_parquet_comes_back_in_as_the_source_hf_dataset(out, tmp_path):
    export(out, "parquet", tmp_path / "to")
    recipe = tmp_path / "again.yaml"
    steps = [{"resize": {"mode": "no", "skip_reencode": True}}]
    recipe.write_text(yaml.safe_dump({"source": {"type": "hf_dataset", "path": str(tmp_path / "to")}, "steps": steps}))
    run(recipe, tmp_path / "again", local=True, workers=1)
    again = samples(tmp_path / "again").values()
    found = {json.loads(sample["json"])["json"]: (sample["jpg"], sample["txt"]) for sample in again}
    assert found == {sample["json"].decode(): (sample["jpg"], sample["txt"]) for sample in samples(out).values()}


def test_what_exists_is_not_written_over(out, tmp_path):
    with pytest.raises(RecipeError, match="exists"):
        export(out, "parquet", tmp_path)
    assert list(Path(tmp_path).iterdir()) == []
