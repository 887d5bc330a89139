"""Read an export to MDS with MosaicML Streaming itself, or write shards with its own writer (`--write FOLDER`).

Stand-alone: python mds.py FOLDER EXPECTED.jsonl DATA. Imports only the standard library and packages of the peer's environment.
"""

import hashlib
import io
import json
import sys
import tempfile
import time
from pathlib import Path

REQUIREMENTS = ["mosaicml-streaming==0.13.0"]
EXPORTS = [
    {"data": "captions", "to": "mds", "options": {}},
    {"data": "documents", "to": "mds", "options": {}},
    {"data": "chats", "to": "mds", "options": {}},
    {"data": "rare_documents", "to": "mds", "options": {}},
    {"data": "captions", "to": "mds", "options": {"compression": "zstd", "hashes": ["sha1", "xxh64"], "size_limit": 20000}},
    {"data": "chats", "to": "mds", "options": {"compression": "zstd", "hashes": ["sha1", "xxh64"], "size_limit": 20000}},
]


def main(folder: str, listed: str, data: str) -> None:
    """Compare every sample of `folder` with the file `listed`, in order and shuffled."""
    start = time.monotonic()
    import streaming

    expected = [json.loads(line) for line in Path(listed).read_text(encoding="utf-8").splitlines()]
    entries = json.loads((Path(folder) / "index.json").read_text())["shards"]
    hashes = sorted({name for entry in entries for name in entry["hashes"]})
    for shuffle in (False, True):
        for validated in [None, *hashes]:
            found = list(map(sample, read(folder, shuffle, validated)))
            compare(sorted(found, key=key) if shuffle else found, sorted(expected, key=key) if shuffle else expected)
    images = sum(len(one["images"]) for one in expected)
    seconds = round(time.monotonic() - start, 1)
    print(json.dumps({"samples": len(expected), "images": images, "seconds": seconds, "version": streaming.__version__}))


def read(folder: str, shuffle: bool, validated: str | None):
    """Yield the samples as Streaming gives them, from a copy: the library writes decompressed shards beside the others."""
    from streaming import StreamingDataset
    from streaming.base.util import clean_stale_shared_memory

    clean_stale_shared_memory()
    with tempfile.TemporaryDirectory() as local:
        data = StreamingDataset(
            local=local, remote=str(Path(folder).absolute()), shuffle=shuffle, validate_hash=validated, batch_size=1
        )
        yield from data


def sample(found: dict) -> dict:
    """Return a sample in the form of EXPECTED, from its columns alone."""
    if "caption" in found:
        images, texts, roles, kind = [found["image"]], [found["caption"]], None, "captions"
    else:
        images = [image.fp.getvalue() for image in found["images"]]  # Pillow has opened the bytes and not yet decoded them
        places = found["roles"] or [None] * len(found["texts"])
        if sum(text is None for text in found["texts"]) != len(images):
            sys.exit(f"sample {found['key']}: its texts have {found['texts'].count(None)} places of images, not {len(images)}")
        texts = [text for text in found["texts"] if text is not None]
        roles = (
            [role for role, text in zip(places, found["texts"], strict=True) if text is not None] if found["roles"] else None
        )
        kind = "conversations" if found["roles"] else "documents"
    if found["json"]["key"] != found["key"]:
        sys.exit(f"sample {found['key']}: its JSON has the key {found['json']['key']}")
    hashes = [hashlib.sha256(image).hexdigest() for image in images]
    return {"key": found["key"], "texts": texts, "roles": roles, "images": hashes, "kind": kind}


def key(one: dict) -> str:
    return one["key"]


def compare(found: list, expected: list) -> None:
    """Exit with the first difference."""
    if len(found) != len(expected):
        sys.exit(f"{len(found)} samples were read, and {len(expected)} were written")
    for one, other in zip(found, expected, strict=True):
        for name in ("key", "kind", "texts", "roles", "images"):
            if one[name] != other[name]:
                sys.exit(f"sample {other['key']}: {name} is {one[name]!r:.300}, not {other[name]!r:.300}")


def write(folder: str) -> None:
    """Write small MDS folders with the library's own writer. The fixture of tests/sources/test_mds.py is made like this."""
    import numpy as np
    from PIL import Image
    from streaming import MDSWriter

    def picture(number: int, kind: str) -> Image.Image:
        image = Image.new("RGB", (8 + number, 6), (40 * number, 99, 7))
        out = io.BytesIO()
        image.save(out, kind)
        return Image.open(io.BytesIO(out.getvalue()))

    def rows(image):
        for number in range(3):
            yield {"image": image(number), "caption": f"picture {number} ü", "number": number, "score": number / 4}

    images = {
        "bytes": lambda number: picture(number, "PNG").fp.getvalue(),
        "png": lambda number: picture(number, "PNG"),
        "jpeg": lambda number: picture(number, "JPEG").fp.getvalue(),
        "pil": lambda number: picture(number, "PNG").convert("RGB"),
        "ndarray": lambda number: np.asarray(picture(number, "PNG")),
        "ndarray:uint8": lambda number: np.asarray(picture(number, "PNG")),
        "list[png]": lambda number: [picture(number, "PNG"), picture(number + 1, "PNG")],
        "list[pil]": lambda number: [picture(number, "PNG").convert("RGB")],
        "jpeg_array": lambda number: [picture(number, "JPEG").fp.getvalue(), picture(number + 1, "JPEG").fp.getvalue()],
    }
    for encoding, image in images.items():
        columns = {"image": encoding, "caption": "str", "number": "int", "score": "float32"}
        name = "".join(letter if letter.isalnum() else "_" for letter in encoding)
        with MDSWriter(out=f"{folder}/{name}", columns=columns, hashes=["sha1", "xxh3_64"], size_limit=400) as out:
            for row in rows(image):
                out.write(row)
    for compression in ("zstd:9", "gz", "bz2", "br"):
        columns = {"image": "bytes", "caption": "str", "number": "int", "score": "float32"}
        name = f"packed_{compression.partition(':')[0]}"
        with MDSWriter(out=f"{folder}/{name}", columns=columns, compression=compression, hashes=["xxh64"]) as out:
            for row in rows(images["bytes"]):
                out.write(row)
    kinds = {f"{kind}{bits}": bits for kind in ("int", "uint") for bits in (8, 16, 32, 64)}
    values = {**dict.fromkeys(kinds, 7), "float16": 0.5, "float32": 0.25, "float64": 0.1, "int": -3}
    values |= {"str_int": 10**30, "str_float": 0.125, "json": {"en": "a word"}, "str": "text"}
    columns = {**{f"c_{name}": name for name in values}, "c_array": "ndarray:int16:2,2", "jpg": "bytes", "p": "pkl"}
    with MDSWriter(out=f"{folder}/values", columns=columns) as out:
        array = np.array([[1, 2], [3, -4]], np.int16)
        row = {f"c_{name}": np.dtype(name).type(value) if name in kinds else value for name, value in values.items()}
        out.write({**row, "c_array": array, "jpg": images["jpeg"](0), "p": {"opened": True}})


if __name__ == "__main__":
    if sys.argv[1] == "--write":
        write(sys.argv[2])
    else:
        main(*sys.argv[1:])
