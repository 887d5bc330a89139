"""OBELICS's Parquet files are read as rows. The test writes them with the library that wrote OBELICS."""

import json

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.images.pictures import photo, saved
from tests.sources.reading import read_all
from vlmdata.sources.obelics_parquet import ObelicsParquet
from vlmdata.step import RecipeError

A, B = "http://e.org/a.jpg", "http://e.org/b.jpg"
META = {"document_url": "http://e.org/", "src": A, "alt_text": "An alt", "rendered_width": 300, "original_width": 900}


def parts(row: dict) -> list:
    pairs = zip(row["texts"], row["images"], strict=True)
    return [text["text"] if text else (image["url"] or image["data"]) for text, image in pairs]


def test_documents_are_read_paragraph_by_paragraph(tmp_path):
    about = {"url": "http://e.org/page", "warc_filename": "x.warc.gz", "warc_record_offset": 5}
    records = {
        "images": [[A, None, B], [None, ""], [None]],
        "texts": [[None, "one\n\ntwo", None], ["only", None], [None]],
        "metadata": [json.dumps([META, None, None]), json.dumps([None, None]), "[broken"],
        "general_metadata": [json.dumps(about), None, "{}"],
    }
    datasets.Dataset.from_dict(records).to_parquet(str(tmp_path / "x.parquet"), batch_size=1)
    first, second, third = read_all(ObelicsParquet(path=str(tmp_path))).to_pylist()
    assert parts(first) == [A, "one", "two", B] and first["url"] == "http://e.org/page"
    image = first["images"][0]
    assert (image["alt"], image["rendered_width"], image["original_width"]) == ("An alt", 300, 900)
    assert json.loads(first["extra"])["warc_filename"] == "x.warc.gz"
    assert parts(second) == ["only"]
    assert (third["drop"], third["reason"]) == ("source", "empty_document")


def test_inline_images_are_read_with_their_bytes(tmp_path):
    body = saved(photo(40, 30), "PNG")
    images = [[{"bytes": body, "path": None}, None]]
    table = pa.table({"images": images, "texts": [[None, "t"]], "metadata": [json.dumps([META, None])]})
    pq.write_table(table, tmp_path / "x.parquet")
    (row,) = read_all(ObelicsParquet(path=str(tmp_path / "x.parquet"))).to_pylist()
    assert (row["images"][0]["data"], row["images"][0]["width"], row["images"][0]["url"]) == (body, 40, A)
    assert row["url"] == "http://e.org/"


def test_other_columns_are_refused(tmp_path):
    pq.write_table(pa.table({"image": [1], "texts": [["a"]]}), tmp_path / "x.parquet")
    with pytest.raises(RecipeError, match=r"no column 'images'\. The columns are image, texts"):
        ObelicsParquet(path=str(tmp_path)).check()


@pytest.mark.parametrize("meta", [5, {"src": 5}, {"original_width": 10**12, "rendered_width": True, "rendered_height": -1}])
def test_metadata_in_a_wrong_form_is_left_out(tmp_path, meta):
    data = saved(photo(20, 10), "png")
    columns = {"images": [[{"bytes": data}]], "texts": [[None]], "metadata": [json.dumps([meta])]}
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    (row,) = read_all(ObelicsParquet(path=str(tmp_path))).to_pylist()
    image = row["images"][0]
    assert (image["url"], image["rendered_width"], image["original_width"], row["reason"]) == (None, None, 20, None)


def test_a_file_that_is_not_parquet_is_reported_before_any_work(tmp_path):
    (tmp_path / "a.parquet").write_bytes(b"PAR1 and no more PAR1")
    with pytest.raises(RecipeError, match=r"a\.parquet cannot be read as Parquet"):
        ObelicsParquet(path=str(tmp_path)).check()


def test_lists_may_be_json_and_an_invalid_list_loses_only_its_row(tmp_path):
    table = pa.table({"images": [json.dumps([A, None]), "none", None, "[]"], "texts": ['[null, "one"]', "[]", None, "[]"]})
    pq.write_table(table, tmp_path / "x.parquet", row_group_size=1)
    rows = read_all(ObelicsParquet(path=str(tmp_path))).to_pylist()
    assert parts(rows[0]) == [A, "one"]
    assert [(row["reason"], row["place"], row["problem"]) for row in rows[1:]] == [
        ("bad_record", "x.parquet", "the column `images` of row 2 does not hold a list"),
        ("empty_document", None, None),
        ("empty_document", None, None),
    ]
