"""Time that `vlmdata why` takes on a ledger of ten million rows, with a new process for each call. `python -m bench.why [ROWS]`

The lower bound is a read of the ledger's addresses with pyarrow, as a user would do without the lookup.
"""

from __future__ import annotations

import hashlib
import json
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.dataset as ds

from vlmdata.engine.output.ledger import ROWS_PER_FILE, ledger_rows, write
from vlmdata.engine.store.folder_store import LocalStore
from vlmdata.row import IMAGE, ROW, TEXT, conform

ROWS = int(sys.argv[1]) if len(sys.argv) > 1 else 10_000_000
PART = 50_000


def part(number: int) -> pa.Table:
    """Return rows as a run of `captions` leaves them, with a third dropped and a score measured."""
    dice = np.random.default_rng(number)
    first = number * PART
    keys = [f"{(first + i) * (16**24 // max(ROWS, 1)):024x}" for i in range(PART)]
    digests = [hashlib.sha256(str(first + i).encode()).hexdigest() for i in range(PART)]
    urls = [f"https://images-{i % 997}.example.org/{digest[:20]}/{first + i}.jpg" for i, digest in enumerate(digests)]
    dropped = dice.random(PART) < 0.33
    verdict = pa.array(np.where(dropped, "download", None), pa.string())
    reason = pa.array(np.where(dropped, "http_404", None), pa.string())
    known = {
        "url": pa.array(urls),
        "sha256": pa.array(np.where(dropped, None, digests), pa.string()),
        "phash": pa.array(dice.integers(0, 2**63, PART).astype(np.uint64)),
        "original_width": pa.array(dice.integers(100, 4000, PART).astype(np.int32)),
        "original_height": pa.array(dice.integers(100, 4000, PART).astype(np.int32)),
        "drop": verdict,
        "reason": reason,
    }
    images = pa.StructArray.from_arrays([known.get(f.name, pa.nulls(PART, f.type)) for f in IMAGE], fields=list(IMAGE))
    text = pa.StructArray.from_arrays(
        [pa.array(["a caption"] * PART) if f.name == "text" else pa.nulls(PART, f.type) for f in TEXT], fields=list(TEXT)
    )
    offsets = pa.array(np.arange(PART + 1, dtype=np.int32))
    columns = {
        "key": pa.array(keys),
        "images": pa.ListArray.from_arrays(offsets, images),
        "texts": pa.ListArray.from_arrays(offsets, text),
        "drop": verdict,
        "reason": reason,
    }
    rows = conform(pa.table({name: columns[name] for name in ROW.names if name in columns}))
    return rows.append_column("clip_score", pa.array(np.round(dice.random(PART), 4)))


def make(out: Path) -> list[str]:
    """Write the ledger with the engine's own writer and return some of its addresses."""
    store = LocalStore(out)
    files = {}
    asked = []
    for number in range(-(-ROWS // ROWS_PER_FILE)):
        parts = range(number * ROWS_PER_FILE // PART, min((number + 1) * ROWS_PER_FILE, ROWS) // PART)
        record = write(store, number, [ledger_rows(part(p), 0, 10_000) for p in parts])
        asked.append(f"{ROWS_PER_FILE * number * (16**24 // ROWS):024x}")
        for name, facts in ((f"ledger/{number:05d}.parquet", record), (f"lookup/{number:05d}.parquet", record["lookup"])):
            store.publish(facts["file"], name)
            files[name] = {"bytes": facts["bytes"], "sha256": facts["sha256"]}
    shutil.rmtree(out / "work")
    store.put("manifest.json", json.dumps({"files": files, "rows": ROWS}).encode())
    last = ROWS - 7
    digest = hashlib.sha256(str(last).encode()).hexdigest()
    url = f"https://images-{(PART - 7) % 997}.example.org/{digest[:20]}/{last}.jpg"
    return [url, random.Random(0).choice(asked), "https://nowhere.example.org/none.jpg"]


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "out"
        began = time.perf_counter()
        asked = make(out)
        sizes = {name: sum(p.stat().st_size for p in (out / name).iterdir()) for name in ("ledger", "lookup")}
        print(f"{ROWS:,} rows written in {time.perf_counter() - began:.0f} s,", end=" ")
        print(*(f"{name} {size / 1e6:.0f} MB" for name, size in sizes.items()))
        for kind, word in zip(("address", "key", "absent"), asked, strict=True):
            times = []
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            before = used.ru_utime + used.ru_stime
            for _ in range(3):
                began = time.perf_counter()
                command = [sys.executable, "-m", "vlmdata.cli", "why", str(out), word]
                found = subprocess.run(command, capture_output=True, text=True)
                times.append(time.perf_counter() - began)
            used = resource.getrusage(resource.RUSAGE_CHILDREN)
            cpu = (used.ru_utime + used.ru_stime - before) / 3
            print(f"why {kind:<8} {min(times):6.2f} s, {max(times):.2f} at most, {cpu:.2f} s of CPU  {found.stdout[:50]!r}")
        began = time.perf_counter()
        ds.dataset(out / "ledger").to_table(columns=["key"], filter=ds.field("url") == asked[0])
        print(f"scan of addresses {time.perf_counter() - began:6.2f} s")


if __name__ == "__main__":
    main()
