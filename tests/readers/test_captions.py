"""`check` warns if none of the first rows has a caption, because a wrong path into JSON raises no error."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sources.pictures import picture
from vlmdata.cli import main
from vlmdata.sources.files import Files
from vlmdata.sources.hf_dataset import HfDataset
from vlmdata.sources.url_list import UrlList

ROW = {"url": "http://a.org/", "file_name": "a.png", "caption": {"en": "x"}}


def parquet(folder, rows):
    pq.write_table(pa.Table.from_pylist([{**row, "caption": json.dumps(row["caption"])} for row in rows]), folder / "a.parquet")
    return folder


def sources(folder, caption):
    (folder / "a.jsonl").write_text(json.dumps(ROW))
    (folder / "data").mkdir()
    (folder / "data/a.png").write_bytes(picture())
    (folder / "data/metadata.jsonl").write_text("\n" + json.dumps(ROW))
    (folder / "hf").mkdir()
    yield UrlList(path=str(folder / "a.jsonl"), caption=caption)
    yield Files(path=str(folder / "data"), table="metadata.jsonl", caption=caption)
    yield HfDataset(path=str(parquet(folder / "hf", [ROW])), url="url", caption=caption)
    yield HfDataset(path=str(folder / "data"), caption=caption)


def test_a_path_without_a_value_is_reported(tmp_path, monkeypatch):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    for source in sources(tmp_path, "caption.english"):
        source.check()
        assert source.warning().endswith("none of the first 1 row has a caption in caption.english"), source


@pytest.mark.parametrize("caption", ["caption.en", ["caption.english", "caption.en"], "", []])
def test_nothing_is_reported_if_a_row_has_a_caption_or_no_caption_is_needed(tmp_path, monkeypatch, caption):
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    assert [source.warning() for source in sources(tmp_path, caption)] == [None] * 4


def test_check_warns_once_and_not_about_lists_without_rows(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("url,caption\n")
    (tmp_path / "b.csv").write_text("url,caption\nhttp://a.org/,\nhttp://b.org/, \n")
    recipe = {"source": {"type": "url_list", "path": "*.csv"}, "steps": [{"download": {"contact": "a@b.org"}}, "resize"]}
    (tmp_path / "recipe.yaml").write_text(json.dumps(recipe))
    assert main(["check", "recipe.yaml"]) == 0
    assert capsys.readouterr().err == f"vlmdata: {tmp_path}/b.csv: none of the first 2 rows has a caption in caption\n"
    (tmp_path / "b.csv").unlink()
    assert main(["check", "recipe.yaml"]) == 0
    assert capsys.readouterr().err == f"vlmdata: source: there is no row in {tmp_path}/a.csv\n"
