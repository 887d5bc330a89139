"""An export that holds everything is read back as the rows that `webdataset` reads from the dataset itself."""

import json
import subprocess

import pytest

from tests.exporting.made import caption, chat, document, make_dataset
from tests.exporting.read_back import whole_rows
from tests.exports.talks import MIXED, PLAIN, TURNS
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata.export_dataset import export
from vlmdata.sources.hf_dataset import HfDataset
from vlmdata.sources.webdataset import Webdataset

A, B = picture(8, 6), picture(9, 7)


def with_facts(sample, **facts):
    """Return a sample with more fields in its JSON."""
    key, members = sample
    return key, {**members, "json": json.dumps({**json.loads(members["json"]), **facts}).encode()}


PAIRS = [
    with_facts(caption(0), alternatives=["a second", "a third"], licence="CC BY", sha256="ab" * 32, original_width=80),
    with_facts(caption(1), boxes=[[0.0, 1.0, 2.0, 3.0]], phash="00ff00ff00ff00ff", scores={"clip_score": 0.25}, image="a.jpg"),
    with_facts(caption(2), url=None, mixed=[1, "a", None], column_key="k", source_key="0" * 24),
]
ALIGNED = {"alternatives": [["another"], None, None, None], "scores": {"language": ["en", None, "de", None], "length": 3}}
DOCUMENTS = [
    document(0, ["first\n", A, " second ", B], url="https://example.org/page", title={"en": "a title"}, **ALIGNED),
    document(1, [A, B, "words\n\nin two paragraphs"], matched_sim=[0.5, 1]),
    document(2, ["only", " texts"]),
    document(3, [A]),
]
SAMPLES = {
    "captions": PAIRS,
    "documents": DOCUMENTS,
    "conversations": [*PLAIN, *TURNS, *MIXED, chat(30, A, "q", "a", original_width=5)],
}


@pytest.fixture(params=SAMPLES)
def out(request, tmp_path):
    layout = "captions" if request.param == "captions" else "documents"
    make_dataset(tmp_path / "out", SAMPLES[request.param], layout=layout, per_shard=2)
    return tmp_path / "out"


def exported(out, to):
    target = out.parent / to
    assert export(out, target, to=to) == len(whole_rows(Webdataset(path=str(out))))
    return target


@pytest.mark.parametrize("to", ["parquet", "hf"])
def test_hf_dataset_reads_every_kind_of_sample_back_unchanged(out, to):
    source = HfDataset(path=str(exported(out, to)))
    assert whole_rows(source) == whole_rows(Webdataset(path=str(out)))
    assert source.warning() is None


def test_hf_dataset_reads_a_stream_of_exported_parquet_unchanged(out):
    source = HfDataset(path=str(exported(out, "parquet")), streaming=True)
    assert whole_rows(source) == whole_rows(Webdataset(path=str(out)))


def test_webdataset_reads_exported_tars_back_unchanged(out):
    assert whole_rows(Webdataset(path=str(exported(out, "tars")))) == whole_rows(Webdataset(path=str(out)))


def test_webdataset_reads_a_tar_of_an_exported_folder(out):
    """The command is that of docs/formats.md. Names in the tar have no folders, so that keys are the dataset's."""
    target, tar = exported(out, "folder"), out.parent / "folder.tar"
    subprocess.run(["tar", "--sort=name", "--transform=s,.*/,,", "-cf", tar, "-C", target, "."], check=True)
    assert whole_rows(Webdataset(path=str(tar))) == whole_rows(Webdataset(path=str(out)))


def test_texts_that_a_program_changed_in_the_columns_are_read(tmp_path):
    import datasets

    make_dataset(tmp_path / "out", DOCUMENTS[:2], layout="documents")
    export(tmp_path / "out", tmp_path / "hf", to="hf")
    loaded = datasets.load_from_disk(str(tmp_path / "hf"))
    changed = loaded.map(lambda row: {"texts": [text and text.upper() for text in row["texts"]]}, load_from_cache_file=False)
    changed.save_to_disk(str(tmp_path / "changed"))
    rows = read_all(HfDataset(path=str(tmp_path / "changed"))).to_pylist()
    assert [text and text["text"] for text in rows[0]["texts"]] == ["FIRST\n", None, " SECOND ", None]


def test_named_columns_are_read_as_the_recipe_says(tmp_path):
    make_dataset(tmp_path / "out", PAIRS, layout="captions")
    export(tmp_path / "out", tmp_path / "to", to="parquet")
    row = read_all(HfDataset(path=str(tmp_path / "to"), caption="key")).to_pylist()[0]
    assert row["texts"][1]["text"] == PAIRS[0][0] and "json" in json.loads(row["extra"])


@pytest.mark.parametrize("said", ["{", "[]", "null", '{"key": "other"}'])
def test_a_row_without_the_json_of_its_sample_is_a_bad_record(tmp_path, said):
    import pyarrow.parquet as pq

    make_dataset(tmp_path / "out", DOCUMENTS, layout="documents")
    export(tmp_path / "out", tmp_path / "to", to="parquet")
    (path,) = (tmp_path / "to" / "data").iterdir()
    table = pq.read_table(path)
    rows = table.to_pylist()
    rows[1]["json"] = said
    pq.write_table(table.from_pylist(rows, schema=table.schema), path)
    found = read_all(HfDataset(path=str(tmp_path / "to"))).to_pylist()
    assert [row["reason"] for row in found] == [None, "bad_record", None, None]
    assert found[1]["place"] == "train, row 2" and "`json`" in found[1]["problem"]
