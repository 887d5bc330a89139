"""OpenFlamingo's loader for MMC4 reads the tars with base64, and gives the same images and texts.

Its real `get_mmc4_dataset` runs. The image processor and the tokenizer are tiny: the first keeps a hash of the pixels, the
second keeps the text. OpenFlamingo skips images of 10 kB and less, and half of the samples with one image, by chance; the
chance is taken away here, and small images are counted in the note.
"""

import hashlib
import importlib.metadata
import importlib.util
import io
import json
import random
import re
import sys
import tarfile
import time
from pathlib import Path
from types import SimpleNamespace

import torch
import torchvision
from PIL import Image

REQUIREMENTS = [
    "open_flamingo==2.0.1",
    "transformers==4.33.3",
    "open_clip_torch==2.24.0",
    "webdataset==0.2.86",
    "numpy<2",
    "setuptools<81",
    "six",
    "tqdm",
]
EXPORTS = [
    {"data": "documents", "to": "mmc4", "options": {"images": "base64"}},
    {"data": "rare_documents", "to": "mmc4", "options": {"images": "base64"}},
]
IMAGE = 1  # the token of an image
LARGEST = 32  # images of a document
LEAST_KB = 10  # OpenFlamingo skips smaller images


class Bytes:
    """A tokenizer that gives a token for `<image>` and one for each other byte."""

    eos_token = "<eos>"
    additional_special_tokens = ("<image>",)
    additional_special_tokens_ids = (IMAGE,)

    def __call__(self, text: str, **options: object) -> dict:
        pieces = [
            [IMAGE] if piece == "<image>" else [byte + 2 for byte in piece.encode()] for piece in re.split("(<image>)", text)
        ]
        tokens = torch.tensor([[token for piece in pieces for token in piece]])
        return {"input_ids": tokens, "attention_mask": torch.ones_like(tokens)}


def hashed(image: Image.Image) -> torch.Tensor:
    """Return the hash of an image's pixels as an image of 3 x 1 x 32 numbers. It is the same when it is flipped."""
    found = torch.tensor(list(hashlib.sha256(image.tobytes() + repr(image.size).encode()).digest()))
    return torch.stack([found, found, found]).unsqueeze(1).float()


def kept(data: str, keys: set[str]) -> tuple[list[tuple[str, list[bytes]]], int]:
    """Return what OpenFlamingo must give for the documents with these keys, and the number of images that it skips.

    A sample is its text without white space, with `<image>` before the text that comes after an image, and the hashes of its
    images. Texts and images are read from the tars of the dataset.
    """
    found, skipped = [], 0
    for tar in sorted(Path(data).glob("*.tar")):
        with tarfile.open(tar) as members:
            files = {member.name: members.extractfile(member).read() for member in members}
        for name, content in files.items():
            if not name.endswith(".json") or name.removesuffix(".json") not in keys:
                continue
            facts, text, images = json.loads(content), "", []
            for sentence, place in zip(facts["texts"], facts["metadata"], strict=True):
                image = files[f"{facts['key']}.{place['file']}"] if place else b""
                if place and len(image) // 1000 <= LEAST_KB:
                    skipped += 1
                elif place:
                    text += "<image>"
                    images.append(bytes(hashed(Image.open(io.BytesIO(image)).convert("RGB"))[0].flatten().int().tolist()))
                else:
                    text += sentence
            if images:
                found.append((plain(text), images))
    return found, skipped


def plain(text: str) -> str:
    """Return a text without white space and the marks that OpenFlamingo adds."""
    return "".join(text.replace("<|endofchunk|>", "").replace("<eos>", "").split())


def read(folder: str, count: int) -> list[tuple[str, list[bytes]]]:
    """Return the text and the hashes of the images of each sample, as OpenFlamingo gives them. It has `count` samples."""
    train = Path(importlib.util.find_spec("open_flamingo").origin).parent / "train"
    sys.path.insert(0, str(train))  # its modules import each other by their bare names
    import data

    random.random = lambda: 1.0  # keep samples with one image
    torchvision.transforms.RandomHorizontalFlip = lambda p: torch.nn.Identity()
    tars = sorted(path.stem for path in Path(folder).glob("*.tar"))
    arguments = SimpleNamespace(
        mmc4_shards=f"{folder}/{{{tars[0]}..{tars[-1]}}}.tar",
        train_num_samples_mmc4=count,
        mmc4_textsim_threshold=0.24,
        mmc4_min_num_images=1,
        mmc4_max_num_images=LARGEST,
        batch_size_mmc4=1,
        seed=0,
        workers=1,
        world_size=1,
    )
    found = []
    for images, texts in data.get_mmc4_dataset(arguments, hashed, Bytes()).dataloader:
        parts = [b"<image>" if token == IMAGE else bytes([token - 2]) for token in texts[0][0].flatten().tolist()]
        rows = [bytes(image[0].flatten().int().tolist()) for image in images[0] if image.any()]
        found.append((plain(b"".join(parts).decode()), rows))
    return found


def main(folder: str, expected: str, data: str) -> None:
    start = time.monotonic()
    keys = {json.loads(line)["key"] for line in Path(expected).read_text().splitlines()}
    wanted, skipped = kept(data, keys)
    found = read(folder, len(wanted))
    if sorted(found) != sorted(wanted):
        missing = [text for text, images in wanted if (text, images) not in found]
        sys.exit(f"OpenFlamingo gives {len(found)} samples, expected {len(wanted)}. Missing or different: {missing[:3]}")
    note = f"without {skipped} images of at most {LEAST_KB} kB and {len(keys) - len(wanted)} samples with no other image"
    images = sum(len(hashes) for _, hashes in found)
    result = {"samples": len(found), "images": images, "seconds": time.monotonic() - start, "note": note}
    print(json.dumps({**result, "version": importlib.metadata.version("open_flamingo")}))


if __name__ == "__main__":
    main(*sys.argv[1:4])
