"""Megatron-Energon reads the export without `energon prepare`: all splits, decoded or not, by key, and after a resume."""

import hashlib
import importlib.metadata
import io
import json
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from megatron.energon import DefaultTaskEncoder, WorkerConfig, get_loader, get_savable_loader, get_train_dataset
from megatron.energon.epathlib import EPath
from megatron.energon.eyaml import load_yaml
from megatron.energon.flavors.webdataset.itar_reader import SqliteITarEntryReader
from PIL import Image

REQUIREMENTS = ["megatron-energon==7.4.1", "torch==2.13.0"]
EXPORTS = [
    {"data": "captions", "to": "energon", "options": {}},
    {"data": "documents", "to": "energon", "options": {}},
    {"data": "chats", "to": "energon", "options": {}},
    {"data": "rare_captions", "to": "energon", "options": {}},
    {"data": "rare_documents", "to": "energon", "options": {}},
    {"data": "chats", "to": "energon", "options": {"val": 0.3, "test": 0.1}},
]
SPLITS = ("train", "val", "test")


class Decoded(DefaultTaskEncoder):
    """Energon's own decoder, and the cookers of the export, if it has them."""


class Raw(DefaultTaskEncoder):
    """The same without a decoder, so that images are the stored bytes."""

    decoder = None


def main(folder: str, listed: str) -> tuple[int, int]:
    """Compare everything that Energon reads from the folder with the samples that the file `listed` expects."""
    with open(listed, encoding="utf-8") as lines:
        expected = {line["key"]: line for line in map(json.loads, lines)}
    meta = Path(folder, ".nv-meta")
    splits = load_yaml((meta / "split.yaml").read_bytes())["split_parts"]
    if (meta / "vlmdata_cookers.py").exists():
        sys.path.append(str(meta))
        from vlmdata_cookers import COOKERS

        Raw.cookers = Decoded.cookers = COOKERS
    parts = [name for name in SPLITS if splits[name]]
    raw = [sample for part in parts for sample in loaded(folder, part, Raw())]
    keys = [sample.__key__ for sample in raw]
    if sorted(keys) != sorted(expected):
        sys.exit(f"Energon reads {len(keys)} samples with {len(set(keys))} keys, expected {len(expected)}")
    for sample in raw:
        found = described(sample)
        if found != {name: value for name, value in expected[sample.__key__].items() if name != "key"}:
            sys.exit(f"sample {sample.__key__}: Energon gives {found}, expected {expected[sample.__key__]}")
    stored = {sample.__key__: images_of(sample) for sample in raw}
    decoded = [sample for part in parts for sample in loaded(folder, part, Decoded())]
    if len(decoded) != len(expected) or not all(same_pixels(sample, stored[sample.__key__]) for sample in decoded):
        sys.exit("Energon decodes other pixels, or not all samples")
    check_resume(folder, workers=2)
    check_index(folder, expected)
    check_commands(folder, meta)
    return len(raw), sum(map(len, stored.values()))


def loaded(folder: str, part: str, encoder: Any) -> Iterator[Any]:
    """Yield each sample of a split once."""
    return iter(get_loader(dataset(folder, part, encoder, workers=0)))


def dataset(folder: str, part: str, encoder: Any, workers: int, *, repeat: bool = False) -> Any:
    """Return a split of the export, as a training run opens it."""
    return get_train_dataset(
        folder,
        split_part=part,
        worker_config=WorkerConfig(rank=0, world_size=1, num_workers=workers),
        batch_size=None,
        shuffle_buffer_size=10 if repeat else None,
        max_samples_per_sequence=5 if repeat else None,
        task_encoder=encoder,
        repeat=repeat,
    )


def sequence_of(sample: Any) -> list[Any]:
    """Return the texts and images of a sample in order."""
    return sample.sequence if hasattr(sample, "sequence") else [sample.image, sample.caption]


def images_of(sample: Any) -> list[Any]:
    """Return the images of a sample in order."""
    return [sample.image] if hasattr(sample, "image") else [one for one in sample.sequence if not isinstance(one, str)]


def described(sample: Any) -> dict[str, Any]:
    """Return a sample that was not decoded as an expected sample, without its key."""
    images = [hashlib.sha256(image).hexdigest() for image in images_of(sample)]
    if hasattr(sample, "image"):
        return {"texts": [sample.caption.decode()], "roles": None, "images": images, "kind": "captions"}
    roles = getattr(sample, "roles", None)
    kept = roles and [role for role, one in zip(roles, sample.sequence, strict=True) if isinstance(one, str)]
    texts = [one for one in sample.sequence if isinstance(one, str)]
    return {"texts": texts, "roles": kept, "images": images, "kind": "conversations" if roles else "documents"}


def same_pixels(sample: Any, stored: list[bytes]) -> bool:
    """Return whether the decoded images are what Pillow decodes from the stored bytes."""
    found = images_of(sample)
    return len(found) == len(stored) and all(map(is_same, found, stored))


def is_same(image: torch.Tensor, data: bytes) -> bool:
    """Return whether a decoded image, of floats from 0 to 1, is what Pillow decodes from the bytes."""
    with Image.open(io.BytesIO(data)) as opened:
        pixels = opened.convert("RGB")
    values = torch.frombuffer(bytearray(pixels.tobytes()), dtype=torch.uint8).view(pixels.height, pixels.width, 3)
    return image.shape == (3, pixels.height, pixels.width) and torch.allclose(image, values.permute(2, 0, 1) / 255, atol=1e-6)


def check_resume(folder: str, *, workers: int) -> None:
    """Save the state of the loader in the middle of an epoch, and compare what a restored loader gives."""
    first = get_savable_loader(dataset(folder, "train", Decoded(), workers, repeat=True))
    samples = iter(first)
    for _ in range(7):
        next(samples)
    state = first.save_state_rank()
    expected = [next(samples).__key__ for _ in range(60)]
    second = get_savable_loader(dataset(folder, "train", Decoded(), workers, repeat=True))
    second.restore_state_rank(state)
    again = iter(second)
    found = [next(again).__key__ for _ in range(60)]
    if found != expected:
        sys.exit(f"a loader that is restored with {workers} workers gives other samples than the saved one")


def check_index(folder: str, expected: dict[str, Any]) -> None:
    """Read each sample by its key, which uses index.sqlite."""
    reader = SqliteITarEntryReader(EPath(folder))
    if len(reader) != len(expected):
        sys.exit(f"index.sqlite has {len(reader)} samples, expected {len(expected)}")
    for key in expected:
        sample = reader[key]
        if sample["__key__"] != key or json.loads(sample["json"])["key"] != key:
            sys.exit(f"index.sqlite gives another sample for the key {key}")


def check_commands(folder: str, meta: Path) -> None:
    """Run Energon's own checks. They do not know cookers, so they read documents and conversations by interleaved.yaml."""
    config = "interleaved.yaml" if (meta / "interleaved.yaml").exists() else "dataset.yaml"
    for name in ("lint", "info"):
        command = [str(Path(sys.executable).with_name("energon")), name, folder, "--dataset-config", config]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode or "Error" in done.stderr:
            sys.exit(f"energon {name} fails: {(done.stdout + done.stderr).strip()[-400:]}")


if __name__ == "__main__":
    start = time.monotonic()
    samples, images = main(*sys.argv[1:3])
    result = {"samples": samples, "images": images, "seconds": round(time.monotonic() - start, 1)}
    print(json.dumps({**result, "version": importlib.metadata.version("megatron-energon")}))
