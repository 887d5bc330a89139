"""The card declares every column and image, the Croissant file is valid and yields records, and licences are counted."""

import io
import json
import shutil
import tarfile
import warnings

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from etils import epath
from PIL import Image

from tests.engine.site import manifest, picture, site
from vlmdata import recipe as recipes
from vlmdata import run
from vlmdata.takedown import forget

pytestmark = pytest.mark.whole


@pytest.fixture(scope="session")
def out(tmp_path_factory):
    folder = tmp_path_factory.mktemp("card")
    with site(folder, 48, samples=20) as web:
        table = pq.read_table(folder / "urls.parquet")
        licences = pa.array([f"CC {number % 2}" for number in range(48)])
        pq.write_table(table.append_column("license", licences), folder / "urls.parquet")
        run(web.recipe, folder / "out", local=True, workers=1)
    return folder / "out"


def test_licences_are_counted_and_a_takedown_counts_them_again(out):
    assert manifest(out)["provenance"] == {"license": {"CC 0": 18, "CC 1": 18}}
    assert "| license | CC 0 | 18 |" in (out / "README.md").read_text()


def test_datasets_loads_the_folder_through_its_card(out, tmp_path):
    loaded = datasets.load_dataset(str(out), split="train", cache_dir=str(tmp_path))
    assert len(loaded) == 36 and isinstance(loaded[0]["jpg"], Image.Image)
    assert {type(value["url"]) for value in loaded["json"]} == {str} and loaded[0]["json"]["license"].startswith("CC")


def test_a_later_document_with_more_images_keeps_them_all(tmp_path):
    """The first hundred documents have one image. The last has four images and an extra field."""
    from vlmdata.card import features, member_names
    from vlmdata.engine.output.pack import pack
    from vlmdata.engine.output.sample import TarSample
    from vlmdata.engine.store.folder_store import LocalStore

    store = LocalStore(tmp_path / "out")
    chosen = []
    for number in range(101):
        images = [(f"{i}.jpg", picture(4 * number + i)) for i in range(4 if number == 100 else 1)]
        facts = json.dumps({"key": str(number), **({"late": [1]} if number == 100 else {})}).encode()
        chosen.append(TarSample(f"{number:03d}", [*images, ("json", facts)], 0, [(8, 8)] * len(images), {}))
    record = pack(store, 0, chosen)
    store.publish(record["tar"], "00000.tar")
    store.publish(record["index"], "index.parquet")
    head = {
        "configs": [{"config_name": "default", "data_files": "*.tar"}],
        "dataset_info": {"features": features(member_names(store))},
    }
    store.put("README.md", f"---\n{json.dumps(head)}\n---\n".encode())
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    last = loaded[100]
    assert [last[f"{i}.jpg"] is not None for i in range(4)] == [True] * 4 and last["json"]["late"] == [1]
    assert loaded[0]["3.jpg"] is None


def test_the_croissant_file_is_valid_and_yields_records(out):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlcroissant

        dataset = mlcroissant.Dataset(jsonld=str(out / "croissant.json"))
        assert not dataset.metadata.ctx.issues.errors
        texts = [record["texts-records/content"].decode() for record in dataset.records("texts-records")]
        pictures = [record["images-jpg-records/content"] for record in dataset.records("images-jpg-records")]
        index = list(dataset.records("index"))
    assert len(texts) == len(pictures) == len(index) == 36
    assert all(text.startswith("a picture of the number") for text in texts)
    assert {image.size for image in pictures} == {(48, 48)}


def pictures_by_croissant(out) -> dict[str, bytes]:
    """Return the pixels of every image that mlcroissant yields, by file name."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import mlcroissant

        dataset = mlcroissant.Dataset(jsonld=str(out / "croissant.json"))
        assert not dataset.metadata.ctx.issues.errors
        records = list(dataset.records("images-jpg-records"))
    return {one["images-jpg-records/file"].decode(): one["images-jpg-records/content"].tobytes() for one in records}


def pictures_in(out) -> dict[str, bytes]:
    """Return the pixels of every image in the tars, by file name."""
    found = {}
    for path in sorted(out.glob("*.tar")):
        with tarfile.open(path) as tar:
            found |= {one.name: tar.extractfile(one).read() for one in tar if one.name.endswith(".jpg")}
    return {name: Image.open(io.BytesIO(data)).convert("RGB").tobytes() for name, data in found.items()}


def test_two_datasets_in_one_cache_keep_their_images_separate(tmp_path, monkeypatch):
    """Both datasets have a 00000.tar and the same keys. The second is read again after a move to another folder."""
    monkeypatch.setattr("mlcroissant._src.operation_graph.operations.extract.EXTRACT_PATH", epath.Path(tmp_path / "cache"))
    for name, shift in (("a", 0), ("b", 50)):
        (tmp_path / name).mkdir()
        for number in range(3):
            (tmp_path / name / f"{number}.jpg").write_bytes(picture(number + shift))
            (tmp_path / name / f"{number}.txt").write_text(f"picture number {number}")
        recipe = recipes.parse({"source": {"type": "files", "path": str(tmp_path / name)}, "steps": ["text_length"]})
        run(recipe, tmp_path / f"out-{name}", local=True, workers=1)
    a, b = (pictures_by_croissant(tmp_path / f"out-{name}") for name in "ab")
    assert a == pictures_in(tmp_path / "out-a") and b == pictures_in(tmp_path / "out-b")
    assert not set(a.values()) & set(b.values()) and len(list((tmp_path / "cache").iterdir())) == 2
    (tmp_path / "out-b").rename(tmp_path / "moved")
    assert pictures_by_croissant(tmp_path / "moved") == b


def test_forget_updates_the_card_and_its_checksums(out, tmp_path):
    out = shutil.copytree(out, tmp_path / "out")
    line = pq.read_table(out / "index.parquet")["key"][0].as_py()
    forget(out, key=[line])
    sums = manifest(out)["provenance"]["license"]
    assert sorted(sums.values()) == [17, 18] and "35 samples of 48 rows" in (out / "README.md").read_text()
