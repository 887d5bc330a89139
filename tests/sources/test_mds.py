"""MDS shards of MosaicML Streaming's own writer, and hostile ones: every sample is a row or a counted bad record."""

import bz2
import json
import shutil
import struct

import cv2
import numpy as np
import pytest

from tests.fixtures import fixture
from tests.sources.mds_shards import write_mds
from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata.sources.mds import Mds
from vlmdata.step import RecipeError

REAL = "F_vlm_repo_testdata/mds"
COLUMNS = {"caption": "str", "image": "bytes"}
ROWS = [{"caption": f"text {n}".encode(), "image": picture(8 + n)} for n in range(3)]


def rows_of(path, **options):
    return read_all(Mds(path=str(path), **options)).to_pylist()


def bytes_of(image):
    if image["data"] is not None:
        return image["data"]
    with open(image["blob"], "rb") as file:
        file.seek(image["offset"])
        return file.read(image["size"])


def reasons(path, **options):
    return [row["reason"] for row in rows_of(path, **options)]


@pytest.mark.parametrize("name", ["bytes", "png", "jpeg", "pil", "ndarray", "ndarray_uint8", "list_pil_"])
def test_images_of_each_encoding_of_the_real_writer_are_read(name):
    rows = rows_of(fixture(REAL) / name)
    assert [row["texts"][1]["text"] for row in rows] == [f"picture {n} ü" for n in range(3)]
    assert [json.loads(row["extra"]) for row in rows] == [{"number": n, "score": n / 4} for n in range(3)]
    for number, row in enumerate(rows):
        image = row["images"][0]
        assert (row["drop"], image["width"], image["height"]) == (None, 8 + number, 6)
        assert (image["blob"] is None) == (name in ("pil", "ndarray", "ndarray_uint8", "list_pil_"))
        pixels = cv2.imdecode(np.frombuffer(bytes_of(image), np.uint8), cv2.IMREAD_COLOR)[..., ::-1]
        assert np.abs(pixels.astype(int) - [40 * number, 99, 7]).max() <= (3 if name == "jpeg" else 0)


@pytest.mark.parametrize("name", ["list_png_", "jpeg_array"])
def test_several_images_of_the_real_writer_are_a_document(name):
    rows = rows_of(fixture(REAL) / name)
    assert [[image and image["width"] for image in row["images"]] for row in rows] == [
        [8, 9, None],
        [9, 10, None],
        [10, 11, None],
    ]


@pytest.mark.parametrize("kind", ["zstd", "gz", "bz2", "br"])
def test_compressed_shards_of_the_real_writer_are_read(kind):
    plain, packed = rows_of(fixture(REAL) / "bytes"), rows_of(fixture(REAL) / f"packed_{kind}")
    assert [bytes_of(row["images"][0]) for row in packed] == [bytes_of(row["images"][0]) for row in plain]


def test_values_of_each_safe_encoding_are_kept_and_pickles_are_not_opened():
    (row,) = rows_of(fixture(REAL) / "values", caption="c_json.en")
    extra = json.loads(row["extra"])
    assert row["texts"][1]["text"] == "a word"
    assert extra["c_str_int"] == 10**30 and extra["c_array"] == [[1, 2], [3, -4]] and "p" not in extra
    assert (extra["c_int"], extra["c_uint64"], extra["c_float16"], extra["c_float64"]) == (-3, 7, 0.5, 0.1)


def test_a_merged_index_and_those_below_it_give_each_sample_once(tmp_path):
    shutil.copytree(fixture(REAL) / "bytes", tmp_path / "a")
    shutil.copytree(fixture(REAL) / "packed_zstd", tmp_path / "b")
    assert len(rows_of(tmp_path)) == 6
    merged = []
    for name in ("a", "b"):
        for entry in json.loads((tmp_path / name / "index.json").read_text())["shards"]:
            for data in filter(None, (entry["raw_data"], entry["zip_data"])):
                data["basename"] = f"{name}/{data['basename']}"
            merged.append(entry)
    (tmp_path / "index.json").write_text(json.dumps({"version": 2, "shards": merged}))
    assert len(rows_of(tmp_path)) == 6
    assert len(rows_of(tmp_path / "index.json")) == 6


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"image": "picture"}, "no column 'picture'"),
        ({"caption": "captoin"}, "Did you mean 'caption'"),
        ({"image": "p"}, "'pkl', which is never opened, because opening it runs code"),
        ({"caption": "p"}, "'pkl', which is never opened"),
        ({"caption": "image"}, "'bytes', which does not hold texts or numbers"),
        ({"caption": "odd"}, "'odd:1', which is unknown"),
    ],
)
def test_a_column_that_cannot_be_read_is_a_mistake_of_the_recipe(tmp_path, options, says):
    write_mds(tmp_path, [{**ROWS[0], "p": b"", "odd": b""}], {**COLUMNS, "p": "pkl", "odd": "odd:1"})
    with pytest.raises(RecipeError, match=says):
        Mds(path=str(tmp_path), **options).check()


@pytest.mark.parametrize(
    ("index", "says"),
    [
        ("{", "is not JSON"),
        ("[" * 100_000, "is not JSON"),
        ("[]", "has no list `shards`"),
        ('{"shards": [], "version": 1}', "has the version 1"),
        ('{"shards": [{"format": "xsv", "version": 2}], "version": 2}', "its format is 'xsv'"),
    ],
)
def test_an_index_that_is_not_of_mds_is_a_mistake_of_the_recipe(tmp_path, index, says):
    (tmp_path / "index.json").write_text(index)
    with pytest.raises(RecipeError, match=says):
        Mds(path=str(tmp_path)).check()


def test_a_folder_without_an_index_is_a_mistake_of_the_recipe(tmp_path):
    (tmp_path / "shard.00000.mds").write_bytes(b"")
    with pytest.raises(RecipeError, match=r"index\.json"):
        Mds(path=str(tmp_path)).check()


def test_columns_are_asked_for_if_none_is_known(tmp_path):
    write_mds(tmp_path, [{"x": picture(), "y": b"a", "z": b""}], {"x": "jpeg", "y": "str", "z": "bytes"})
    with pytest.raises(RecipeError, match="Set `image` to one of x, y, z"):
        Mds(path=str(tmp_path)).check()
    with pytest.raises(RecipeError, match="Set `caption` to one of x, y, z, or"):
        Mds(path=str(tmp_path), image="x").check()
    assert reasons(tmp_path, image="x", caption=[]) == [None]


@pytest.mark.parametrize(
    "more",
    [
        {"samples": 2},
        {"samples": -1},
        {"samples": "3"},
        {"column_sizes": [None, -1]},
        {"column_sizes": [None]},
        {"column_names": ["caption", "caption"]},
        {"column_encodings": ["int", "bytes"]},
        {"column_encodings": ["ndarray:uint8:0", "bytes"]},
        {"raw_data": None},
        {"raw_data": {"basename": 5}},
        {"raw_data": {"basename": "shard.mds", "bytes": 1 << 40, "hashes": {}}},
        {"raw_data": {"basename": "shard.mds", "bytes": 1, "hashes": {"sha1": "0" * 40}}},
        {"raw_data": {"basename": "shard.mds", "bytes": 1, "hashes": {"shake_128": "00"}}},
        {"raw_data": {"basename": "shard.mds", "bytes": 1, "hashes": {"sha1": 5}}},
        {"zip_data": {"basename": "shard.mds", "bytes": 1, "hashes": {}}, "compression": "snappy"},
    ],
)
def test_a_shard_that_does_not_fit_its_entry_is_one_bad_record(tmp_path, more):
    good = write_mds(tmp_path, ROWS, COLUMNS, "good.mds")
    bad = write_mds(tmp_path, ROWS, COLUMNS, **more)
    (tmp_path / "index.json").write_text(json.dumps({"version": 2, "shards": [bad, good]}))
    rows = rows_of(tmp_path)
    assert [row["reason"] for row in rows] == ["bad_record", None, None, None]
    assert rows[0]["problem"] and rows[0]["place"] in ("shard.mds", "index.json, shard 0")


def changed(tmp_path, at: int, *values: int):
    write_mds(tmp_path, ROWS, COLUMNS)
    data = bytearray((tmp_path / "shard.mds").read_bytes())
    data[at : at + 4 * len(values)] = struct.pack(f"<{len(values)}I", *values)
    (tmp_path / "shard.mds").write_bytes(data)
    return reasons(tmp_path)


def test_wrong_offsets_and_sizes_lose_only_the_samples_that_they_touch(tmp_path):
    assert changed(tmp_path, 8, 2**32 - 1) == ["bad_record", "bad_record", None]  # the end of sample 0
    assert changed(tmp_path, 4, 0) == ["bad_record", None, None]  # sample 0 would begin in the header
    write_mds(tmp_path, ROWS, COLUMNS)
    begin = struct.unpack("<I", (tmp_path / "shard.mds").read_bytes()[4:8])[0]
    assert changed(tmp_path, begin, 2**32 - 1) == ["bad_record", None, None]  # the size of a column
    assert changed(tmp_path, begin, 0) == ["bad_record", None, None]


def test_no_byte_belongs_to_two_samples(tmp_path):
    write_mds(tmp_path, ROWS, COLUMNS)
    first, second = struct.unpack("<2I", (tmp_path / "shard.mds").read_bytes()[4:12])
    assert changed(tmp_path, 4, first, second, first, second) == [None, "bad_record", "bad_record"]


@pytest.mark.parametrize("kept", [0, 3, 10])
def test_a_shard_that_is_cut_off_in_its_header_is_one_bad_record(tmp_path, kept):
    write_mds(tmp_path, ROWS, COLUMNS)
    (tmp_path / "shard.mds").write_bytes((tmp_path / "shard.mds").read_bytes()[:kept])
    assert reasons(tmp_path) == ["bad_record"]


def test_a_shard_that_is_cut_off_keeps_its_first_samples(tmp_path):
    write_mds(tmp_path, ROWS, COLUMNS)
    (tmp_path / "shard.mds").write_bytes((tmp_path / "shard.mds").read_bytes()[:-1])
    assert reasons(tmp_path) == [None, None, "bad_record"]


def packed(tmp_path, data: bytes, stated: int) -> list:
    entry = write_mds(tmp_path, ROWS, COLUMNS, compression="bz2")
    (tmp_path / "shard.mds.bz2").write_bytes(data)
    (tmp_path / "shard.mds").unlink()
    entry["raw_data"]["bytes"] = stated
    entry["zip_data"] = {"basename": "shard.mds.bz2", "bytes": len(data), "hashes": {}}
    (tmp_path / "index.json").write_text(json.dumps({"version": 2, "shards": [entry]}))
    return rows_of(tmp_path)


def test_a_compressed_shard_gives_no_more_bytes_than_the_index_states(tmp_path):
    (row,) = packed(tmp_path, bz2.compress(bytes(50 << 20)), 1000)
    assert row["reason"] == "bad_record" and "more than the 1000 bytes" in row["problem"]


def test_a_damaged_compressed_shard_is_a_bad_record(tmp_path):
    rows = packed(tmp_path, b"BZh9 no archive", 1000)
    assert {row["reason"] for row in rows} == {"bad_record"}
    assert any("cannot be decompressed" in row["problem"] for row in rows)


@pytest.mark.parametrize(
    ("encoding", "value", "reason"),
    [
        ("list[jpeg]", struct.pack("<2I", 0, 2**32 - 1), "bad_record"),
        ("list[jpeg]", struct.pack("<3I", 0, 1, 9), "bad_record"),
        ("list[jpeg]", struct.pack("<2I", 0, 0), "no_image"),
        ("jpeg_array", b"\1", "bad_record"),
        ("bytes", b"", "no_image"),
        ("bytes", b"no image", "not_an_image"),
        ("pil", struct.pack("<3I", 2**31, 2**31, 3) + b"RGB", "truncated"),
        ("pil", struct.pack("<3I", 1, 1, 1) + b"?1", "unsupported_format"),
        ("pil", b"\0", "truncated"),
        ("ndarray", b"\x08\x0b" + struct.pack("<2Q", 2**63, 2**63), "corrupt"),
        ("ndarray", b"", "corrupt"),
        ("str", b"/etc/passwd", "not_a_path"),
    ],
)
def test_a_value_that_is_no_image_drops_its_row(tmp_path, encoding, value, reason):
    good = {"pil": struct.pack("<3I", 1, 1, 1) + b"L1", "ndarray": b"\x08\x08\x01\x01\xff", "str": b"https://example.org/a.png"}
    lists = {"list[jpeg]": bytes(4), "jpeg_array": b""}
    found = good.get(encoding, picture())
    if encoding in lists:
        found = lists[encoding] + struct.pack("<2I", 1, len(found)) + found
    rows = [{"image": value, "caption": b"a"}, {"image": found, "caption": b"b"}]
    write_mds(tmp_path, rows, {"caption": "str", "image": encoding})
    assert reasons(tmp_path) == [reason, None]


@pytest.mark.parametrize(
    ("encoding", "value", "reason"),
    [
        ("str", b"\xff", "bad_encoding"),
        ("json", b"[" * 100_000, "bad_record"),
        ("json", b"\xff", "bad_encoding"),
        ("str_int", b"9" * 10_000, "bad_record"),
        ("str_float", b"x", "bad_record"),
        ("ndarray", b"\x08\xff", "bad_record"),
    ],
)
def test_a_value_that_cannot_be_decoded_drops_its_row(tmp_path, encoding, value, reason):
    write_mds(tmp_path, [{**ROWS[0], "more": value}], {**COLUMNS, "more": encoding})
    assert reasons(tmp_path) == [reason]
    assert reasons(tmp_path, extra=[]) == [None]


def test_shards_on_another_store_are_read(tmp_path):
    import fsspec

    write_mds(tmp_path, ROWS, COLUMNS)
    store = fsspec.filesystem("memory")
    store.put(str(tmp_path), "/mds_of_test", recursive=True)
    rows = rows_of("memory://mds_of_test")
    assert [row["texts"][1]["text"] for row in rows] == ["text 0", "text 1", "text 2"]
    store.rm("/mds_of_test", recursive=True)


def test_a_dataset_whose_first_rows_have_no_caption_is_warned_about(tmp_path):
    write_mds(tmp_path, [{**ROWS[0], "caption": b" "}], COLUMNS)
    assert "none of the first 1 row has a caption in caption" in Mds(path=str(tmp_path)).warning()
    write_mds(tmp_path, ROWS, COLUMNS)
    assert Mds(path=str(tmp_path)).warning() is None
