"""An empty Hugging Face dataset, in any form, gives a dataset without rows."""

import json
import zipfile

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sources.reading import pairs_of, read_all
from vlmdata import run
from vlmdata.recipe import parse
from vlmdata.sources.hf_dataset import HfDataset
from vlmdata.step import RecipeError

pytestmark = pytest.mark.usefixtures("own_cache")

datasets = pytest.importorskip("datasets")
SCHEMA = pa.schema([("image", pa.string()), ("caption", pa.string())])
TEXTS = {
    "a.csv": "image,caption\n",
    "b.csv": "",
    "a.jsonl": "",
    "b.jsonl": "\n",
    "a.json": "[]",
    "metadata.csv": "file_name,caption",
}
FORMS = [*TEXTS, "a.parquet", "stream.arrow", "file.arrow", "a.zip", "saved", "saved_without_columns", "splits"]


def laid(folder, form):
    """Return the path of a dataset without rows."""
    path = folder / form
    empty = datasets.Dataset.from_dict({} if form == "saved_without_columns" else {"image": [], "caption": []})
    if form == "splits":
        full = datasets.Dataset.from_dict({"image": ["http://a.org/"], "caption": ["x"]})
        datasets.DatasetDict({"train": empty, "test": full}).save_to_disk(path)
    elif form.startswith("saved"):
        empty.save_to_disk(path)
    elif form.endswith("arrow"):
        new = pa.ipc.new_file if form.startswith("file") else pa.ipc.new_stream
        new(path, SCHEMA).close()
    elif form.endswith("parquet"):
        pq.write_table(SCHEMA.empty_table(), path)
    elif form.endswith("zip"):
        zipfile.ZipFile(path, "w").close()
    else:
        path.write_text(TEXTS[form])
    return str(path)


@pytest.mark.parametrize("form", FORMS)
def test_an_empty_dataset_gives_no_rows(tmp_path, form):
    source = HfDataset(path=laid(tmp_path, form))
    source.check()
    assert source.pieces() == [] and source.files()


@pytest.mark.parametrize("form", [form for form in FORMS if form not in ("a.zip", "metadata.csv")])
def test_an_empty_dataset_gives_no_rows_when_streamed(tmp_path, form):
    source = HfDataset(path=laid(tmp_path, form), streaming=True)
    source.check()
    assert [len(table) for piece in source.pieces() for table in source.read(piece)] == []


def test_an_empty_split_does_not_give_rows_of_another_split(tmp_path):
    path = laid(tmp_path, "splits")
    assert pairs_of(read_all(HfDataset(path=path, split="test"))) == [("http://a.org/", "x", None)]
    with pytest.raises(RecipeError, match=r"there is no split 'valid'\. The splits are train, test"):
        HfDataset(path=path, split="valid").check()


@pytest.mark.parametrize("kind", ["csv", "jsonl", "json", "parquet"])
def test_files_without_rows_do_not_stop_the_reading_of_others(tmp_path, kind):
    row = {"image": "http://a.org/", "caption": "x"}
    rows = {"csv": "image,caption\nhttp://a.org/,x\n", "jsonl": json.dumps(row), "json": json.dumps([row])}
    (tmp_path / "data").mkdir()
    for number, data in enumerate(
        {"csv": ["image,caption\n", "\n"], "jsonl": ["\n", " \n\n"], "json": ["[]", " "]}.get(kind, [""])
    ):
        (tmp_path / f"data/{number}.{kind}").write_text(data)
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist([row]), tmp_path / "data/9.parquet")
    else:
        (tmp_path / f"data/9.{kind}").write_text(rows[kind])
    assert pairs_of(read_all(HfDataset(path=str(tmp_path / "data")))) == [("http://a.org/", "x", None)]


def test_a_folder_without_files_is_reported_in_one_line(tmp_path):
    with pytest.raises(RecipeError, match=r"the folder holds no file$"):
        HfDataset(path=str(tmp_path)).check()


@pytest.mark.whole
@pytest.mark.parametrize("form", ["saved", "a.csv"])
@pytest.mark.parametrize("parameters", [{}, {"url": "link"}])
def test_a_run_on_an_empty_dataset_finishes(tmp_path, form, parameters):
    source = {"type": "hf_dataset", "path": laid(tmp_path, form), **parameters}
    made = run(parse({"source": source, "steps": ["text_length"]}), tmp_path / "out", local=True, workers=1)
    assert (made["rows"], made["kept"], made["dropped"]) == (0, 0, [])
