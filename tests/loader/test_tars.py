"""Tars of other tools are read as tarfile and webdataset read them, and damage is reported, or skipped and counted."""

import io
import tarfile
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import webdataset

from tests.fixtures import Find, fixture
from tests.loader.tars import caption_set, keys_of, sample_files, write_tar
from tests.real_data import real_data
from vlmdata import stream
from vlmdata.loader.index.build_index import build_index
from vlmdata.loader.index.find_tars import expand_braces, find_shards
from vlmdata.loader.stream import ReadOptions

LONG = "folder/" + "long" * 60


def read(path: Any, cache: Path, **options: Any) -> list[dict[str, Any]]:
    samples = list(stream(path, seed=None, reading=ReadOptions(cache=cache, **options), torch=False))
    return [
        {name: value for name, value in sample.items() if not name.startswith("__") or name == "__key__"} for sample in samples
    ]


def read_by_webdataset(*tars: Path) -> list[dict[str, Any]]:
    return list(map(members, webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False, empty_check=False)))


def members(sample: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in sample.items() if not name.startswith("__") or name == "__key__"}


@pytest.mark.parametrize("format", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_each_tar_format_is_read_as_webdataset_reads_it(tmp_path: Path, format: int) -> None:
    names = {"a/b.c/0001": "", "x": "", "grün/日本" if format != tarfile.USTAR_FORMAT else "gruen": ""}
    if format != tarfile.USTAR_FORMAT:
        names[LONG] = ""
    files = [("README", b"no extension"), (".hidden.jpg", b"."), ("__meta__.json__", b"{}")]
    for key in names:
        files += sample_files(key, {"0.JPG": b"i" * 600, "1.jpg": b"", "seg.png": b"p" * 512, "json": b"{}"})
    tar = write_tar(tmp_path / "tars" / "0.tar", files, format)
    assert read(tar, tmp_path) == read_by_webdataset(tar)
    assert len(read(tar, tmp_path)) == len(names)


def test_folders_links_and_devices_are_ignored(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT, pax_headers={"comment": "global"}) as tar:
        for name, kind in (("d.x", tarfile.DIRTYPE), ("l.jpg", tarfile.SYMTYPE), ("f.jpg", tarfile.FIFOTYPE)):
            info = tarfile.TarInfo(name)
            info.type = kind
            info.linkname = "elsewhere"
            tar.addfile(info)
        info = tarfile.TarInfo("a.txt")
        info.size, info.mtime = 3, 1.5  # a fraction of a second makes tarfile write a pax header
        tar.addfile(info, io.BytesIO(b"abc"))
    assert read(path, tmp_path) == [{"__key__": "a", "txt": b"abc"}]


def test_separated_members_are_joined_and_repeated_keys_stay_two_samples(tmp_path: Path) -> None:
    files = [("a.jpg", b"1"), ("b.jpg", b"2"), ("a.txt", b"3"), ("b.txt", b"4"), ("a.jpg", b"5"), ("a.txt", b"6")]
    tar = write_tar(tmp_path / "0.tar", files)
    assert read(tar, tmp_path) == [
        {"__key__": "a", "jpg": b"1", "txt": b"3"},
        {"__key__": "b", "jpg": b"2", "txt": b"4"},
        {"__key__": "a", "jpg": b"5", "txt": b"6"},
    ]


def test_old_tars_without_end_blocks_are_read(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "0.tar", [("a.txt", b"abc"), ("b.txt", b"defg")])
    data = bytearray(tar.read_bytes()[:2048])  # two members, no end blocks
    for header in (0, 1024):  # without ustar's magic, only the checksum identifies a header
        data[header + 257 : header + 265] = bytes(8)
        data[header + 148 : header + 156] = b" " * 8
        data[header + 148 : header + 156] = b"%06o\0 " % sum(data[header : header + 512])
    tar.write_bytes(data)
    assert read(tar, tmp_path) == [{"__key__": "a", "txt": b"abc"}, {"__key__": "b", "txt": b"defg"}]


@pytest.mark.parametrize("cut", [512 * 3 + 100, 512 * 2 + 13])
def test_a_truncated_tar_is_reported_or_its_intact_samples_are_kept(tmp_path: Path, cut: int) -> None:
    tar = write_tar(tmp_path / "0.tar", [("a.txt", b"abc"), ("b.txt", b"d" * 600)])
    tar.write_bytes(tar.read_bytes()[:cut])
    with pytest.raises(ValueError, match=r"0\.tar, byte 1024: .*on_error"):
        build_index(tar, out=tmp_path / "index.parquet")
    assert not (tmp_path / "index.parquet").exists()
    with pytest.warns(UserWarning, match="1 intact sample is kept$"):
        assert read(tar, tmp_path, on_error="skip") == [{"__key__": "a", "txt": b"abc"}]


def test_rubbish_and_compressed_tars_are_refused(tmp_path: Path) -> None:
    (tmp_path / "0.tar").write_bytes(b"\x1f\x8b" + bytes(1000))
    with pytest.raises(ValueError, match="compressed"):
        stream(tmp_path, torch=False, reading=ReadOptions(cache=tmp_path / "c"))
    (tmp_path / "0.tar").write_bytes(b"rubbish!" * 100)
    with pytest.raises(ValueError, match="no tar header here"):
        stream(tmp_path, torch=False, reading=ReadOptions(cache=tmp_path / "c"))


def test_a_tar_truncated_after_indexing_is_reported_or_its_samples_skipped(tmp_path: Path) -> None:
    folder = caption_set(tmp_path / "tars", [3, 3])
    build_index(folder)
    tar = folder / "00001.tar"
    tar.write_bytes(tar.read_bytes()[:512])
    with pytest.raises(ValueError, match=r"00001\.tar, byte 512, sample '1-0': the tar holds only 0 of the 24 bytes"):
        read(folder, tmp_path)
    skipping = stream(folder, reading=ReadOptions(on_error="skip", cache=tmp_path), torch=False, batch_size=2)
    with pytest.warns(UserWarning, match="skipped"):
        assert set(keys_of(skipping)) == {"0-0", "0-1", "0-2"}
    assert len(skipping) == 3 and skipping.skipped >= 3


def test_tars_that_do_not_match_the_index_are_reported(tmp_path: Path) -> None:
    folder = caption_set(tmp_path / "tars", [2, 2])
    build_index(folder)
    write_tar(folder / "more.tar", [("z.txt", b"")])
    with pytest.raises(ValueError, match=r"does not list 1 tar beside it, such as more\.tar"):
        read(folder, tmp_path)
    (folder / "more.tar").unlink()
    (folder / "00000.tar").unlink()
    with pytest.raises(ValueError, match=r"1 of the 2 tars of .* is missing"):
        read(folder, tmp_path)


def test_a_cached_index_is_rebuilt_when_its_tars_change(tmp_path: Path) -> None:
    tar = write_tar(tmp_path / "tars" / "0.tar", [("a.txt", b"abc")])
    assert len(read(tar, tmp_path)) == 1
    write_tar(tar, [("a.txt", b"abc"), ("b.txt", b"d" * 20_000)])
    assert len(read(tar, tmp_path)) == 2
    assert not list(tar.parent.glob("*.parquet"))


def test_several_processes_build_the_same_index_as_one(tmp_path: Path) -> None:
    folder = caption_set(tmp_path / "tars", [3, 1, 4, 1, 5, 9, 2, 6, 5, 3])
    one = pq.read_table(build_index(folder, out=tmp_path / "one.parquet", workers=1))
    seen: list[tuple[int, int]] = []
    two = pq.read_table(build_index(folder, out=tmp_path / "two.parquet", workers=2, report=lambda *at: seen.append(at)))
    assert two.equals(one) and two.num_rows == 39
    assert seen == [(number, 10) for number in range(1, 11)]


def test_braces_folders_and_lists_name_the_tars_of_a_dataset(tmp_path: Path) -> None:
    caption_set(tmp_path / "a", [1, 1])
    caption_set(tmp_path / "b", [1])
    assert expand_braces("x/{008..010}-{a,b}.tar") == [f"x/{n}-{x}.tar" for n in ("008", "009", "010") for x in "ab"]
    assert find_shards(tmp_path).names == ["a/00000.tar", "a/00001.tar", "b/00000.tar"]
    assert find_shards(str(tmp_path / "a" / "{00000..00001}.tar")).names == ["00000.tar", "00001.tar"]
    assert find_shards([tmp_path / "b", tmp_path / "a" / "*.tar"]).names == ["b/00000.tar", "a/00000.tar", "a/00001.tar"]
    with pytest.raises(ValueError, match="does not exist"):
        find_shards(tmp_path / "c")
    with pytest.raises(ValueError, match="named twice"):
        find_shards([tmp_path / "a", tmp_path / "a"])


@pytest.mark.parametrize(
    ("find", "folder", "count"),
    [
        (fixture, "gnu_tar", 7),
        (fixture, "img2dataset_tar", 8),
        (real_data, "clip-retrieval/test_clip_inference/test_tars", 7),
        (real_data, "torchtitan_cc12m/cc12m_test", 32),
    ],
)
def test_real_tars_are_read_as_webdataset_reads_them(tmp_path: Path, find: Find, folder: str, count: int) -> None:
    place = find(f"F_vlm_repo_testdata/{folder}")
    theirs = read_by_webdataset(*sorted(place.glob("*.tar")))
    assert read(place, tmp_path) == theirs
    assert len(theirs) >= count
    table = pq.read_table(build_index(place, out=tmp_path / "i.parquet", image_sizes=True))
    assert all(min(image.values()) > 0 for images in table["images"].to_pylist() for image in images)
