import json

import pytest

from tests.sources.pictures import picture
from tests.sources.reading import pairs_of, read_all
from vlmdata.sources.hf_dataset import HfDataset
from vlmdata.step import RecipeError

datasets = pytest.importorskip("datasets")
CAPTIONS = ["one", "two", "three"]


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """Keep the library's converted copies in the test's folder, and keep it from asking the Hub."""
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr("datasets.config.HF_HUB_OFFLINE", True)


def made():
    """Return three rows, the last one without its image."""
    images = [{"bytes": picture(8), "path": "a.png"}, {"bytes": picture(9), "path": None}, None]
    features = datasets.Features({"image": datasets.Image(), "caption": datasets.Value("string"), "n": datasets.Value("int64")})
    return datasets.Dataset.from_dict({"image": images, "caption": CAPTIONS, "n": [1, 2, 3]}, features=features)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("form", ["saved", "saved_splits", "parquet", "parquet_folder"])
def test_every_local_form_gives_the_same_rows(tmp_path, form, streaming):
    path = tmp_path / "data"
    if form == "saved":
        made().save_to_disk(path)
    elif form == "saved_splits":
        datasets.DatasetDict({"train": made()}).save_to_disk(path)
    else:
        path.mkdir()
        made().to_parquet(path / "train.parquet")
        path = path / "train.parquet" if form == "parquet" else path
    rows = read_all(HfDataset(path=str(path), streaming=streaming)).to_pylist()
    assert [(row["texts"][1]["text"], row["reason"]) for row in rows] == list(
        zip(CAPTIONS, [None, None, "no_image"], strict=True)
    )
    assert [row["images"][0]["data"] for row in rows] == [picture(8), picture(9), None]
    assert [row["images"][0]["width"] for row in rows] == [8, 9, None]
    assert [json.loads(row["extra"]) for row in rows] == [{"n": 1}, {"n": 2}, {"n": 3}]


def test_an_image_folder_with_metadata(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "1.png").write_bytes(picture())
    (folder / "metadata.jsonl").write_text('{"file_name": "1.png", "caption": "one"}')
    (row,) = read_all(HfDataset(path=str(folder))).to_pylist()
    image = row["images"][0]
    assert (row["texts"][1]["text"], image["width"], image["blob"]) == ("one", 8, str(folder / "1.png"))


def test_addresses_are_a_list_like_any_other(tmp_path):
    rows = {"link": ["http://a.org/1.jpg", None], "text": [["one", "two"], ["x"]]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "a.parquet")
    source = HfDataset(path=str(tmp_path / "a.parquet"), url="link", caption="text")
    read = read_all(source)
    assert source.shuffled and not HfDataset(path="x").shuffled
    assert pairs_of(read) == [("http://a.org/1.jpg", "one", None), (None, "x", "no_address")]
    assert read["texts"].to_pylist()[0][1]["alternatives"] == ["two"]


def test_more_rows_than_a_slice(tmp_path, monkeypatch):
    monkeypatch.setattr("vlmdata.sources.hf_dataset.SLICE", 2)
    made().save_to_disk(tmp_path / "data")
    source = HfDataset(path=str(tmp_path / "data"))
    assert source.pieces() == [{"start": 0, "stop": 2}, {"start": 2, "stop": 3}]
    assert len(read_all(source)) == 3


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"caption": "captoin"}, "no column 'captoin'. Did you mean 'caption'?"),
        ({"split": "test"}, "cannot be opened as a dataset"),
        ({"path": "nobody/has-this"}, "cannot be opened as a dataset"),
    ],
)
def test_mistakes_are_told_before_any_work(tmp_path, parameters, message):
    datasets.DatasetDict({"train": made()}).save_to_disk(tmp_path / "data")
    with pytest.raises(RecipeError) as error:
        HfDataset(**{"path": str(tmp_path / "data"), **parameters}).check()
    assert message in str(error.value)


def test_labels_are_captions_by_their_names(tmp_path):
    labels = datasets.ClassLabel(names=["cat", "dog"])
    rows = {"image": [picture()] * 4, "label": [1, 0, -1, None]}
    features = datasets.Features({"image": datasets.Value("binary"), "label": labels})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "data")
    found = pairs_of(read_all(HfDataset(path=str(tmp_path / "data"), caption="label")))
    assert [text for _, text, _ in found] == ["dog", "cat", "", ""]


@pytest.mark.parametrize("caption", [{"en": "a", "fr": "b"}, [{"en": "a"}]])
def test_captions_that_are_no_texts_are_told_before_any_work(tmp_path, caption):
    datasets.Dataset.from_dict({"image": [picture()], "caption": [caption]}).save_to_disk(tmp_path / "data")
    with pytest.raises(RecipeError, match="the column 'caption' holds no texts or labels"):
        HfDataset(path=str(tmp_path / "data")).check()
