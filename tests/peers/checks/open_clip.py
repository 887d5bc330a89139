"""open_clip's `get_wds_dataset` reads the exported tars, with the number of samples from sizes.json, and tars as built.

Newer versions of webdataset end tars with an empty entry, at which open_clip 3.3 stops (KeyError: 'fname').
"""

import hashlib
import importlib.metadata
import io
import json
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch
from open_clip_train.data import get_wds_dataset
from PIL import Image

REQUIREMENTS = ["open_clip_torch==3.3", "webdataset==0.2.86", "pandas", "braceexpand", "pillow"]
EXPORTS = [
    {"data": "captions", "to": "tars"},
    {"data": "captions", "to": "img2dataset"},
    {"data": "captions", "to": None},
    {"data": "rare_captions", "to": "tars"},
]
READ = ("jpg", "png", "webp")  # open_clip leaves out samples with other images, and does not say so


def pixels(image: Image.Image) -> torch.Tensor:
    """Return a hash of an image's size and RGB pixels as 32 numbers."""
    rgb = image.convert("RGB")
    return torch.tensor(list(hashlib.sha256(repr(rgb.size).encode() + rgb.tobytes()).digest()))


def tokens(text: str) -> torch.Tensor:
    """Return a hash of a text as a batch of one, in the place of tokens."""
    return torch.tensor([list(hashlib.sha256(text.encode()).digest())])


def decoded(folder: str) -> dict[str, bytes]:
    """Return the hash of the pixels of each image that open_clip reads in the tars, by the SHA-256 of its bytes."""
    found = {}
    for path in Path(folder).glob("*.tar"):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.name.endswith(READ):
                    data = tar.extractfile(member).read()
                    found[hashlib.sha256(data).hexdigest()] = bytes(pixels(Image.open(io.BytesIO(data))).tolist())
    return found


def main(folder: str, expected: str) -> None:
    start = time.monotonic()
    lines = [json.loads(line) for line in Path(expected).read_text().splitlines()]
    names = sorted(path.stem for path in Path(folder).glob("*.tar"))
    arguments = SimpleNamespace(
        train_data=f"{folder}/{{{names[0]}..{names[-1]}}}.tar",
        train_num_samples=None if Path(folder, "sizes.json").exists() else len(lines),
        train_data_upsampling_factors=None,
        dataset_resampled=False,
        seed=0,
        batch_size=1,
        workers=0,
        world_size=1,
    )
    loader = get_wds_dataset(arguments, pixels, is_train=True, tokenizer=tokens).dataloader
    if loader.num_samples != len(lines):
        sys.exit(f"open_clip counts {loader.num_samples} samples, expected {len(lines)}")
    found = sorted((bytes(image[0].tolist()), bytes(text[0].tolist())) for image, text in loader)
    by_hash = decoded(folder)
    wanted = [
        (by_hash[line["images"][0]], hashlib.sha256(line["texts"][0].encode()).digest())
        for line in lines
        if line["images"][0] in by_hash
    ]
    if len(wanted) < len(lines):  # it begins again, until it has given as many samples as sizes.json states
        found = sorted(set(found))
    if found != sorted(wanted):
        sys.exit(f"open_clip gives {len(found)} pairs, and {len(set(wanted) - set(found))} of {len(wanted)} pairs are missing")
    result = {"samples": len(found), "images": len(found), "seconds": time.monotonic() - start}
    notes = [] if arguments.train_num_samples is None else ["with --train-num-samples"]
    notes += [f"without {len(lines) - len(found)} AVIF, BMP, GIF and TIFF"] if len(found) < len(lines) else []
    print(json.dumps({**result, "version": importlib.metadata.version("open_clip_torch"), "note": ", ".join(notes)}))


if __name__ == "__main__":
    main(*sys.argv[1:3])
