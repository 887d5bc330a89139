"""The origin of each alternative caption stays with it: in rows, in steps, in samples, and from dataset to dataset."""

import json
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.engine.site import picture
from tests.exporting.made import IMAGE, caption, document, make_dataset
from tests.rows import captions, table
from tests.rows import document as page
from tests.sources.reading import read_all
from tests.test_schemas import check
from vlmdata import run, stream
from vlmdata.engine.output.sample import samples
from vlmdata.engine.partitions.keys import content_keys
from vlmdata.engine.partitions.partition_log import PartitionLog
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.engine.work.compile_recipe import inputs
from vlmdata.fields import aligned_origins
from vlmdata.loader.stream import ReadOptions
from vlmdata.readers.plain_rows import text_of
from vlmdata.row import ROW, TEXT, conform
from vlmdata.sources.files import Files
from vlmdata.sources.webdataset import Webdataset
from vlmdata.steps.dedupe_exact import DedupeExact
from vlmdata.steps.pii_remove import PiiRemove

STORED = {"url": "u", "blob": "b", "offset": 0, "size": 1, "format": "png", "width": 8, "height": 6}
SAID = {"text": "a", "alternatives": ["b", "c"], "origins": [None, "recaption"]}
BEFORE = pa.struct([field for field in TEXT if field.name != "origins"])  # the fields of a text in earlier versions


def facts_of(rows, layout):
    (sample,) = samples(rows, layout, 0, 1)
    return json.loads(dict(sample.members)["json"])


def texts_of(source):
    """Return (text, alternatives, origins) of each text of a source."""
    rows = read_all(source).to_pylist()
    assert all(row["drop"] is None for row in rows)
    return [(text["text"], text["alternatives"], text["origins"]) for row in rows for text in row["texts"] if text]


# -- rows and steps


@pytest.mark.parametrize(
    ("origins", "aligned"),
    [
        (["a", None], ["a", None]),
        (["raw", ""], [None, None]),
        *[(wrong, [None, None]) for wrong in (None, "ab", [], ["a"], ["a", "b", "c"], ["a", 1], [["a"], "b"], {"a": 1}, 7)],
        (["\ud800", "a"], [None, None]),
    ],
)
def test_a_list_of_origins_that_does_not_fit_counts_as_raw(origins, aligned):
    assert aligned_origins(["x", "y"], origins) == aligned
    assert aligned_origins(None, origins) == aligned_origins("xy", origins) == []


@pytest.mark.parametrize(
    ("said", "origins", "text"),
    [
        (["a", "b"], [], {"text": "a", "alternatives": ["b"]}),
        (["a", "b", "c"], ["x"], {"text": "a", "alternatives": ["b", "c"], "origins": [None, "x"]}),
        ([" ", "b", "c"], ["x", None], {"text": "c", "alternatives": ["b"], "origins": ["x"]}),
        (["", "b"], ["x"], {"text": "", "alternatives": ["b"], "origins": ["x"]}),
        (["a", "a", "\n"], ["x", "y"], {"text": "a", "alternatives": None, "origins": None}),
    ],
)
def test_the_text_is_never_a_caption_with_an_origin(said, origins, text):
    assert text_of(said, origins) == text


def test_keys_and_hashes_of_inputs_do_not_depend_on_origins():
    rows = table([{"images": [STORED, None], "texts": [None, {**SAID, "origins": origins}]} for origins in (None, ["x", "y"])])
    assert len(set(content_keys(rows))) == 1 and len(set(inputs(rows, ("texts",)).tolist())) == 1
    assert content_keys(rows)[0] == "09d0a6b56a5cc4ffd4d1f47b" and inputs(rows, ("texts",))[0] == 4292683325666547784


def test_pii_remove_drops_the_origin_of_an_alternative_that_it_empties():
    text = {"text": "x", "alternatives": ["a@b.org", "dog", "cat"], "origins": ["recaption", None, "translate"]}
    rows = PiiRemove().run(table([{"images": [None], "texts": [text]}]))
    (found,) = rows["texts"].to_pylist()[0]
    assert (found["alternatives"], found["origins"]) == (["dog", "cat"], [None, "translate"])


def test_merged_captions_keep_their_origins():
    rows = captions(["a", "d", "e"], sha256=["x", "x", "x"])
    texts = [
        [None, SAID],
        [None, {"text": "d", "alternatives": ["c", "f"], "origins": ["other", "other"]}],
        [None, {"text": "e"}],
    ]
    rows = rows.set_column(rows.column_names.index("texts"), "texts", pa.array(texts, ROW.field("texts").type))
    found = DedupeExact(merge_captions=True).run(rows)["texts"].to_pylist()[0][1]
    assert found["alternatives"] == ["b", "c", "d", "f", "e"]
    assert found["origins"] == [None, "recaption", None, "other", None]


def test_rows_of_earlier_versions_get_null_origins():
    rows = pa.table({"texts": pa.array([[{"text": "a", "alternatives": ["b"]}, None], None], pa.list_(BEFORE))})
    made = conform(rows)
    assert made.schema.field("texts").type == ROW.field("texts").type
    assert made["texts"].to_pylist()[0][0]["origins"] is None and made["texts"].to_pylist()[1] is None


def test_entries_with_and_without_origins_are_read_together(tmp_path):
    store = LocalStore(tmp_path)
    for kind, text in ((pa.list_(BEFORE), {"text": "old"}), (ROW.field("texts").type, SAID)):
        values = [[text]] if text is SAID else [[text], [text]]
        column = pa.StructArray.from_arrays(
            [pa.array([5] * len(values), pa.uint64()), pa.array(values, kind)], names=["input", "texts"]
        )
        entry = pa.table({"row": pa.array(range(len(values)), pa.int32()), "m": column})
        assert PartitionLog(store, 0).commit(entry, ["m"], [])
    wanted, present = pa.array([True] * 2).to_numpy(zero_copy_only=False), pa.array([5] * 2, pa.uint64()).to_numpy()
    _, stored = PartitionLog(store, 0).measured("m", wanted, present, {"texts": ROW.field("texts").type})
    found = [row["texts"][0] for row in stored.to_pylist()]
    assert [(text["text"], text["origins"]) for text in found] == [("a", [None, "recaption"]), ("old", None)]


# -- samples


def test_a_caption_pair_has_its_origins_in_its_json_only_if_there_are_some():
    rows = table([{"images": [STORED, None], "texts": [None, SAID]}])
    facts = facts_of(rows, "captions")
    check("sample", facts)
    assert (facts["alternatives"], facts["origins"]) == (["b", "c"], [None, "recaption"])
    for origins in (None, [None, None], ["recaption"], ["raw", ""]):
        rows = table([{"images": [STORED, None], "texts": [None, {**SAID, "origins": origins}]}])
        assert "origins" not in facts_of(rows, "captions")


def test_a_document_nests_its_origins_like_its_alternatives():
    row = page("x", STORED, "y", "z", "w")
    row["texts"][2] |= {"alternatives": ["b", "c"], "origins": ["recaption", None]}
    row["texts"][3] |= {"alternatives": ["d"]}
    facts = facts_of(table([row]), "documents")
    check("sample", facts)
    assert facts["texts"] == ["x", None, "y", "z", "w"]
    assert facts["alternatives"] == [None, None, ["b", "c"], ["d"], None]
    assert facts["origins"] == [None, None, ["recaption", None], None, None]


# -- sources


def pair_with(**facts):
    key, members = caption(0)
    return key, {**members, "json": json.dumps({**json.loads(members["json"]), **facts}).encode()}


def test_an_image_whose_only_captions_have_origins_keeps_an_empty_text(tmp_path):
    key, members = pair_with(caption="", alternatives=["b", "c"], origins=["recaption", "recaption"])
    make_dataset(tmp_path / "out", [(key, {**members, "txt": b""})], layout="captions")
    assert texts_of(Webdataset(path=str(tmp_path / "out"))) == [("", ["b", "c"], ["recaption", "recaption"])]


WRONG = ["recaption", 5, {}, [], ["a"], ["a", "b", "c"], ["a", 5], [["a"], "b"], ["a", "\ud800"], [{}, None]]


@pytest.mark.parametrize("origins", WRONG)
def test_wrong_origins_in_a_tar_count_as_raw_and_are_kept_as_a_column(tmp_path, origins):
    make_dataset(tmp_path / "out", [pair_with(alternatives=["b", "c"], origins=origins)], layout="captions")
    (row,) = read_all(Webdataset(path=str(tmp_path / "out"))).to_pylist()
    assert (row["drop"], row["texts"][1]["alternatives"], row["texts"][1]["origins"]) == (None, ["b", "c"], None)
    assert json.loads(row["extra"])["origins"] == (["a", "?"] if origins == ["a", "\ud800"] else origins)
    assert "column_origins" in facts_of(conform(pa.Table.from_pylist([{**row, "key": "k"}])), "captions")


@pytest.mark.parametrize("origins", [*WRONG, [["a"], None], [["a", 5], None], [5, 5], [["a", "b"], ["c"]], [None, ["c"]]])
def test_wrong_origins_in_a_document_count_as_raw(tmp_path, origins):
    made = document(0, ["x", IMAGE], alternatives=[["b", "c"], None], origins=origins)
    make_dataset(tmp_path / "out", [made], layout="documents")
    found = texts_of(Webdataset(path=str(tmp_path / "out")))
    assert found == [("x", ["b", "c"], ["a", "b"] if origins == [["a", "b"], ["c"]] else None)]


@pytest.mark.parametrize("name", ["a " * 1000, "\0", "\u202e", "raw ", '"', "ü.v"])
def test_strange_names_of_steps_are_kept(tmp_path, name):
    make_dataset(tmp_path / "out", [pair_with(alternatives=["b", "c"], origins=[name, None])], layout="captions")
    assert texts_of(Webdataset(path=str(tmp_path / "out"))) == [("picture 0", ["b", "c"], [name, None])]


def test_origins_of_alternatives_that_are_not_read_stay_in_the_json(tmp_path):
    (tmp_path / "a.png").write_bytes(IMAGE)
    (tmp_path / "a.txt").write_text("a")
    (tmp_path / "a.json").write_text(json.dumps({"alternatives": ["b"], "origins": ["recaption"]}))
    (row,) = read_all(Files(path=str(tmp_path))).to_pylist()
    assert json.loads(row["extra"]).items() >= {"alternatives": ["b"], "origins": ["recaption"]}.items()


# -- whole runs

MODULE = '''
from dataclasses import dataclass
from typing import ClassVar
import pyarrow as pa
from vlmdata.row import ROW
from vlmdata.step import Step

@dataclass(frozen=True, kw_only=True)
class Describe(Step):
    """Adds two captions to each image: one with personal data, and one without."""

    reads: ClassVar = ("texts",)
    writes: ClassVar = {"texts": ROW.field("texts").type}

    def measure(self, rows, context):
        texts = rows["texts"].to_pylist()
        for _, text in texts:
            text["alternatives"] = [*(text["alternatives"] or []), "a@b.org", "described " + text["text"]]
            text["origins"] = [*(text["origins"] or [None] * (len(text["alternatives"]) - 2)), "describe", "describe"]
        return {"texts": pa.array(texts, ROW.field("texts").type)}
'''


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "pictures").mkdir()
    for number in range(4):
        (tmp_path / "pictures" / f"{number}.jpg").write_bytes(picture(number))
        (tmp_path / "pictures" / f"{number}.txt").write_text(json.dumps([f"cat {number}", f"also {number}, a@b.org"]))
    (tmp_path / "own_describe.py").write_text(MODULE)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path}:" + ":".join(sys.path))
    yield tmp_path
    sys.modules.pop("own_describe", None)


def build(source, steps, out):
    from vlmdata.recipe import parse

    return run(parse({"source": source, "steps": steps, "shards": {"layout": "captions"}}), out, local=True, workers=1)


def captions_in(out, cache):
    found = stream(str(out), seed=None, torch=False, reading=ReadOptions(cache=cache))
    facts = [json.loads(sample["json"]) for sample in found]
    return sorted((one["caption"], one["alternatives"], one.get("origins")) for one in facts)


@pytest.mark.whole
def test_a_dataset_built_from_a_dataset_keeps_the_origins_of_its_captions(folder):
    build({"type": "files", "path": "pictures"}, [{"own_describe.Describe": {}}, "pii_remove"], "first")
    expected = [
        (f"cat {n}", [f"also {n},", f"described cat {n}"], [None, "describe"]) for n in range(4)
    ]  # pii_remove emptied one of the two new captions
    assert captions_in("first", folder / "cache") == expected
    build({"type": "webdataset", "path": "first"}, ["pii_remove"], "second")
    assert captions_in("second", folder / "cache") == expected


@pytest.mark.whole
def test_texts_that_an_earlier_version_measured_are_used_without_origins(folder):
    """The work folder gets the Parquet files of earlier versions, whose texts have no field `origins`."""
    source = {"type": "files", "path": "pictures"}
    build(source, ["pii_remove"], "out")
    before = captions_in("out", folder / "cache")
    changed = [path for path in (folder / "out/work").rglob("*.parquet") if without_origins(path)]
    assert any("data" in path.parts for path in changed)
    logs = {path: path.read_bytes() for path in (folder / "out/work/log").rglob("*") if path.is_file()}
    build(source, ["pii_remove", {"text_length": {"min_words": 1, "min_chars": 1}}], "out")
    again = {path: path.read_bytes() for path in logs}
    assert again == logs and captions_in("out", folder / "cache") == before
    assert before[0] == ("cat 0", ["also 0,"], None)


def without_origins(path) -> bool:
    """Rewrite a Parquet file without the field `origins` of its texts. Return whether it had the field."""
    table = pq.read_table(path)
    if "origins" not in str(table.schema):
        return False
    fields = [pa.field(field.name, older(field.type)) for field in table.schema]
    arrays = [pa.array(table[field.name].to_pylist(), field.type) for field in fields]
    pq.write_table(pa.table(arrays, pa.schema(fields, table.schema.metadata)), path)
    return True


def older(kind):
    if pa.types.is_list(kind):
        return pa.list_(older(kind.value_type))
    if pa.types.is_struct(kind):
        return pa.struct([pa.field(field.name, older(field.type)) for field in kind if field.name != "origins"])
    return kind
