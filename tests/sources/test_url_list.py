import bz2
import gc
import gzip
import json
import lzma
import subprocess
import sys
import tracemalloc
from collections import Counter

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.csv as pacsv
import pyarrow.parquet as pq
import pytest

from tests.fixtures import fixture
from tests.real_data import real_data
from tests.sources.reading import pairs_of, read_all
from vlmdata.readers import lists
from vlmdata.sources.url_list import UrlList
from vlmdata.step import RecipeError

ROWS = [
    {"url": "http://a.org/1.jpg", "caption": 'a "quoted", cut caption', "n": 1},
    {"url": "http://a.org/2,3.jpg", "caption": "zwei\nZeilen äöü 图", "n": 2},
    {"url": None, "caption": "no address", "n": 3},
    {"url": "http://a.org/4.jpg", "caption": None, "n": 4},
]
PAIRS = [
    ("http://a.org/1.jpg", 'a "quoted", cut caption', None),
    ("http://a.org/2,3.jpg", "zwei\nZeilen äöü 图", None),
    (None, "no address", "no_address"),
    ("http://a.org/4.jpg", "", None),
]
COMPRESS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
COMPRESS[".zst"] = lambda data: pa.compress(data, "zstd", asbytes=True)


def written(kind: str, rows: list[dict] = ROWS) -> bytes:
    sink = pa.BufferOutputStream()
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(rows), sink)
    elif kind == "csv":
        pacsv.write_csv(pa.Table.from_pylist(rows), sink)
    elif kind == "jsonl":
        return "\n".join(json.dumps(row) for row in rows).encode()
    elif kind == "json":
        return json.dumps(rows, ensure_ascii=False, indent=1).encode()
    elif kind == "columns.json":
        return json.dumps({name: {str(i): row[name] for i, row in enumerate(rows)} for name in rows[0]}).encode()
    return sink.getvalue().to_pybytes()


@pytest.mark.parametrize("compression", list(COMPRESS))
@pytest.mark.parametrize("kind", ["parquet", "csv", "jsonl", "json", "columns.json"])
def test_every_format_gives_the_same_rows_compressed_or_not(tmp_path, kind, compression):
    path = tmp_path / f"list.{kind}{compression}"
    path.write_bytes(COMPRESS[compression](written(kind)))
    rows = read_all(UrlList(path=str(path)))
    assert pairs_of(rows) == PAIRS
    assert [int(json.loads(extra)["n"]) for extra in rows["extra"].to_pylist()] == [1, 2, 3, 4]


def test_a_zstd_file_of_several_frames_is_read_to_its_end(tmp_path):
    lines = [b'{"url": "http://a.org/%d.jpg", "caption": "c"}\n' % i for i in range(3)]
    (tmp_path / "list.jsonl.zst").write_bytes(b"".join(pa.compress(line, "zstd", asbytes=True) for line in lines))
    assert len(read_all(UrlList(path=str(tmp_path)))) == 3


@pytest.mark.parametrize("path", ["{}", "{}/*.csv", "{}/**/*.csv"])
def test_a_folder_and_a_glob_hold_all_files_in_the_order_of_their_names(tmp_path, path):
    for name in ("b", "a", ".hidden"):
        (tmp_path / f"{name}.csv").write_text(f"url,caption\nhttp://{name}.org/,text\n")
    (tmp_path / "notes.md").write_text("no list")
    assert pairs_of(read_all(UrlList(path=path.format(tmp_path)))) == [
        ("http://a.org/", "text", None),
        ("http://b.org/", "text", None),
    ]


def test_a_list_on_another_store_is_read():
    with fsspec.open("memory://lists/one.csv.gz", "wb") as file:
        file.write(gzip.compress(written("csv")))
    with fsspec.open("memory://lists/two.parquet", "wb") as file:
        file.write(written("parquet"))
    for path in ("memory://lists", "memory://lists/*"):
        assert pairs_of(read_all(UrlList(path=path))) == PAIRS * 2


def test_lines_of_text_are_addresses_with_their_commas(tmp_path):
    (tmp_path / "urls.txt").write_bytes(b'http://a.org/1,2.jpg\r\n\n  \nhttp://a.org/"3".jpg\n\xff\xfe bad\n')
    rows = read_all(UrlList(path=str(tmp_path / "urls.txt")))
    assert pairs_of(rows)[:2] == [("http://a.org/1,2.jpg", None, None), ('http://a.org/"3".jpg', None, None)]
    assert rows["reason"].to_pylist() == [None, None, "bad_encoding"]


def test_an_unpaired_surrogate_in_a_utf_16_csv_loses_only_its_row(tmp_path):
    text = "url,caption,n\nhttp://a.org/,\ud800,x\nhttp://b.org/,x,\ud800\n"
    (tmp_path / "list.csv").write_bytes(text.encode("utf-16", "surrogatepass"))
    rows = read_all(UrlList(path=str(tmp_path)))
    assert rows["reason"].to_pylist() == ["bad_encoding", "bad_encoding"]


def test_one_row_of_a_wrong_encoding_loses_only_one_row(tmp_path):
    good, bad = "http://a.org/1.jpg,schön\n".encode(), "http://a.org/2.jpg,schön\n".encode("latin-1")
    (tmp_path / "list.csv").write_bytes(b"url,caption\n" + good + bad + good)
    assert read_all(UrlList(path=str(tmp_path)))["reason"].to_pylist() == [None, "bad_encoding", None]
    (tmp_path / "list.csv").write_bytes(b"url,caption\n" + bad)
    assert pairs_of(read_all(UrlList(path=str(tmp_path), encoding="latin-1"))) == [("http://a.org/2.jpg", "schön", None)]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig", "gb18030"])
@pytest.mark.parametrize("kind", ["csv", "txt"])
def test_lists_in_other_encodings_are_read(tmp_path, encoding, kind):
    lines = ["http://a.org/图.jpg,文字,\\", 'http://b.org/,"x",y']
    text = "\n".join(["url,caption,n", *lines] if kind == "csv" else [line.split(",")[0] for line in lines])
    (tmp_path / f"list.{kind}").write_bytes(text.encode(encoding))
    stated = encoding if encoding == "gb18030" else "utf-8"  # the other encodings have a byte order mark
    found = [url for url, _, _ in pairs_of(read_all(UrlList(path=str(tmp_path), encoding=stated)))]
    assert found == ["http://a.org/图.jpg", "http://b.org/"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
@pytest.mark.parametrize("kind", ["csv", "jsonl", "json"])
def test_an_encoding_of_two_or_four_bytes_may_be_named(tmp_path, encoding, kind):
    text = "url,caption,n\nhttp://a.org/,schön,ß\n"
    if kind != "csv":
        text = '{"url": "http://a.org/", "caption": "schön", "n": "ß"}\n'
    (tmp_path / f"list.{kind}").write_bytes(text.encode(encoding))
    rows = read_all(UrlList(path=str(tmp_path), encoding=encoding))
    assert pairs_of(rows) == [("http://a.org/", "schön", None)]
    assert json.loads(rows["extra"][0].as_py()) == {"n": "ß"}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_only_a_line_break_ends_a_record(tmp_path, encoding):
    caption = "one\u2028two\x85three\x0cfour"
    text = json.dumps({"url": "http://a.org/", "caption": caption}, ensure_ascii=False)
    (tmp_path / "list.jsonl").write_bytes(f"{text}\r\n{text}\n".encode(encoding))
    assert pairs_of(read_all(UrlList(path=str(tmp_path)))) == [("http://a.org/", caption, None)] * 2


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_csv_may_use_any_line_break(tmp_path, end, encoding):
    (tmp_path / "list.csv").write_bytes(f"url,caption{end}http://a.org/,x{end}".encode(encoding))
    assert pairs_of(read_all(UrlList(path=str(tmp_path)))) == [("http://a.org/", "x", None)]


@pytest.mark.parametrize(
    ("header", "extra"),
    [
        ("url,caption,,,", {"": "3", ".1": "4", ".2": "5"}),
        ("url,caption,url,url.1,n", {"url.2": "3", "url.1": "4", "n": "5"}),
    ],
)
def test_columns_with_the_same_name_are_numbered(tmp_path, header, extra):
    (tmp_path / "list.csv").write_text(f"{header}\nhttp://a.org/,two,3,4,5\n")
    rows = read_all(UrlList(path=str(tmp_path)))
    assert pairs_of(rows) == [("http://a.org/", "two", None)]
    assert json.loads(rows["extra"][0].as_py()) == extra


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_null_character_in_a_header_is_removed_from_the_name(tmp_path, encoding):
    (tmp_path / "list.csv").write_bytes("url,\0caption\nhttp://a.org/,c\n".encode(encoding))
    assert pairs_of(read_all(UrlList(path=str(tmp_path)))) == [("http://a.org/", "c", None)]


def test_an_unclosed_quotation_mark_loses_only_its_line(tmp_path):
    (tmp_path / "list.csv").write_text('url,caption\nhttp://a.org/,"six inches\n' + "http://b.org/,x\n" * 100_000)
    rows = read_all(UrlList(path=str(tmp_path)))
    assert Counter(rows["reason"].to_pylist()) == {None: 100_000, "bad_record": 1}
    assert rows["place"].drop_null().to_pylist() == ["list.csv, line 2"]
    assert len(read_all(UrlList(path=str(tmp_path), quoted=False))) == 100_001


def test_rows_with_too_many_or_too_few_fields_are_dropped_and_counted(tmp_path):
    (tmp_path / "list.csv").write_text("url,caption\nhttp://a.org/,one\nhttp://b.org/\nhttp://c.org/,a,b\nhttp://d.org/,two\n")
    rows = read_all(UrlList(path=str(tmp_path)))
    assert sorted(pairs_of(rows), key=str) == [
        ("http://a.org/", "one", None),
        ("http://d.org/", "two", None),
        (None, None, "bad_record"),
        (None, None, "bad_record"),
    ]
    assert [json.loads(e)["record"] for e in rows["extra"].to_pylist() if e] == ["http://b.org/", "http://c.org/,a,b"]


@pytest.mark.filterwarnings("error")  # without this, an error in Arrow's callback would only be printed
def test_a_row_with_too_many_fields_in_a_wrong_encoding_loses_only_one_row(tmp_path):
    good, odd = "http://a.org/,gr\U0010ff80oß\n".encode(), "http://b.org/,x,schön\n".encode("latin-1")
    (tmp_path / "list.csv").write_bytes(b"url,caption\n" + good + odd + "http://c.org/,schön\n".encode("latin-1") + good)
    rows = read_all(UrlList(path=str(tmp_path)))
    assert rows["reason"].to_pylist() == [None, "bad_encoding", None, "bad_record"]
    assert pairs_of(rows)[0] == ("http://a.org/", "gr\U0010ff80oß", None)
    assert json.loads(rows["extra"].to_pylist()[3])["record"] == "http://b.org/,x,sch\ufffdn"
    (tmp_path / "list.csv").write_bytes("url,größe\nhttp://c.org/,schön\n".encode("latin-1") + odd)
    rows = read_all(UrlList(path=str(tmp_path), encoding="latin-1", caption="größe"))
    assert pairs_of(rows) == [("http://c.org/", "schön", None), (None, None, "bad_record")]
    assert json.loads(rows["extra"].to_pylist()[1])["record"] == "http://b.org/,x,schön"


def test_json_lines_that_are_not_objects_are_dropped_and_counted(tmp_path):
    lines = [
        b'{"url": "http://a.org/", "caption": "x"}',
        b'{"url": "http://b',
        b"[1]",
        b'{"url": 7, "caption": "x"}',
        b"\xff\xff",
    ]
    lines += [b'{"url": "http://c.org/", "caption": "\\ud800"}', b"", b'{"caption": "x"}']
    (tmp_path / "list.jsonl").write_bytes(b"\n".join(lines))
    reasons = read_all(UrlList(path=str(tmp_path)))["reason"].to_pylist()
    assert Counter(reasons) == {None: 1, "bad_encoding": 3, "bad_record": 2, "no_address": 1}


def test_several_captions_become_alternatives(tmp_path):
    rows = [
        {"url": "http://a.org/", "caption": ["", "one", "two", "one"], "alt": "three"},
        {"url": "http://b.org/", "caption": None, "alt": None},
    ]
    for kind in ("parquet", "jsonl"):
        (tmp_path / f"list.{kind}").write_bytes(written(kind, rows))
        read = read_all(UrlList(path=str(tmp_path / f"list.{kind}"), caption=["caption", "alt"]))
        assert [texts[1]["text"] for texts in read["texts"].to_pylist()] == ["one", ""]
        assert [texts[1]["alternatives"] for texts in read["texts"].to_pylist()] == [["two", "three"], None]


@pytest.mark.parametrize("others", [[], [{"url": "http://b.org/", "caption": ["a", "b"]}]])
def test_a_caption_in_json_may_be_a_number_but_not_an_object(tmp_path, others):
    rows = [{"url": "http://a.org/", "caption": value} for value in (7, 1.5, None, {"en": "x"}, True)]
    (tmp_path / "list.json").write_text(json.dumps(rows + others))
    found = [(text, reason) for _, text, reason in pairs_of(read_all(UrlList(path=str(tmp_path))))]
    assert found[:5] == [("7", None), ("1.5", None), ("", None), ("", "bad_encoding"), ("", "bad_encoding")]


@pytest.mark.parametrize("captions", [[{"en": "x"}], [[{"en": "x"}]]])
def test_a_caption_column_of_another_type_is_refused(tmp_path, captions):
    pq.write_table(pa.table({"url": ["http://a.org/"], "caption": captions}), tmp_path / "list.parquet")
    with pytest.raises(RecipeError, match=r"'caption' cannot be read: the values are .*struct<en: string>>?, not text"):
        read_all(UrlList(path=str(tmp_path)))


def test_lists_of_numbers_are_read_as_captions(tmp_path):
    pq.write_table(pa.table({"url": ["http://a.org/"], "caption": [[1, 2]]}), tmp_path / "list.parquet")
    row = read_all(UrlList(path=str(tmp_path))).to_pylist()[0]
    assert (row["texts"][1]["text"], row["texts"][1]["alternatives"]) == ("1", ["2"])


def test_tsv_has_no_quotes_and_may_have_no_header(tmp_path):
    (tmp_path / "list.tsv").write_text('"never closed\thttp://a.org/\nsecond\thttp://b.org/\n')
    rows = read_all(UrlList(path=str(tmp_path), columns=["caption", "url"]))
    assert pairs_of(rows) == [("http://a.org/", '"never closed', None), ("http://b.org/", "second", None)]


def test_boxes_and_sizes_are_read(tmp_path):
    boxes = [[0.25, 0.5, 0.5, 1.0], ["x", 1, 2, 3]]
    row = {"url": "http://a.org/", "caption": "x", "faces": boxes[:1], "w": 200, "h": 100}
    for kind, value in (("jsonl", boxes), ("parquet", boxes[:1]), ("csv", json.dumps(boxes))):
        (tmp_path / f"list.{kind}").write_bytes(written(kind, [{**row, "faces": value}]))
        source = UrlList(path=str(tmp_path / f"list.{kind}"), boxes="faces", boxes_are="shares", width="w", height="h")
        image = read_all(source)["images"].to_pylist()[0][0]
        assert (image["boxes"], image["original_width"], image["original_height"]) == ([[50.0, 50.0, 100.0, 100.0]], 200, 100)


def labels_in(path, **parameters):
    """Return the labels of each row of a list, and its column `names` as it is carried."""
    rows = read_all(UrlList(path=str(path), boxes="places", box_labels="names", **parameters)).to_pylist()
    return [(row["images"][0]["box_labels"], json.loads(row["extra"] or "{}").get("names")) for row in rows]


@pytest.mark.parametrize("kind", ["jsonl", "parquet", "csv"])
def test_labels_of_boxes_are_read_and_kept_as_a_column_if_they_do_not_fit(tmp_path, kind):
    places = [[0.0, 0.0, 1.0, 1.0], [1.0, 1.0, 2.0, 2.0]]
    names = [["dog", None], ["dog"], ["a", "b", "c"], [], None]
    rows = [{"url": "http://a.org/", "caption": "x", "places": places, "names": one} for one in names]
    rows += [{**rows[0], "places": None}]
    if kind == "csv":
        rows = [{**row, **{name: json.dumps(row[name]) for name in ("places", "names")}} for row in rows]
    path = tmp_path / f"list.{kind}"
    path.write_bytes(written(kind, rows))
    kept = [None, *(json.dumps(one) if kind == "csv" else one for one in names[1:3])]
    labels = [["dog", None], None, None]
    expected = [*zip(labels, kept, strict=True), (None, None), (None, None), (None, rows[0]["names"])]
    assert labels_in(path) == expected
    assert labels_in(path, extra=[]) == [(one, None) for one, _ in expected]


def test_labels_in_csv_have_the_encoding_of_the_file(tmp_path):
    row = {"url": "http://a.org/", "caption": "x", "places": "[[0, 0, 1, 1]]", "names": '["chien préféré"]'}
    (tmp_path / "list.csv").write_bytes(written("csv", [row]).decode().encode("latin-1"))
    assert labels_in(tmp_path / "list.csv", encoding="latin-1") == [(["chien préféré"], None)]


def test_labels_at_a_dotted_path_are_read_and_those_that_are_missing_are_unknown(tmp_path):
    about = [{"at": [[0, 0, 1, 1]], "of": ["dog"]}, {"at": [[0, 0, 1, 1]]}, {"at": None, "of": None}, "none"]
    rows = [{"url": "http://a.org/", "caption": "x", "about": one} for one in about]
    (tmp_path / "list.jsonl").write_bytes(written("jsonl", rows))
    source = UrlList(path=str(tmp_path / "list.jsonl"), boxes="about.at", box_labels="about.of")
    images = [row["images"][0] for row in read_all(source).to_pylist()]
    assert [image["boxes"] for image in images] == [[[0, 0, 1, 1]], [[0, 0, 1, 1]], None, None]
    assert [image["box_labels"] for image in images] == [["dog"], None, None, None]


def test_labels_of_other_types_are_kept_as_a_column(tmp_path):
    wrong = ["dog", ["dog", 5], [1, 2], {"a": "b"}, 7, True, [["a"], "b"], "[1"]
    rows = [{"url": "http://a.org/", "caption": "x", "places": [[0, 0, 1, 1]] * 2, "names": one} for one in wrong]
    (tmp_path / "list.jsonl").write_bytes(written("jsonl", rows))
    assert labels_in(tmp_path / "list.jsonl") == [(None, one) for one in wrong]
    (tmp_path / "list.jsonl").write_bytes(written("jsonl", [{**rows[0], "names": ["half \ud800", "\0"]}]))
    assert labels_in(tmp_path / "list.jsonl") == [(["half ?", "\0"], None)]


def test_a_recipe_may_carry_all_or_some_extra_columns_or_rename_them(tmp_path):
    values = {"url": "http://a.org/", "caption": "x", "LICENSE": "cc-by", "score": float("nan"), "raw": b"\x00"}
    pq.write_table(pa.Table.from_pylist([values]), tmp_path / "list.parquet")

    def extra(choice):
        return json.loads(read_all(UrlList(path=str(tmp_path), extra=choice))["extra"][0].as_py() or "null")

    assert extra("all") == {"LICENSE": "cc-by", "score": None}
    assert extra(["LICENSE"]) == {"LICENSE": "cc-by"}
    assert extra({"licence": "LICENSE"}) == {"licence": "cc-by"}
    assert extra([]) is None


def test_columns_of_bytes_of_any_type_are_not_carried(tmp_path):
    kinds = [
        pa.binary(),
        pa.large_binary(),
        pa.binary_view(),
        pa.binary(1),
        pa.list_(pa.binary()),
        pa.struct([("bytes", pa.binary())]),
    ]
    kinds += [pa.dictionary(pa.int8(), pa.binary()), pa.map_(pa.string(), pa.binary())]
    columns = {str(number): pa.nulls(1, kind) for number, kind in enumerate(kinds)}
    table = pa.table({"url": ["http://a.org/"], "caption": ["x"], "n": [1], **columns})
    pq.write_table(table, tmp_path / "list.parquet")
    assert json.loads(read_all(UrlList(path=str(tmp_path)))["extra"][0].as_py()) == {"n": 1}


def test_dates_after_the_year_9999_are_carried_as_strings(tmp_path):
    late = {"date": pa.array([3_000_000], pa.date32()), "time": pa.array([254 * 10**9], pa.timestamp("s"))}
    pq.write_table(pa.table({"url": ["http://a.org/"], "caption": ["x"], **late}), tmp_path / "list.parquet")
    extra = json.loads(read_all(UrlList(path=str(tmp_path)))["extra"][0].as_py())
    assert extra["date"] == "10183-09-21" and extra["time"].startswith("10018-12-09 19:33:20")


@pytest.mark.parametrize(
    ("column", "message"),
    [
        (pa.array([0], pa.timestamp("us", tz="Mars/Olympus")), "the column 'n' .* cannot be kept"),
        (pa.array([{"day": 3_000_000}], pa.struct([("day", pa.date32())])), "the column 'n' .* cannot be kept"),
    ],
)
def test_a_column_that_cannot_be_carried_is_reported_by_name(tmp_path, column, message):
    pq.write_table(pa.table({"url": ["http://a.org/"], "caption": ["x"], "n": column}), tmp_path / "list.parquet")
    with pytest.raises(RecipeError, match=message):
        read_all(UrlList(path=str(tmp_path)))
    assert pairs_of(read_all(UrlList(path=str(tmp_path), extra=[]))) == [("http://a.org/", "x", None)]


def test_a_parquet_column_that_appears_twice_is_refused(tmp_path):
    table = pa.table([pa.array(["http://a.org/"]), pa.array(["x"]), pa.array([1]), pa.array([2])], ["url", "caption", "n", "n"])
    pq.write_table(table, tmp_path / "list.parquet")
    with pytest.raises(RecipeError, match="several columns have the name 'n'"):
        read_all(UrlList(path=str(tmp_path)))
    assert pairs_of(read_all(UrlList(path=str(tmp_path), extra=[]))) == [("http://a.org/", "x", None)]


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"url": "URL"}, "no column 'URL'. Did you mean 'url'?"),
        ({"caption": ["captoin"]}, "no column 'captoin'. Did you mean 'caption'?"),
        ({"extra": ["licence"]}, "no column 'licence'"),
        ({"encoding": "utf8x"}, "encoding 'utf8x' is unknown"),
        ({"path": "{}/lost.csv"}, "no such file or folder. Did you mean 'list.csv'?"),
        ({"path": "{}/*.json"}, "matches no file"),
        ({"path": "{}/empty"}, "holds no file that ends in"),
        ({"path": "nosuch://bucket/a.csv"}, "cannot be listed"),
        ({"path": "{}/other.dat"}, "Set `format:`"),
        ({"path": "{}/other.dat", "format": "parquet"}, "cannot be read as Parquet"),
        ({"path": "{}/broken.csv.gz"}, "cannot be read"),
        ({"boxes": "caption", "boxes_are": "shares"}, "needs the columns"),
        ({"box_labels": "caption"}, "Set `boxes` to their column too"),
    ],
)
def test_mistakes_are_reported_before_any_work(tmp_path, parameters, message):
    (tmp_path / "list.csv").write_bytes(written("csv"))
    (tmp_path / "other.dat").write_bytes(b"nothing of note")
    (tmp_path / "broken.csv.gz").write_bytes(b"\x1f\x8b\x08nothing")
    (tmp_path / "empty").mkdir()
    path = parameters.pop("path", "{}/list.csv").format(tmp_path)
    with pytest.raises(RecipeError) as error:
        UrlList(path=path, **parameters).check()
    assert message in str(error.value)


def test_damage_in_the_middle_is_reported_with_the_file(tmp_path):
    whole = gzip.compress(b"url,caption\n" + b"".join(b"http://a.org/%d,%x\n" % (i, i * i) for i in range(50_000)))
    (tmp_path / "list.csv.gz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(RecipeError, match=r"list\.csv\.gz cannot be read"):
        read_all(UrlList(path=str(tmp_path)))
    (tmp_path / "list.csv.gz").unlink()
    (tmp_path / "list.json").write_bytes(b'[{"url": "http://a.org/", "caption": ""}, {"url": "http')
    with pytest.raises(RecipeError, match="record 2 is not valid JSON"):
        read_all(UrlList(path=str(tmp_path)))


def test_text_after_a_json_array_is_reported(tmp_path):
    array = json.dumps([{"url": "http://a.org/", "caption": "x"}])
    (tmp_path / "list.json").write_text(array + " \n")
    assert len(read_all(UrlList(path=str(tmp_path)))) == 1
    (tmp_path / "list.json").write_text(f"{array}\n{array}")
    with pytest.raises(RecipeError, match=r"more text follows the JSON array of 1 record$"):
        read_all(UrlList(path=str(tmp_path)))


def test_a_json_array_longer_than_a_block_is_read_whole(tmp_path):
    rows = [{"url": f"http://a.org/{i}.jpg", "caption": "ä" * (i % 300)} for i in range(20_000)]
    (tmp_path / "list.json").write_bytes(json.dumps(rows, ensure_ascii=False).encode())
    assert pairs_of(read_all(UrlList(path=str(tmp_path)))) == [(row["url"], row["caption"], None) for row in rows]


@pytest.mark.parametrize("ending", ["txt", "parquet"])
@pytest.mark.parametrize(("find", "name"), [(fixture, "test_100"), (real_data, "test_10000")])
def test_the_lists_of_img2dataset_are_read(find, name, ending):
    path = find(f"F_vlm_repo_testdata/img2dataset/test_files/{name}.{ending}")
    rows = read_all(UrlList(path=str(path), url="URL", caption="TEXT"))
    assert (len(rows), rows["drop"].null_count) == (int(path.stem.split("_")[1]),) * 2


@pytest.mark.parametrize(
    ("find", "name"),
    [(fixture, "G_text/captions.tsv"), (real_data, "G_text/m2ib_cc3m_val/Validation_GCC-1.1.0-Validation.tsv")],
)
def test_the_list_of_conceptual_captions_is_read(find, name):
    path = find(name)
    rows = pairs_of(read_all(UrlList(path=str(path), columns=["caption", "url"])))
    lines = [line.split("\t") for line in path.read_text().splitlines()]
    assert rows == [(url, caption, None) for caption, url in lines]


def test_a_long_parquet_file_is_not_kept_in_memory(tmp_path, monkeypatch):
    """The file has 40 MB that do not compress, in 20 row groups. Only a few groups are in memory at a time."""
    path = tmp_path / "long.parquet"
    random = np.random.default_rng(0)
    with pq.ParquetWriter(path, pa.schema([("url", pa.string()), ("caption", pa.string())])) as writer:
        for group in range(20):
            texts = [random.bytes(500).hex() for _ in range(2000)]
            urls = [f"http://example.org/{group}/{n}.jpg" for n in range(2000)]
            writer.write_table(pa.table({"url": urls, "caption": texts}))
    monkeypatch.setattr(lists, "ROWS", 1000)
    source = UrlList(path=str(path))
    gc.collect()
    others = pa.total_allocated_bytes()  # memory held by earlier tests
    tracemalloc.start()
    rows, held = 0, []
    for piece in source.pieces():
        for table in source.read(piece):
            rows += len(table)
            held.append(tracemalloc.get_traced_memory()[0] + pa.total_allocated_bytes() - others)
    tracemalloc.stop()
    assert rows == 40_000
    assert max(held) < 0.6 * path.stat().st_size


@pytest.mark.whole
def test_a_process_that_reads_only_the_first_rows_of_a_long_list_ends(tmp_path):
    (tmp_path / "list.csv").write_text("url,caption\n" + "https://example.org/a.jpg,a picture of something\n" * 2_000_000)
    code = f"from vlmdata.sources.url_list import UrlList\nsource = UrlList(path={str(tmp_path / 'list.csv')!r})\n"
    code += "print(next(iter(source.read(source.pieces()[0])))['texts'].null_count)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=600)
    assert (done.returncode, done.stdout) == (0, "0\n"), done.stderr
