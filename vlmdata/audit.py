"""Checks a finished dataset against its manifest."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa

from vlmdata.count_line import CountLine
from vlmdata.dataset import read_manifest
from vlmdata.engine.output.samples_index import open_index
from vlmdata.engine.store.open_store import open_store
from vlmdata.engine.store.parquet_files import open_parquet
from vlmdata.engine.store.store_protocol import Store
from vlmdata.sizes import counted
from vlmdata.step import RecipeError

CHUNK = 8 << 20


def audit(out: str | Path, *, read_bytes: bool = False) -> list[str]:
    """Return the faults of a dataset, one line each: missing or altered files, and counts that differ from the manifest.

    Sizes and counts are quick to check. With `read_bytes`, every file is read and its SHA-256 is compared.
    """
    manifest = read_manifest(out)
    store = open_store(out, probe=False)
    faults, total = [], sum(facts["bytes"] for facts in manifest["files"].values())
    with CountLine("checking bytes" if read_bytes else "checking sizes", total) as line:
        for name, facts in manifest["files"].items():
            if fault := _file_fault(store, name, facts, line.add if read_bytes else None):
                faults.append(fault)
    if faults:
        return faults
    ledgers = [name for name in manifest["files"] if name.startswith("ledger/")]
    try:
        outcomes = [_column(store, name, "outcome") for name in ledgers]
        keys = _keys(store)
    except RecipeError as error:  # a file is damaged, and the message names the file
        return [str(error)]
    sums = {
        "rows in the ledger": (sum(len(column) for column in outcomes), manifest["rows"]),
        "kept rows in the ledger": (sum(column.to_pylist().count("kept") for column in outcomes), manifest["kept"]),
        "samples in the index": (len(keys), manifest["kept"]),
        "distinct keys in the index": (len(set(keys)), manifest["kept"]),
        "rows dropped": (sum(line["rows"] for line in manifest["dropped"]), manifest["rows"] - manifest["kept"]),
    }
    wrong = [(what, found, said) for what, (found, said) in sums.items() if found != said]
    return [f"the number of {what} is {found:,}, but the manifest says {said:,}" for what, found, said in wrong]


def _file_fault(store: Store, name: str, facts: dict[str, Any], report: Callable[[int], None] | None) -> str | None:
    """Return what is wrong with a file, or None. With `report`, read the file and report the number of bytes of each read."""
    try:
        size = store.size(name)
    except FileNotFoundError:
        return f"{name} is missing"
    if size != facts["bytes"]:
        return f"{name} has {counted(size, 'byte')}, but the manifest says {facts['bytes']:,}"
    if report is None:
        return None
    digest = hashlib.sha256()
    for start in range(0, size, CHUNK):
        digest.update(store.read_range(name, start, min(CHUNK, size - start)))
        report(min(CHUNK, size - start))
    return None if digest.hexdigest() == facts["sha256"] else f"{name}: the SHA-256 differs from the one in the manifest"


def _keys(store: Store) -> list[str]:
    with open_index(store) as index:
        return [key for table in index.groups(("key",)) for key in table["key"].to_pylist()]


def _column(store: Store, name: str, column: str) -> pa.ChunkedArray:
    with open_parquet(store, name) as file:
        return file.read(columns=[column])[column]
