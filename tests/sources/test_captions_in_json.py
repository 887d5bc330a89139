"""A caption that is a JSON list of strings becomes several captions, in every source."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.loader.tars import write_tar
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata.sources.files import Files
from vlmdata.sources.hf_dataset import HfDataset
from vlmdata.sources.img2dataset import Img2dataset
from vlmdata.sources.url_list import UrlList
from vlmdata.sources.webdataset import Webdataset

FORMS = ['["one", "two"]', ' ["", "one", null, "two"]\n', '["\u200b\ufeff", "one", "two"]']


def url_list(folder, text):
    (folder / "a.jsonl").write_text(json.dumps({"url": "http://a.org/", "caption": text}))
    return UrlList(path=str(folder))


def hf_dataset(folder, text):
    image = pa.StructArray.from_arrays([pa.array([picture()])], ["bytes"])
    pq.write_table(pa.table({"image": image, "caption": [text]}), folder / "a.parquet")
    return HfDataset(path=str(folder))


def table(folder, text):
    (folder / "a.png").write_bytes(picture())
    (folder / "metadata.jsonl").write_text(json.dumps({"file_name": "a.png", "caption": text}))
    return Files(path=str(folder), table="metadata.jsonl")


def text_file(folder, text):
    (folder / "a.png").write_bytes(picture())
    (folder / "a.txt").write_text(text)
    return Files(path=str(folder))


def json_file(folder, text):
    (folder / "a.png").write_bytes(picture())
    (folder / "a.json").write_text(json.dumps({"caption": text}))
    return Files(path=str(folder))


def tar_member(folder, text):
    write_tar(folder / "a.tar", [("1.png", picture()), ("1.txt", text.encode())])
    return Webdataset(path=str(folder))


def tar_json(folder, text):
    write_tar(folder / "a.tar", [("1.png", picture()), ("1.json", json.dumps({"caption": text}).encode())])
    return Webdataset(path=str(folder))


def img2dataset(folder, text):
    row = {"key": "0", "url": "http://a.org/", "status": "success", "error_message": None, "caption": text, "jpg": picture()}
    pq.write_table(pa.Table.from_pylist([row]), folder / "00000.parquet")
    return Img2dataset(path=str(folder))


SOURCES = [url_list, hf_dataset, table, text_file, json_file, tar_member, tar_json, img2dataset]


@pytest.mark.parametrize("source", SOURCES)
@pytest.mark.parametrize("text", FORMS)
def test_a_json_list_of_strings_becomes_a_caption_and_its_alternatives(tmp_path, source, text):
    (row,) = read_all(source(tmp_path, text)).to_pylist()
    (found,) = [one for one in row["texts"] if one]
    assert (row["reason"], found["text"], found["alternatives"]) == (None, "one", ["two"])
    assert "caption" not in json.loads(row["extra"] or "{}")


@pytest.mark.parametrize("source", [text_file, json_file, table])
@pytest.mark.parametrize("text", ["[]", '["", null]'])
def test_a_json_list_without_a_text_is_reported_if_a_caption_is_needed(tmp_path, source, text):
    assert read_all(source(tmp_path, text))["reason"].to_pylist() == ["no_caption"]
