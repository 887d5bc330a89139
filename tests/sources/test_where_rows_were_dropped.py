"""Every row that a source drops has a place, because a row without an address could not be found by its key."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.loader.tars import write_tar
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata import run
from vlmdata.recipe import parse
from vlmdata.sources.coco import Coco
from vlmdata.sources.files import Files
from vlmdata.sources.hf_dataset import HfDataset
from vlmdata.sources.llava_json import LlavaJson
from vlmdata.sources.messages import Messages
from vlmdata.sources.mmc4 import Mmc4
from vlmdata.sources.url_list import UrlList
from vlmdata.sources.webdataset import Webdataset

MISSING = ", and the folder of the images has no such file"
TALK = [{"from": "human", "value": "What?"}, {"from": "gpt", "value": "A cat."}]


def dropped(source):
    """Return the reason, place and problem of each row that a source drops."""
    rows = read_all(source).to_pylist()
    return [(row["reason"], row["place"], row["problem"]) for row in rows if row["drop"]]


def test_dropped_rows_of_a_folder_and_its_table_have_a_place(tmp_path):
    (tmp_path / "sub").mkdir()
    for name in ("a.png", "sub/b.png"):
        (tmp_path / name).write_bytes(picture())
    (tmp_path / "a.txt").write_text("a caption")
    assert dropped(Files(path=str(tmp_path))) == [("no_caption", "sub/b.png", None)]
    (tmp_path / "list.csv").write_text("file_name,caption\na.png,a\nlost.png,b\n../c.png,c\n")
    assert dropped(Files(path=str(tmp_path), table="list.csv")) == [
        ("no_file", "list.csv, row 2", f"the row names the image 'lost.png'{MISSING}"),
        ("outside_folder", "list.csv, row 3", "the row names the image '../c.png'"),
    ]


def test_dropped_rows_of_a_tar_have_a_place(tmp_path):
    write_tar(tmp_path / "a.tar", [("0.png", picture()), ("0.txt", b"a"), ("1.txt", b"no image")])
    ((reason, place, problem),) = dropped(Webdataset(path=str(tmp_path / "a.tar")))
    assert (reason, place.partition(", byte ")[0], problem) == ("no_image", "a.tar", "sample '1' cannot be used")


def test_a_missing_image_of_a_conversation_or_document_is_named(tmp_path):
    (tmp_path / "a.json").write_text(json.dumps([{"conversations": TALK, "image": "lost.png"}]))
    problem = f"the row names the image 'lost.png'{MISSING}"
    for source in (LlavaJson, Messages):
        assert dropped(source(path=str(tmp_path / "a.json"))) == [("no_file", "a.json, record 1", problem)]
    image = {"image_name": "lost.png", "matched_text_index": 0, "matched_sim": 1}
    (tmp_path / "a.jsonl").write_text(json.dumps({"url": "http://a.org", "text_list": ["a"], "image_info": [image]}))
    found = dropped(Mmc4(path=str(tmp_path / "a.jsonl"), images=str(tmp_path)))
    assert found == [("no_file", "a.jsonl, line 1", problem)]


@pytest.mark.parametrize("source", [LlavaJson, Messages])
def test_record_numbers_of_conversations_count_unreadable_records(tmp_path, source):
    lines = [json.dumps({"conversations": TALK}), "5", json.dumps({"conversations": TALK[:1]})]
    (tmp_path / "a.jsonl").write_text("\n".join(lines))
    found = dropped(source(path=str(tmp_path / "a.jsonl")))
    assert [one[:2] for one in found] == [("no_assistant_turn", "a.jsonl, record 3"), ("bad_record", "a.jsonl, line 2")]


def test_dropped_rows_of_a_list_have_a_place(tmp_path):
    (tmp_path / "a.csv").write_text("url,caption\nhttp://a.org/1,a\n,b\n")
    assert dropped(UrlList(path=str(tmp_path / "a.csv"))) == [("no_address", "a.csv, row 2", None)]
    pq.write_table(pa.table({"image": [picture(), None], "caption": ["a", "b"]}), tmp_path / "a.parquet")
    assert dropped(UrlList(path=str(tmp_path / "a.parquet"), image="image")) == [("no_image", "a.parquet, row 2", None)]


@pytest.mark.parametrize("columns", [None, ("url", "caption")])
def test_row_numbers_of_a_csv_count_unreadable_records(tmp_path, columns):
    """The file has many blocks, and Arrow reports the odd rows of a block before it returns the block."""
    kinds = ["good", "good", "odd", "empty", "good", "odd"] * 500
    line = {"good": f"http://a.org/1,{'x' * 900}", "odd": "http://a.org/1,b,c", "empty": ",b"}
    header = "" if columns else "url,caption\n"
    (tmp_path / "a.csv").write_text(header + "\n".join(line[kind] for kind in kinds))
    found = [
        place for reason, place, _ in dropped(UrlList(path=str(tmp_path / "a.csv"), columns=columns)) if reason == "no_address"
    ]
    assert found == [f"a.csv, row {number}" for number, kind in enumerate(kinds, 1) if kind == "empty"]


def test_row_numbers_of_json_lines_count_unreadable_records(tmp_path):
    (tmp_path / "a.jsonl").write_text('nothing\n{"url": "", "caption": "b"}\n')
    assert dropped(UrlList(path=str(tmp_path / "a.jsonl")))[0] == ("no_address", "a.jsonl, row 2", None)


@pytest.mark.parametrize(("streaming", "place"), [(False, "train, row 2"), (True, "train, shard 0, row 2")])
def test_dropped_rows_of_a_hugging_face_dataset_have_a_place(tmp_path, streaming, place):
    pq.write_table(pa.table({"image": [picture(), None], "caption": ["a", "b"]}), tmp_path / "a.parquet")
    source = HfDataset(path=str(tmp_path / "a.parquet"), caption="caption", streaming=streaming)
    assert dropped(source) == [("no_image", place, None)]


def test_dropped_rows_of_coco_annotations_have_a_place(tmp_path):
    entry = {"id": 7, "file_name": "lost.jpg"}
    (tmp_path / "a.json").write_text(json.dumps({"images": [entry], "annotations": []}))
    assert dropped(Coco(path=str(tmp_path / "a.json"), images=str(tmp_path))) == [
        ("no_file", "image 7", f"the row names the image 'lost.jpg'{MISSING}")
    ]


def test_the_ledger_keeps_the_place_of_a_row_that_a_later_step_drops(tmp_path):
    (tmp_path / "in").mkdir()
    for name, data in (("a.png", picture(40, 40)), ("b.png", picture(40, 40)[:-30])):
        (tmp_path / "in" / name).write_bytes(data)
        (tmp_path / "in" / name).with_suffix(".txt").write_text("a caption")
    recipe = {"source": {"type": "files", "path": str(tmp_path / "in")}, "steps": [{"resize": {"mode": "no"}}]}
    run(parse(recipe), tmp_path / "out", local=True, workers=1)
    ledger = pq.read_table(tmp_path / "out" / "ledger")
    assert {(row["step"], row["place"]) for row in ledger.to_pylist()} == {(None, None), ("resize", "b.png")}
