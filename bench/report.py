"""Time and memory that the report of ten million rows takes. The ledger is made up and read as write_report reads any ledger.

    python -m bench.report WORK [--rows 10000000]

WORK gets a ledger of files of a million rows, as the engine writes them, with 12 measured columns: sizes, a score, a language
and its probability, and two million addresses on 300,000 hosts. A tenth of the rows are copies of others.
"""

from __future__ import annotations

import argparse
import json
import resource
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.engine.output.ledger import ROWS_PER_FILE
from vlmdata.engine.store.open_store import open_store
from vlmdata.loader.index.index_file import INDEX
from vlmdata.report.write import write_report

STEPS: list[dict[str, Any]] = [{"download": {}}, {"image_size": {"min_side": 200, "max_aspect": 3.0, "of": "original"}}]
STEPS += [{"dedupe_phash": {"distance": 4}}, {"clip_score": {"min_score": 0.28}}, {"language": {"min_probability": 0.0}}]
VERDICT = ["drop", "reason", "value", "threshold"]


def lines(first: int, count: int) -> pa.Table:
    """Return `count` lines of a ledger, numbered from `first`."""
    dice = np.random.default_rng(first)
    width, height = dice.integers(60, 2000, (2, count))
    score = np.round(dice.normal(0.27, 0.06, count), 4).astype(np.float32)
    draw = dice.random(count)
    step = np.full(count, None, object)
    reason, value, threshold = step.copy(), np.full(count, np.nan), np.full(count, np.nan)
    short = np.minimum(width, height)
    verdicts = [("download", "timeout", draw < 0.2, np.nan, np.nan), ("image_size", "min_side", short < 200, short, 200.0)]
    verdicts += [("dedupe_phash", "same_picture", (draw > 0.9), dice.integers(0, 5, count), 4.0)]
    verdicts += [("clip_score", "min_score", score < np.float32(0.28), score, 0.28)]
    for name, why, bad, held, against in verdicts:
        hit = bad & (step == None)  # noqa: E711
        step[hit], reason[hit] = name, why
        value[hit], threshold[hit] = np.broadcast_to(held, count)[hit], against
    number = np.arange(first, first + count)
    key = np.char.mod("%024x", number * 2654435761 % 2**61)
    leader = np.char.mod("%024x", (number // 7 * 7) * 2654435761 % 2**61)
    hosts = np.char.add("host", (dice.zipf(1.3, count) % 300_000).astype(str))
    url = np.char.add(np.char.add(np.char.add("https://", hosts), ".example.org/image/"), number.astype(str))
    fetched = step != "download"
    verdict = {name: pa.array(v, from_pandas=True) for name, v in zip(VERDICT, (step, reason, value, threshold), strict=True)}
    image = pa.StructArray.from_arrays(
        [pa.array(url.tolist()), *(pa.array(s.astype(np.int32), mask=~fetched) for s in (width, height)), *verdict.values()],
        names=["url", "original_width", "original_height", "drop", *VERDICT[1:]],
    )
    offsets = pa.array(np.arange(count + 1, dtype=np.int32))
    text = pa.StructArray.from_arrays([pa.nulls(count, pa.string())] * 2 + [pa.nulls(count, pa.float64())] * 2, names=VERDICT)
    scored = pa.array(score, mask=np.isin(step, ["download", "image_size", "dedupe_phash"]))
    languages = pa.array(np.array(["en", "de", "fr", "zh"])[dice.integers(0, 4, count)])
    return pa.table(
        {
            "key": key.tolist(),
            "url": url.tolist(),
            "outcome": np.where(step == None, "kept", "dropped"),  # noqa: E711
            "step": verdict["drop"],
            **{name: verdict[name] for name in VERDICT[1:]},
            "cluster": pa.array(leader.astype(object), mask=step != "dedupe_phash"),
            "images": pa.ListArray.from_arrays(offsets, image),
            "texts": pa.ListArray.from_arrays(offsets, text),
            "clip_score": pa.ListArray.from_arrays(offsets, scored),
            "language": pa.ListArray.from_arrays(offsets, languages),
            "language.probability": pa.ListArray.from_arrays(offsets, pa.array(np.round(dice.random(count), 4))),
        }
    )


def make(work: Path, rows: int) -> dict[str, Any]:
    """Write the ledger and an index without samples, and return a manifest."""
    (work / "ledger").mkdir(parents=True, exist_ok=True)
    files: dict[str, Any] = {"index.parquet": {}}
    kept = 0
    for number, first in enumerate(range(0, rows, ROWS_PER_FILE)):
        name = f"ledger/{number:05d}.parquet"
        files[name] = {}
        table = lines(first, min(ROWS_PER_FILE, rows - first))
        kept += table["step"].null_count
        if not (work / name).exists():
            pq.write_table(table, work / name, compression="zstd", row_group_size=20_000)
    pq.write_table(INDEX.empty_table(), work / "index.parquet")
    recipe = {"source": {}, "steps": STEPS, "shards": {}, "part_rows": 1000}
    return {"rows": rows, "kept": kept, "dropped": [], "recipe": recipe, "files": files}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("work", type=Path, nargs="?", default=Path("bench-out") / "report", help="folder of the ledger")
    parser.add_argument("--rows", type=int, default=10_000_000)
    arguments = parser.parse_args()
    arguments.work.mkdir(parents=True, exist_ok=True)
    saved = arguments.work / f"made-{arguments.rows}.json"
    if not saved.exists():
        manifest = make(arguments.work, arguments.rows)
        saved.write_text(json.dumps(manifest))
        print("The ledger is made. Run the same command again to measure, because memory counts the whole process.")
        return
    began, busy = time.monotonic(), time.process_time()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    facts = write_report(open_store(arguments.work), json.loads(saved.read_text()))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    print(f"{arguments.rows:>12,} rows {time.monotonic() - began:8.1f} s {time.process_time() - busy:8.1f} CPU s", end="")
    print(f" {before / 1024:6.0f} MB before, {peak / 1024:6.0f} MB at most, page of {facts['bytes'] / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
