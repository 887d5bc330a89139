"""The dataset card: README.md for the Hugging Face Hub.

The card declares the type of every column. Without the types, `datasets` infers the columns from the first five samples. It
would then drop all images and JSON fields that are only in later samples.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pyarrow.compute as pc
import yaml

from vlmdata.croissant import CROISSANT, croissant, is_image, summary
from vlmdata.engine.output.samples_index import open_index
from vlmdata.engine.store.store_protocol import Store
from vlmdata.sizes import counted, megabytes

CARD = "README.md"
SIZES = (1_000, 10_000, 100_000, 1_000_000, 10_000_000, 100_000_000, 1_000_000_000)  # limits of the Hub's size categories
SHORT = {
    1_000: "1K",
    10_000: "10K",
    100_000: "100K",
    1_000_000: "1M",
    10_000_000: "10M",
    100_000_000: "100M",
    1_000_000_000: "1B",
}


def write_card(store: Store, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write README.md and croissant.json into the dataset, and return their sizes and SHA-256.

    Both files depend only on the manifest and on index.parquet.
    """
    members = member_names(store) if manifest["kept"] else []
    files = {CARD: card(manifest, members), CROISSANT: json.dumps(croissant(manifest, members), indent=1, ensure_ascii=False)}
    facts = {}
    for name, text in files.items():
        data = text.encode() + b"\n"
        store.put(name, data)
        facts[name] = {"bytes": len(data), "sha256": hashlib.sha256(data).hexdigest()}
    return facts


def member_names(store: Store) -> list[str]:
    """Return the extensions of all members: jpg, json and txt for caption pairs, or 0.jpg, 1.jpg ... and json for documents."""
    found: set[str] = set()
    with open_index(store) as index:
        for table in index.groups(("members",)):
            found |= set(pc.unique(table["members"].combine_chunks().flatten().field("name")).to_pylist())
    return sorted(found, key=lambda name: (int(stem) if (stem := name.split(".")[0]).isdigit() else -1, name))


def features(members: list[str]) -> list[dict[str, str]]:
    """Return the name and type of each column that `datasets` makes: one column per member, then `__key__` and `__url__`."""
    kinds = {"json": "json", "txt": "string"}
    columns = [{"name": name, "dtype": "image" if is_image(name) else kinds.get(name, "binary")} for name in members]
    return [*columns, {"name": "__key__", "dtype": "string"}, {"name": "__url__", "dtype": "string"}]


def card(manifest: dict[str, Any], members: list[str]) -> str:
    """Return README.md: metadata for the Hub, then counts, dropped rows by reason, licences and the recipe."""
    kept, recipe = manifest["kept"], manifest["recipe"]
    below = next((size for size in SIZES if kept < size), None)
    above = max((size for size in SIZES if size <= kept), default=None)
    size = f"n>{SHORT[SIZES[-1]]}" if below is None else f"{SHORT[above]}<n<{SHORT[below]}" if above else f"n<{SHORT[below]}"
    head: dict[str, Any] = {"size_categories": [size], "tags": ["vlmdata", "webdataset"]}
    if kept:
        head["configs"] = [{"config_name": "default", "data_files": [{"split": "train", "path": "*.tar"}]}]
        head["dataset_info"] = {"features": features(members)}
    tars = [facts for name, facts in manifest["files"].items() if name.endswith(".tar")]
    size_text = megabytes(sum(facts["bytes"] for facts in tars))
    lines = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
        f"{summary(manifest)}, in {counted(len(tars), 'WebDataset tar')} ({size_text} in total).\n",
        '```python\nfrom datasets import load_dataset\nload_dataset("PATH", split="train")\n```\n',
        "## Rows\n\n| rows | step | reason |\n|---:|---|---|",
        *(f"| {line['rows']:,} | {_cell(line['step'])} | {_cell(line['reason'])} |" for line in manifest["dropped"]),
        f"| {kept:,} | kept | |\n",
        "## Licences and sources\n",
        *_provenance(manifest["provenance"]),
        f"## Recipe\n\n```yaml\n{yaml.safe_dump(recipe, sort_keys=False, allow_unicode=True)}```\n",
        f"Made with vlmdata {manifest['versions'].get('vlmdata', '')}. `ledger/` has the outcome of every row: `vlmdata why`.",
    ]
    return "\n".join(lines)


def _provenance(sums: dict[str, dict[str, int]]) -> list[str]:
    if not sums:
        return ["The source states no licences. Each image keeps the rights of the site it comes from.\n"]
    lines = ["As stated by the source; not verified.\n\n| column | value | samples |\n|---|---|---:|"]
    for column, values in sums.items():
        lines += [f"| {column} | {_cell(value)} | {count:,} |" for value, count in list(values.items())[:50]]
        if len(values) > 50:
            lines.append(f"| {column} | {counted(len(values) - 50, 'other')} | {sum(list(values.values())[50:]):,} |")
    return [*lines, ""]


def _cell(text: str | None) -> str:
    """Return untrusted text, escaped for a Markdown table and cut to 120 characters."""
    safe = " ".join((text or "").replace("|", "\\|").replace("<", "&lt;").replace("`", "'").split())
    return safe if len(safe) <= 120 else f"{safe[:117]}..."
