"""A run on any input ends in rows or in one clear error: lists, recipes, tars, archives, pages.

`make chaos` runs these tests many times with other examples.
"""

import gzip
import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.engine.site import picture
from vlmdata import catalog, recipe
from vlmdata.engine.partitions.keys import content_keys
from vlmdata.errors import Mistakes
from vlmdata.row import conform
from vlmdata.shipped import build_recipes
from vlmdata.sources.hf_dataset import HfDataset
from vlmdata.sources.html import Html
from vlmdata.sources.interleaved_tars import InterleavedTars
from vlmdata.sources.url_list import UrlList
from vlmdata.sources.warc import Warc
from vlmdata.sources.webdataset import Webdataset
from vlmdata.step import RecipeError, Source
from vlmdata.verify import check

pytestmark = [pytest.mark.whole, pytest.mark.fuzz, pytest.mark.timeout(1200)]
relaxed = settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
PAGE = b"<html><head><title>t</title></head><body><p>Some words of a page.</p><img src='/a.jpg' alt='a'></body></html>"


@st.composite
def damaged(draw, data: bytes) -> bytes:
    """Return bytes with up to four damages, each a changed bit or a stretch that is cut out, doubled or random, and perhaps
    cut short."""
    wounded = bytearray(data)
    for _ in range(draw(st.integers(0, 4))):
        if not wounded:
            break
        at = draw(st.integers(0, len(wounded) - 1))
        size = draw(st.integers(1, 64))
        kind = draw(st.sampled_from(["flip", "cut", "double", "rubbish", "zeros"]))
        if kind == "flip":
            wounded[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del wounded[at : at + size]
        elif kind == "double":
            wounded[at:at] = wounded[at : at + size]
        elif kind == "zeros":
            wounded[at : at + size] = bytes(size)
        else:
            wounded[at : at + size] = draw(st.binary(max_size=size))
    return bytes(wounded[: draw(st.integers(0, len(wounded)))] if draw(st.booleans()) else wounded)


def read_whole(source: Source) -> int:
    """Read a source as a run does and return its rows. The only error allowed is RecipeError."""
    try:
        source.check()
        source.files()
        rows = 0
        for piece in source.pieces():
            for table in source.read(piece):
                table = conform(table)
                assert len(content_keys(table)) == len(table)
                table.validate(full=True)
                rows += len(table)
    except RecipeError as error:
        assert is_lines(error)
        return 0
    return rows


def is_lines(error: RecipeError) -> bool:
    """Return whether the message has one line, or one line for each of several mistakes."""
    lines = str(error).split("\n")
    return all(line.strip() for line in lines) and (len(lines) == 1 or isinstance(error, Mistakes))


ROWS = [{"url": f"http://example.org/{n}.jpg", "caption": f'text, "quoted" ünd {n}'} for n in range(12)]


def listing(kind: str) -> bytes:
    table = pa.Table.from_pylist(ROWS)
    if kind == "parquet":
        sink = io.BytesIO()
        pq.write_table(table, sink)
        return sink.getvalue()
    if kind in ("csv", "tsv"):
        mark = "," if kind == "csv" else "\t"
        lines = [mark.join(ROWS[0])]
        lines += [
            mark.join('"' + value.replace('"', '""') + '"' if kind == "csv" else value for value in row.values())
            for row in ROWS
        ]
        return "\n".join(lines).encode()
    if kind == "jsonl":
        return "\n".join(json.dumps(row) for row in ROWS).encode()
    if kind == "json":
        return json.dumps(ROWS).encode()
    return "\n".join(row["url"] for row in ROWS).encode()


LISTS = {kind: listing(kind) for kind in ("parquet", "csv", "tsv", "jsonl", "json", "txt")}
LISTS |= {f"{kind}.gz": gzip.compress(LISTS[kind], mtime=0) for kind in ("csv", "jsonl", "txt")}


@pytest.mark.parametrize("kind", LISTS)
def test_fuzzed_lists(kind, tmp_path):
    path = tmp_path / f"list.{kind}"

    @relaxed
    @given(damaged(LISTS[kind]))
    def feed(data):
        path.write_bytes(data)
        assert read_whole(UrlList(path=str(path))) <= 12 + len(data)

    path.write_bytes(LISTS[kind])
    assert read_whole(UrlList(path=str(path))) == 12
    feed()


@relaxed
@given(st.binary(max_size=300))
@pytest.mark.parametrize("kind", ["csv", "tsv", "jsonl", "json", "txt", "parquet", "csv.gz"])
def test_fuzzed_lists_of_random_bytes(kind, tmp_path, data):
    path = tmp_path / f"list.{kind}"
    path.write_bytes(data)
    read_whole(UrlList(path=str(path)))


SHIPPED = build_recipes()
NAMES = [*catalog.names("steps"), *catalog.names("sources"), "source", "steps", "shards", "type", "path", "label", "min_side"]
values = st.recursive(
    st.none() | st.booleans() | st.integers(-3, 10**6) | st.floats() | st.text(max_size=8) | st.sampled_from(NAMES),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(NAMES) | st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def refused_or_read(path: Path) -> None:
    try:
        made = recipe.load(path)
        made.describe()
        check(made)
    except RecipeError as error:
        assert is_lines(error)


@relaxed
@given(st.dictionaries(st.sampled_from(["source", "steps", "shards", "part_rows", "other"]), values, max_size=4))
def test_fuzzed_recipes_with_any_values(tmp_path, tree):
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(tree))
    refused_or_read(path)


@pytest.mark.parametrize("shipped", SHIPPED, ids=lambda path: path.stem)
def test_fuzzed_versions_of_the_recipes_that_ship(shipped, tmp_path):
    path = tmp_path / "recipe.yaml"

    @relaxed
    @given(damaged(shipped.read_bytes()))
    def feed(data):
        path.write_bytes(data)
        refused_or_read(path)

    feed()


@relaxed
@given(st.sampled_from(catalog.names("steps")), st.data())
def test_fuzzed_parameters_of_steps(name, data):
    """A parameter of the wrong type or out of range is reported when the recipe is read or checked."""
    fields = [field for field in catalog.find("steps", name).__dataclass_fields__ if field != "label"]
    parameters = data.draw(st.dictionaries(st.sampled_from([*fields, "no_such"]), values, max_size=3))
    tree = {"source": {"type": "url_list", "path": __file__}, "steps": [{name: parameters}]}
    try:
        for step in recipe.parse(tree).steps:
            step.check()
    except RecipeError as error:
        assert is_lines(error)


def tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as made:
        for number in range(3):
            facts = json.dumps({"url": f"http://example.org/{number}.jpg", "width": 8}).encode()
            document = {"texts": ["a", None], "images": [None, "http://x/"], "metadata": [None, {"file": "0.jpg"}]}
            for name, data in (
                (f"{number}.jpg", picture(number, 16)),
                (f"{number}.txt", b"words"),
                (f"{number}.json", facts),
                (f"d{number}.0.jpg", picture(number, 16)),
                (f"d{number}.json", json.dumps(document).encode()),
            ):
                member = tarfile.TarInfo(name)
                member.size = len(data)
                made.addfile(member, io.BytesIO(data))
    return out.getvalue()


TAR = tar()


@pytest.mark.parametrize("kind", [Webdataset, InterleavedTars])
@pytest.mark.parametrize("ending", ["tar", "tar.gz"])
def test_fuzzed_tars(kind, ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    whole = gzip.compress(TAR, mtime=0) if ending == "tar.gz" else TAR

    @relaxed
    @given(damaged(whole))
    def feed(data):
        path.write_bytes(data)
        read_whole(kind(path=str(path)))

    path.write_bytes(whole)
    assert read_whole(kind(path=str(path))) == 6
    feed()


def record(number: int, body: bytes) -> bytes:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: %d\r\n\r\n" % len(body) + body
    head = f"WARC/1.0\r\nWARC-Type: response\r\nWARC-Record-ID: <urn:uuid:{number:032x}>\r\nWARC-Date: 2026-01-01T00:00:00Z\r\n"
    head += f"WARC-Target-URI: http://example.org/{number}\r\nContent-Type: application/http;msgtype=response\r\n"
    return head.encode() + b"Content-Length: %d\r\n\r\n" % len(http) + http + b"\r\n\r\n"


WARC = [record(number, PAGE) for number in range(4)]


@pytest.mark.parametrize("ending", ["warc", "warc.gz"])
def test_fuzzed_archives(ending, tmp_path):
    path = tmp_path / f"a.{ending}"
    whole = b"".join(gzip.compress(one, mtime=0) if ending == "warc.gz" else one for one in WARC)

    @relaxed
    @given(damaged(whole))
    def feed(data):
        path.write_bytes(data)
        read_whole(Warc(path=str(path)))

    path.write_bytes(whole)
    assert read_whole(Warc(path=str(path))) == 4
    feed()


@relaxed
@given(damaged(PAGE * 3))
def test_fuzzed_pages(tmp_path, data):
    (tmp_path / "a.html").write_bytes(data)
    assert read_whole(Html(path=str(tmp_path))) == 1


def test_fuzzed_parquet_with_images(tmp_path):
    images = [{"bytes": picture(n, 16), "path": None} for n in range(4)]
    sink = io.BytesIO()
    pq.write_table(pa.table({"image": images, "caption": [f"picture {n}" for n in range(4)]}), sink)
    path = tmp_path / "a.parquet"

    @relaxed
    @given(damaged(sink.getvalue()))
    def feed(data):
        path.write_bytes(data)
        read_whole(HfDataset(path=str(tmp_path), streaming=True))

    feed()
