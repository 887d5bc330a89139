"""Dotted paths name fields in structs, JSON objects and JSON text. A caption may be a JSON list."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.newer_packages import since
from tests.sources.reading import pairs_of, read_all
from vlmdata.readers.captions import caption_column
from vlmdata.readers.dotted_paths import reach
from vlmdata.sources.url_list import UrlList
from vlmdata.step import RecipeError

ROWS = [
    {"annotations": {"url": "http://a.org/1", "size": {"w": 5}}, "caption": {"en": "one", "de": "eins"}, "a.b": "x"},
    {"annotations": {"url": "http://a.org/2", "size": {"w": 6}}, "caption": {"en": None, "de": "zwei"}, "a.b": None},
    {"annotations": None, "caption": None, "a.b": "z"},
]
PATHS = {"url": "annotations.url", "caption": ["caption.en", "caption.de"], "width": "annotations.size.w"}


def as_text(row: dict) -> dict:
    return {name: json.dumps(value) if isinstance(value, dict) else value for name, value in row.items()}


@pytest.mark.parametrize("kind", ["struct.parquet", "text.parquet", "jsonl", "json", "text.csv"])
def test_a_path_reads_fields_of_structs_json_objects_and_json_text(tmp_path, kind):
    path = tmp_path / f"list.{kind}"
    if kind.endswith("parquet"):
        pq.write_table(pa.Table.from_pylist(ROWS if kind[0] == "s" else [as_text(row) for row in ROWS]), path)
    elif kind.endswith("csv"):
        cells = [[str(value or "").replace('"', '""') for value in as_text(row).values()] for row in ROWS]
        path.write_text("annotations,caption,a.b\n" + "\n".join(",".join(f'"{cell}"' for cell in row) for row in cells))
    else:
        path.write_text(json.dumps(ROWS) if kind == "json" else "\n".join(map(json.dumps, ROWS)))
    rows = read_all(UrlList(path=str(path), extra={"deep": "annotations.size.w", "flat": "a.b"}, **PATHS))
    assert pairs_of(rows) == [("http://a.org/1", "one", None), ("http://a.org/2", "zwei", None), (None, "", "no_address")]
    assert [row["images"][0]["original_width"] for row in rows.to_pylist()] == [5, 6, None]
    assert [json.loads(extra)["deep"] for extra in rows["extra"].to_pylist()] == [5, 6, None]
    assert json.loads(rows["extra"][0].as_py())["flat"] == "x"


def test_a_path_through_a_list_gives_all_its_values(tmp_path):
    row = {"images": [{"url": "http://a.org/"}], "captions": [{"text": "a"}, {"text": "b"}, {}]}
    (tmp_path / "a.jsonl").write_text(json.dumps(row))
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "b.parquet")
    rows = read_all(UrlList(path=str(tmp_path), url="images.url", caption="captions.text")).to_pylist()
    assert [row["images"][0]["url"] for row in rows] == ["http://a.org/"] * 2
    assert [(row["texts"][1]["text"], row["texts"][1]["alternatives"]) for row in rows] == [("a", ["b"])] * 2


def test_a_path_that_cannot_exist_is_reported_before_any_work(tmp_path):
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "a.parquet")
    with pytest.raises(RecipeError, match=r"no column 'annotations\.urls'. Did you mean 'annotations\.url'"):
        UrlList(path=str(tmp_path), url="annotations.urls", caption="").check()
    (tmp_path / "a.parquet").unlink()
    (tmp_path / "a.jsonl").write_text(json.dumps(ROWS[0]))
    with pytest.raises(RecipeError, match=r"no column 'annotation\.url'"):
        UrlList(path=str(tmp_path), url="annotation.url", caption="").check()


@pytest.mark.parametrize("form", [list, pa.array, lambda texts: pa.array([t if t is None else t.encode() for t in texts])])
def test_a_json_list_of_captions_gives_several_captions(form):
    given = ['["a", "b", "a"]', "[1] a figure", ' ["c"]', "[]", '["d", null]', "[5]", None, "plain", '["e"', '[["f"]]']
    texts, others, wrong = caption_column([form(given)])
    assert texts.to_pylist() == ["a", "[1] a figure", "c", "", "d", "[5]", "", "plain", '["e"', '[["f"]]']
    assert others.to_pylist() == [["b"], *[None] * 9]
    assert not wrong.any()


def test_a_caption_of_a_wrong_encoding_beside_a_json_list_is_reported():
    _, _, wrong = caption_column([pa.array([b'["a"]', b"\xff", b"c"])])
    assert wrong.tolist() == [False, True, False]


def test_a_path_reads_fields_of_maps_and_of_json_columns(tmp_path):
    text_map = pa.map_(pa.string(), pa.string())
    columns = {
        "url": [f"http://a.org/{n}" for n in range(3)],
        "map": pa.array([[("en", "one"), ("de", None)], None, [("en", "x"), ("en", "y")]], text_map),
        "deep": pa.array([[{"t": [("en", "one")]}], [], None], pa.list_(pa.struct([("t", text_map)]))),
        "number": pa.array([[(1, "one")], [(2, "two")], None], pa.map_(pa.int32(), pa.string())),
        "json": pa.array(['{"en": "one"}', '{"en": null}', '{"en": ["x", "y"]}'], pa.json_()),
    }
    columns["struct"] = pa.StructArray.from_arrays([columns["json"]], ["json"])
    pq.write_table(pa.table(columns), tmp_path / "a.parquet")
    double = {"map": ("x", ["y"]), "json": ("x", ["y"]), "struct": ("x", ["y"])}
    for name in ("map.en", "deep.t.en", "number.1", "json.en", "struct.json.en"):
        rows = read_all(UrlList(path=str(tmp_path), caption=name))
        texts = [(row["texts"][1]["text"], row["texts"][1]["alternatives"]) for row in rows.to_pylist()]
        assert texts == [("one", None), ("", None), double.get(name.partition(".")[0], ("", None))], name
        assert rows["reason"].null_count == 3
    with pytest.raises(RecipeError, match=r"map<string, string.*, not text\. .* or a field with dots, such as `caption\.en`"):
        read_all(UrlList(path=str(tmp_path), caption="map"))


@pytest.mark.parametrize("view", [since(pa.list_view, "pyarrow", 25, 0), since(pa.large_list_view, "pyarrow", 25, 0), pa.list_])
def test_every_list_type_may_hold_captions_and_json_lists(tmp_path, view):
    column = pa.array([["a", "b"], None, ['["c", "d"]', "e"]], view(pa.string()))
    pq.write_table(pa.table({"url": ["http://a.org/"] * 3, "caption": column}), tmp_path / "a.parquet")
    rows = read_all(UrlList(path=str(tmp_path))).to_pylist()
    texts = [(row["texts"][1]["text"], row["texts"][1]["alternatives"]) for row in rows]
    assert texts == [("a", ["b"]), ("", None), ("c", ["d", "e"])]


def test_bytes_that_do_not_decode_are_reported_for_every_type(tmp_path):
    column = pa.array([b"\xff\xfe\xfd\xfc", b"abcd"], pa.binary(4))
    pq.write_table(pa.table({"url": ["http://a.org/"] * 2, "caption": column}), tmp_path / "a.parquet")
    assert read_all(UrlList(path=str(tmp_path)))["reason"].to_pylist() == ["bad_encoding", None]
    ids = pa.array([b"\xff" * 16], pa.uuid())
    pq.write_table(pa.table({"url": ["http://a.org/"], "caption": ids}), tmp_path / "a.parquet")
    with pytest.raises(RecipeError, match=r"the values are extension<arrow\.uuid>, not text"):
        read_all(UrlList(path=str(tmp_path)))


def test_a_field_name_may_contain_dots():
    assert reach({"a.b": 1, "a": {"b": 2, "c": {"d.e": 3}}}, ["a", "b"]) == 1
    assert reach({"a": '{"b.c": [{"d": 4}]}'}, ["a", "b", "c", "d"]) == 4
    assert reach({"a": 1}, ["a", "b"]) is None and reach({"a": 1}, ["a", "b"], b"no") == b"no"


def test_values_of_a_json_column_keep_their_json_types(tmp_path):
    values = pa.array(['"one"', '["a", "b"]', '{"en": "c"}', "null", "{", "7"], pa.json_())
    pq.write_table(pa.table({"url": ["http://a.org/"] * 6, "caption": values}), tmp_path / "a.parquet")
    rows = read_all(UrlList(path=str(tmp_path))).to_pylist()
    texts = [row["reason"] or row["texts"][1]["text"] for row in rows]
    assert texts == ["one", "a", "bad_encoding", "", "bad_encoding", "7"]


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
@pytest.mark.parametrize("value", ["a caption without JSON", '"text"', "[[1]]", '{"en": {"a": 1}}'])
def test_a_path_into_a_value_that_is_not_an_object_is_reported(tmp_path, kind, value):
    good = {"url": "http://a.org/", "caption": '{"en": "one"}'}
    rows = [good, {**good, "caption": value}, {**good, "caption": ""}, {**good, "caption": None}]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), tmp_path / "a.parquet")
    else:
        (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = pairs_of(read_all(UrlList(path=str(tmp_path), caption="caption.en", extra={"of": "caption.en"})))
    assert [reason or text for _, text, reason in found] == ["one", "bad_encoding", "", ""]


def test_a_path_into_bytes_that_do_not_decode_is_reported(tmp_path):
    cells = pa.array([b'{"en": "one"}', b'{"en": "\xff"}'])
    pq.write_table(pa.table({"url": ["http://a.org/"] * 2, "caption": cells}), tmp_path / "a.parquet")
    found = pairs_of(read_all(UrlList(path=str(tmp_path), caption="caption.en", extra=[])))
    assert [reason for _, _, reason in found] == [None, "bad_encoding"]
