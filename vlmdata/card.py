"""The dataset card: README.md for the Hugging Face Hub, and croissant.json in the format of MLCommons.

The card declares the type of every column. Without the types, `datasets` infers the columns from the first five samples. It
would then drop all images and JSON fields that are only in later samples.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

import pyarrow.compute as pc
import yaml

from vlmdata.engine.output.samples_index import open_index
from vlmdata.engine.store.store_protocol import Store
from vlmdata.images.formats import IMAGE_EXTENSIONS
from vlmdata.sizes import counted, megabytes

CARD, CROISSANT = "README.md", "croissant.json"
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
    columns = [{"name": name, "dtype": "image" if _is_image(name) else kinds.get(name, "binary")} for name in members]
    return [*columns, {"name": "__key__", "dtype": "string"}, {"name": "__url__", "dtype": "string"}]


def _is_image(name: str) -> bool:
    return name.rpartition(".")[2] in IMAGE_EXTENSIONS


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
        f"{_kept(manifest)}, in {counted(len(tars), 'WebDataset tar')} ({size_text} in total).\n",
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


def _kept(manifest: dict[str, Any]) -> str:
    return f"{counted(manifest['kept'], 'sample')} of {counted(manifest['rows'], 'row')}"


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


def croissant(manifest: dict[str, Any], members: list[str]) -> dict[str, Any]:
    """Return the description of the dataset in Croissant 1.1: its tars, and its records of samples, images and texts."""
    tars = sorted(name for name in manifest["files"] if name.endswith(".tar"))
    own = own_path({name: manifest["files"][name]["sha256"] for name in tars})
    files = [_file(name, f"{own}{name}", manifest["files"][name], "application/x-tar") for name in tars]
    if "index.parquet" in manifest["files"]:
        files.append(_file("index.parquet", "index.parquet", manifest["files"]["index.parquet"], "application/x-parquet"))
    records: list[dict[str, Any]] = []
    if tars:
        endings = sorted({name.rpartition(".")[2] for name in members if _is_image(name)})
        kinds = {f"images-{ending}": (f"*.{ending}", f"image/{ending.replace('jpg', 'jpeg')}") for ending in endings}
        kinds["facts"] = ("*.json", "application/json")
        if "txt" in members:
            kinds["texts"] = ("*.txt", "text/plain")
        for name, (pattern, encoding) in kinds.items():
            files.append(_file_set(name, tars, pattern, encoding))
            records.append(_contents(name, "sc:ImageObject" if encoding.startswith("image/") else "sc:Text"))
        records.append(_index())
    licences = [value for column in ("license", "licence", "license_url") for value in manifest["provenance"].get(column, {})]
    return {
        "@context": CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": "http://mlcommons.org/croissant/1.0",
        "name": "dataset",
        "description": f"{_kept(manifest)}, built with vlmdata.",
        "license": licences[:50] or "https://choosealicense.com/no-permission/",
        "url": "https://huggingface.co/datasets",
        "version": "1.0.0",
        "distribution": files,
        "recordSet": records,
    }


def own_path(tars: dict[str, str]) -> str:
    """Return a relative path to the dataset's own folder, such as `.//././/`. Each dataset gets a different path.

    mlcroissant caches extracted files under a hash of only the tar's `contentUrl`, and tars have the same names in every
    dataset. Without this path, a second dataset with a 00000.tar would return the images of the first dataset. Only the
    spelling of the path can differ, because a `contentUrl` must still name the file after the folder is moved.

    The path encodes 64 bits of a hash of `tars`: `./` encodes 0 and `.//` encodes 1. `tars` maps the name of each tar to its
    SHA-256.
    """
    digest = hashlib.sha256(json.dumps(tars, sort_keys=True).encode()).digest()
    return "".join("./" if bit == "0" else ".//" for bit in f"{int.from_bytes(digest[:8], 'big'):064b}")


def _file(name: str, url: str, facts: dict[str, Any], encoding: str) -> dict[str, Any]:
    return {
        "@type": "cr:FileObject",
        "@id": name,
        "name": name,
        "contentUrl": url,
        "contentSize": f"{facts['bytes']} B",
        "encodingFormat": encoding,
        "sha256": facts["sha256"],
    }


def _file_set(name: str, tars: list[str], pattern: str, encoding: str) -> dict[str, Any]:
    inside = [{"@id": tar} for tar in tars]
    facts = {"@id": name, "name": name, "includes": pattern, "encodingFormat": encoding}
    return {"@type": "cr:FileSet", **facts, "containedIn": inside[0] if len(inside) == 1 else inside}


def _contents(files: str, kind: str) -> dict[str, Any]:
    """Return the record set (in Croissant, a table) for the files in the file set `files`, with one record per file.

    A record has two fields: the file's name, which begins with the sample's key, and the file's content of the type `kind`.
    """
    name = f"{files}-records"
    properties = {"file": ("sc:Text", "filename"), "content": (kind, "content")}
    fields = [
        _field(name, field, of, {"fileSet": {"@id": files}, "extract": {"fileProperty": what}})
        for field, (of, what) in properties.items()
    ]
    return {"@type": "cr:RecordSet", "@id": name, "name": name, "field": fields}


def _index() -> dict[str, Any]:
    columns = {"key": "sc:Text", "shard": "sc:Text", "offset": "sc:Integer", "size": "sc:Integer", "text_chars": "sc:Integer"}
    fields = [
        _field("index", name, kind, {"fileObject": {"@id": "index.parquet"}, "extract": {"column": name}})
        for name, kind in columns.items()
    ]
    return {"@type": "cr:RecordSet", "@id": "index", "name": "index", "field": fields}


def _field(records: str, name: str, kind: str, source: dict[str, Any]) -> dict[str, Any]:
    return {"@type": "cr:Field", "@id": f"{records}/{name}", "name": name, "dataType": kind, "source": source}


CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "equivalentProperty": "cr:equivalentProperty",
    "samplingRate": "cr:samplingRate",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileProperty": "cr:fileProperty",
    "fileObject": "cr:fileObject",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}  # the context that the specification prescribes: http://mlcommons.org/croissant/1.0
