"""Write small datasets as they lie in shards, and read them without the loader: for the tests of the training half."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import simplejpeg

COLOURS = {"red": (220, 30, 30), "green": (30, 200, 40), "blue": (40, 60, 220), "yellow": (230, 220, 40)}
SHAPES = ("square", "circle")


def write_tar(path: Path, samples: Iterable[Mapping[str, bytes | str]]) -> None:
    """Write samples, each a mapping of extension to bytes with its `__key__`, to one tar."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w") as tar:
        for sample in samples:
            for name in sorted(n for n in sample if n != "__key__"):
                data = sample[name]
                assert isinstance(data, bytes)
                info = tarfile.TarInfo(f"{sample['__key__']}.{name}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))


def jpeg(pixels: np.ndarray) -> bytes:
    """Encode uint8 (H, W, 3) pixels."""
    return simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality=90)


def drawing(colour: str, shape: str, side: int = 48) -> np.ndarray:
    """Draw one coloured shape on white."""
    image = np.full((side, side, 3), 255, np.uint8)
    if shape == "square":
        image[side // 4 : -side // 4, side // 4 : -side // 4] = COLOURS[colour]
    else:
        cv2.circle(image, (side // 2, side // 2), side // 4, COLOURS[colour], -1)
    return image


def caption_samples(count: int) -> list[dict[str, Any]]:
    """Return caption pairs of drawings, in turn of every colour and shape."""
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    samples = []
    for i in range(count):
        colour, shape = kinds[i % len(kinds)]
        facts = json.dumps({"key": f"{i:06d}"}).encode()
        text = f"a {colour} {shape} on white paper".encode()
        samples.append({"__key__": f"{i:06d}", "jpg": jpeg(drawing(colour, shape)), "txt": text, "json": facts})
    return samples


def document_sample(key: str, positions: Sequence[str | bytes], roles: Sequence[str] | None = None) -> dict[str, Any]:
    """Return a page, or a conversation where roles are given, in the layout of document shards."""
    sample: dict[str, Any] = {"__key__": key}
    texts: list[str | None] = []
    images: list[str | None] = []
    metadata: list[dict[str, str] | None] = []
    for position in positions:
        is_image = isinstance(position, bytes)
        name = f"{sum(i is not None for i in images)}.jpg"
        texts.append(None if isinstance(position, bytes) else position)
        images.append(f"http://127.0.0.1/{key}/{name}" if is_image else None)
        metadata.append({"file": f"{key}.{name}"} if is_image else None)
        if isinstance(position, bytes):
            sample[name] = position
    facts: dict[str, Any] = {"texts": texts, "images": images, "metadata": metadata}
    if roles is not None:
        facts["roles"] = list(roles)
    sample["json"] = json.dumps(facts).encode()
    return sample


def conversation_samples(count: int) -> list[dict[str, Any]]:
    """Return two-turn conversations about drawings; every fifth has no image."""
    kinds = [(colour, shape) for colour in COLOURS for shape in SHAPES]
    samples = []
    for i in range(count):
        colour, shape = kinds[i % len(kinds)]
        texts = ["What colour is it?", colour, "And what shape?", f"a {shape}"]
        positions: list[str | bytes] = list(texts)
        roles = ["user", "assistant", "user", "assistant"]
        if i % 5:
            positions.insert(0, jpeg(drawing(colour, shape)))
            roles.insert(0, "user")
        samples.append(document_sample(f"c{i:05d}", positions, roles))
    return samples


class MemoryStream:
    """Units (packs, or samples) in order, over and over, with a position: the least that a feed needs of a stream."""

    def __init__(self, units: Sequence[Any]) -> None:
        self.units = units
        self.position = 0

    def __iter__(self) -> Iterator[Any]:
        while True:
            self.position += 1
            yield self.units[(self.position - 1) % len(self.units)]

    def state_dict(self) -> dict[str, Any]:
        """Return how many units were given."""
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on behind so many units."""
        self.position = state["position"]
