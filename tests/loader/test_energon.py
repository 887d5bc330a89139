"""A folder prepared for Megatron Energon gives the tars of one split, which is `train` by default."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.loader.tars import caption_set, keys_of
from vlmdata import stream
from vlmdata.loader.index.build_index import build_index
from vlmdata.loader.stream import ReadOptions

# The layout follows Energon's documentation: https://nvidia.github.io/Megatron-Energon, "Dataset Format on Disk".
SPLIT = """exclude:
  - shards/00004.tar
  - shards/00001.tar/1-2
  - shards/00003.tar/3-{0..1}
split_parts:
  train:
  - shards/00000.tar
  - shards/00001.tar
  - shards/00004.tar
  val:
  - shards/{00002..00003}.tar
  test: []
"""


def prepared(tmp_path: Path, split: str = SPLIT, name: str = "split.yaml") -> str:
    """Write five tars of four samples, with Energon's files beside them."""
    folder = tmp_path / "set"
    caption_set(folder / "shards", [4] * 5)
    meta = folder / ".nv-meta"
    meta.mkdir()
    (meta / name).write_text(split)
    (meta / "dataset.yaml").write_text("sample_type:\n  __module__: megatron.energon\n  __class__: CaptioningSample\n")
    (meta / ".info.yaml").write_text("shard_counts:\n" + "".join(f"  shards/{n:05}.tar: 4\n" for n in range(5)))
    return str(folder)


def keys(path: Any, tmp_path: Path) -> list[str]:
    return sorted(keys_of(stream(path, reading=ReadOptions(cache=tmp_path / "cache"), torch=False)))  # type: ignore[call-overload]


TRAIN = ["0-0", "0-1", "0-2", "0-3", "1-0", "1-1", "1-3"]
VAL = ["2-0", "2-1", "2-2", "2-3", "3-2", "3-3"]


def test_the_train_split_is_read_by_default(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    assert keys(folder, tmp_path) == keys(folder + "/", tmp_path) == keys(folder + "#train", tmp_path) == TRAIN
    assert keys(folder + "#val", tmp_path) == keys(f"{folder}/#val", tmp_path) == VAL
    assert keys([folder, folder + "#val"], tmp_path) == sorted(TRAIN + VAL)
    both = stream({folder: 0.5, folder + "#val": 0.5}, reading=ReadOptions(cache=tmp_path / "cache"), torch=False)
    assert {key[0] for key in keys_of(both)} == {"0", "1", "2", "3"}
    assert sorted(os.listdir(folder)) == [".nv-meta", "shards"] and len(os.listdir(folder + "/shards")) == 5


def test_split_json_and_a_missing_exclude_list_are_read(tmp_path: Path) -> None:
    split = {"split_parts": {"train": ["shards/00000.tar"], "val": ["shards/00001.tar"]}}
    folder = prepared(tmp_path, json.dumps(split), "split.json")
    assert keys(folder, tmp_path) == TRAIN[:4] and keys(folder + "#val", tmp_path) == ["1-0", "1-1", "1-2", "1-3"]


def test_an_index_beside_the_tars_does_not_add_the_other_splits(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    build_index(Path(folder, "shards"), out=Path(folder, "index.parquet"))
    assert keys(folder, tmp_path) == TRAIN and keys(folder + "#val", tmp_path) == VAL


def test_a_changed_split_is_read_again(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    assert keys(folder, tmp_path) == TRAIN
    file = Path(folder, ".nv-meta/split.yaml")
    file.write_text(SPLIT.replace("  - shards/00001.tar/1-2\n", "  - shards/00001.tar/1-3\n"))
    assert keys(folder, tmp_path) == [*TRAIN[:6], "1-2"]


def test_splits_of_a_remote_folder_are_read(tmp_path: Path) -> None:
    import fsspec

    fsspec.filesystem("memory").put(prepared(tmp_path), "/energon", recursive=True)
    assert keys("memory://energon#val", tmp_path) == VAL and keys("memory://energon", tmp_path) == TRAIN


@pytest.mark.parametrize("name", ["split#1", "#"])
def test_a_folder_name_may_contain_a_hash_sign(tmp_path: Path, name: str) -> None:
    caption_set(tmp_path / name, [2])
    assert keys(str(tmp_path / name), tmp_path) == ["0-0", "0-1"]


@pytest.mark.parametrize(
    ("split", "path", "message"),
    [
        (SPLIT, "#vall", r"has no split 'vall'. Use one of: .*set#train, .*set#val, .*set#test"),
        (SPLIT, "#test", "lists no tars for the split 'test'"),
        ("split_parts: {val: [shards/00000.tar]}", "", r"has no split 'train'. Use one of: .*set#val"),
        (SPLIT, "/shards#val", r"set/shards has no .nv-meta/split.yaml, so it has no split #val"),
        (SPLIT, "/nowhere#val", r"set/nowhere has no .nv-meta/split.yaml"),
        ("split_parts: {train: [shards/7.tar]}", "", r"1 of the 1 tar of the split 'train' is missing\..* 'shards/7.tar'"),
        ("split_parts: {train: [../other.tar]}", "", r"names a tar outside of .*set: '../other.tar'"),
        ("split_parts: {train: [/etc/passwd]}", "", r"names a tar outside of .*set: '/etc/passwd'"),
        ("split_parts: {train: ['memory://a/b.tar']}", "", r"names a tar outside of .*set"),
        ("split_parts: {train: [linked/00000.tar]}", "", r"names a tar outside of .*set"),
        ("split_parts: {train: ['{0..999999999}.tar']}", "", "expands to too many names"),
        ("split_parts: {train: ['{0..%s}.tar']}" % ("9" * 5000), "", "expands to too many names"),
        ("split_parts: {train: ['%s.tar']}" % ("{1,2,3,4,5,6,7,8,9}" * 20), "", "expands to too many names"),
        ("split_parts: {train: shards/00000.tar}", "", "`split_parts` must list the tars of each split"),
        ("split_parts: {train: [0]}", "", "`split_parts` must list the tars of each split"),
        ("split_parts: {train: [a.tar]}\nexclude: {a: b}", "", "`exclude` must list tars and samples"),
        ("[]", "", "`split_parts` must list"),
        ("{{{", "", "cannot be read as YAML"),
        ("[" * 100_000, "", "cannot be read as YAML"),
        ("a: &a [x]\n" + "b: *a\n" * 3, "", "`split_parts` must list"),
        ("split_parts: {train: [shards/00000.tar, shards/00000.tar]}", "", "tars are named twice"),
    ],
)  # fmt: skip
def test_an_unusable_split_is_reported_in_one_line(tmp_path: Path, split: str, path: str, message: str) -> None:
    folder = prepared(tmp_path, split)
    caption_set(tmp_path / "other", [1])
    (tmp_path / "set/linked").symlink_to(tmp_path / "other")
    with pytest.raises(ValueError, match=message) as caught:
        keys(folder + path, tmp_path)
    assert "\n" not in str(caught.value)


def test_a_split_on_a_path_that_is_not_a_folder_is_reported(tmp_path: Path) -> None:
    tar = next(caption_set(tmp_path / "tars", [1]).glob("*.tar"))
    with pytest.raises(ValueError, match=r"00000\.tar has no \.nv-meta/split\.yaml"):
        keys(f"{tar}#val", tmp_path)
