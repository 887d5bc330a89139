"""The library datasets, in its newest version, opens the Parquet and Arrow exports, with decoded images."""

import hashlib
import importlib.metadata
import json
import sys
import time
from pathlib import Path

import datasets

REQUIREMENTS = ["datasets==5.2", "pillow"]
EXPORTS = [
    {"data": "captions", "to": "parquet"},
    {"data": "documents", "to": "parquet"},
    {"data": "chats", "to": "parquet"},
    {"data": "captions", "to": "hf"},
    {"data": "documents", "to": "hf"},
    {"data": "documents", "to": "obelics"},
    {"data": "rare_captions", "to": "parquet"},
    {"data": "rare_documents", "to": "obelics"},
    {"data": "chats", "to": "messages", "options": {"form": "parquet"}},
]


def opened(folder: str) -> datasets.Dataset:
    """Return an export as a dataset with one split."""
    if Path(folder, "state.json").exists():
        return datasets.load_from_disk(folder)
    return datasets.load_dataset(folder, split="train")


def images_of(row: dict) -> list:
    """Return the images of a row in order."""
    return [row["image"]] if "image" in row else [image for image in row["images"] if image is not None]


def texts_of(row: dict) -> list[str]:
    """Return the texts of a row in order."""
    if "caption" in row:
        return [row["caption"]]
    if "texts" in row:
        return [text for text in row["texts"] if text is not None]
    found = []
    for message in row["messages"]:
        found += [message["reasoning_content"]] if message.get("reasoning_content") else []
        found += [part["text"] for part in message["content"] or [] if part["type"] == "text"]
        for call in message.get("tool_calls") or []:
            arguments = json.loads(call["function"]["arguments"])
            found.append(json.dumps({"name": call["function"]["name"], "arguments": arguments}, ensure_ascii=False))
    return found


def stored(rows: datasets.Dataset) -> datasets.Dataset:
    """Return the rows with images as they are stored, undecoded."""
    kind = datasets.Image(decode=False)
    if "image" in rows.column_names:
        return rows.cast_column("image", kind)
    return rows.cast_column("images", getattr(datasets, "List", datasets.Sequence)(kind))


def main(folder: str, expected: str) -> None:
    start = time.monotonic()
    rows = opened(folder)
    lines = [json.loads(line) for line in Path(expected).read_text().splitlines()]
    if len(rows) != len(lines):
        sys.exit(f"datasets reads {len(rows)} of {len(lines)} samples")
    images = 0
    for row, raw, want in zip(rows, stored(rows), lines, strict=True):
        hashes = [hashlib.sha256(image["bytes"]).hexdigest() for image in images_of(raw)]
        if row.get("key", want["key"]) != want["key"] or hashes != want["images"] or texts_of(row) != want["texts"]:
            sys.exit(f"sample {want['key']}: datasets gives {str(row)[:2000]}, expected {want}")
        images += sum(image.size[0] > 0 for image in images_of(row))
    result = {"samples": len(rows), "images": images, "seconds": time.monotonic() - start}
    print(json.dumps({**result, "version": importlib.metadata.version("datasets")}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
