"""Every unreadable record of a list is reported with its file, its line and its problem."""

import codecs
import gzip
import json
import zipfile

import pytest

from tests.sources.reading import pairs_of, read_all
from vlmdata.sources.files import Files
from vlmdata.sources.llava_json import LlavaJson
from vlmdata.sources.messages import Messages
from vlmdata.sources.mmc4 import Mmc4
from vlmdata.sources.url_list import UrlList

CSV = 'url,caption\n\nhttp://a.org/,"two\nlines"\nhttp://b.org/\r\n\nhttp://c.org/,"a\n"" b",c\nd"e,f\n'
CSV_PLACES = [(5, "the row has 1 field, but there are 2 columns"), (7, "the row has 3 fields, but there are 2 columns")]


def places(source) -> list:
    rows = [row for row in read_all(source).to_pylist() if row["problem"] is not None]
    assert all(row["drop"] == "source" for row in rows)
    return [(row["reason"], row["place"], row["problem"]) for row in rows]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "latin-1"])
@pytest.mark.parametrize("quoted", [True, False])
def test_csv_rows_are_reported_by_the_line_on_which_they_begin(tmp_path, encoding, quoted):
    (tmp_path / "list.csv").write_bytes(CSV.encode(encoding))
    found = places(UrlList(path=str(tmp_path), encoding="utf-8" if encoding == "utf-8-sig" else encoding, quoted=quoted))
    if quoted:
        assert found == [("bad_record", f"list.csv, line {line}", problem) for line, problem in CSV_PLACES]
    else:
        assert [place for _, place, _ in found] == [f"list.csv, line {line}" for line in (4, 5)]


def test_lines_are_counted_across_blocks_and_names_are_relative_to_the_folder(tmp_path, monkeypatch):
    monkeypatch.setattr("vlmdata.readers.whole_rows.READ", 1 << 16)
    (tmp_path / "b").mkdir()
    lines = ["url,caption", *(f'http://a.org/{n},"x\n\ny"' if n % 3 else f"http://a.org/{n}" for n in range(30_000))]
    (tmp_path / "b/list.csv.gz").write_bytes(gzip.compress("\n".join(lines).encode()))
    (tmp_path / "a.csv").write_text("url,caption\nhttp://a.org/,x,y\n")
    expected = ["a.csv, line 2", *(f"b/list.csv.gz, line {2 + 7 * number}" for number in range(10_000))]
    assert [place for _, place, _ in places(UrlList(path=str(tmp_path)))] == expected


def test_columns_named_by_the_recipe_do_not_shift_line_numbers(tmp_path):
    (tmp_path / "list.tsv").write_text('http://a.org/\t"\n\nhttp://b.org/\r\n')
    source = UrlList(path=str(tmp_path), columns=["url", "caption"])
    assert places(source) == [("bad_record", "list.tsv, line 3", "the row has 1 field, but there are 2 columns")]


def test_a_field_longer_than_pythons_limit_does_not_stop_the_count_of_lines(tmp_path):
    (tmp_path / "list.csv").write_text(f'url,caption\nhttp://a.org/,"{"x" * 200_000}"\nhttp://b.org/\n')
    assert [place for _, place, _ in places(UrlList(path=str(tmp_path)))] == ["list.csv, line 3"]


LATIN = '{"url": "http://a.org/", "caption": "schön"}'
FORMS = {  # two records, the first with a character in the other encoding, and the line of the first
    "array": ("[\n{},\n{}]", 2),
    "one after the other": ("{}\n{}", 1),
    "lines": ("{}\n{}\n", 1),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-32", "shift_jis"])
def test_a_json_record_in_another_encoding_loses_only_that_record(tmp_path, form, encoding):
    written, line = FORMS[form]
    broken = {"utf-8": b"\xf6", "shift_jis": b"\xff", "utf-16": b"\x00\xd8", "utf-32": b"\x00\xd8\x00\x00"}[encoding]
    data = written.format(LATIN, LATIN.replace("ö", "o").replace("a.org", "b.org")).replace("ö", "QQ").encode(encoding)
    letters = "QQ".encode(encoding.replace("16", "16-le").replace("32", "32-le"))
    (tmp_path / ("a.jsonl" if form == "lines" else "a.json")).write_bytes(data.replace(letters, broken))
    source = UrlList(path=str(tmp_path), encoding=encoding if encoding == "shift_jis" else "utf-8")
    name, unit = ("a.jsonl", "line") if form == "lines" else ("a.json", "record")
    assert places(source) == [("bad_encoding", f"{name}, line {line}", f"the {unit} holds bytes that are not {encoding}")]
    assert [text for _, text, reason in pairs_of(read_all(source)) if reason is None] == ["schon"]


def test_json_columns_in_another_encoding_lose_only_one_row(tmp_path):
    columns = '{"url": ["http://a.org/", "http://b.org/"], "caption": ["schön", "x"]}'
    (tmp_path / "a.json").write_bytes(columns.encode("latin-1"))
    assert [reason for _, _, reason in pairs_of(read_all(UrlList(path=str(tmp_path))))] == [None, "bad_encoding"]


BAD_LINES = (
    b'{"messages": [], "conversations": []}\n\n{"url": \n[1]\n\xff\n' + b"[" * 100_000 + b'\n{"a": ' + b"1" * 5000 + b"}\n"
)
BAD_PLACES = [
    ("bad_record", 3, "the record is not valid JSON at character 8"),
    ("bad_record", 4, "the record is JSON but not an object"),
    ("bad_encoding", 5, "the line holds bytes that are not utf-8"),
    ("bad_record", 6, "the JSON is nested too deeply"),
    ("bad_record", 7, "the JSON holds a number with too many digits"),
]


@pytest.mark.parametrize("kind", [LlavaJson, Messages, UrlList])
def test_json_lines_are_reported_by_their_number(tmp_path, kind):
    (tmp_path / "a.jsonl").write_bytes(BAD_LINES)
    extra = {"url": "conversations", "caption": ""} if kind is UrlList else {}
    found = places(kind(path=str(tmp_path), **extra))
    assert found == [(reason, f"a.jsonl, line {line}", problem) for reason, line, problem in BAD_PLACES]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_records_of_a_json_array_are_reported_by_line_and_number(tmp_path, encoding, monkeypatch):
    monkeypatch.setattr("vlmdata.readers.json_records.READ", 64)
    text = '\n\n[{"url": "http://a.org/"},\n 7,\n\n' + '{"url": "http://b.org/"},\n' * 20 + ' "x", [1]]'
    (tmp_path / "a.json").write_bytes(text.encode(encoding))
    assert [(place, problem) for _, place, problem in places(UrlList(path=str(tmp_path), caption=""))] == [
        ("a.json, line 4", "record 2 of the list is not an object"),
        ("a.json, line 26", "record 23 of the list is not an object"),
        ("a.json, line 26", "record 24 of the list is not an object"),
    ]


def test_rows_of_a_table_of_files_are_reported_by_their_number(tmp_path):
    (tmp_path / "metadata.csv").write_text("file_name,caption\na.jpg\n")
    assert [place for _, place, _ in places(Files(path=str(tmp_path), table="metadata.csv"))] == ["metadata.csv, line 2"]


def test_lines_of_mmc4_are_reported_with_the_member_of_a_zip_file(tmp_path):
    lines = codecs.BOM_UTF8 + b'\n{broken\n[1]\n{"text_list": []}\n\xff\n'
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as file:
        file.writestr("b.jsonl", lines)
    assert places(Mmc4(path=str(tmp_path))) == [
        ("bad_record", "a.zip/b.jsonl, line 2", "the record is not valid JSON at character 2"),
        ("bad_record", "a.zip/b.jsonl, line 3", "the record is JSON but not a document of MMC4"),
        ("bad_record", "a.zip/b.jsonl, line 4", "the record has no field 'image_info'"),
        ("bad_record", "a.zip/b.jsonl, line 5", "the record is not UTF-8 at byte 0"),
    ]


def test_a_piece_that_an_earlier_version_planned_is_read(tmp_path):
    (tmp_path / "a.jsonl").write_text(json.dumps([1]))
    (table,) = Mmc4(path=str(tmp_path)).read({"path": str(tmp_path / "a.jsonl")})
    assert table["place"].to_pylist() == ["a.jsonl, line 1"]
