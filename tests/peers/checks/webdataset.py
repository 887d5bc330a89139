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
    {"data": "captions", "to": "img2dataset"},
    {"data": "rare_captions", "to": "tars"},
    {"data": "rare_documents", "to": "tars"},
    {"data": "captions", "to": None},
    {"data": "chats", "to": None},
]
IMAGES = ("avif", "bmp", "gif", "jpg", "png", "tiff", "webp")
UNDECODED = "avif"  # webdataset gives its bytes


def found_in(sample: dict) -> dict:
    """Return a decoded sample as a line of EXPECTED. The images are decoded too, by webdataset."""
    facts = sample["json"]
    names = [name for name in sample if name.rpartition(".")[2] in IMAGES]
    names.sort(key=lambda name: int(name.partition(".")[0]) if "." in name else 0)
    images = [hashlib.sha256(sample[name]).hexdigest() for name in names]
    if "txt" in sample:
        key = facts.get("vlmdata_key", sample["__key__"])  # img2dataset counts its samples
        return {"key": key, "texts": [sample["txt"]], "roles": None, "images": images, "kind": "captions"}
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
    decoded = undecoded = 0
    for sample in webdataset.WebDataset(tars, shardshuffle=False).decode("pil"):
        for ending, value in [(name.rpartition(".")[2], value) for name, value in sample.items()]:
            undecoded += ending == UNDECODED and isinstance(value, bytes)
            decoded += ending in IMAGES and ending != UNDECODED and value.size[0] > 0
    images = sum(len(line["images"]) for line in lines)
    if decoded + undecoded != images:
        sys.exit(f"webdataset decoded {decoded} images, and left {undecoded} as bytes, expected {images}")
    result = {"samples": len(found), "images": images, "seconds": time.monotonic() - start}
    note = {"note": f"{undecoded} AVIF not decoded"} if undecoded else {}
    print(json.dumps({**result, "version": importlib.metadata.version("webdataset"), **note}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
