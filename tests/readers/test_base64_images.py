"""Images in a table, as base64 or bytes, become rows."""

import base64
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata import run
from vlmdata.readers.base64_images import image_in
from vlmdata.recipe import parse
from vlmdata.sources.url_list import UrlList

BODY = picture(40, 30)
PLAIN = base64.b64encode(BODY).decode()


def test_both_alphabets_padded_or_not_and_bytes_are_read():
    safe = base64.urlsafe_b64encode(BODY).decode()
    forms = [
        PLAIN,
        PLAIN.encode(),
        safe,
        safe.rstrip("="),
        f" {PLAIN[:50]}\n{PLAIN[50:]} ",
        f"data:image/png;base64,{PLAIN}",
        BODY,
    ]
    assert [image_in(form).get("data") for form in forms] == [BODY] * len(forms)


@pytest.mark.parametrize(
    ("cell", "reason"),
    [
        (None, "no_image"),
        ("", "no_image"),
        (b" ", "no_image"),
        (5, "no_image"),
        ("ab\u00e9=", "bad_base64"),
        ("A", "bad_base64"),
        ("abcd", "not_an_image"),
        (b"\xff\xd8", "not_an_image"),
    ],
)
def test_a_cell_that_is_not_an_image_has_a_reason(cell, reason):
    assert image_in(cell)["reason"] == reason


def test_the_tsv_of_ofa_is_read(tmp_path):
    lines = [f"{number}\t7{number}\ta picture\tcat&&dog\t{cell}" for number, cell in enumerate([PLAIN, "A", ""])]
    (tmp_path / "caption_stage1.tsv").write_text("\n".join(lines))
    names = ["uniq_id", "image_id", "caption", "objects", "image"]
    rows = read_all(UrlList(path=str(tmp_path), columns=names, image="image")).to_pylist()
    assert [row["reason"] for row in rows] == [None, "bad_base64", "no_image"]
    assert (rows[0]["images"][0]["data"], rows[0]["texts"][1]["text"]) == (BODY, "a picture")
    assert json.loads(rows[0]["extra"]) == {"uniq_id": "0", "image_id": "70", "objects": "cat&&dog"}


@pytest.mark.parametrize("cell", [PLAIN, BODY])
def test_the_origin_of_an_image_is_kept(tmp_path, cell):
    pq.write_table(pa.table({"image": [cell], "url": ["http://a.org/"], "n": [1]}), tmp_path / "a.parquet")
    (row,) = read_all(UrlList(path=str(tmp_path), image="image", caption="")).to_pylist()
    assert (row["images"][0]["url"], row["images"][0]["data"], json.loads(row["extra"])) == ("http://a.org/", BODY, {"n": 1})


@pytest.mark.whole
def test_a_dataset_is_built_from_base64_images(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps({"pic": PLAIN, "caption": "a picture"}))
    source = {"type": "url_list", "path": str(tmp_path / "a.jsonl"), "image": "pic"}
    recipe = parse({"source": source, "steps": [{"resize": {"mode": "no"}}]})
    assert run(recipe, tmp_path / "out", local=True, workers=1)["kept"] == 1


def test_a_cell_may_be_an_image_struct_of_datasets_or_a_list_of_one_image():
    data = picture(8)
    assert [image_in(cell)["data"] for cell in ({"bytes": data, "path": None}, [data], [base64.b64encode(data).decode()])] == [
        data
    ] * 3


def test_a_cell_of_several_images_becomes_a_document(tmp_path):
    cells = [[picture(8), picture(9)], [picture(8)], []]
    pq.write_table(pa.table({"image": cells, "caption": ["a", "b", "c"]}), tmp_path / "a.parquet")
    rows = read_all(UrlList(path=str(tmp_path), image="image")).to_pylist()
    widths = [[image and image.get("width") for image in row["images"]] for row in rows]
    assert widths == [[8, 9, None], [8, None], [None, None]]
    assert [row["reason"] for row in rows] == [None, None, "no_image"]
