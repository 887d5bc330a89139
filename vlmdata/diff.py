"""What became different between two datasets: which rows came, went or changed, and by which step."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from vlmdata.engine.manifest import read_manifest
from vlmdata.engine.store import Store, open_store, store_file
from vlmdata.why import ledger_files

COLUMNS = ["key", "outcome", "step", "reason"]
EXAMPLES = 3
KEPT, ABSENT = "kept", "not there"


@dataclass
class Change:
    """Rows that went the same way: `before` and `after` are kept, not there, or the step and reason that rejected them."""

    before: str
    after: str
    rows: int = 0
    keys: list[str] = field(default_factory=list)  # of some of them, the smallest


def diff(a: str | Path, b: str | Path) -> list[Change]:
    """Compare two ledgers by key: largest change first, rows that fared alike left out, kept rows whose sample differs named.

    Memory is that of both ledgers' keys and outcomes: about 60 bytes a row.
    """
    left, right = _fates(a), _fates(b)
    joined = left.join(right, "key", join_type="full outer", right_suffix="_b").sort_by("key")
    before, after = (pc.fill_null(joined[name], ABSENT).to_numpy(zero_copy_only=False) for name in ("fate", "fate_b"))
    sample_a, sample_b = (pc.fill_null(joined[name], 0).to_numpy() for name in ("sample", "sample_b"))
    other = (before == KEPT) & (after == KEPT) & (sample_a != sample_b)
    after = np.where(other, "kept, but another sample", after)
    changes: dict[tuple[str, str], Change] = {}
    differs = np.flatnonzero(before != after)
    counts = Counter(zip(before[differs], after[differs], strict=True))
    for row in differs:
        change = changes.setdefault((before[row], after[row]), Change(before[row], after[row]))
        if len(change.keys) < EXAMPLES:
            change.keys.append(joined["key"][int(row)].as_py())
    for ways, count in counts.items():
        changes[ways].rows = count
    return sorted(changes.values(), key=lambda change: (-change.rows, change.before, change.after))


def _fates(out: str | Path) -> pa.Table:
    """Return key, fate and a number that stands for the sample's members, of every row."""
    manifest, store = read_manifest(out), open_store(out, probe=False)
    tables = [table for name in ledger_files(manifest) for table in _ledger(store, name)]
    rows = (
        pa.concat_tables(tables) if tables else pa.table({"key": pa.array([], pa.string()), "fate": pa.array([], pa.string())})
    )
    return rows.join(_samples(store, manifest), "key", join_type="left outer")


def _ledger(store: Store, name: str) -> Iterator[pa.Table]:
    with store_file(store, name) as opened:
        for batch in pq.ParquetFile(opened).iter_batches(200_000, columns=COLUMNS):
            rejected = pc.binary_join_element_wise(batch["step"], pc.fill_null(batch["reason"], "dropped"), ": ")
            fate = pc.if_else(pc.equal(batch["outcome"], KEPT), KEPT, rejected)
            yield pa.table({"key": batch["key"], "fate": fate})


def _samples(store: Store, manifest: dict[str, Any]) -> pa.Table:
    """Return for every sample a hash of its members' names and sizes, its images' sizes, its text's length and its scores."""
    if not manifest["kept"]:
        return pa.table({"key": pa.array([], pa.string()), "sample": pa.array([], pa.uint64())})
    import xxhash

    tables = []
    with store_file(store, "index.parquet") as opened:
        file = pq.ParquetFile(opened)
        names = [name for name in file.schema_arrow.names if name not in ("key", "shard", "offset")]
        for batch in file.iter_batches(50_000, columns=["key", *names]):
            columns = [batch[name].to_pylist() for name in names if name != "members"]
            members = [[(one["name"], one["size"]) for one in sample] for sample in batch["members"].to_pylist()]
            hashes = [xxhash.xxh3_64_intdigest(repr(facts).encode()) for facts in zip(members, *columns, strict=True)]
            tables.append(pa.table({"key": batch["key"], "sample": pa.array(hashes, pa.uint64())}))
    return pa.concat_tables(tables)


def tell(changes: list[Change]) -> str:
    """Return the changes as lines: how many rows, from where to where, and some of their keys."""
    lines = []
    for change in changes:
        more = " ..." if change.rows > len(change.keys) else ""
        lines.append(f"{change.rows:>12,}  {change.before} -> {change.after}   {' '.join(change.keys)}{more}")
    return "\n".join(lines) if lines else "no row fared differently"
