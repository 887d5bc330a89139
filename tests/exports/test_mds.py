"""Exports to MDS have the layout that MosaicML Streaming reads, and the source mds reads them back unchanged."""

import hashlib
import json
import struct

import pyarrow as pa
import pytest
import xxhash

from tests.exporting.made import IMAGE, caption, chat, content, document, make_dataset
from tests.exporting.read_back import both
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata import run
from vlmdata.export_dataset import export
from vlmdata.exporting.exporter import Unsuitable
from vlmdata.exporting.mds_shards import Form, MdsFiles
from vlmdata.recipe import parse
from vlmdata.sources.mds import Mds
from vlmdata.sources.webdataset import Webdataset
from vlmdata.step import RecipeError

A, B = picture(8, 6), picture(9, 7, "JPEG")
TALKS = [
    document(0, ["first\n", A, " second ", B], url="https://example.org/page", licence="CC0"),
    chat(1),
    chat(2, "only", "text", roles=["user", "assistant"], tools=[{"name": "f"}]),
    chat(3, A, B, "call", '{"name": "f"}', roles=["user"] * 3 + ["assistant"], turns=[None] * 3 + [{"kind": "tool_call"}]),
    document(4, [A, B, A, "twice"], alternatives=[None, None, None, ["other"]]),
]


def exported(tmp_path, samples, layout="documents", name="to", **options):
    if not (tmp_path / "out").exists():
        make_dataset(tmp_path / "out", samples, layout=layout, per_shard=3)
    export(tmp_path / "out", tmp_path / name, to="mds", options=options)
    return tmp_path / name


def index_of(target):
    return json.loads((target / "index.json").read_text())


def rich(number: int):
    """Return a caption pair whose JSON has everything that a row can keep."""
    key, members = caption(number)
    facts = json.loads(members["json"])
    facts |= {"alternatives": ["another", "third"], "license": "CC-BY-4.0", "scores": {"clip": 0.5}, "boxes": [[0, 0, 1, 1]]}
    return key, {**members, "json": json.dumps(facts).encode()}


def test_an_index_has_the_fields_of_the_format(tmp_path):
    found = index_of(exported(tmp_path, map(caption, range(2)), "captions", hashes=["xxh64", "sha1"]))
    data = (tmp_path / "to" / "shard.00000.00000.mds").read_bytes()
    hashes = {"sha1": hashlib.sha1(data).hexdigest(), "xxh64": xxhash.xxh64(data).hexdigest()}
    entry = {
        "column_encodings": ["str", "bytes", "json", "str"],
        "column_names": ["caption", "image", "json", "key"],
        "column_sizes": [None] * 4,
        "compression": None,
        "format": "mds",
        "hashes": ["sha1", "xxh64"],
        "raw_data": {"basename": "shard.00000.00000.mds", "bytes": len(data), "hashes": hashes},
        "samples": 2,
        "size_limit": 1 << 26,
        "version": 2,
        "zip_data": None,
    }
    assert found == {"shards": [entry], "version": 2}


def test_a_file_has_offsets_then_its_columns_then_sizes_and_values(tmp_path):
    target = exported(tmp_path, [made := caption(0)], "captions")
    data = (target / "shard.00000.00000.mds").read_bytes()
    count, begin, end = struct.unpack("<3I", data[:12])
    values = [made[1]["txt"], IMAGE, made[1]["json"], made[0].encode()]
    assert (count, end) == (1, len(data))
    assert json.loads(data[12:begin])["column_names"] == ["caption", "image", "json", "key"]
    assert data[begin:] == struct.pack("<4I", *map(len, values)) + b"".join(values)


def test_the_columns_of_a_document_tell_the_order_of_texts_and_images(tmp_path):
    target = exported(tmp_path, [TALKS[3]])
    data = (target / "shard.00000.00000.mds").read_bytes()
    values = {}
    begin = struct.unpack("<I", data[4:8])[0]
    at = begin + 20
    for name, size in zip(("images", "json", "key", "roles", "texts"), struct.unpack("<5I", data[begin:at]), strict=True):
        values[name], at = data[at : at + size], at + size
    assert json.loads(values["texts"]) == [None, None, "call", '{"name": "f"}']
    assert json.loads(values["roles"]) == ["user", "user", "user", "assistant"]
    assert values["images"] == struct.pack("<4I", 0, 2, len(A), len(B)) + A + B


@pytest.mark.parametrize("options", [{}, {"compression": "zstd", "hashes": ["md5", "sha256", "xxh128"], "size_limit": 500}])
def test_documents_and_conversations_are_read_back_unchanged(tmp_path, options):
    target = exported(tmp_path, TALKS, **options)
    expected, found = both(TALKS, Mds(path=str(target)))
    assert found == expected


@pytest.mark.parametrize(("layout", "samples"), [("captions", list(map(rich, range(4)))), ("documents", TALKS)])
@pytest.mark.parametrize("compression", [None, "zstd"])
def test_rows_have_the_fields_that_the_tars_give(tmp_path, layout, samples, compression):
    target = exported(tmp_path, samples, layout, compression=compression)
    rows = [read_all(source) for source in (Mds(path=str(target)), Webdataset(path=str(tmp_path / "out")))]
    first, second = ([_without_places(row) for row in table.to_pylist()] for table in rows)
    assert first == second


def _without_places(row):
    """Return a row without the place of its image bytes, which differs."""
    images = [image and {**image, "blob": None, "offset": None, "size": None, "data": None} for image in row["images"]]
    return {**row, "images": images, "place": None, "key": None}


@pytest.mark.whole
@pytest.mark.parametrize(("layout", "samples"), [("captions", list(map(rich, range(4)))), ("documents", TALKS)])
def test_a_dataset_built_from_an_export_is_exported_to_the_same_columns(tmp_path, layout, samples):
    target = exported(tmp_path, samples, layout)
    found = []
    for name, source in (("webdataset", tmp_path / "out"), ("mds", target)):
        recipe = parse({"source": {"type": name, "path": str(source)}, "shards": {"layout": layout}})
        assert run(recipe, tmp_path / name, local=True, workers=1)["dropped"] == []
        export(tmp_path / name, tmp_path / f"{name}_again", to="mds")
        found.append(sorted(map(_comparable, read_all(Mds(path=str(tmp_path / f"{name}_again"))).to_pylist()), key=repr))
    assert len(found[0]) == len(samples) and found[0] == found[1]


def _comparable(row):
    row = _without_places(row)
    extra = {name: value for name, value in json.loads(row["extra"]).items() if name != "source_key"}
    return {**row, "extra": extra}


def test_a_shard_becomes_several_files_of_at_most_the_limit(tmp_path):
    (entry,) = index_of(exported(tmp_path, map(caption, range(3)), "captions", size_limit=999))["shards"]
    whole = entry["raw_data"]["bytes"]  # a file states its limit, so all limits here have three digits
    for limit, counts in ((whole, [3]), (whole - 1, [2, 1]), (800, [2, 1])):
        entries = index_of(exported(tmp_path, [], name=f"to{limit}", size_limit=limit))["shards"]
        assert [one["samples"] for one in entries] == counts
        assert max(one["raw_data"]["bytes"] for one in entries) <= limit
    entries = index_of(exported(tmp_path, [], name="single", size_limit=1))["shards"]
    assert [one["samples"] for one in entries] == [1, 1, 1]


def test_the_same_dataset_gives_the_same_bytes(tmp_path):
    first = content(exported(tmp_path, TALKS, name="one", compression="zstd", size_limit=600))
    assert content(exported(tmp_path, TALKS, name="two", compression="zstd", size_limit=600)) == first


@pytest.mark.parametrize("size_limit", [0, -1, 1 << 32])
def test_a_limit_that_no_file_can_have_is_refused(tmp_path, size_limit):
    with pytest.raises(RecipeError, match="size_limit must be between 1 and 4294967295"):
        exported(tmp_path, [caption(0)], "captions", size_limit=size_limit)


def test_offsets_stay_below_their_largest_value(tmp_path):
    """With a lower largest offset, a file ends before it, and a sample that passes it alone is refused."""
    form = Form({"a": "bytes"}, 1 << 26)
    with MdsFiles(tmp_path, tmp_path / "body", "x", form, largest=1000) as files:
        for size in (300, 300, 300, 10):
            files.add({"a": bytes(size)})
        with pytest.raises(Unsuitable, match="it has 1004 bytes, and an MDS file holds at most 1000"):
            files.add({"a": bytes(1000)})
        files.flush()
    sizes = [entry["raw_data"]["bytes"] for entry in files.entries]
    assert sum(entry["samples"] for entry in files.entries) == 4
    assert max(sizes) <= 1000 and len(sizes) == 2
    for entry in files.entries:
        data = (tmp_path / entry["raw_data"]["basename"]).read_bytes()
        count = struct.unpack("<I", data[:4])[0]
        assert struct.unpack(f"<{count + 1}I", data[4 : 8 + 4 * count])[-1] == len(data) <= 1000


def test_a_compressed_file_is_one_frame_that_states_its_size(tmp_path):
    """Streaming's decompressor refuses a frame without the size. Arrow's one-shot decompressor checks it, too."""
    target = exported(tmp_path, map(caption, range(3)), "captions", compression="zstd")
    (entry,) = index_of(target)["shards"]
    data = (target / entry["zip_data"]["basename"]).read_bytes()
    size = entry["raw_data"]["bytes"]
    assert len(data) == entry["zip_data"]["bytes"] and data[4] >> 6 == 3
    assert struct.unpack("<Q", data[6:14])[0] == size
    assert pa.Codec("zstd").decompress(data, decompressed_size=size).to_pybytes()[:4] == struct.pack("<I", 3)
