"""A tar that does not match its index never gives a sample the bytes of another: it is reported, or skipped and counted."""

import os
import tarfile
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import fsspec
import pytest

from tests.loader.tars import sample_files, write_tar
from vlmdata import stream
from vlmdata.loader import read_samples
from vlmdata.loader.index.build_index import build_index
from vlmdata.loader.map_style import Rows
from vlmdata.loader.stream import ReadOptions

Files = list[tuple[str, bytes]]


def files_of(keys: str, text: str = "of") -> Files:
    return [file for key in keys for file in sample_files(key, {"jpg": key.encode() * 700, "txt": f"{text} {key}".encode()})]


def members(samples: Any) -> dict[str, tuple[bytes, bytes]]:
    return {sample["__key__"]: (sample["jpg"], sample["txt"]) for sample in samples}


TRUE = members({"__key__": key, "jpg": key.encode() * 700, "txt": f"of {key}".encode()} for key in "abcdef")


def replaced(tar: Path, before: bytes) -> None:
    write_tar(tar, files_of("ghi"))


def moved(tar: Path, before: bytes) -> None:
    tar.write_bytes(before[:1536] + before)


def moved_by_a_few_bytes(tar: Path, before: bytes) -> None:
    tar.write_bytes(b"12345" + before)


def reordered(tar: Path, before: bytes) -> None:
    write_tar(tar, files_of("edf"))


def other_texts(tar: Path, before: bytes) -> None:
    write_tar(tar, files_of("def", text="now of"))


def without_the_first(tar: Path, before: bytes) -> None:
    write_tar(tar, files_of("ef"))


def zeros(tar: Path, before: bytes) -> None:
    tar.write_bytes(bytes(len(before)))


def empty(tar: Path, before: bytes) -> None:
    tar.write_bytes(b"")


def compressed(tar: Path, before: bytes) -> None:
    with tarfile.open(tar, "w:gz") as target:
        target.addfile(tarfile.TarInfo("x"))


def a_folder(tar: Path, before: bytes) -> None:
    tar.unlink()
    tar.mkdir()


def a_pipe(tar: Path, before: bytes) -> None:
    tar.unlink()
    os.mkfifo(tar)


CHANGES = [replaced, moved, moved_by_a_few_bytes, reordered, other_texts, without_the_first, zeros, empty, compressed]
Change = Callable[[Path, bytes], None]


def changed_set(folder: Path, change: Change) -> Path:
    """Write two tars of three samples with their index, then change the second tar."""
    write_tar(folder / "0.tar", files_of("abc"))
    tar = write_tar(folder / "1.tar", files_of("def"))
    build_index(folder)
    change(tar, tar.read_bytes())
    return folder


# All samples are read at once, as small ones are, or one by one.
@pytest.mark.parametrize("together", [read_samples.TOGETHER, 0])
@pytest.mark.parametrize("scheme", ["", "file://"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_changed_tar_is_reported_or_skipped(
    tmp_path: Path, change: Change, scheme: str, together: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(read_samples, "TOGETHER", together)
    folder = f"{scheme}{changed_set(tmp_path / 'tars', change)}"
    with pytest.raises(ValueError, match=r"1\.tar, byte \d+, sample '[def]': .*index the tars again"):
        list(stream(folder, torch=False, reading=ReadOptions(cache=tmp_path / "cache")))
    skipping = stream(folder, torch=False, reading=ReadOptions(on_error="skip", cache=tmp_path / "cache"))
    with pytest.warns(UserWarning, match=r"skipped: .*1\.tar"):
        found = members(skipping)
    assert found.items() <= TRUE.items() and set("abc") <= found.keys()
    assert skipping.skipped >= 1


@pytest.mark.parametrize("change", [a_folder, a_pipe])
def test_a_folder_or_a_pipe_in_place_of_a_tar_is_reported(tmp_path: Path, change: Change) -> None:
    folder = changed_set(tmp_path / "tars", change)
    with pytest.raises(ValueError, match=r"1\.tar.* cannot be opened: .*1\.tar is not a file"):
        list(stream(folder, torch=False, reading=ReadOptions(cache=tmp_path / "cache")))


def test_a_tar_overwritten_while_open_is_reported(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.tar", files_of("abc"))
    rows = Rows(tmp_path, cache=tmp_path / "cache")
    assert members([rows[0]]).items() <= TRUE.items()
    (tmp_path / "0.tar").write_bytes(write_tar(tmp_path / "other", files_of("bca")).read_bytes())
    with pytest.raises(ValueError, match=r"0\.tar, byte 512, sample 'a': there is no member 'jpg' of 700 bytes"):
        rows[0]


def test_appended_samples_are_reported(tmp_path: Path) -> None:
    folder = changed_set(tmp_path / "tars", lambda tar, before: None)
    with tarfile.open(folder / "1.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo("README"))
    assert members(stream(folder, torch=False, reading=ReadOptions(cache=tmp_path / "cache"))) == TRUE
    with tarfile.open(folder / "1.tar", "a") as tar:
        tar.addfile(tarfile.TarInfo("g.jpg"))
    with pytest.raises(ValueError, match=r"1\.tar, byte 7680, .*samples that the index does not list"):
        list(stream(folder, torch=False, reading=ReadOptions(cache=tmp_path / "cache")))
    with pytest.warns(UserWarning, match="some samples are not used"):
        assert members(stream(folder, torch=False, reading=ReadOptions(on_error="skip", cache=tmp_path / "cache"))) == TRUE


@pytest.mark.parametrize("format", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_long_names_are_checked_against_the_headers_before_the_members(tmp_path: Path, format: int) -> None:
    names = {key: f"{'folder/' * 30}grün-{key}" for key in "abc"}
    files = [(f"{names[name[0]]}{name[1:].replace('jpg', 'JPG')}", data) for name, data in files_of("abc")]
    write_tar(tmp_path / "0.tar", files, format)
    build_index(tmp_path)
    expected = {names[key]: TRUE[key] for key in "abc"}
    assert members(stream(tmp_path, torch=False, reading=ReadOptions(cache=tmp_path / "c"))) == expected
    write_tar(tmp_path / "0.tar", [*files[2:], *files[:2]], format)
    with pytest.raises(ValueError, match="there is no member"):
        list(stream(tmp_path, torch=False, reading=ReadOptions(cache=tmp_path / "c")))


def test_a_damaged_block_of_the_cache_is_fetched_again(tmp_path: Path) -> None:
    fsspec.filesystem("memory").pipe("/blocks/0.tar", write_tar(tmp_path / "0.tar", files_of("abc")).read_bytes())
    expected = members(stream("memory://blocks", torch=False, reading=ReadOptions(cache=tmp_path / "cache")))
    for block in (tmp_path / "cache" / "blocks").glob("??/*"):
        block.write_bytes(block.read_bytes()[:700])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        skipping = stream("memory://blocks", torch=False, reading=ReadOptions(on_error="skip", cache=tmp_path / "cache"))
        assert members(skipping) == expected
