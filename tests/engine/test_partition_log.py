"""In the log of a partition the first of two workers wins, the other leaves no file, and no partial result is visible."""

import numpy as np
import pyarrow as pa
import pytest

from vlmdata.engine.partitions.partition_log import PartitionBlob, PartitionLog
from vlmdata.engine.store.folder_store import LocalStore


def entry(values: list[int | None], inputs: list[int]) -> pa.Table:
    mask = pa.array([value is None for value in values])
    arrays = [pa.array(inputs, pa.uint64()), pa.array(values, pa.int64())]
    column = pa.StructArray.from_arrays(arrays, names=["input", "score"], mask=mask)
    return pa.table({"row": pa.array(range(len(values)), pa.int32()), "m": column})


def lookup(store, inputs: list[int]):
    have, stored = PartitionLog(store, 0).measured("m", np.ones(len(inputs), bool), np.array(inputs, np.uint64))
    return have.tolist(), stored.field("score").to_pylist() if stored is not None else None


def test_a_measured_value_is_used_only_while_its_inputs_are_unchanged(tmp_path):
    store = LocalStore(tmp_path)
    big = 2**64 - 1  # as floats, large hashes would be equal to their neighbours
    assert PartitionLog(store, 0).commit(entry([7, None, 9], [big, 5, big - 2]), ["m"], [])
    assert lookup(store, [big, 5, big - 2]) == ([True, False, True], [7, 9])
    assert lookup(store, [big - 1, 5, big - 2]) == ([False, False, True], [9])


def test_a_later_entry_wins(tmp_path):
    store = LocalStore(tmp_path)
    PartitionLog(store, 0).commit(entry([1, 2], [1, 1]), ["m"], [])
    PartitionLog(store, 0).commit(entry([None, 5], [1, 1]), ["m"], [])
    assert lookup(store, [1, 1]) == ([True, True], [1, 5])


def test_the_second_of_two_workers_loses_and_removes_its_files(tmp_path):
    store = LocalStore(tmp_path)
    first, second = PartitionLog(store, 0), PartitionLog(store, 0)
    blobs = [PartitionBlob(store, 0), PartitionBlob(store, 0)]
    for blob in blobs:
        blob.add(b"picture")
    assert first.commit(entry([1], [1]), ["m"], blobs[0].close())
    before = sorted(path.name for path in (tmp_path / "work" / "data").iterdir() if blobs[1].name not in str(path))
    assert not second.commit(entry([2], [1]), ["m"], blobs[1].close())
    assert sorted(path.name for path in (tmp_path / "work" / "data").iterdir()) == before
    assert lookup(store, [1]) == ([True], [1])


def test_a_file_that_no_record_names_is_ignored(tmp_path):
    store = LocalStore(tmp_path)
    with store.new_file("work/data/000000.half.parquet") as file:
        file.write(b"half")
    assert PartitionLog(store, 0).entries == []


def test_an_interrupted_write_leaves_no_file(tmp_path):
    store = LocalStore(tmp_path)
    with pytest.raises(KeyboardInterrupt), store.new_file("work/data/a") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert store.list("work/data") == []


def test_a_record_is_created_once(tmp_path):
    store = LocalStore(tmp_path)
    assert store.put_new("work/log/0.json", b"first") and not store.put_new("work/log/0.json", b"second")
    assert store.read("work/log/0.json") == b"first" and store.list("work/log") == ["work/log/0.json"]
