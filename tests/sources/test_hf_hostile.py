"""An untrusted Hugging Face dataset may name only certain files, and any other is refused."""

import json
import os
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.newer_packages import since
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata.readers.nameable_files import Reach
from vlmdata.sources.hf_dataset import HfDataset
from vlmdata.step import RecipeError

pytestmark = pytest.mark.usefixtures("own_cache")

datasets = pytest.importorskip("datasets")
KEPT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])  # stored as the library stores an image


def write(path, column, features=None, **others) -> str:
    table = pa.table({"image": column, "caption": [f"caption {n}" for n in range(len(column))], **others})
    if features:
        table = table.replace_schema_metadata({b"huggingface": json.dumps({"info": {"features": features}}).encode()})
    path.parent.mkdir(exist_ok=True)
    pq.write_table(table, path)
    return str(path)


@pytest.mark.parametrize("streaming", [False, True])
@pytest.mark.parametrize("kind", ["image feature", "texts"])
def test_a_row_may_name_only_an_address_or_a_file_in_its_folder(tmp_path, streaming, kind):
    data = tmp_path / "data"
    data.mkdir()
    (tmp_path / "secret.png").write_bytes(picture())
    (data / "1.png").write_bytes(picture())
    os.symlink(tmp_path / "secret.png", data / "link.png")
    os.mkfifo(data / "pipe.png")
    with zipfile.ZipFile(data / "a.zip", "w") as archive:
        archive.writestr("1.png", picture())
    expected = {
        "1.png": None,
        f"{data}/1.png": None,
        "HTTP://example.org/a.png": None,
        "../secret.png": "outside_folder",
        f"{tmp_path}/secret.png": "outside_folder",
        "link.png": "outside_folder",
        f"file://{tmp_path}/secret.png": "outside_folder",
        "pipe.png": "no_file",
        "lost\0.png": "no_file",
        " ": "no_image",
        "simplecache::http://127.0.0.1:9/a.png": "not_a_path",
        "blockcache::http://127.0.0.1:9/a.png": "not_a_path",
        "webhdfs://127.0.0.1:9/a.png": "not_a_path",
        "ftp://127.0.0.1:9/a.png": "not_a_path",
        f"zip://1.png::{data}/a.zip": "not_a_path",
        "zip://1.png::http://127.0.0.1:9/a.zip": "not_a_path",
        "hf://datasets/some/one/a.png": "not_a_path",
        "nonsense://a": "not_a_path",
    }
    column = pa.array([{"bytes": None, "path": name} for name in expected], KEPT) if kind == "image feature" else list(expected)
    path = write(data / "d.parquet", column, {"image": {"_type": "Image"}} if kind == "image feature" else None)
    rows = read_all(HfDataset(path=path, streaming=streaming)).to_pylist()
    assert dict(zip(expected, (row["reason"] for row in rows), strict=True)) == expected
    assert rows[2]["images"][0]["url"] == "HTTP://example.org/a.png"


@pytest.mark.parametrize("streaming", [False, True])
def test_no_value_of_a_row_is_decoded_whatever_its_features_claim(tmp_path, streaming):
    """The library would open the files that rows of an Audio, Video or Pdf column name."""
    features = {name: {"_type": name} for name in ("Audio", "Video", "Pdf", "Image")}
    named = pa.array([{"bytes": None, "path": "http://127.0.0.1:9/a"}], KEPT)
    path = write(tmp_path / "d.parquet", [picture()], features, **dict.fromkeys(features, named))
    (row,) = read_all(HfDataset(path=path, streaming=streaming)).to_pylist()
    assert (row["reason"], row["images"][0]["width"], row["extra"]) == (None, 8, None)


@pytest.mark.parametrize("name", ["metadata.csv", "metadata.jsonl", "metadata.parquet"])
def test_one_bad_name_in_the_table_of_an_image_folder_loses_only_its_row(tmp_path, name):
    (tmp_path / "secret.png").write_bytes(picture())
    data = tmp_path / "data"
    data.mkdir()
    (data / "1.png").write_bytes(picture())
    names = {"1.png": None, "../secret.png": "outside_folder", "zip://a::b": "not_a_path", "lost.png": "no_file"}
    records = [{"file_name": one, "caption": "words", "url": f"https://a.org/{n}"} for n, one in enumerate(names)]
    if name.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(records), data / name)
    elif name.endswith("csv"):
        lines = ["file_name,caption,url", *(",".join(record.values()) for record in records), "c\udce9.png,words,"]
        (data / name).write_bytes("\n".join(lines).encode("utf-8", "surrogateescape"))
    else:
        (data / name).write_text("\n".join(map(json.dumps, records)))
    rows = read_all(HfDataset(path=str(data))).to_pylist()
    expected = [*names.values(), *(["bad_encoding"] if name.endswith("csv") else [])]
    assert [row["reason"] for row in rows] == expected
    assert rows[0]["images"][0]["url"] == "https://a.org/0"
    assert json.loads(rows[0]["extra"]) == {"file_name": "1.png"}


def test_a_table_with_several_files_per_row_is_read_in_slices(tmp_path, monkeypatch):
    monkeypatch.setattr("vlmdata.sources.hf_dataset.SLICE", 2)
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(picture(number + 1))
    records = [{"file_names": [f"{n}.png", f"{(n + 1) % 5}.png"], "caption": str(n)} for n in range(5)]
    (tmp_path / "metadata.jsonl").write_text("\n".join(map(json.dumps, records)))
    source = HfDataset(path=str(tmp_path), image="images")
    rows = read_all(source).to_pylist()
    assert [piece["start"] for piece in source.pieces()] == [0, 2, 4]
    assert [[image and image["width"] for image in row["images"]] for row in rows] == [
        [n + 1, (n + 1) % 5 + 1, None] for n in range(5)
    ]


@pytest.mark.parametrize("streaming", [False, True])
def test_a_zip_of_images_with_their_table_is_read(tmp_path, streaming):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("x/1.png", picture())
        archive.writestr("x/metadata.csv", "file_name,caption\n1.png,words\n")
    rows = read_all(HfDataset(path=str(tmp_path / "a.zip"), streaming=streaming)).to_pylist()
    assert [(row["reason"], row["texts"][1]["text"], row["images"][0]["data"]) for row in rows] == [(None, "words", picture())]


@pytest.mark.parametrize("streaming", [False, True])
def test_zip_archives_of_images_are_read(tmp_path, streaming):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in ("cat/1.png", "dog/2.png"):
            archive.writestr(name, picture(len(name)))
        archive.writestr("cat/broken.png", b"no image")
    rows = read_all(HfDataset(path=str(tmp_path / "a.zip"), caption="", streaming=streaming)).to_pylist()
    assert [row["reason"] for row in rows] == [None, "not_an_image", None]


def test_only_paths_of_the_same_dataset_on_the_hub_are_accepted(tmp_path):
    """Streamed paths are addresses in the repository. Downloaded paths are links into the blobs beside the snapshots."""
    repository = tmp_path / "datasets--a--b"
    for folder in ("blobs", "snapshots/1"):
        (repository / folder).mkdir(parents=True)
    (repository / "blobs/x").write_bytes(picture())
    os.symlink("../../blobs/x", repository / "snapshots/1/a.png")
    (tmp_path / "other.png").write_bytes(picture())
    reach = Reach("hf://datasets/a/b", (str(repository), "hf://datasets/a/b@"))
    expected = {
        f"{repository}/snapshots/1/a.png": None,
        f"{tmp_path}/other.png": "outside_folder",
        "hf://datasets/a/c@1/a.png": "not_a_path",
        "hf://datasets/a/b@1/../../c@1/a.png": "not_a_path",
        "simplecache::hf://datasets/a/b@1/a.png": "not_a_path",
        "zip://a.png::http://127.0.0.1:9/a.zip": "not_a_path",
        "zip://a.png::zip://b.zip::hf://datasets/a/b@1/a.zip": "not_a_path",
        "zip://http://127.0.0.1:9/::hf://datasets/a/b@1/a.zip": "not_a_path",
    }
    assert {name: reach.image({"bytes": None, "path": name}).get("reason") for name in expected} == expected


@pytest.mark.parametrize(
    "pattern", ["../secret/*.png", "/etc/*", "http://127.0.0.1:9/a.png", "zip://*::http://127.0.0.1:9/a.zip"]
)
def test_a_card_that_names_files_elsewhere_is_refused_before_anything_is_listed(tmp_path, pattern):
    (tmp_path / "data").mkdir()
    (tmp_path / "data/1.png").write_bytes(picture())
    card = f"---\nconfigs:\n- config_name: default\n  data_files:\n  - split: train\n    path: '{pattern}'\n---\n"
    (tmp_path / "data/README.md").write_text(card)
    with pytest.raises(RecipeError, match="names data outside the dataset"):
        HfDataset(path=str(tmp_path / "data")).check()


def test_a_card_on_the_hub_that_names_files_elsewhere_is_refused(tmp_path, monkeypatch):
    (tmp_path / "README.md").write_text("---\nconfigs:\n- data_files: http://127.0.0.1:9/a.parquet\n---\n")
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda path, name, **where: str(tmp_path / name))
    with pytest.raises(RecipeError, match=r"README\.md names data outside the dataset: 'http://127"):
        HfDataset(path="some/one").check()


def test_a_saved_dataset_whose_state_names_a_file_elsewhere_is_refused(tmp_path):
    rows = datasets.Dataset.from_dict({"image": [picture()], "caption": ["words"]})
    rows.save_to_disk(tmp_path / "private")
    rows.save_to_disk(tmp_path / "data")
    state = json.loads((tmp_path / "data/state.json").read_text())
    state["_data_files"] = [{"filename": "../private/data-00000-of-00001.arrow"}]
    (tmp_path / "data/state.json").write_text(json.dumps(state))
    with pytest.raises(RecipeError, match="the saved state of the dataset names"):
        HfDataset(path=str(tmp_path / "data")).check()


def test_bytes_that_do_not_decode_lose_only_their_row(tmp_path):
    texts = pa.array([b"fine", b"caf\xe9"], pa.binary()).view(pa.string())
    dates = pa.array([10**18, 0], pa.timestamp("us"))
    table = pa.table({"image": [picture()] * 2, "caption": texts, "when": dates})
    pq.write_table(table, tmp_path / "d.parquet")
    rows = read_all(HfDataset(path=str(tmp_path / "d.parquet")))
    assert rows["reason"].to_pylist() == [None, "bad_encoding"]


def test_a_file_without_rows_does_not_stop_the_reading_of_others(tmp_path):
    write(tmp_path / "data/1.parquet", [picture()])
    write(tmp_path / "data/2.parquet", pa.array([], pa.binary()))
    (tmp_path / "data/3.parquet").write_bytes(b"")
    assert read_all(HfDataset(path=str(tmp_path / "data")))["reason"].to_pylist() == [None]


@pytest.mark.parametrize(
    "kind",
    [
        pa.large_binary(),
        since(pa.binary(76), "datasets", 5, 1),
        since(pa.binary_view(), "pyarrow", 24, 0),
        pa.list_(pa.large_binary()),
    ],
    ids=str,
)
def test_images_are_read_from_every_arrow_type_of_bytes(tmp_path, kind):
    data = picture() + bytes(76 - len(picture()))
    column = pa.array([[data] if pa.types.is_list(kind) else data], kind)
    rows = read_all(HfDataset(path=write(tmp_path / "d.parquet", column)))
    assert rows["reason"].to_pylist() == [None]


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.parquet", b"{}", "cannot be opened as a dataset"),
        ("a.jsonl", b"PAR1\xff\xfe", "cannot be opened as a dataset"),
        ("a.zip", b"no zip", "cannot be opened as a dataset"),
        ("a.xlsx", b"PK", "files that end in '.xlsx' are not supported"),
    ],
)
def test_a_file_of_another_format_is_reported_in_one_line(tmp_path, name, data, message):
    (tmp_path / name).write_bytes(data)
    with pytest.raises(RecipeError, match=message):
        read_all(HfDataset(path=str(tmp_path / name)))
