"""Convert GantMan's NSFW MobileNetV2 for the step `nsfw_images`: `python -m vlmdata.models.convert_nsfwjs PACKAGE FOLDER`.

PACKAGE is the file that `npm pack nsfwjs@4.3.0` downloads. Its scripts are read as text and never run.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import math
import re
import sys
import tarfile
import zlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from vlmdata.errors import RecipeError
from vlmdata.extras import required
from vlmdata.home_folder import at_home
from vlmdata.models.nsfwjs_folder import FORMAT, LABELS, RESIZES, WEIGHTS, shapes
from vlmdata.untrusted import errors_as, one_line

MOST_PACKED = 64 << 20  # bytes of the package; version 4.3.0 has 25 MB
MOST_UNPACKED = 256 << 20  # bytes of its tar
MOST_FILE = 16 << 20  # bytes of a file in it
MODEL, SHARD, LICENCE, PACKAGE = FILES = (
    "package/dist/models/mobilenet_v2/model.min.js",
    "package/dist/models/mobilenet_v2/group1-shard1of1.min.js",
    "package/LICENSE",
    "package/package.json",
)
NUMBER = r"-?(?:\d+\.?\d*|\.\d+)(?:e[-+]?\d+)?"
LIST = re.compile(r'weightsManifest:\[\{paths:\["group1-shard1of1"\],weights:\[')
ENTRY = re.compile(
    r'\{name:"([\w/]+)",shape:\[([\d,]+)\],dtype:"float32",'
    rf'quantization:\{{min:({NUMBER}),scale:({NUMBER}),dtype:"uint8"\}}\}}([,\]])'
)
BASE64 = re.compile(r'"([A-Za-z0-9+/]{1000,}={0,2})"')

Weights = dict[str, NDArray[np.uint8]]
Ranges = dict[str, tuple[float, float]]  # (min, scale) of each tensor


def convert(package: Path, folder: Path, resize: str = "bicubic") -> None:
    """Write the network of an nsfwjs package to a folder that `nsfw_images` takes as `model`.

    `resize` says how pictures are resized, as in `nsfwjs_folder.RESIZES`. Raises RecipeError if the package does not hold the
    network, or if the folder is not empty.
    """
    if resize not in RESIZES:
        raise RecipeError(f"resize must be {' or '.join(RESIZES)}, not {resize!r}")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RecipeError(f"{folder} is not an empty folder. Name a new one")
    save = required("safetensors.numpy", "convert_nsfwjs").save
    files = read_package(package)
    ranges, sizes = read_manifest(files[MODEL].decode("utf-8", "replace"))
    weights = split(read_shard(files[SHARD].decode("utf-8", "replace")), sizes)
    config = {
        "format": FORMAT,
        "source": f"nsfwjs {_version(files[PACKAGE])}, an npm package",
        "license": "MIT",
        "id2label": {str(number): label for number, label in enumerate(LABELS)},
        "resize": resize,
    }
    lines = [f"{json.dumps(name)}: {json.dumps(value)}" for name, value in config.items()]
    lines.append(
        '"quantization": {\n' + ",\n".join(f"  {json.dumps(name)}: {json.dumps(one)}" for name, one in ranges.items()) + "}"
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / WEIGHTS).write_bytes(save(weights))
    (folder / "LICENSE").write_bytes(files[LICENCE])
    (folder / "config.json").write_text("{" + ",\n".join(lines) + "}\n")


def read_package(package: Path) -> dict[str, bytes]:
    """Return the four files of an npm package that hold the network, by their names in it. Nothing is written to disk.

    Raises RecipeError if the package is too large, damaged or lacks one of them.
    """
    if not package.is_file():
        raise RecipeError(f"there is no file {package}. Run: npm pack nsfwjs@4.3.0")
    if package.stat().st_size > MOST_PACKED:
        raise RecipeError(f"{package} is larger than {MOST_PACKED >> 20} MiB, so it is not the package nsfwjs")
    with errors_as(
        lambda error: RecipeError(f"{package} is not a package of npm: {one_line(error)[:200]}"), passes=(RecipeError,)
    ):
        stream = zlib.decompressobj(zlib.MAX_WBITS | 16)
        data = stream.decompress(package.read_bytes(), MOST_UNPACKED)
        if stream.unconsumed_tail:
            raise RecipeError(f"{package} unpacks to more than {MOST_UNPACKED >> 20} MiB, so it is not the package nsfwjs")
        found: dict[str, bytes] = {}
        with tarfile.open(fileobj=io.BytesIO(data), mode="r:") as tar:
            for member in tar:
                if member.name not in FILES:
                    continue
                file = tar.extractfile(member) if member.isreg() and member.size <= MOST_FILE else None
                if file is None or member.name in found:
                    raise RecipeError(f"{package}: {member.name} must be one file of at most {MOST_FILE >> 20} MiB")
                found[member.name] = file.read()
    if missing := [name for name in FILES if name not in found]:
        raise RecipeError(f"{package} has no {missing[0]}. Give the package nsfwjs 4.3.0: npm pack nsfwjs@4.3.0")
    return found


def read_manifest(script: str) -> tuple[Ranges, dict[str, tuple[int, ...]]]:
    """Return (min, scale) and the shape of each tensor, in the order of their bytes, from the text of model.min.js.

    Raises RecipeError unless the tensors are those of MobileNetV2.
    """
    start = LIST.search(script)
    ranges: Ranges = {}
    sizes: dict[str, tuple[int, ...]] = {}
    place, more = (start.end(), ",") if start else (0, "]")
    while more == ",":
        entry = ENTRY.match(script, place)
        if entry is None:
            break
        name, shape, least, scale, more = entry.groups()
        ranges[name], sizes[name] = (float(least), float(scale)), tuple(int(one[:9]) for one in shape.split(",") if one)
        place = entry.end()
    if sizes != shapes() or more != "]":
        wrong = sorted(name for name in shapes().keys() | sizes.keys() if sizes.get(name) != shapes().get(name))
        raise RecipeError(
            f"{MODEL} does not list the tensors of MobileNetV2{f', such as {wrong[0]}' if wrong else ''}. Use nsfwjs 4.3.0"
        )
    if not all(math.isfinite(number) for one in ranges.values() for number in one):
        raise RecipeError(f"{MODEL} has a number that is not finite. Use nsfwjs 4.3.0")
    return ranges, sizes


def read_shard(script: str) -> bytes:
    """Return the bytes that the text of group1-shard1of1.min.js holds in base64. Raises RecipeError if it does not."""
    texts = BASE64.findall(script)
    if len(texts) != 1 or len(texts[0]) % 4:
        raise RecipeError(f"{SHARD} must hold one text in base64. Use nsfwjs 4.3.0")
    return base64.b64decode(texts[0], validate=True)


def split(data: bytes, sizes: dict[str, tuple[int, ...]]) -> Weights:
    """Return the tensors that follow each other in the data. Raises RecipeError if their sizes do not add up to its length."""
    if (wanted := sum(map(math.prod, sizes.values()))) != len(data):
        raise RecipeError(f"{SHARD} has {len(data):,} weights, not {wanted:,}. Use nsfwjs 4.3.0")
    found: Weights = {}
    start = 0
    for name, shape in sizes.items():
        found[name] = np.frombuffer(data, np.uint8, math.prod(shape), start).reshape(shape)
        start += math.prod(shape)
    return found


def _version(package: bytes) -> str:
    try:
        version = json.loads(package)["version"]
    except (ValueError, KeyError, TypeError, RecursionError):
        version = ""
    return version if isinstance(version, str) and re.fullmatch(r"[\w.+-]{1,40}", version) else "of an unknown version"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command and return its exit status: 0, or 1 if the package cannot be converted."""
    parser = argparse.ArgumentParser(
        prog="python -m vlmdata.models.convert_nsfwjs",
        description="Convert GantMan's NSFW MobileNetV2 from the npm package nsfwjs to a folder for the step nsfw_images.",
        epilog="example: npm pack nsfwjs@4.3.0 && python -m vlmdata.models.convert_nsfwjs nsfwjs-4.3.0.tgz nsfw",
    )
    parser.add_argument("package", help="the file that `npm pack nsfwjs@4.3.0` downloads")
    parser.add_argument("folder", help="a new folder")
    parser.add_argument("--resize", choices=RESIZES, default="bicubic", help="bicubic: as OBELICS; bilinear_corners: as nsfwjs")
    given = parser.parse_args(arguments)
    try:
        convert(Path(at_home(given.package)), Path(at_home(given.folder)), given.resize)
    except (RecipeError, OSError) as error:
        print(one_line(error), file=sys.stderr)
        return 1
    print(f"wrote {given.folder}. In a recipe: nsfw_images: {{model: {given.folder}}}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
