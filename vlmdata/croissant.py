"""croissant.json: the description of a dataset in the format of MLCommons."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from vlmdata.images.formats import IMAGE_EXTENSIONS
from vlmdata.sizes import counted

CROISSANT = "croissant.json"


def summary(manifest: dict[str, Any]) -> str:
    """Return how many rows became samples: "36 samples of 48 rows"."""
    return f"{counted(manifest['kept'], 'sample')} of {counted(manifest['rows'], 'row')}"


def is_image(member: str) -> bool:
    """Return whether a member of a sample is an image, by the ending of its name."""
    return member.rpartition(".")[2] in IMAGE_EXTENSIONS


def croissant(manifest: dict[str, Any], members: list[str]) -> dict[str, Any]:
    """Return the description of the dataset in Croissant 1.1: its tars, and its records of samples, images and texts."""
    tars = sorted(name for name in manifest["files"] if name.endswith(".tar"))
    own = own_path({name: manifest["files"][name]["sha256"] for name in tars})
    files = [_file(name, f"{own}{name}", manifest["files"][name], "application/x-tar") for name in tars]
    if "index.parquet" in manifest["files"]:
        files.append(_file("index.parquet", "index.parquet", manifest["files"]["index.parquet"], "application/x-parquet"))
    records: list[dict[str, Any]] = []
    if tars:
        endings = sorted({name.rpartition(".")[2] for name in members if is_image(name)})
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
        "description": f"{summary(manifest)}, built with vlmdata.",
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
