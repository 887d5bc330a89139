"""Remote tars give the same samples as local ones, through a bounded cache that processes share."""

import os
from pathlib import Path

import fsspec
import pytest

from tests.loader.tars import caption_set, contents, keys_of
from vlmdata import stream
from vlmdata.loader import remote_tars
from vlmdata.loader.index.build_index import build_index
from vlmdata.loader.stream import ReadOptions


@pytest.mark.parametrize("with_index", [True, False])
def test_remote_tars_give_the_samples_of_local_ones(tmp_path: Path, with_index: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_tars, "BLOCK", 4096)  # small blocks, so that samples cross their borders
    folder = caption_set(tmp_path / "tars", [37, 1, 50], size=3000)
    local = contents(stream(folder, reading=ReadOptions(cache=tmp_path / "a"), torch=False))
    if with_index:
        build_index(folder)
    files = fsspec.filesystem("memory")
    place = f"/set-{with_index}"
    files.put(str(folder), place, recursive=True)
    samples = stream(f"memory:/{place}", reading=ReadOptions(cache=tmp_path / "b"), torch=False)
    assert contents(samples) == local
    files.rm(place, recursive=True)
    samples.set_epoch(0)
    assert contents(samples) == local  # read from the cache alone


@pytest.mark.parametrize("pattern", ["*.tar", "0000?.tar", "0000[01].tar", "{00000..00001}.tar"])
def test_patterns_in_addresses_are_expanded(tmp_path: Path, pattern: str) -> None:
    folder = caption_set(tmp_path / "tars", [3, 4])
    files = fsspec.filesystem("memory")
    files.put(str(folder), "/patterns", recursive=True)
    samples = stream(f"memory://patterns/{pattern}", reading=ReadOptions(cache=tmp_path / "cache"), torch=False)
    files.rm("/patterns", recursive=True)
    assert len(samples) == 7


def test_the_cache_stays_within_its_size_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_tars, "BLOCK", 4096)
    folder = caption_set(tmp_path / "tars", [100, 100], size=2000)
    bound = 100_000
    samples = stream(f"file://{folder}", reading=ReadOptions(cache=tmp_path / "cache", cache_bytes=bound), torch=False)
    assert sum(path.stat().st_size for path in folder.glob("*.tar")) > 5 * bound
    assert len(keys_of(samples)) == 200
    held = sum(path.stat().st_size for path in (tmp_path / "cache" / "blocks").glob("??/*"))
    assert 0 < held <= bound * 1.05


def test_workers_share_the_cache(tmp_path: Path) -> None:
    folder = caption_set(tmp_path / "tars", [60, 41], size=20_000)
    samples = stream(f"file://{folder}", batch_size=8, reading=ReadOptions(cache=tmp_path / "cache"))
    keys = [s["__key__"] for batch in samples.loader(2) for s in batch if "__pad__" not in s]
    assert len(keys) == len(set(keys)) == 101
    size = sum(path.stat().st_size for path in folder.glob("*.tar"))
    blocks = [path for path in (tmp_path / "cache" / "blocks").glob("??/*") if os.path.isfile(path)]
    assert sum(path.stat().st_size for path in blocks) == size


def test_a_missing_remote_tar_is_reported_by_name(tmp_path: Path) -> None:
    folder = caption_set(tmp_path / "tars", [5, 5])
    build_index(folder)
    (folder / "00001.tar").unlink()
    samples = stream(f"file://{folder}", reading=ReadOptions(cache=tmp_path / "cache"), torch=False)
    with pytest.raises(ValueError, match=r"00001\.tar.*cannot be opened"):
        keys_of(samples)
    samples = stream(f"file://{folder}", reading=ReadOptions(on_error="skip", cache=tmp_path / "cache"), torch=False)
    with pytest.warns(UserWarning, match="skipped"):
        assert set(keys_of(samples)) == {f"0-{number}" for number in range(5)}
    assert samples.skipped >= 5


def test_local_and_remote_tars_form_one_dataset(tmp_path: Path) -> None:
    folder = caption_set(tmp_path / "tars", [20, 30])
    files = fsspec.filesystem("memory")
    files.put_file(str(folder / "00001.tar"), "/elsewhere/00001.tar")
    places = [str(folder / "00000.tar"), "memory://elsewhere/00001.tar"]
    local = contents(stream(folder, reading=ReadOptions(cache=tmp_path / "a"), torch=False))
    for _ in range(2):  # first with a new index, then with the cached one
        assert sorted(contents(stream(places, reading=ReadOptions(cache=tmp_path / "b"), torch=False))) == sorted(local)
