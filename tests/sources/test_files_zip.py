"""Zip archives of images are read without unpacking them to disk, and a bad member affects only its row."""

import json
import struct
import tracemalloc
import zipfile
from collections import Counter
from pathlib import Path

import pytest

from tests.sources.pictures import picture
from tests.sources.reading import read_all
from vlmdata.sources.files import Files
from vlmdata.step import RecipeError


def write(path: Path, members: dict[str, bytes], packed: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(path, "w", packed) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return path


def test_images_and_texts_of_several_archives_in_a_folder_are_read(tmp_path):
    write(tmp_path / "1.zip", {"a/1.png": picture(), "a/1.txt": b"one", "__MACOSX/a/._1.png": b"x", "a/.2.png": b"x"})
    write(tmp_path / "2.ZIP", {"1.png": picture(9), "1.png.txt": b"two"}, zipfile.ZIP_STORED)
    rows = read_all(Files(path=str(tmp_path))).to_pylist()
    assert [(r["extra"], r["texts"][1]["text"], r["images"][0]["data"]) for r in rows] == [
        ('{"file_name": "1.zip/a/1.png"}', "one", picture()),
        ('{"file_name": "2.ZIP/1.png"}', "two", picture(9)),
    ]


def test_members_with_outside_paths_or_wrong_sizes_have_a_reason(tmp_path, monkeypatch):
    monkeypatch.setattr("vlmdata.readers.image_files.LARGEST", 3 << 20)
    bomb = picture() + bytes(4 << 20)
    members = {"../a.png": picture(), "/b.png": picture(), "c\\..\\..\\d.png": picture(), "e.png": bomb, "f.png": picture()}
    rows = read_all(Files(path=str(write(tmp_path / "a.zip", members)))).to_pylist()
    reasons = {row["extra"][len('{"file_name": "a.zip/') : -2]: row["reason"] for row in rows}
    assert reasons == {
        "../a.png": "outside_folder",
        "/b.png": "outside_folder",
        "c\\\\..\\\\..\\\\d.png": "outside_folder",
        "e.png": "too_large",
        "f.png": None,
    }


@pytest.mark.parametrize(
    ("at", "value", "reason"),
    [(8, 1, "encrypted"), (10, 97, "unreadable_file"), (16, 7, "unreadable_file"), (24, 1 << 30, "too_large")],
)
def test_a_member_whose_header_is_odd_loses_only_its_row(tmp_path, at, value, reason):
    """Each case gives the offset in the central directory's entry: flags, method, CRC, uncompressed size."""
    path = write(tmp_path / "a.zip", {"a.png": picture(), "b.png": picture(9)})
    data = bytearray(path.read_bytes())
    entry = data.find(b"PK\1\2")
    struct.pack_into("<H" if at < 16 else "<I", data, entry + at, value)
    path.write_bytes(data)
    assert [row["reason"] for row in read_all(Files(path=str(path))).to_pylist()] == [reason, None]


def test_a_member_that_hides_a_bomb_behind_a_small_size_takes_little_memory(tmp_path):
    path = write(tmp_path / "a.zip", {"a.png": bytes(200 << 20)})
    data = bytearray(path.read_bytes())
    for start, at in ((data.find(b"PK\3\4"), 22), (data.find(b"PK\1\2"), 24)):
        struct.pack_into("<I", data, start + at, 1000)
    path.write_bytes(data)
    tracemalloc.start()
    rows = read_all(Files(path=str(path))).to_pylist()
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [row["reason"] for row in rows] == ["unreadable_file"] and peak < 20 << 20


@pytest.mark.parametrize("packed", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_member_in_a_compression_with_unbounded_memory_is_refused(tmp_path, packed):
    path = write(tmp_path / "a.zip", {"a.png": picture()}, packed)
    assert [row["reason"] for row in read_all(Files(path=str(path))).to_pylist()] == ["unreadable_file"]


def test_an_invalid_archive_gives_one_row_beside_those_of_a_good_one(tmp_path):
    write(tmp_path / "a.zip", {"a.png": picture(), "a.txt": b"words"})
    (tmp_path / "b.zip").write_bytes(b"no zip")
    (tmp_path / "c.zip").write_bytes((tmp_path / "a.zip").read_bytes()[:-30])
    rows = read_all(Files(path=str(tmp_path))).to_pylist()
    assert [(row["place"], row["reason"]) for row in rows] == [
        ("a.zip/a.png", None),
        ("b.zip", "bad_record"),
        ("c.zip", "bad_record"),
    ]


def test_an_archive_of_archives_gives_no_image(tmp_path):
    write(tmp_path / "a.zip", {"b.zip": write(tmp_path / "b.zip", {"a.png": picture()}).read_bytes()})
    with pytest.raises(RecipeError, match="there is no image"):
        Files(path=str(tmp_path / "a.zip")).check()


def test_an_archive_in_an_archive_is_counted(tmp_path):
    inner = write(tmp_path / "b.zip", {"a.png": picture()}).read_bytes()
    source = Files(path=str(write(tmp_path / "a.zip", {"b.zip": inner, "c.png": picture()})))
    others: Counter[str] = Counter()
    assert sum(len(table) for piece in source.pieces() for table in source.read_counting(piece, others)) == 1
    assert others == {"archive": 1}


def test_the_later_of_two_members_with_one_name_is_read_and_the_other_counted(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, pytest.warns(UserWarning, match="Duplicate name"):
        for data in (picture(), picture(9)):
            archive.writestr("a.png", data)
    source = Files(path=str(tmp_path))
    others: Counter[str] = Counter()
    (piece,) = json.loads(json.dumps(source.pieces()))
    ((row,),) = (table.to_pylist() for table in source.read_counting(piece, others))
    assert (row["images"][0]["data"], others) == (picture(9), {"repeated_name": 1})
