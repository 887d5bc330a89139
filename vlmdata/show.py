"""The summary of a finished dataset for the terminal."""

from __future__ import annotations

import json
from typing import Any

from vlmdata.engine.output.samples_index import open_index, places, read_span, sample_of
from vlmdata.engine.store.open_store import open_store
from vlmdata.engine.store.store_protocol import Store
from vlmdata.fields import aligned_origins
from vlmdata.generation.totals import phrases
from vlmdata.redact import redacted
from vlmdata.sizes import counted, megabytes, noun
from vlmdata.terminal import cell, width

WIDTH = 30  # characters of the longest bar in the summary
LABEL = 60  # columns of the longest step with its reason; a longer one is cut


def totals(manifest: dict[str, Any], out: str) -> dict[str, Any]:
    """Return what `--json` prints of a finished dataset: its place, and the counts that docs/cli.md explains."""
    tars = [facts for name, facts in manifest["files"].items() if name.endswith(".tar")]
    counts = {name: manifest[name] for name in ("rows", "kept", "dropped", "other_records", "generations")}
    return {"dataset": out, **counts, "tars": len(tars), "tar_bytes": sum(facts["bytes"] for facts in tars)}


def summary(manifest: dict[str, Any], out: str) -> str:
    """Return a summary as text: how many rows were read, how many each step dropped for each reason, and how many were kept.

    For each step that asks a generator, a line says what its answers took.
    """
    rows, kept = manifest["rows"], manifest["kept"]
    found = totals(manifest, out)
    size = megabytes(found["tar_bytes"])
    lines = [f"{redacted(out)}: {kept:,} of {counted(rows, 'row')} kept, in {counted(found['tars'], 'tar')} ({size} in total)"]
    wide = max(12, len(f"{-rows:,}"))
    names = [f"{line['step']}: {line['reason'] or 'dropped'}" for line in manifest["dropped"]]
    column = min(LABEL, max([40, *map(width, names)]))
    lines.append(f"  {rows:>{wide},}  {noun(rows, 'row')} in")
    for line, name in zip(manifest["dropped"], names, strict=True):
        bar = "#" * min(WIDTH, max(1, round(WIDTH * line["rows"] / max(rows, 1))))
        lines.append(f"  {-line['rows']:>{wide},}  {cell(name, column)} {bar}")
    lines.append(f"  {kept:>{wide},}  kept")
    if others := sum(manifest["other_records"].values()):
        produce = noun(others, "other record produces", "other records produce")
        lines.append(f"  {others:>{wide},}  {produce} no row: {other_records(manifest)}")
    lines += [f"  {cell(step, LABEL).rstrip()}: {', '.join(phrases(entry))}" for step, entry in manifest["generations"].items()]
    return "\n".join(lines)


def other_records(manifest: dict[str, Any]) -> str:
    """Return text such as "request 12, revisit 3": the kinds of records that produced no row, most frequent kind first."""
    kinds = sorted(manifest["other_records"].items(), key=lambda item: (-item[1], item[0]))
    return ", ".join(f"{kind} {count:,}" for kind, count in kinds)


def first_samples(out: str, count: int) -> list[dict[str, Any]]:
    """Return the first samples of a dataset, each as a dict with `key`, `words`, `written`, `members` and `images`.

    `words` is the text of the sample, and `written` lists (step, caption) of the captions that steps wrote. `members` lists
    (name, size in bytes), and `images` lists (width, height). If the source is a list of addresses, rows are ordered by a hash,
    so the first samples are a random choice.
    """
    store = open_store(out, probe=False)
    with open_index(store) as index:
        table = next(index.groups(), index.schema.empty_table())
    return [_first_sample(store, line) for line in table.slice(0, count).to_pylist()]


def _first_sample(store: Store, line: dict[str, Any]) -> dict[str, Any]:
    members = places(line)
    with sample_of(store, line["shard"], line["key"]):
        facts = json.loads(read_span(store, line["shard"], *members["json"]))
        words = facts.get("texts") or [facts.get("caption")]
        origins = aligned_origins(facts.get("alternatives"), facts.get("origins"))
        written = [(step, str(facts["alternatives"][place])) for place, step in enumerate(origins) if step]
        return {
            "key": line["key"],
            "words": redacted(" ".join(text for text in words if text)),
            "written": [(step, redacted(caption)) for step, caption in written],
            "members": [(name, size) for name, (_, size) in members.items()],
            "images": [(image["width"], image["height"]) for image in line["images"] or [] if image],
        }
