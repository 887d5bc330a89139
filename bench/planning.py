"""Plan a list of addresses and print the seconds and the peak memory of the planning process, for lists of growing length.

python -m bench.planning [ROWS ...]
"""

import json
import os
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

CHUNK = 100_000


def write_list(path: Path, rows: int) -> None:
    """Write addresses of about 90 characters and captions of about 60, as the lists of LAION have."""
    random = np.random.default_rng(0)
    words = np.array([f"word{i:x}" for i in range(5000)])
    schema = pa.schema([("url", pa.string()), ("caption", pa.string())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            numbers = random.integers(0, 1 << 60, (count, 2)).tolist()
            urls = [f"https://images-{a % 9999}.example.org/media/catalog/{a:x}/{b:x}_large.jpg" for a, b in numbers]
            picks = words[random.integers(0, 5000, (count, 8))]
            writer.write_table(pa.table([urls, [" ".join(row) for row in picks.tolist()]], schema=schema))


def plan(folder: str) -> None:
    """Plan the list in `folder` and print the time and memory. Runs in a new process."""
    from vlmdata import recipe
    from vlmdata.engine.partitions import plan as plans
    from vlmdata.engine.store.open_store import open_store

    made = recipe.parse({"source": {"type": "url_list", "path": f"{folder}/list.parquet"}, "steps": ["text_length"]})
    before = peak_mb()
    start, cpu = time.perf_counter(), time.process_time()
    rows = plans.make(made, open_store(f"{folder}/out")).rows
    took = [time.perf_counter() - start, time.process_time() - cpu]
    print(json.dumps([rows, *took, before, peak_mb()]))


def peak_mb() -> float:
    """Return the largest resident memory of this process in MiB. `getrusage` would also count the memory before exec."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path("/proc/self/status").read_text())[1]) / 1024  # type: ignore[index]


def main() -> None:
    """Print one line for each length."""
    lengths = [int(text) for text in sys.argv[1:]] or [100_000, 1_000_000, 10_000_000]
    print(f"{'rows':>12} {'list MB':>8} {'seconds':>8} {'CPU s':>8} {'us/row':>7} {'MB before':>10} {'MB peak':>8}")
    for length in lengths:
        with tempfile.TemporaryDirectory(prefix="vlmdata-bench-") as folder:
            write_list(Path(folder, "list.parquet"), length)
            size = os.path.getsize(f"{folder}/list.parquet") / 1e6
            command = [sys.executable, "-m", "bench.planning", "--plan", folder]
            out = subprocess.run(command, check=True, capture_output=True, text=True)
        rows, seconds, cpu, before, peak = json.loads(out.stdout)
        assert rows == length
        us = cpu / length * 1e6
        print(f"{rows:>12,} {size:>8.0f} {seconds:>8.1f} {cpu:>8.1f} {us:>7.1f} {before:>10.0f} {peak:>8.0f}", flush=True)


if __name__ == "__main__":
    plan(sys.argv[2]) if sys.argv[1:2] == ["--plan"] else main()
