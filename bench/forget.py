"""Time that `vlmdata forget` takes for one address and for many in a large dataset. `python -m bench.forget [SAMPLES]`

The dataset is made up, but written by the engine with plan, logs with blobs, tars, index and ledger, at 4 kB per image. The
lower bound is a copy of the bytes that a takedown must rewrite.
"""

from __future__ import annotations

import json
import os
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.engine.drive import publish
from vlmdata.engine.output import ledger, pack
from vlmdata.engine.output.sample import samples
from vlmdata.engine.partitions import plan
from vlmdata.engine.partitions.calls import PartitionCall
from vlmdata.engine.partitions.partition_log import PartitionBlob, PartitionLog
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.recipe import parse
from vlmdata.row import IMAGE, flatten, set_column

SAMPLES = int(sys.argv[1]) if len(sys.argv) > 1 else 1_000_000
PER_SHARD, PART, SIDE_BYTES = 10_000, 1000, 4096
MEASURE = "ingest-0000000000000000"


def fetched(store: LocalStore, rows: pa.Table, part: int) -> pa.Table:
    """Commit made-up images for a partition, as ingest does, and return its rows with them."""
    flat = flatten(rows, "images")
    dice = random.Random(part)
    blob = PartitionBlob(store, part)
    facts: dict[str, list] = {name: [] for name in ("blob", "offset", "size", "format", "width", "height", "sha256", "phash")}
    for there in flat.items.is_valid().to_pylist():
        if not there:
            for values in facts.values():
                values.append(None)
            continue
        place = (blob.name, blob.add(dice.randbytes(SIDE_BYTES)), SIDE_BYTES, "jpeg", 224, 224)
        for name, value in zip(facts, (*place, f"{dice.getrandbits(256):064x}", dice.getrandbits(64)), strict=True):
            facts[name].append(value)
    arrays = [pa.array(facts[f.name], f.type) if f.name in facts else flat.field(f.name) for f in IMAGE]
    images = flat.rebuild(pa.StructArray.from_arrays(arrays, fields=list(IMAGE), mask=flat.items.is_null()))
    inputs = pa.array(np.zeros(len(rows), dtype=np.uint64))
    measured = pa.StructArray.from_arrays([inputs, images], names=["input", "images"])
    number = pa.array(np.arange(len(rows), dtype=np.int32))
    PartitionLog(store, part).commit(pa.table({"row": number, MEASURE: measured}), [MEASURE], blob.close())
    return set_column(rows, "images", images)


def make(out: Path, listing: Path) -> None:
    """Write a finished dataset of made-up samples, including its work/ folder."""
    store = LocalStore(out)
    recipe = parse({"source": {"type": "url_list", "path": str(listing)}, "shards": {"samples": PER_SHARD}, "part_rows": PART})
    made = plan.make(recipe, store)
    shards, ledgers, lines = [], [], []
    per_shard = PER_SHARD // PART
    os.fsync = lambda descriptor: None  # for speed, only while the dataset is made
    for number in range(-(-made.parts // per_shard)):
        chosen = []
        for part in range(number * per_shard, min((number + 1) * per_shard, made.parts)):
            rows = fetched(store, made.read_partition(store, part), part)
            chosen += list(samples(rows, "captions", 0, len(rows)))
            lines.append(ledger.ledger_rows(rows, part * PART, PER_SHARD))
        shards.append(pack.pack(store, number, chosen))
        if len(lines) * PART >= ledger.ROWS_PER_FILE or number == -(-made.parts // per_shard) - 1:
            ledgers.append(ledger.write(store, len(ledgers), lines))
            lines = []
    files = publish.publish(store, shards, ledgers)
    manifest = {"rows": made.rows, "kept": made.rows, "dropped": [], "source": made.source, "recipe": recipe.describe()}
    calls = [PartitionCall(part, None, 0, ()) for part in range(made.parts)]
    ledger.record_partitions(store, calls, [{"rows": min(PART, made.rows - part * PART)} for part in range(made.parts)])
    store.put("manifest.json", json.dumps({**manifest, "versions": {}, "provenance": {}, "files": files}).encode())


def timed(out: Path, words: list[str], folder: Path) -> None:
    """Forget addresses in a new process and print the time, CPU time and memory it took."""
    (folder / "list.txt").write_text("\n".join(words))
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    began = time.perf_counter()
    command = [sys.executable, "-m", "vlmdata.cli", "forget", str(out), "--url", f"@{folder / 'list.txt'}"]
    result = subprocess.run(command, capture_output=True, text=True)
    took = time.perf_counter() - began
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    print(f"{len(words):>7,} addresses {took:7.1f} s, {cpu:6.1f} s of CPU, {after.ru_maxrss / 1024:,.0f} MB")
    print(result.stdout, end="")
    print(result.stderr[-500:], end="")


def main() -> None:
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = Path(name)
        urls = [f"https://host-{i % 9973}.example.org/{i:08d}/picture.jpg" for i in range(SAMPLES)]
        table = pa.table({"url": urls, "caption": [f"a caption of some length, number {i}" for i in range(SAMPLES)]})
        pq.write_table(table, folder / "urls.parquet")
        out = folder / "out"
        sync = os.fsync
        began = time.perf_counter()
        make(out, folder / "urls.parquet")
        os.fsync = sync
        size = sum(path.stat().st_size for path in out.glob("*.tar"))
        print(f"{SAMPLES:,} samples, {size / 1e9:.1f} GB of tars, made in {time.perf_counter() - began:.0f} s")
        timed(out, [urls[SAMPLES // 2]], folder)
        dice = random.Random(0)
        timed(out, dice.sample(urls, SAMPLES // 100), folder)
        (folder / "copy").mkdir()
        began = time.perf_counter()
        with ThreadPoolExecutor(2) as pool:
            list(pool.map(lambda tar: shutil.copy(tar, folder / "copy"), out.glob("*.tar")))
        print(f"floor: copy of all tars {time.perf_counter() - began:7.1f} s")


if __name__ == "__main__":
    main()
