"""webdataset reads the exported tars, and the tars of a dataset as built."""

import hashlib
import importlib.metadata
import json
import sys
import time
from pathlib import Path

import webdataset

REQUIREMENTS = ["webdataset==1.0.2", "pillow", "numpy"]
EXPORTS = [
    {"data": "captions", "to": "tars"},
    {"data": "documents", "to": "tars"},
    {"data": "chats", "to": "tars"},
    {"data": "captions", "to": None},
    {"data": "chats", "to": None},
]
IMAGES = ("jpg", "png", "webp")


def found_in(sample: dict) -> dict:
    """Return a decoded sample as a line of EXPECTED. The images are decoded too, by webdataset."""
    facts = sample["json"]
    names = [name for name in sample if name.rpartition(".")[2] in IMAGES]
    names.sort(key=lambda name: int(name.partition(".")[0]) if "." in name else 0)
    images = [hashlib.sha256(sample[name]).hexdigest() for name in names]
    if "txt" in sample:
        return {"key": sample["__key__"], "texts": [sample["txt"]], "roles": None, "images": images, "kind": "captions"}
    roles = facts.get("roles")
    texts = [text for text in facts["texts"] if text is not None]
    kept = roles and [role for role, text in zip(roles, facts["texts"], strict=True) if text is not None]
    kind = "conversations" if roles else "documents"
    return {"key": sample["__key__"], "texts": texts, "roles": kept, "images": images, "kind": kind}


def main(folder: str, expected: str) -> None:
    start = time.monotonic()
    tars = sorted(map(str, Path(folder).glob("*.tar")))
    lines = [json.loads(line) for line in Path(expected).read_text().splitlines()]
    reader = webdataset.WebDataset(tars, shardshuffle=False).decode(only=["json", "txt"])
    found = list(map(found_in, reader))
    for got, want in zip(found, lines, strict=True):
        if got != want:
            sys.exit(f"sample {want['key']}: webdataset gives {got}, expected {want}")
    shapes = 0
    for sample in webdataset.WebDataset(tars, shardshuffle=False).decode("pil"):
        shapes += sum(value.size[0] > 0 for name, value in sample.items() if name.rpartition(".")[2] in IMAGES)
    images = sum(len(line["images"]) for line in lines)
    if shapes != images:
        sys.exit(f"webdataset decoded {shapes} images, expected {images}")
    result = {"samples": len(found), "images": images, "seconds": time.monotonic() - start}
    print(json.dumps({**result, "version": importlib.metadata.version("webdataset")}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
