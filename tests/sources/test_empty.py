"""A source without rows gives a dataset without rows, and an empty file does not affect other files."""

import bz2
import codecs
import gzip
import io
import json
import lzma

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.sources.reading import pairs_of
from vlmdata import run
from vlmdata.cli import main
from vlmdata.recipe import parse
from vlmdata.row import conform
from vlmdata.sources.files import Files
from vlmdata.sources.llava_json import LlavaJson
from vlmdata.sources.messages import Messages
from vlmdata.sources.mmc4 import Mmc4
from vlmdata.sources.obelics_parquet import ObelicsParquet
from vlmdata.sources.url_list import UrlList
from vlmdata.step import RecipeError

COMPRESS = {"": bytes, ".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress}
COMPRESS[".zst"] = lambda data: pa.compress(data, "zstd", asbytes=True)
BLANK = [b"", codecs.BOM_UTF8, b"\n\n", codecs.BOM_UTF8 + b"\r\n \r\n", b"\n" * 200_000]
BLANK += [codecs.BOM_UTF16_LE, "\ufeff\r\n\r\n".encode("utf-16-be"), codecs.BOM_UTF32_LE]
HEADER = [
    b"url,caption",
    b"url,caption\n",
    b"url,caption\r",
    codecs.BOM_UTF8 + b'"url","caption"',
    b"url,caption" + b"\r\n" * 99_000,
]
HEADER += ["\ufeffurl,caption".encode("utf-16-le"), "\ufeffurl,caption\r\n".encode("utf-16-be"), b"a,b\n"]
JSON = [b"[]", b" [ \n ] ", codecs.BOM_UTF8 + b"[]", b"{}", b'{"url": {}, "caption": {}}', b'{"url": [], "caption": []}']


def parquet(table: pa.Table) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink)
    return sink.getvalue()


def no_row_group() -> bytes:
    sink = io.BytesIO()
    pq.ParquetWriter(sink, pa.schema([("url", pa.string())])).close()
    return sink.getvalue()


NO_ROWS = {"url": pa.nulls(0, pa.string()), "caption": pa.nulls(0, pa.string())}
PARQUET = [b"", no_row_group(), *map(parquet, (pa.table(NO_ROWS), pa.table({}), pa.table({"x": pa.nulls(0)})))]
NOTHING = {"csv": BLANK + HEADER, "tsv": BLANK + [data.replace(b",", b"\t") for data in HEADER], "txt": BLANK}
NOTHING |= {"jsonl": BLANK, "json": BLANK + JSON, "parquet": PARQUET}
ONE = {"csv": b"url,caption\nhttp://a.org/,c\n", "tsv": b"url\tcaption\nhttp://a.org/\tc\n", "txt": b"http://a.org/\n"}
ONE |= {"jsonl": b'{"url": "http://a.org/", "caption": "c"}', "json": b'[{"url": "http://a.org/", "caption": "c"}]'}
ONE["parquet"] = parquet(pa.table({"url": ["http://a.org/"], "caption": ["c"]}))


def read(source) -> list:
    source.check()
    tables = [conform(table) for piece in source.pieces() for table in source.read(piece)]
    return [pair for table in tables for pair in pairs_of(table)]


@pytest.mark.parametrize("compression", COMPRESS)
@pytest.mark.parametrize("kind", NOTHING)
def test_an_empty_list_adds_no_row(tmp_path, kind, compression):
    for number, data in enumerate(NOTHING[kind]):
        (tmp_path / f"{number:02}.{kind}{compression}").write_bytes(COMPRESS[compression](data))
    assert read(UrlList(path=str(tmp_path))) == []
    (tmp_path / f"one.{kind}").write_bytes(ONE[kind])
    assert read(UrlList(path=str(tmp_path))) == [("http://a.org/", None if kind == "txt" else "c", None)]


@pytest.mark.parametrize("names", [[], ["url", "caption"]])
def test_columns_named_by_the_recipe_add_no_row_to_an_empty_list(tmp_path, names):
    for number, data in enumerate(BLANK):
        (tmp_path / f"{number:02}.csv").write_bytes(data)
    assert read(UrlList(path=str(tmp_path), columns=names)) == []


@pytest.mark.parametrize(
    ("source", "name", "nothing"),
    [
        (lambda path: Files(path=str(path), table="*.csv"), "a.csv", [*BLANK, *HEADER]),
        (lambda path: LlavaJson(path=str(path)), "a.json", [*BLANK, *JSON]),
        (lambda path: LlavaJson(path=str(path), joined=True), "a.jsonl", BLANK),
        (lambda path: Messages(path=str(path)), "a.jsonl", BLANK),
        (lambda path: Messages(path=str(path)), "a.parquet", PARQUET),
        (lambda path: Mmc4(path=str(path)), "a.jsonl", BLANK[:5]),
        (lambda path: Mmc4(path=str(path)), "a.zip", [b"", b"PK\5\6" + bytes(18)]),
        (lambda path: ObelicsParquet(path=str(path)), "a.parquet", PARQUET),
    ],
)
def test_empty_files_add_no_row_in_other_sources(tmp_path, source, name, nothing):
    for data in nothing:
        (tmp_path / name).write_bytes(data)
        assert read(source(tmp_path)) == []


@pytest.mark.whole
@pytest.mark.parametrize(
    "source",
    [
        {"type": "url_list", "path": "list.csv"},
        {"type": "obelics_parquet", "path": "list.parquet"},
    ],
)
def test_a_dataset_without_rows_is_complete_and_every_command_opens_it(tmp_path, source, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_text("url,caption")
    (tmp_path / "list.parquet").write_bytes(PARQUET[0])
    steps = ["text_length", "download", {"resize": {"mode": "no"}}, "dedupe_exact", "dedupe_phash"]
    made = run(parse({"source": source, "steps": steps, "shards": {"layout": "documents"}}), "out", local=True, workers=1)
    assert (made["rows"], made["kept"], made["dropped"]) == (0, 0, [])
    assert {"README.md", "croissant.json", "index.parquet", "ledger/00000.parquet", "report.html"} <= set(made["files"])
    verbs = [["check", "out", "--bytes"], ["show", "out"], ["diff", "out", "out"], ["retry", "out"], ["export", "out", "to"]]
    assert [main(verb) for verb in [*verbs, ["forget", "out", "--url", "http://a.org/"], ["check", "out"]]] == [0] * 7
    assert main(["why", "out", "http://a.org/"]) == 1
    assert json.loads((tmp_path / "out/manifest.json").read_text())["rows"] == 0


@pytest.mark.whole
def test_a_run_limited_to_zero_rows_writes_a_dataset(tmp_path):
    (tmp_path / "list.csv").write_bytes(ONE["csv"])
    recipe = parse({"source": {"type": "url_list", "path": str(tmp_path / "list.csv")}, "steps": ["text_length"]})
    assert run(recipe, tmp_path / "out", local=True, workers=1, limit=0)["rows"] == 0


@pytest.mark.parametrize("path", ["", [], ["a.csv", ""]])
def test_an_empty_path_does_not_stand_for_the_current_folder(tmp_path, monkeypatch, path):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.csv").write_text("url,caption\nhttp://a.org/1,a\n")
    for source in (UrlList(path=path), Files(path=path), LlavaJson(path=path)):
        with pytest.raises(RecipeError, match="path must name at least one file"):
            source.check()
