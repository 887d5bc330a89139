"""The dataset card: README.md for the Hugging Face Hub, of a finished dataset or of an export.

The card declares the type of every column. Without the types, `datasets` infers the columns from the first five samples. It
would then drop all images and JSON fields that are only in later samples.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from typing import Any

import pyarrow.compute as pc
import yaml

from vlmdata.croissant import CROISSANT, croissant, is_image, summary
from vlmdata.engine.output.samples_index import open_index
from vlmdata.engine.store.store_protocol import Store
from vlmdata.exporting.exporter import LOADING, Kind, Published, first_kind
from vlmdata.generation.writers import writers
from vlmdata.hub_metadata import metadata
from vlmdata.readable import UNPRINTABLE
from vlmdata.sizes import counted, megabytes

CARD = "README.md"
# What `push` reads of a card in a repository: the format of an export, and the recipe.
FORMAT = re.compile(r"exported to the format `(\w+)` from a dataset")
RECIPE = re.compile(r"^## Recipe\n\n```yaml\n(.*?)^```$", re.MULTILINE | re.DOTALL)
JSON = {  # what the column `json` holds, by kind of sample
    "captions": "address, sizes, hashes and scores of the image, other captions, and the source's other columns",
    "documents": "`texts` and `images` in reading order, `metadata` of each image, and the source's other columns",
    "conversations": "`texts`, `images` and their `roles` in order, `metadata` of each image, and the source's other columns",
}


def write_card(store: Store, manifest: dict[str, Any]) -> dict[str, Any]:
    """Write README.md and croissant.json into the dataset, and return their sizes and SHA-256.

    Both files depend only on the manifest and on index.parquet.
    """
    members = member_names(store) if manifest["kept"] else []
    kind = first_kind(store, manifest["recipe"]["shards"]["layout"]) if manifest["kept"] else None
    files = {
        CARD: card(manifest, members, kind),
        CROISSANT: json.dumps(croissant(manifest, members), indent=1, ensure_ascii=False),
    }
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


def card(manifest: dict[str, Any], members: list[str], kind: Kind | None) -> str:
    """Return README.md: metadata for the Hub, then counts, columns, models, dropped rows by reason, licences and the recipe.

    `members` names the members of the samples, and `kind` is the kind of the samples, or None without samples.
    """
    images = any(map(is_image, members))
    head = metadata(manifest, samples=manifest["kept"], kind=kind, has_images=images, format_tag="webdataset")
    if kind is not None:
        head |= {"configs": _configs("*.tar"), "dataset_info": {"features": features(members)}}
    tars = [facts for name, facts in manifest["files"].items() if name.endswith(".tar")]
    size = megabytes(sum(facts["bytes"] for facts in tars))
    about = f"{summary(manifest)}, in {counted(len(tars), 'WebDataset tar')} ({size} in total)."
    ledger = "`ledger/` has the outcome of every row: `vlmdata why`."
    return _page(manifest, head, about, LOADING, tar_columns(members, kind) if kind else {}, ledger)


def export_card(
    manifest: dict[str, Any], to: str, published: Published, members: list[str], kind: Kind, samples: int
) -> str:  # fmt: skip
    """Return the README.md of an export to the format `to`. `samples` is the number of exported samples."""
    format_tag = "webdataset" if published.is_webdataset else None
    head = metadata(manifest, samples=samples, kind=kind, has_images=any(map(is_image, members)), format_tag=format_tag)
    head |= {"configs": _configs(published.files)} if published.files else {"viewer": False}
    head |= {"dataset_info": {"features": features(members)}} if published.is_webdataset else {}
    columns = tar_columns(members, kind) if published.is_webdataset else published.columns
    about = f"{counted(samples, 'sample')}, exported to the format `{to}` from a dataset with {summary(manifest)}."
    if samples < manifest["kept"]:
        about += f" `left_out.log` lists {counted(manifest['kept'] - samples, 'sample')} that this format cannot hold."
    return _page(manifest, head, about, published.loading, columns, "")


def _configs(pattern: str) -> list[dict[str, Any]]:
    return [{"config_name": "default", "data_files": [{"split": "train", "path": pattern}]}]


def _page(
    manifest: dict[str, Any], head: dict[str, Any], about: str, loading: str, columns: Mapping[str, str], end: str
) -> str:
    """Return the text of a card. `about` is its first line, `loading` is Python code, and `end` is added to its last line."""
    lines = [
        f"---\n{yaml.safe_dump(head, sort_keys=False)}---\n",
        f"{about}\n",
        f"```python\n{loading}\n```\n",
        *(["## Columns\n\n| column | content |\n|---|---|"] if columns else []),
        *(f"| `{name}` | {content} |" for name, content in columns.items()),
        *([""] if columns else []),
        *_written(manifest),
        "## Rows\n\n| rows | step | reason |\n|---:|---|---|",
        *(f"| {line['rows']:,} | {_cell(line['step'])} | {_cell(line['reason'])} |" for line in manifest["dropped"]),
        f"| {manifest['kept']:,} | kept | |\n",
        "## Licences and sources\n",
        *_provenance(manifest["provenance"]),
        f"## Recipe\n\n```yaml\n{yaml.safe_dump(manifest['recipe'], sort_keys=False, allow_unicode=True)}```\n",
        f"Made with vlmdata {manifest['versions'].get('vlmdata', '')}. {end}".rstrip(),
    ]
    return "\n".join(lines)


def tar_columns(members: list[str], kind: Kind) -> dict[str, str]:
    """Return what each column holds that `datasets` makes from the tars. Numbered images are one line of the table."""
    found: dict[str, str] = {}
    numbered = [name for name in members if is_image(name) and name.split(".")[0].isdigit()]
    if numbered:
        listed = f"{numbered[0]}` … `{numbered[-1]}" if len(numbered) > 1 else numbered[0]
        found[listed] = "the images in reading order; null if the sample has fewer images or another format"
    others = [name for name in members if is_image(name) and name not in numbered]
    if others:
        found["`, `".join(others)] = "the image; null in the columns of other formats" if len(others) > 1 else "the image"
    found |= {"txt": "the caption"} if "txt" in members else {}
    found |= {"json": JSON[kind], "__key__": "the sample's key, a hash of its content", "__url__": "the tar of the sample"}
    return found


def _written(manifest: dict[str, Any]) -> list[str]:
    """Return the lines that say which models wrote texts, and how they were asked. Names and prompts are shown as code."""
    if not manifest["generations"]:
        return []
    lines = ["## Texts written by models\n", "| step | model | answers | failed |\n|---|---|---:|---:|"]
    prompts = []
    for writer in writers(manifest):
        entry = manifest["generations"][writer.step]
        named = ", ".join(map(_code, writer.models)) or "not named"
        by = f"{named} (generator {_code(writer.generator)})" if writer.generator else named
        lines.append(f"| {_code(writer.step)} | {by} | {entry['answers']:,} | {sum(entry['failed'].values()):,} |")
        prompts += [
            f"- {_code(writer.step)}, {_code(name)}: {_code(text, 600)}" for name, text in writer.prompts.items() if text
        ]
    if prompts:
        lines += ["\nThe prompts, with places for values in braces:\n", *prompts]
    return [*lines, ""]


def _code(text: str, most: int = 120) -> str:
    """Return untrusted text as code for Markdown, on one line and cut to `most` characters."""
    safe = " ".join(UNPRINTABLE.sub(" ", text).replace("`", "'").split())
    cut = safe if len(safe) <= most else f"{safe[: most - 1]}…"
    return f"`{cut.replace('|', '¦')}`" if cut else ""


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
