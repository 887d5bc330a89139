import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.fixtures import fixture
from tests.real_data import real_data
from tests.sources.pictures import picture
from tests.sources.reading import pairs_of, read_all
from vlmdata.engine.store.blob_bytes import read_blob
from vlmdata.sources.files import Files
from vlmdata.step import RecipeError


def test_texts_beside_the_images_are_read(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "1.png").write_bytes(picture())
    (tmp_path / "a" / "1.txt").write_text("one\n")
    (tmp_path / "2.PNG").write_bytes(picture(9))
    (tmp_path / "2.json").write_text(json.dumps({"caption": ["two", "zwei"], "licence": "cc"}))
    (tmp_path / "3.jpg").write_bytes(b"")
    (tmp_path / "4.png").write_bytes(picture())
    (tmp_path / "4.json").write_text("{")
    rows = {json.loads(row["extra"] or "{}").get("file_name"): row for row in read_all(Files(path=str(tmp_path))).to_pylist()}
    assert {name: row["reason"] for name, row in rows.items()} == {
        "2.PNG": None,
        "3.jpg": "empty",
        None: "bad_record",
        "a/1.png": None,
    }
    assert [rows[name]["texts"][1]["text"] for name in ("a/1.png", "2.PNG", "3.jpg")] == ["one", "two", ""]
    assert rows["2.PNG"]["texts"][1]["alternatives"] == ["zwei"]
    assert json.loads(rows["2.PNG"]["extra"])["licence"] == "cc"
    image = rows["a/1.png"]["images"][0]
    assert read_blob(None, image["blob"], image["offset"], image["size"]) == picture()


def test_a_large_folder_is_read_in_slices(tmp_path, monkeypatch):
    monkeypatch.setattr("vlmdata.sources.files.SLICE", 2)
    for number in range(5):
        (tmp_path / f"{number}.png").write_bytes(picture(number + 1))
    rows = read_all(Files(path=str(tmp_path)))
    assert [row["images"][0]["width"] for row in rows.to_pylist()] == [1, 2, 3, 4, 5]


def test_a_table_names_the_files(tmp_path):
    (tmp_path / "1.png").write_bytes(picture())
    (tmp_path / "metadata.csv").write_text("file_name,text,n\n1.png,a caption,7\nlost.png,x,8\n")
    source = Files(path=str(tmp_path), table="metadata.csv", caption="text")
    rows = read_all(source)
    assert source.shuffled and rows["reason"].to_pylist() == [None, "no_file"]
    assert pairs_of(rows)[0] == (None, "a caption", None)
    assert json.loads(rows["extra"][0].as_py()) == {"n": "7", "file_name": "1.png"}
    with pytest.raises(RecipeError, match="no column 'caption'"):
        Files(path=str(tmp_path), table="metadata.csv").check()


@pytest.mark.parametrize(("find", "count"), [(fixture, 8), (real_data, 244)])
def test_real_figures_of_openstax_are_read(find, count):
    folder = find("A_captioned/openstax/sociology-3e")
    path = folder / "captions.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    name = next(
        key for key, value in records[0].items() if isinstance(value, str) and value.lower().endswith((".jpg", ".png", ".jpeg"))
    )
    rows = read_all(Files(path=str(folder), table="captions.jsonl", file=name, caption=["caption", "alt"]))
    assert (len(rows), rows["drop"].null_count) == (count, count)
    assert all(row["texts"][1]["text"] and row["images"][0]["width"] for row in rows.to_pylist())


@pytest.mark.parametrize("find", [fixture, real_data])
def test_every_hostile_file_gives_a_row_or_a_reason(find):
    folder = find("E_dedup_hostile")
    rows = read_all(Files(path=str(folder)))
    assert len(rows) == sum(
        path.suffix.lower() in (".jpg", ".png", ".jpeg", ".gif", ".webp", ".bmp", ".tif", ".tiff", ".avif")
        for path in folder.rglob("*")
    )
    assert set(rows["drop"].to_pylist()) <= {None, "source"}
    assert pa.compute.all(pa.compute.equal(rows["drop"].is_null(), rows["reason"].is_null())).as_py()


def test_a_missing_table_is_reported_with_its_parameter(tmp_path):
    with pytest.raises(RecipeError, match=r"there is no such file or folder\. Set source\.table to"):
        Files(path=str(tmp_path), table="/elsewhere/list.csv").check()


def test_a_name_in_a_table_that_is_not_a_string_loses_only_its_row(tmp_path):
    (tmp_path / "1.png").write_bytes(picture())
    names = {"1.png": None, 1: "no_file", None: "no_image", "": "no_image", ".": "no_file", 1.5: "no_image", "a\0": "no_file"}
    rows = [{"file_name": name, "caption": "x"} for name in names]
    others: list = [["1.png", "1.png"], [], {"a": 1}, "\ud83d"]
    rows += [{"file_name": name, "caption": "x"} for name in others]
    (tmp_path / "m.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = read_all(Files(path=str(tmp_path), table="m.jsonl"))
    assert found["reason"].to_pylist() == [*names.values(), None, "no_image", "no_image", "bad_encoding"]
    assert [len(images) for images in found["images"].to_pylist()][7:] == [3, 2, 2, 2]


@pytest.mark.parametrize("form", ["csv", "parquet", "utf-16"])
def test_a_table_in_any_encoding_is_read(tmp_path, form):
    (tmp_path / "é.png").write_bytes(picture())
    lines = "file_name,caption\né.png,café\n"
    if form == "parquet":
        columns = {"file_name": pa.array(["é.png".encode(), b"\xe9.png"]), "caption": ["café", "x"]}
        pq.write_table(pa.table(columns), tmp_path / "m.parquet")
    else:
        (tmp_path / "m.csv").write_bytes(lines.encode("latin-1" if form == "csv" else form))
    source = Files(
        path=str(tmp_path),
        table="m.parquet" if form == "parquet" else "m.csv",
        encoding="latin-1" if form == "csv" else "utf-8",
    )
    expected = [(None, "café", None), (None, "x", "bad_encoding")]
    assert pairs_of(read_all(source)) == expected[: 2 if form == "parquet" else 1]


def test_a_name_in_a_csv_that_is_not_utf8_loses_only_its_row(tmp_path):
    (tmp_path / "a.png").write_bytes(picture())
    (tmp_path / "metadata.csv").write_bytes(b"file_name,caption\na.png,plain words here\nc\xe9.png,a latin-1 name\n")
    rows = read_all(Files(path=str(tmp_path), table="metadata.csv"))
    assert pairs_of(rows) == [(None, "plain words here", None), (None, "a latin-1 name", "bad_encoding")]
