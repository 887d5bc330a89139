"""Publishes the output of a run (shards, index and ledger) after checking that no row was lost or doubled."""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import platform
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from vlmdata.engine.drive.driver import Driver
from vlmdata.engine.output import provenance
from vlmdata.engine.output.ledger import ROWS_PER_FILE, record_partitions
from vlmdata.engine.output.manifest import MANIFEST, confirm_alone
from vlmdata.engine.output.pack import INDEX_FORMAT, shard_name
from vlmdata.engine.output.sample_counts import COUNTS
from vlmdata.engine.partitions.calls import PartitionCall
from vlmdata.engine.partitions.plan import PartitionPlan
from vlmdata.engine.store.json_shapes import WORK_FIX
from vlmdata.engine.store.store_protocol import Store
from vlmdata.engine.work import fit
from vlmdata.engine.work.compile_recipe import compile_recipe
from vlmdata.engine.work.open_partition import NOTES
from vlmdata.errors import Error, RecipeError
from vlmdata.generation.totals import generations
from vlmdata.recipe import Recipe

PUBLISHERS = 16  # concurrent copies within an object store
CODECS = ("vlmdata", "simplejpeg", "opencv-python-headless", "pillow", "pyarrow", "numpy", "torch", "open_clip_torch")


class SumsDiffer(Error, AssertionError):
    """Raised before anything is published if rows were lost or doubled, which is a bug in vlmdata."""


def shard_pieces(calls: list[PartitionCall], kept: list[int], samples: int) -> list[list[tuple[PartitionCall, int, int]]]:
    """Return the pieces of each shard. A piece is a partition and the range [start, stop) of its kept rows.

    `kept` is the number of kept rows of each partition. Each shard gets `samples` rows, and the last may get fewer.
    """
    shards: list[list[tuple[PartitionCall, int, int]]] = []
    room = 0
    for call, count in zip(calls, kept, strict=True):
        start = 0
        while start < count:
            if not room:
                shards.append([])
                room = samples
            stop = min(count, start + room)
            shards[-1].append((call, start, stop))
            room -= stop - start
            start = stop
    return shards


def ledger_pieces(calls: list[PartitionCall], kept: list[int], part_rows: int) -> list[list[tuple[PartitionCall, int]]]:
    """Return for each ledger file its partitions, as (call, number of kept rows in all earlier partitions).

    `kept` is the number of kept rows of each partition, and `part_rows` is the maximum number of rows of a partition.
    """
    per_file = max(1, ROWS_PER_FILE // part_rows)
    before = 0
    lines = []
    for call, count in zip(calls, kept, strict=True):
        lines.append((call, before))
        before += count
    return [lines[i : i + per_file] for i in range(0, len(lines), per_file)]


def pack_and_publish(
    store: Store,
    recipe: Recipe,
    plan: PartitionPlan,
    driver: Driver,
    calls: list[PartitionCall],
    counts: list[dict[str, Any]],
    limit: int | None,
) -> dict[str, Any]:
    """Pack and publish the output of a run, and return the manifest, which the caller must write.

    Until the manifest is written, the dataset cannot be read. `counts` holds for each partition the number of its rows
    (`rows`) and of its kept rows (`alive`), and by step what its measurements took (`spent`). `limit` is the `--limit` of the
    run, which the manifest records. Raises SumsDiffer if a row is missing or appears twice.
    """
    kept = [count["alive"] for count in counts]
    pieces = list(enumerate(shard_pieces(calls, kept, recipe.shards.samples)))
    shards = [result for _, result in sorted(driver.map("pack", pieces, together=1), key=lambda pair: pair[0][0])]
    files = list(enumerate(ledger_pieces(calls, kept, recipe.part_rows)))
    ledgers = [result for _, result in sorted(driver.map("ledger", files, together=1), key=lambda pair: pair[0][0])]
    rows = sum(count["rows"] for count in counts)
    check_sums(rows, sum(kept), shards, ledgers)
    manifest: dict[str, Any] = {
        "rows": rows,
        "limit": limit,
        "kept": sum(kept),
        "dropped": _dropped(recipe, ledgers),
        "other_records": dict(sum((f["others"] for f in ledgers), Counter(plan.others))),
        "source": plan.source,
        "recipe": recipe.describe(),
        "versions": versions(),
        "models": models(store, recipe),
        "generations": generations(recipe.steps, (count["spent"] for count in counts)),
        "provenance": provenance.total(shard["provenance"] for shard in shards),
        "files": publish(store, shards, ledgers),
    }
    record_partitions(store, calls, counts)
    return manifest


def check_sums(rows: int, kept: int, shards: list[dict[str, Any]], ledgers: list[dict[str, Any]]) -> None:
    """Raise SumsDiffer unless the ledger holds every row exactly once and the shards hold every kept row exactly once."""
    sums = {
        "rows in the ledger": (sum(f["rows"] for f in ledgers), rows),
        "kept rows in the ledger": (sum(f["kept"] for f in ledgers), kept),
        "samples in the shards": (sum(s["samples"] for s in shards), kept),
        "outcomes in the ledger": (sum(f["kept"] + sum(n for *_, n in f["dropped"]) for f in ledgers), rows),
    }
    for what, (found, expected) in sums.items():
        if found != expected:
            raise SumsDiffer(f"{what}: found {found}, expected {expected}; nothing was published")


def _dropped(recipe: Recipe, ledgers: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the number of dropped rows for each step and reason.

    Steps are in the order of the recipe. The reasons of a step are sorted by number of rows, largest first.
    """
    sums: dict[tuple[str, str], int] = {}
    for file in ledgers:
        for step, reason, count in file["dropped"]:
            sums[step, reason] = sums.get((step, reason), 0) + count
    order = {name: number for number, name in enumerate([*(step.name for step in recipe.steps), fit.LABEL])}
    listed = sorted(sums.items(), key=lambda item: (order.get(item[0][0], -1), -item[1], item[0][1] or ""))
    return [{"step": step, "reason": reason, "rows": count} for (step, reason), count in listed]


def publish(store: Store, shards: list[dict[str, Any]], ledgers: list[dict[str, Any]]) -> dict[str, Any]:
    """Publish every file, delete the files of an earlier build, and return the manifest's `files` (sizes and hashes).

    This deletes the old manifest, so OUT is not readable until the new manifest is written. Raises OSError if the lock was
    lost.
    """
    confirm_alone(store)
    store.delete(MANIFEST)
    store.delete(COUNTS)  # readers of tars that know no manifest must not find the counts of the old tars
    store.delete_drafts("", "ledger", "lookup")
    files: dict[str, Any] = {}
    with ThreadPoolExecutor(PUBLISHERS) as pool:
        list(pool.map(lambda pair: store.publish(pair[1]["tar"], shard_name(pair[0])), enumerate(shards)))
    for number, shard in enumerate(shards):
        files[shard_name(number)] = {"bytes": shard["bytes"], "sha256": shard["sha256"], "samples": shard["samples"]}
    for number, ledger in enumerate(ledgers):
        store.publish(ledger["file"], f"ledger/{number:05d}.parquet")
        files[f"ledger/{number:05d}.parquet"] = {"bytes": ledger["bytes"], "sha256": ledger["sha256"], "rows": ledger["rows"]}
        words = ledger["lookup"]
        store.publish(words["file"], f"lookup/{number:05d}.parquet")
        files[f"lookup/{number:05d}.parquet"] = {"bytes": words["bytes"], "sha256": words["sha256"]}
    files["index.parquet"] = _join_index(store, [shard["index"] for shard in shards])
    present = [name for folder in ("", "ledger", "lookup") for name in store.list(folder)]
    present = [name for name in present if name.endswith((".tar", ".parquet"))]
    for name in sorted(set(present) - set(files)):
        store.delete(name)
    return files


def _join_index(store: Store, pieces: list[str]) -> dict[str, Any]:
    """Write index.parquet, with one row group for each shard. Return its size and SHA-256."""
    from vlmdata.loader.index.index_file import INDEX

    schemas = [pq.read_schema(pa.BufferReader(store.read(name))) for name in pieces]
    schema = pa.unify_schemas([INDEX, *schemas])
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(sink, schema, **INDEX_FORMAT) as writer:
        for name in pieces:
            table = pq.read_table(pa.BufferReader(store.read(name)))
            for field in schema:
                if field.name not in table.column_names:
                    table = table.append_column(field.name, pa.nulls(len(table), field.type))
            writer.write_table(table.select(schema.names).cast(schema))
    data = sink.getvalue().to_pybytes()
    store.put("index.parquet", data)
    return {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}


def models(store: Store, recipe: Recipe) -> dict[str, list[dict[str, Any]]]:
    """Return for each step, by name, the facts about its models: hash of the weights, preprocessing and precision.

    A step that asks a generator has the generator's facts and its prompts. Workers stored these facts when they measured. Steps
    without a model are left out, and so are facts that others repeat and add to.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    names = store.list(NOTES)
    for bound in compile_recipe(recipe):
        notes = [name for name in names if bound.measure and name.startswith(f"{NOTES}/{bound.measure}.")]
        if notes:
            facts = [_note(store, name) for name in notes]
            found[bound.step.name] = [one for one in facts if not any(one.items() < other.items() for other in facts)]
    return found


def _note(store: Store, name: str) -> dict[str, Any]:
    """Return the facts that a worker stored. Raises RecipeError if the file is damaged."""
    try:
        facts = json.loads(store.read(name))
    except (ValueError, RecursionError):
        facts = None
    if not isinstance(facts, dict):
        raise RecipeError(f"{store.url}/{name} is damaged: it is not a JSON object. {WORK_FIX}")
    return facts


def versions() -> dict[str, str]:
    """Return the versions of Python and of the libraries that affect bytes and scores, and the machine's architecture."""
    found = {"python": platform.python_version(), "machine": platform.machine()}
    for name in CODECS:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
