"""Decide again over many rows whose images were fetched before: time `vlmdata run` as a whole, without a download.

    python -m bench.redecide [ROWS ...] [--workers N] [--folder FOLDER] [--alone]

A list is planned, and the results of a fetch are written through the engine's own formats: a log and a blob for each partition,
a score for each row, and hashes like those of real pictures (bench/dedup.py), of which 5% are near copies. Then the dataset is
decided three times by worker processes: first duplicates within 4 of 64 bits are dropped and the best 1% of the rest is packed;
then with another fraction; then with another distance. 10 million rows take 6 GB of disk while the benchmark runs.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import pickle
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from bench.dedup import hashes
from vlmdata import recipe as recipes
from vlmdata.engine.drive import decide as decisions
from vlmdata.engine.partitions import plan
from vlmdata.engine.partitions.calls import PartitionCall, RunJob
from vlmdata.engine.partitions.partition_log import PartitionBlob, PartitionLog
from vlmdata.engine.store.open_store import open_store
from vlmdata.engine.work.compile_recipe import inputs
from vlmdata.engine.work.ingest import Ingest
from vlmdata.engine.work.worker import Worker
from vlmdata.row import flatten, set_column
from vlmdata.steps.dedupe_phash import DedupePhash

PICTURE = Path(__file__).parent.parent / "vlmdata/demo/figures/college-physics-Figure_04_06_02.jpg"
CHUNK = 100_000
STEPS = [
    "download",
    "resize",
    {"source_score": {"label": "score", "of": "score"}},
    {"dedupe_phash": {"distance": 4}},
    {"top_fraction": {"score": "score", "fraction": 0.01}},
]
ASKED = {  # the decisions, in this order
    "distance 4, best 1%": [],
    "distance 4, best 0.5%": ["top_fraction.fraction=0.005"],
    "distance 3, best 0.5%": ["top_fraction.fraction=0.005", "dedupe_phash.distance=3"],
}


def write_list(path: Path, rows: int) -> None:
    """Write addresses, captions of eight words, and scores in [0, 0.5) with 4 digits."""
    random = np.random.default_rng(0)
    words = np.array([f"word{i:x}" for i in range(5000)])
    schema = pa.schema([("url", pa.string()), ("caption", pa.string()), ("score", pa.float32())])
    with pq.ParquetWriter(path, schema, compression="zstd") as writer:
        for start in range(0, rows, CHUNK):
            count = min(CHUNK, rows - start)
            urls = [f"https://images-{n % 9999}.example.org/media/catalog/{n:x}_large.jpg" for n in range(start, start + count)]
            captions = [" ".join(row) for row in words[random.integers(0, 5000, (count, 8))].tolist()]
            scores = random.integers(0, 5000, count).astype(np.float32) / np.float32(10_000)
            writer.write_table(pa.table([urls, captions, scores], schema=schema))


class Filler(Worker):
    """A worker that commits what fetching the images and reading the scores of each partition would have committed."""

    body = PICTURE.read_bytes()

    def fill(self, partition: int, found: np.ndarray) -> None:
        """Commit the log of a partition whose images have these hashes, uint64 (N,)."""
        log, blob = PartitionLog(self.store, partition), PartitionBlob(self.store, partition)
        blob.add(self.body)
        rows = self.plan.read_partition(self.store, partition)
        columns: dict[str, Any] = {"row": pa.array(np.arange(len(rows), dtype=np.int32))}
        for bound in self.bound_steps:
            if bound.measure is None:
                continue
            present = pa.array(inputs(rows, bound.step.columns_read()))
            made = {"images": fetched(rows, blob, found)} if isinstance(bound.step, Ingest) else bound.step.measure(rows, None)  # type: ignore[arg-type]
            for name, values in made.items():
                rows = set_column(rows, bound.step.column(name), values)
            columns[bound.measure] = pa.StructArray.from_arrays([present, *made.values()], names=["input", *made])
        log.commit(pa.table(columns), sorted(set(columns) - {"row"}), blob.close())


def fetched(rows: pa.Table, blob: PartitionBlob, found: np.ndarray) -> pa.Array:
    """Return the column `images` as Ingest writes it: each image is 240 x 160 with a made-up SHA-256 and the given
    perceptual hash."""
    flat = flatten(rows, "images")
    has = flat.items.is_valid().to_numpy(zero_copy_only=False)
    count = int(has.sum())
    digests = np.random.default_rng(blob_seed(found)).bytes(32 * count).hex()
    facts: dict[str, list[Any]] = {
        "blob": [blob.name] * count,
        "offset": [0] * count,
        "size": [blob.size] * count,
        "format": ["jpeg"] * count,
        "width": [240] * count,
        "height": [160] * count,
        "original_width": [240] * count,
        "original_height": [160] * count,
        "original_format": ["jpeg"] * count,
        "sha256": [digests[i : i + 64] for i in range(0, len(digests), 64)],
        "phash": found.tolist(),
    }
    spread = pa.array(np.cumsum(has) - 1, mask=~has)
    kinds = {field.name: field for field in flat.items.type}
    fields = [pa.array(facts[n], f.type).take(spread) if n in facts else flat.field(n) for n, f in kinds.items()]
    return flat.rebuild(pa.StructArray.from_arrays(fields, fields=list(kinds.values()), mask=pa.array(~has)))


def blob_seed(found: np.ndarray) -> int:
    return int(found[0])


def fill(out: str, tree: dict[str, Any], first: int, step: int, found: str) -> None:
    """Fill the partitions `first`, `first` + `step` and so on. `found` is the path of a file of hashes."""
    worker = Filler(RunJob(recipes.parse(tree), out))
    data = np.load(found, mmap_mode="r")
    size = worker.plan.part_rows
    for partition in range(first, worker.plan.parts, step):
        worker.fill(partition, np.asarray(data[partition * size : (partition + 1) * size]))


def prepare(folder: Path, rows: int) -> tuple[Path, Path]:
    """Plan a list of `rows` rows and fill its logs. Return the paths of the recipe and the dataset."""
    write_list(folder / "list.parquet", rows)
    np.save(folder / "hashes.npy", hashes(rows))
    tree = {"source": {"type": "url_list", "path": str(folder / "list.parquet")}, "steps": STEPS}
    (folder / "recipe.yaml").write_text(json.dumps(tree))  # JSON is valid YAML
    out = str(folder / "out")
    plan.make(recipes.parse(tree), open_store(out))
    tasks = [(out, tree, first, 2, str(folder / "hashes.npy")) for first in range(2)]
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        pool.starmap(fill, tasks)
    return folder / "recipe.yaml", folder / "out"


def run(recipe: Path, out: Path, changes: list[str], workers: int) -> dict[str, Any]:
    """Run `vlmdata run` and return wall and CPU seconds, memory peaks in MB, stages, dropped rows by step, and kept rows."""
    command = [sys.executable, "-m", "vlmdata.cli", "run", str(recipe), "--out", str(out), "--local", f"--workers={workers}"]
    began = time.perf_counter()
    process = subprocess.Popen([*command, *(f"--set={change}" for change in changes)], stderr=subprocess.PIPE, text=True)
    peaks: dict[int, float] = {}
    cpu: dict[int, float] = {}
    while process.poll() is None:
        for pid in family(process.pid):
            note(pid, peaks, cpu)
        time.sleep(0.2)
    wall = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(process.stderr.read() if process.stderr else "failed")
    manifest = json.loads((out / "manifest.json").read_text())
    driver = peaks.pop(process.pid)
    events = [json.loads(line) for line in sorted((out / "work/logs").iterdir())[-1].read_text().splitlines()]
    return {
        "wall": wall,
        "cpu": sum(cpu.values()),
        "driver": driver,
        "worker": max(peaks.values()),
        "all": driver + sum(peaks.values()),
        "stages": [(event["name"], event["seconds"]) for event in events if event["event"] == "counts"],
        "dropped": {line["step"]: line["rows"] for line in manifest["dropped"]},
        "kept": manifest["kept"],
    }


def alone(rows: int, folder: Path) -> dict[str, Any]:
    """Decide over `rows` rows in one process as the driver does. Return the seconds of the decision and the memory peak in
    MB. The columns are those of a smaller dataset, repeated with other hashes."""
    recipe, out = prepare(folder, min(rows, CHUNK))
    worker = Worker(RunJob(recipes.load(recipe), str(out)))
    step = next(bound.step for bound in worker.bound_steps if isinstance(bound.step, DedupePhash))
    number = [bound.step for bound in worker.bound_steps].index(step)
    calls = [PartitionCall(partition, None, number, ()) for partition in range(worker.plan.parts)]
    bodies = [pickle.dumps(worker.project(call, decisions.columns_for(step))) for call in calls]
    random = np.random.default_rng(2)
    turns = rows // CHUNK

    def tables() -> Iterator[pa.Table]:
        for turn in range(turns):
            other = np.uint64(random.integers(0, 2**63))
            for partition, body in enumerate(bodies):
                table = pickle.loads(body)  # as the driver receives it through a worker's pipe
                flat = flatten(table, "images")
                found = flat.field("phash")
                mask = found.is_null().to_numpy(zero_copy_only=False)
                changed = pa.array(found.fill_null(0).to_numpy() ^ other, mask=mask)
                fields = [changed if f.name == "phash" else flat.field(f.name) for f in flat.items.type]
                items = pa.StructArray.from_arrays(fields, fields=list(flat.items.type), mask=flat.items.is_null())
                keys = pa.array([f"{turn:04x}{key[4:]}" for key in table["key"].to_pylist()])
                numbers = pa.array(np.full(len(table), turn * len(bodies) + partition, np.int32))
                for name, values in (("images", flat.rebuild(items)), ("key", keys), ("part", numbers)):
                    table = set_column(table, name, values)
                yield table

    began = time.perf_counter()
    took = 0.0

    def decide(whole: pa.Table) -> pa.Table:
        nonlocal took
        start = time.perf_counter()
        after = step.decide(whole)
        took = time.perf_counter() - start
        return after

    decisions.decide(step, tables(), worker.store, decide)
    peaks: dict[int, float] = {}
    note(os.getpid(), peaks, {})
    return {"wall": time.perf_counter() - began, "decision": took, "peak": peaks[os.getpid()]}


def family(pid: int) -> list[int]:
    """Return the ids of a process and of all its descendants."""
    found = [pid]
    for one in found:
        for task in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += map(int, task.read_text().split())
            except OSError:
                continue
    return found


def note(pid: int, peaks: dict[int, float], cpu: dict[int, float]) -> None:
    """Record a process's largest resident memory (MB) and its CPU seconds so far."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except OSError:
        return
    if peak := re.search(r"VmHWM:\s+(\d+)", status):
        peaks[pid] = int(peak[1]) / 1024
        cpu[pid] = (int(fields[11]) + int(fields[12])) / 100


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", nargs="*", type=int)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--alone", action="store_true", help="measure only the driver's decision, on made-up columns")
    parser.add_argument("--folder", help="folder with enough free space (default: the temporary folder)")
    given = parser.parse_args()
    if given.alone:
        for rows in given.rows or [1_000_000, 10_000_000]:
            with tempfile.TemporaryDirectory(prefix="vlmdata-bench-", dir=given.folder) as folder:
                took = alone(rows, Path(folder))
                print(f"{rows:>12,}  {took['wall']:.0f} s, of which {took['decision']:.0f} s for the decision,", end="")
                print(f" peak {took['peak']:,.0f} MB", flush=True)
        return
    print(f"{'rows':>12}  {'decided again':24}{'wall s':>8}{'CPU s':>8}{'driver MB':>11}{'worker MB':>11}  dropped, stages")
    for rows in given.rows or [1_000_000, 10_000_000]:
        with tempfile.TemporaryDirectory(prefix="vlmdata-bench-", dir=given.folder) as folder:
            recipe, out = prepare(Path(folder), rows)
            for asked, changes in ASKED.items():
                result = run(recipe, out, changes, given.workers)
                stages = ", ".join(f"{name} {seconds:.0f}" for name, seconds in result["stages"])
                numbers = f"{result['wall']:>8.0f}{result['cpu']:>8.0f}{result['driver']:>11,.0f}{result['worker']:>11,.0f}"
                print(f"{rows:>12,}  {asked:24}{numbers}  {result['dropped']}, kept {result['kept']:,}; {stages}", flush=True)


if __name__ == "__main__":
    main()
