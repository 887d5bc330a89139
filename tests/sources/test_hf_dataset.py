import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sources.pictures import picture
from tests.sources.reading import pairs_of, read_all
from vlmdata.sources.hf_dataset import HfDataset
from vlmdata.step import RecipeError

pytestmark = pytest.mark.usefixtures("own_cache")

datasets = pytest.importorskip("datasets")
CAPTIONS = ["one", "two", "three"]


def made():
    """Return a dataset of three rows, the last one without an image."""
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


def test_an_image_folder_with_metadata_is_read(tmp_path):
    folder = tmp_path / "data"
    folder.mkdir()
    (folder / "1.png").write_bytes(picture())
    (folder / "metadata.jsonl").write_text('{"file_name": "1.png", "caption": "one"}')
    (row,) = read_all(HfDataset(path=str(folder))).to_pylist()
    image = row["images"][0]
    assert (row["texts"][1]["text"], image["width"], image["blob"]) == ("one", 8, str(folder / "1.png"))


def test_a_dataset_of_addresses_is_read_like_a_list_of_addresses(tmp_path):
    rows = {"link": ["http://a.org/1.jpg", None], "text": [["one", "two"], ["x"]]}
    datasets.Dataset.from_dict(rows).to_parquet(tmp_path / "a.parquet")
    source = HfDataset(path=str(tmp_path / "a.parquet"), url="link", caption="text")
    read = read_all(source)
    assert source.shuffled and not HfDataset(path="x").shuffled
    assert pairs_of(read) == [("http://a.org/1.jpg", "one", None), (None, "x", "no_address")]
    assert read["texts"].to_pylist()[0][1]["alternatives"] == ["two"]


def test_json_columns_may_hold_images_and_captions(tmp_path):
    images = pa.array(['"a.png"', '{"path": "a.png"}', "null", '"http://a.org/1.png"'], pa.json_())
    texts = pa.array(['{"en": "one"}', '{"en": ["two", "zwei"]}', '{"en": null}', '"four"'], pa.json_())
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "a.png").write_bytes(picture())
    pq.write_table(pa.table({"image": images, "caption": texts}), tmp_path / "data" / "a.parquet")
    source = HfDataset(path=str(tmp_path / "data" / "*.parquet"), caption="caption.en")
    rows = read_all(source).to_pylist()
    assert [row["reason"] or row["texts"][1]["text"] for row in rows] == ["one", "two", "no_image", "bad_encoding"]
    assert [row["images"][0]["width"] for row in rows] == [8, 8, None, None]
    assert [row["reason"] for row in read_all(HfDataset(path=source.path)).to_pylist()] == [*["no_text"] * 3, None]


def test_more_rows_than_a_slice_are_read_in_several_pieces(tmp_path, monkeypatch):
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
def test_mistakes_are_reported_before_any_work(tmp_path, parameters, message):
    datasets.DatasetDict({"train": made()}).save_to_disk(tmp_path / "data")
    with pytest.raises(RecipeError) as error:
        HfDataset(**{"path": str(tmp_path / "data"), **parameters}).check()
    assert message in str(error.value)


def test_the_names_of_labels_are_captions(tmp_path):
    labels = datasets.ClassLabel(names=["cat", "dog"])
    rows = {"image": [picture()] * 4, "label": [1, 0, -1, None]}
    features = datasets.Features({"image": datasets.Value("binary"), "label": labels})
    datasets.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "data")
    found = pairs_of(read_all(HfDataset(path=str(tmp_path / "data"), caption="label")))
    assert [text for _, text, _ in found] == ["dog", "cat", "", ""]


@pytest.mark.parametrize("caption", [{"en": "a", "fr": "b"}, [{"en": "a"}]])
def test_captions_that_are_not_strings_are_reported_before_any_work(tmp_path, caption):
    datasets.Dataset.from_dict({"image": [picture()], "caption": [caption]}).save_to_disk(tmp_path / "data")
    with pytest.raises(RecipeError, match=r"the column 'caption' must hold texts or labels, not .*"):
        HfDataset(path=str(tmp_path / "data")).check()


def written(tmp_path, **columns: object) -> str:
    """Write columns as Parquet and return its path."""
    pq.write_table(pa.table({"caption": ["words"] * len(next(iter(columns.values()))), **columns}), tmp_path / "d.parquet")
    return str(tmp_path / "d.parquet")


def widths(row: dict) -> list[int | None]:
    return [image and image["width"] for image in row["images"]]


@pytest.mark.parametrize("kind", ["bytes", "structs", "files", "image features"])
@pytest.mark.parametrize("streaming", [False, True])
def test_a_list_of_one_image_becomes_a_pair_and_one_of_several_a_document(tmp_path, kind, streaming):
    for width in (1, 2, 3):
        (tmp_path / f"{width}.png").write_bytes(picture(width))
    lists = [[1], [2, 3], [], None]
    make = {
        "bytes": picture,
        "structs": lambda width: {"bytes": picture(width)},
        "files": lambda width: f"{width}.png",
        "image features": lambda width: {"bytes": picture(width), "path": None},
    }[kind]
    column = [None if widths is None else [make(width) for width in widths] for widths in lists]
    if kind == "image features":
        features = datasets.Features({"images": datasets.List(datasets.Image()), "caption": datasets.Value("string")})
        made = datasets.Dataset.from_dict({"images": column, "caption": ["words"] * 4}, features=features)
        made.to_parquet(tmp_path / "d.parquet")
    else:
        written(tmp_path, images=pa.array(column))
    rows = read_all(HfDataset(path=str(tmp_path / "d.parquet"), image="images", streaming=streaming)).to_pylist()
    assert [widths(row) for row in rows] == [[1, None], [2, 3, None], [None, None], [None, None]]
    assert [row["reason"] for row in rows] == [None, None, "no_image", "no_image"]
    assert [row["texts"][-1]["text"] for row in rows] == ["words"] * 4


def test_fields_of_structs_are_named_with_dots(tmp_path):
    boxes = [{"name": "x"}, {"name": "y"}]
    path = written(tmp_path, annotations=[{"url": "https://a.org/1.png", "caption": {"en": "one"}, "boxes": boxes}])
    source = HfDataset(path=path, url="annotations.url", caption=["annotations.caption.en", "annotations.boxes.name"], extra=[])
    (row,) = read_all(source).to_pylist()
    assert (row["images"][0]["url"], row["texts"][1]) == (
        "https://a.org/1.png",
        {**row["texts"][1], "text": "one", "alternatives": ["x", "y"]},
    )
    with pytest.raises(RecipeError, match=r"no column 'annotations.ulr'"):
        HfDataset(path=path, url="annotations.ulr").check()


def test_an_image_inside_a_struct_is_read(tmp_path):
    path = written(tmp_path, item=[{"image": {"bytes": picture(), "path": None}, "n": 1}])
    (row,) = read_all(HfDataset(path=path, image="item.image")).to_pylist()
    assert (widths(row), row["reason"], row["extra"]) == ([8, None], None, None)


@pytest.mark.parametrize(
    ("columns", "parameters"),
    [
        ({"image": [picture()], "url": ["https://a.org/1.png"]}, {}),
        ({"image": [picture()], "link": ["https://a.org/1.png"]}, {"url": "link"}),
        ({"image": [{"bytes": picture(), "path": "https://a.org/1.png"}]}, {}),
        ({"image": [{"bytes": picture(), "url": "https://a.org/1.png"}]}, {}),
    ],
)
def test_an_inline_image_keeps_the_address_beside_it(tmp_path, columns, parameters):
    source = HfDataset(path=written(tmp_path, **columns), **parameters)
    (row,) = read_all(source).to_pylist()
    image = row["images"][0]
    assert (image["data"], image["url"], row["extra"], source.shuffled) == (picture(), "https://a.org/1.png", None, False)


def test_numbers_and_bytes_are_read_as_captions_and_other_types_are_reported(tmp_path):
    path = written(tmp_path, image=[picture()] * 2, n=[7, None], raw=["süß".encode(), b"caf\xe9"])
    rows = read_all(HfDataset(path=path, caption=["n", "raw"])).to_pylist()
    assert [(row["texts"][1]["text"], row["texts"][1]["alternatives"], row["reason"]) for row in rows] == [
        ("7", ["süß"], None),
        ("", None, "bad_encoding"),
    ]


@pytest.mark.parametrize("column", [[1], [[[1, 2]]], [{"pixels": 1}], [True]])
def test_a_column_that_cannot_hold_images_is_reported_before_any_work(tmp_path, column):
    with pytest.raises(RecipeError, match=r"the column 'image' must hold images, file names or addresses, not .*"):
        HfDataset(path=written(tmp_path, image=column)).check()


def test_a_dotted_name_reads_json_in_a_string_and_an_address_may_be_bytes(tmp_path):
    columns = {
        "image": [{"bytes": picture(8), "path": None}],
        "meta": ['{"c": "words"}'],
        "url": [b"https://example.org/1.png"],
    }
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    rows = read_all(HfDataset(path=str(tmp_path / "a.parquet"), caption="meta.c"))
    assert pairs_of(rows) == [("https://example.org/1.png", "words", None)]


@pytest.mark.parametrize("streaming", [False, True])
def test_captions_of_csv_are_read_unchanged(tmp_path, streaming):
    captions = ["NA", "null", "nan", "None", "007", "1.50", "true", "1e5", ""]
    (tmp_path / "a.csv").write_text("address,caption,n\n" + "".join(f"http://a.org/{one},{one},5\n" for one in captions))
    rows = read_all(HfDataset(path=str(tmp_path), url="address", caption="caption", streaming=streaming))
    assert pairs_of(rows) == [(f"http://a.org/{one}", one, None) for one in captions]
    assert rows["extra"][0].as_py() == '{"n": 5}'


def test_csv_whose_lines_have_more_fields_than_its_header_is_refused(tmp_path):
    (tmp_path / "a.csv").write_text("url,caption\nhttp://a.org/1,a,b\nhttp://a.org/2,c,d\n")
    with pytest.raises(RecipeError, match="more fields than the header"):
        HfDataset(path=str(tmp_path), url="url").check()


@pytest.mark.parametrize(
    ("second", "words"),
    [
        ({"url": ["http://a.org/2"], "caption": [[0.5]]}, "Couldn't cast array of type list"),
        ({"link": ["http://a.org/2"], "caption": ["b"]}, "column names don't match"),
    ],
)
def test_a_file_of_a_stream_that_does_not_fit_the_first_is_named_before_work(tmp_path, second, words):
    for name, columns in (("a", {"url": ["http://a.org/1"], "caption": ["a"]}), ("b", second)):
        pq.write_table(pa.table(columns), tmp_path / f"{name}.parquet")
    with pytest.raises(RecipeError, match=rf"b\.parquet does not fit the first file: .*{words}.* Correct this file"):
        HfDataset(path=str(tmp_path), url="url", streaming=True).check()


def test_a_file_of_a_stream_may_have_types_that_the_library_converts(tmp_path):
    for name, kind in (("a", pa.string()), ("b", pa.large_string()), ("c", pa.null())):
        column = pa.nulls(1, kind) if kind == pa.null() else pa.array(["a"], kind)
        pq.write_table(pa.table({"url": ["http://a.org/1"], "caption": column}), tmp_path / f"{name}.parquet")
    assert len(read_all(HfDataset(path=str(tmp_path), url="url", streaming=True))) == 3


def test_a_table_of_an_image_folder_has_its_types_checked(tmp_path):
    (tmp_path / "a.png").write_bytes(picture(8))
    pq.write_table(pa.table({"file_name": ["a.png"], "caption": [{"en": "x"}]}), tmp_path / "metadata.parquet")
    with pytest.raises(RecipeError, match=r"metadata\.parquet: the column 'caption' cannot be read: the values are struct<"):
        HfDataset(path=str(tmp_path)).check()
