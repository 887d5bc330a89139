"""A damaged index is reported in one line, a damaged cached copy is rebuilt, and both never lead to a wrong sample."""

import os
import random
import shutil
from pathlib import Path
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.loader.tars import caption_set
from vlmdata import stream
from vlmdata.loader.index import flat_index
from vlmdata.loader.index.build_index import build_index
from vlmdata.loader.index.index_file import INDEX
from vlmdata.loader.packed import Packing
from vlmdata.loader.stream import ReadOptions


def five(sample: dict[str, Any]) -> int:
    return 5


def contents(path: Any, cache: Path, **options: Any) -> list[tuple]:
    units = stream(path, torch=False, reading=ReadOptions(cache=cache), **options)
    samples = [sample for unit in units for sample in (unit if isinstance(unit, list) else [unit])]
    return sorted((sample["__key__"], sample["jpg"], sample["json"], sample["txt"]) for sample in samples)


def damaged(data: bytes, number: int) -> bytes:
    """Return the data cut short at a random place, or with 1 or 40 bytes changed there."""
    chance = random.Random(number)
    at = chance.randrange(len(data))
    size = (0, 1, 40)[number % 3]
    return data[:at] + chance.randbytes(size) + data[at + size :] if size else data[:at]


@pytest.mark.fuzz
@pytest.mark.parametrize("size", range(3))
def test_a_damaged_index_is_reported_by_name_or_gives_the_same_samples(tmp_path: Path, size: int) -> None:
    folder = caption_set(tmp_path / "tars", [4, 3])
    expected = contents(folder, tmp_path / "cache")
    index = build_index(folder)
    whole = index.read_bytes()
    for number in range(size, 180, 3):
        index.write_bytes(damaged(whole, number))
        try:
            found = contents(folder, tmp_path / "cache")
        except ValueError as error:
            assert str(index) in str(error) and "\n" not in str(error)
        else:
            assert found == expected


def test_an_index_that_is_a_folder_or_empty_is_reported(tmp_path: Path) -> None:
    folder = caption_set(tmp_path / "tars", [2])
    (folder / "index.parquet").mkdir()
    with pytest.raises(ValueError, match=r"index\.parquet is not a file"):
        contents(folder, tmp_path / "cache")
    (folder / "index.parquet").rmdir()
    (folder / "index.parquet").write_bytes(b"")
    with pytest.raises(ValueError, match=r"index\.parquet is damaged: .*vlmdata index"):
        contents(folder, tmp_path / "cache")


def test_damaged_indexes_in_the_cache_are_rebuilt(tmp_path: Path) -> None:
    folder = caption_set(tmp_path / "tars", [2, 3])
    expected = contents(folder, tmp_path / "cache")
    (kept,) = (tmp_path / "cache").rglob("index.parquet")
    kept.write_bytes(kept.read_bytes()[:-100])
    assert contents(folder, tmp_path / "cache") == expected
    build_index(folder)
    fsspec.filesystem("memory").put(str(folder), "/kept", recursive=True)
    assert contents("memory://kept", tmp_path / "far") == expected
    (kept,) = (tmp_path / "far").rglob("index.parquet")
    kept.write_bytes(b"nothing")
    assert contents("memory://kept", tmp_path / "far") == expected


@pytest.mark.parametrize("harm", ["cut", "gone", "rubbish"])
@pytest.mark.parametrize("name", ["facts.json", "run_shards", "key_ends", "*.npy", "*.arrow"])
def test_damaged_flat_files_lengths_and_packs_are_rebuilt(
    tmp_path: Path, name: str, harm: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(flat_index, "MAPPED_ROWS", 1)
    folder = caption_set(tmp_path / "tars", [4, 3])
    build_index(folder)
    packing = Packing(20, five, "five", workers=1)
    expected = contents(folder, tmp_path / "cache", packing=packing)
    (file,) = tmp_path.rglob(name)
    size = file.stat().st_size
    if harm == "gone":
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: size // 2] if harm == "cut" else b"\xff" * size)
    try:
        found = contents(folder, tmp_path / "cache", packing=packing)
    # The damage is found only when the first samples are located; the next start rebuilds the file.
    except ValueError as error:
        assert "has been removed" in str(error)
        found = contents(folder, tmp_path / "cache", packing=packing)
    assert found == expected


OUTSIDE = ["../other/00000.tar", "sub/../../other/00000.tar", "/etc/passwd", "memory://other/00000.tar", "", "link/00000.tar"]


@pytest.mark.parametrize("name", [*OUTSIDE, "link.tar"])
def test_an_index_that_names_a_tar_outside_its_folder_is_refused(tmp_path: Path, name: str) -> None:
    folder, other = caption_set(tmp_path / "tars", [2]), caption_set(tmp_path / "other", [2])
    table = pq.read_table(build_index(folder))
    os.symlink(other, folder / "link")
    os.symlink(other / "00000.tar", folder / "link.tar")
    shards = pa.array([name] * len(table)).dictionary_encode().cast(INDEX.field("shard").type)
    table = table.set_column(table.column_names.index("shard"), INDEX.field("shard"), shards)
    pq.write_table(table, folder / "index.parquet")
    # a server follows symbolic links by itself
    for path in (folder, folder / "index.parquet", *([] if "link" in name else [f"file://{folder}"])):
        with pytest.raises(ValueError, match=r"index\.parquet names a tar outside of .*vlmdata index"):
            contents(path, tmp_path / "cache")


def test_an_index_of_tars_elsewhere_is_used_only_if_the_user_names_its_file(tmp_path: Path) -> None:
    expected = contents(folder := caption_set(tmp_path / "tars", [2]), tmp_path / "cache")
    index = build_index(folder, out=tmp_path / "mine" / "index.parquet")
    assert contents(index, tmp_path / "cache") == expected
    with pytest.raises(ValueError, match=r"the tars that .* lists are not beside this file, but in .*tars\. Pass the path"):
        contents(index.parent, tmp_path / "cache")


def test_tars_and_index_may_be_links_into_a_download_cache(tmp_path: Path) -> None:
    expected = contents(folder := caption_set(tmp_path / "blobs", [2]), tmp_path / "cache")
    build_index(folder)
    snapshot = tmp_path / "snapshots" / "1"
    snapshot.mkdir(parents=True)
    for number, file in enumerate(sorted(folder.iterdir())):
        (snapshot / file.name).symlink_to(shutil.move(file, folder / f"{number}"))
    assert contents(snapshot, tmp_path / "cache") == expected


def test_a_list_of_addresses_in_place_of_an_index_is_named_with_the_command_for_it(tmp_path: Path) -> None:
    pq.write_table(pa.table({"url": ["https://e.example/a.jpg"], "caption": ["a cat"]}), tmp_path / "urls.parquet")
    with pytest.raises(
        ValueError, match=r"not an index of samples, but another table\. .*: vlmdata run captions --set source\.path"
    ):
        contents(tmp_path / "urls.parquet", tmp_path / "cache")
